// The model's configuration: every field survives JSON, everything impossible is refused by name.

#include <doctest/doctest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "memformer/model/config.h"
#include "tensor/error.h"

namespace mf::test {
namespace {

using Json = nlohmann::ordered_json;

/// A possible value that differs from the default, by field.
const Json& other_values() {
  static const Json values = Json::parse(R"({
    "architecture": "encoder_only", "vocabulary": 31, "width": 24, "heads": 3, "encoder_layers": 5,
    "decoder_layers": 7, "feed_forward": 40, "segment": 9, "slots": 11, "activation": "silu",
    "dropout": 0.125, "attention_dropout": 0.25, "final_norm": false, "layer_replay": true, "norm_epsilon": 0.001,
    "positions": "relative_bias", "relative_buckets": 16, "relative_max_distance": 99,
    "embedding_scale": 3.5, "embedding_deviation": 0.02, "attention_bias": false,
    "tie_embeddings": false, "tie_output": false, "memory_read_norm": "own",
    "writer_project_value": true, "writer_shared_key": false, "writer_output_projection": true,
    "temperature": 0.25, "memory_norm": "layer_norm", "memory_radius": 2.5, "memory_epsilon": 1e-05,
    "forgetting": false, "forgetting_initial_norm": 0.7, "dtype": "f64"})");
  return values;
}

std::string message_of(const std::string& text) {
  try {
    model_config_from_json(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string message_with(const std::string& key, const Json& value) {
  return message_of(Json{{key, value}}.dump());
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("config: every field is written, read back, and by itself differs from the default") {
    const Json written = Json::parse(to_json(ModelConfig{}));
    for (const auto& field : written.items()) {
      const std::string key = field.key();
      const Json& value = field.value();
      CAPTURE(key);
      REQUIRE(other_values().contains(key));
      CHECK(other_values()[key] != value);
      Json changed = written;
      changed[key] = other_values()[key];
      if (key == "heads") changed["width"] = 24;
      const ModelConfig config = model_config_from_json(changed.dump());
      CHECK(!(config == ModelConfig{}));
      CHECK(Json::parse(to_json(config)) == changed);
    }
    CHECK(other_values().size() == written.size());
    const ModelConfig all = model_config_from_json(other_values().dump());
    CHECK(Json::parse(to_json(all)) == other_values());
    CHECK(model_config_from_json(to_json(all)) == all);
  }

  TEST_CASE("config: absent fields keep their defaults, an empty object is the default") {
    CHECK(model_config_from_json("{}") == ModelConfig{});
    ModelConfig expected;
    expected.slots = 5;
    CHECK(model_config_from_json(R"({"slots": 5})") == expected);
  }

  TEST_CASE("config: doubles survive exactly") {
    ModelConfig config;
    config.temperature = 1.0 / 3.0;
    config.memory_epsilon = std::numeric_limits<double>::denorm_min();
    config.memory_radius = std::numeric_limits<double>::max();
    CHECK(model_config_from_json(to_json(config)) == config);
  }

  TEST_CASE("config: every word of every switch survives") {
    const std::map<std::string, std::vector<std::string>> words{
        {"architecture", {"encoder_decoder", "encoder_only"}},
        {"activation", {"gelu", "relu", "silu"}},
        {"positions", {"learned", "sinusoidal", "relative_bias", "simplified_relative", "none"}},
        {"memory_read_norm", {"shared", "own", "none"}},
        {"memory_norm", {"l2", "layer_norm", "none"}},
        {"dtype", {"f32", "f64"}}};
    for (const auto& [key, known] : words)
      for (const std::string& word : known) {
        const Json back = Json::parse(to_json(model_config_from_json(Json{{key, word}}.dump())));
        CHECK(back[key] == word);
      }
  }

  TEST_CASE("config: an unknown key is an error that names it and the known ones") {
    const std::string message = message_with("slotz", 3);
    CHECK(contains(message, "unknown key 'slotz'"));
    CHECK(contains(message, "slots"));
    CHECK(message_with("slots", 3) == "no error");
  }

  TEST_CASE("config: a value of the wrong type is an error that names the key, for every field") {
    const Json defaults = Json::parse(to_json(ModelConfig{}));
    for (const auto& field : defaults.items()) {
      const std::string key = field.key();
      const Json& value = field.value();
      CAPTURE(key);
      const Json wrong_values[] = {Json(nullptr), Json::array({1}), Json::object(),
                                   value.is_boolean() ? Json(1) : Json(true),
                                   value.is_string() ? Json(3) : Json("three")};
      for (const Json& wrong : wrong_values)
        CHECK(contains(message_with(key, wrong), "'" + key + "'"));
      if (value.is_number_integer()) CHECK(contains(message_with(key, 2.5), "whole number"));
      if (value.is_string()) CHECK(contains(message_with(key, "nonsense"), "known values are"));
    }
  }

  TEST_CASE("config: text that is not an object is an error") {
    CHECK(contains(message_of("{"), "not valid JSON"));
    CHECK(contains(message_of(""), "not valid JSON"));
    CHECK(contains(message_of("[1]"), "must be an object"));
    CHECK(contains(message_of("3"), "must be an object"));
  }

  TEST_CASE("config: impossible values are errors that name the field") {
    for (const std::string key : {"vocabulary", "width", "heads", "encoder_layers", "feed_forward",
                                  "segment", "norm_epsilon", "temperature", "embedding_scale",
                                  "memory_epsilon", "forgetting_initial_norm"})
      for (const int value : {0, -1}) {
        CAPTURE(key);
        CHECK(contains(message_with(key, value), "model." + key));
      }
    for (const std::string key :
         {"slots", "decoder_layers", "embedding_deviation", "memory_radius"})
      CHECK(contains(message_with(key, -1), "model." + key));
    for (const std::string key : {"dropout", "attention_dropout"})
      for (const double value : {-0.1, 1.0, 1.5})
        CHECK(contains(message_with(key, value), "model." + key));
    CHECK(contains(message_with("decoder_layers", 0), "model.decoder_layers"));
    CHECK(message_of(R"({"decoder_layers": 0, "architecture": "encoder_only"})") == "no error");
    CHECK(message_with("slots", 0) == "no error");
    CHECK(contains(message_with("heads", 3), "does not divide model.width 128"));
    CHECK(contains(message_of(R"({"positions": "relative_bias", "relative_buckets": 6})"),
                   "model.relative_buckets"));
    CHECK(contains(message_of(R"({"positions": "relative_bias", "relative_max_distance": 16})"),
                   "model.relative_max_distance"));
  }

  TEST_CASE("config: sizes that would exhaust memory are refused before anything is allocated") {
    for (const std::string key : {"vocabulary", "width", "feed_forward", "encoder_layers",
                                  "decoder_layers", "segment", "slots"})
      for (const std::int64_t value :
           {std::int64_t{1} << 40, std::numeric_limits<std::int64_t>::max()}) {
        CAPTURE(key);
        CHECK(contains(message_with(key, value), "model." + key));
      }
  }

  TEST_CASE(
      "config: the radius defaults to sqrt(width), and the v1 writer sets its three switches") {
    ModelConfig config;
    config.width = 64;
    CHECK(config.radius() == 8.0);
    config.memory_radius = 1.5;
    CHECK(config.radius() == 1.5);
    config.use_v1_writer();
    CHECK(config.writer_project_value);
    CHECK(config.memory_norm == MemoryNorm::none);
    CHECK(!config.forgetting);
  }
}

}  // namespace mf::test
