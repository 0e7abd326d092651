// The model's configuration: every field survives JSON, everything impossible is refused by name.

#include <doctest/doctest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "memformer/model/config.h"
#include "memformer/train/config.h"
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

/// A possible value that differs from the default, by field of a baseline.
const Json& other_baseline_values() {
  static const Json values = Json::parse(R"({
    "vocabulary": 31, "width": 24, "layers": 3, "segment": 12, "dropout": 0.125,
    "embedding_scale": 2.5, "embedding_deviation": 0.02, "dtype": "f64", "heads": 3,
    "head_width": 10, "feed_forward": 40, "activation": "silu", "attention_dropout": 0.25,
    "positions": "none", "pre_norm": false, "norm_epsilon": 0.001, "cache": 24, "compressed": 7,
    "rate": 2, "mean_pooling": true, "reconstruction": 0.75, "task_gradient": true, "memory": 5,
    "write": false, "replay_tokens": 6})");
  return values;
}

/// What reading the run configuration with this section "model" says.
std::string run_message_of(const Json& model) {
  try {
    run_config_from_json(Json{{"model", model}}.dump());
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string settings_message_of(const std::vector<std::string>& settings) {
  try {
    with_settings(RunConfig{}, settings);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
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

  TEST_CASE("config: every field of every baseline survives, and differs from the default") {
    for (const std::string& name : baseline_names()) {
      CAPTURE(name);
      RunConfig defaults;
      choose_model(defaults, name);
      CHECK(model_name(defaults) == name);
      CHECK(run_config_from_json(to_json(defaults)) == defaults);
      CHECK(run_config_from_json(Json{{"model", {{"name", name}}}}.dump()) == defaults);
      const Json written = Json::parse(to_json(defaults));
      CHECK(written["model"]["name"] == name);
      Json all = written;
      for (const auto& field : written["model"].items()) {
        const std::string key = field.key();
        if (key == "name") continue;
        CAPTURE(key);
        REQUIRE(other_baseline_values().contains(key));
        CHECK(other_baseline_values()[key] != field.value());
        Json changed = written;
        changed["model"][key] = other_baseline_values()[key];
        if (key == "heads") changed["model"]["width"] = 24;
        const RunConfig config = run_config_from_json(changed.dump());
        CHECK(!(config == defaults));
        CHECK(Json::parse(to_json(config)) == changed);
        CHECK(first_difference(config, defaults).starts_with("model."));
        all["model"][key] = other_baseline_values()[key];
      }
      const RunConfig config = run_config_from_json(all.dump());
      CHECK(Json::parse(to_json(config)) == all);
      CHECK(vocabulary_of(config) == 31);
      CHECK(segment_of(config) == 12);
      CHECK(prediction_of(config) == Prediction::next_token);
    }
  }

  TEST_CASE("config: an unknown model, and a field that another model has, are named") {
    const std::string unknown = run_message_of({{"name", "gpt"}});
    CHECK(contains(unknown, "gpt"));
    for (const std::string& name : baseline_names()) CHECK(contains(unknown, name));
    CHECK(contains(unknown, "memformer"));
    CHECK(contains(run_message_of({{"name", 3}}), "name"));
    const std::vector<std::pair<std::string, std::string>> foreign{
        {"rmt", "slots"},        {"rmt", "cache"},         {"transformer-xl", "compressed"},
        {"transformer", "rate"}, {"compressive", "write"}, {"lstm", "heads"},
        {"memformer", "cache"},  {"memformer", "layers"}};
    for (const auto& [name, key] : foreign) {
      CAPTURE(name);
      CHECK(
          contains(run_message_of({{"name", name}, {key, 3}}), "unknown key 'model." + key + "'"));
      CHECK(contains(settings_message_of({"model.name=" + name, "model." + key + "=3"}),
                     "unknown key 'model." + key + "'"));
    }
    CHECK(settings_message_of({"model.name=rmt", "model.memory=3"}) == "no error");
  }

  TEST_CASE("config: another model's name begins with that model's defaults") {
    const RunConfig wide = with_settings(RunConfig{}, {"model.width=16", "train.steps=7"});
    for (const std::string& name : baseline_names()) {
      RunConfig expected = wide;
      choose_model(expected, name);
      const RunConfig chosen = with_settings(wide, {"model.name=" + name});
      CHECK(chosen == expected);
      CHECK(chosen.train.steps == 7);
      CHECK(shared(*chosen.baseline).width == 128);
      // The name it has already keeps what was set.
      const RunConfig narrow = with_settings(chosen, {"model.width=32"});
      CHECK(with_settings(narrow, {"model.name=" + name}) == narrow);
      CHECK(with_settings(narrow, {"model.name=memformer"}).model == ModelConfig{});
      // Wherever the name stands, the other settings are of that model.
      CHECK(with_settings(wide, {"model.width=32", "model.name=" + name}) == narrow);
    }
  }

  TEST_CASE("config: impossible values of every baseline are errors that name the field") {
    const auto refused = [](const std::string& name, const std::string& key, const Json& value) {
      CAPTURE(name);
      CAPTURE(key);
      const std::string message = run_message_of({{"name", name}, {key, value}});
      CHECK(contains(message, "model." + key));
      CHECK(!contains(message, "unknown key"));
    };
    for (const std::string& name : baseline_names()) {
      for (const std::string key : {"vocabulary", "width", "layers", "segment"})
        for (const std::int64_t value :
             {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()})
          refused(name, key, value);
      for (const double value : {-0.1, 1.0}) refused(name, "dropout", value);
      refused(name, "embedding_scale", -1.0);
      refused(name, "embedding_deviation", -1.0);
      refused(name, "dtype", "i32");
      refused(name, "width", "wide");
      if (name == "lstm") continue;
      for (const std::string key : {"heads", "feed_forward"}) refused(name, key, 0);
      refused(name, "heads", 3);  // does not divide 128
      refused(name, "attention_dropout", 1.0);
      refused(name, "norm_epsilon", 0.0);
      if (name == "transformer") continue;
      refused(name, "width", 63);
      refused(name, "head_width", -1);
    }
    for (const std::int64_t value : {-1, 1 << 21}) {
      refused("transformer-xl", "cache", value);
      refused("compressive", "cache", value);
      refused("compressive", "compressed", value);
      refused("rmt", "memory", value);
    }
    for (const std::int64_t value : {0, -2, 3, 5}) refused("compressive", "rate", value);
    refused("compressive", "cache", 31);
    refused("compressive", "segment", 63);
    refused("compressive", "reconstruction", -0.5);
    refused("lstm", "replay_tokens", -1);
    for (const std::string& name : baseline_names())
      CHECK(run_message_of({{"name", name}}) == "no error");
  }
}

}  // namespace mf::test
