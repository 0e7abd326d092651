#pragma once

// Private: the only place where the names of the model's fields stand, and the reader and writer
// that every configuration struct shares. Not installed, since it shows nlohmann::json.

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "memformer/model/config.h"

namespace mf::detail {

using Json = nlohmann::ordered_json;

/// The words of an enum; specialised below and beside other enums.
template <class Enum>
struct Words;

template <>
struct Words<Architecture> {
  static constexpr std::pair<Architecture, const char*> kAll[] = {
      {Architecture::encoder_decoder, "encoder_decoder"},
      {Architecture::encoder_only, "encoder_only"}};
};
template <>
struct Words<Positions> {
  static constexpr std::pair<Positions, const char*> kAll[] = {
      {Positions::learned, "learned"},
      {Positions::sinusoidal, "sinusoidal"},
      {Positions::relative_bias, "relative_bias"},
      {Positions::simplified_relative, "simplified_relative"},
      {Positions::none, "none"}};
};
template <>
struct Words<ReadNorm> {
  static constexpr std::pair<ReadNorm, const char*> kAll[] = {
      {ReadNorm::shared, "shared"}, {ReadNorm::own, "own"}, {ReadNorm::none, "none"}};
};
template <>
struct Words<MemoryNorm> {
  static constexpr std::pair<MemoryNorm, const char*> kAll[] = {
      {MemoryNorm::l2, "l2"}, {MemoryNorm::layer_norm, "layer_norm"}, {MemoryNorm::none, "none"}};
};
template <>
struct Words<Activation> {
  static constexpr std::pair<Activation, const char*> kAll[] = {
      {Activation::gelu, "gelu"}, {Activation::relu, "relu"}, {Activation::silu, "silu"}};
};
template <>
struct Words<DType> {
  static constexpr std::pair<DType, const char*> kAll[] = {{DType::f32, "f32"},
                                                           {DType::f64, "f64"}};
};

template <class Field>
void visit_fields(ModelConfig& c, Field&& field) {
  field("architecture", c.architecture);
  field("vocabulary", c.vocabulary);
  field("width", c.width);
  field("heads", c.heads);
  field("encoder_layers", c.encoder_layers);
  field("decoder_layers", c.decoder_layers);
  field("feed_forward", c.feed_forward);
  field("segment", c.segment);
  field("slots", c.slots);
  field("activation", c.activation);
  field("dropout", c.dropout);
  field("attention_dropout", c.attention_dropout);
  field("final_norm", c.final_norm);
  field("layer_replay", c.layer_replay);
  field("norm_epsilon", c.norm_epsilon);
  field("positions", c.positions);
  field("relative_buckets", c.relative_buckets);
  field("relative_max_distance", c.relative_max_distance);
  field("embedding_scale", c.embedding_scale);
  field("embedding_deviation", c.embedding_deviation);
  field("attention_bias", c.attention_bias);
  field("tie_embeddings", c.tie_embeddings);
  field("tie_output", c.tie_output);
  field("memory_read_norm", c.memory_read_norm);
  field("writer_project_value", c.writer_project_value);
  field("writer_shared_key", c.writer_shared_key);
  field("writer_output_projection", c.writer_output_projection);
  field("temperature", c.temperature);
  field("memory_norm", c.memory_norm);
  field("memory_radius", c.memory_radius);
  field("memory_epsilon", c.memory_epsilon);
  field("forgetting", c.forgetting);
  field("forgetting_initial_norm", c.forgetting_initial_norm);
  field("dtype", c.dtype);
}

/// Writes every field in order.
class FieldWriter {
 public:
  template <class T>
  void operator()(const char* name, T& value) {
    if constexpr (std::is_enum_v<T>) {
      for (const auto& [word_value, word] : Words<T>::kAll)
        if (word_value == value) json_[name] = word;
    } else if constexpr (requires(FieldWriter & w) { visit_fields(value, w); }) {
      FieldWriter inner;
      visit_fields(value, inner);
      json_[name] = inner.take();
    } else {
      json_[name] = value;
    }
  }
  Json take() { return std::move(json_); }

 private:
  Json json_ = Json::object();
};

/// Reads fields by name; absent ones keep their value. `finish` rejects what nobody asked for.
class FieldReader {
 public:
  FieldReader(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
    check(json.is_object(), "configuration: '{}' must be an object; got {}", path_, json.dump());
  }

  template <class T>
  void operator()(const char* name, T& value) {
    known_.insert(name);
    const auto found = json_.find(name);
    if (found == json_.end()) return;
    const std::string path = path_.empty() ? name : path_ + "." + name;
    if constexpr (std::is_enum_v<T>) {
      std::string words;
      for (const auto& [word_value, word] : Words<T>::kAll) {
        if (found->is_string() && found->template get<std::string>() == word) {
          value = word_value;
          return;
        }
        if (!words.empty()) words += ", ";
        words += word;
      }
      fail("configuration: '{}' is {}; known values are {}", path, found->dump(), words);
    } else if constexpr (requires(FieldReader & r) { visit_fields(value, r); }) {
      FieldReader inner(*found, path);
      visit_fields(value, inner);
      inner.finish();
    } else if constexpr (std::is_same_v<T, bool>) {
      check(found->is_boolean(), "configuration: '{}' must be true or false; got {}", path,
            found->dump());
      value = found->template get<bool>();
    } else if constexpr (std::is_integral_v<T>) {
      check(found->is_number_integer(), "configuration: '{}' must be a whole number; got {}", path,
            found->dump());
      value = found->template get<T>();
    } else if constexpr (std::is_floating_point_v<T>) {
      check(found->is_number(), "configuration: '{}' must be a number; got {}", path,
            found->dump());
      value = found->template get<T>();
    } else {
      check(found->is_string(), "configuration: '{}' must be text; got {}", path, found->dump());
      value = found->template get<std::string>();
    }
  }

  void finish() const {
    for (const auto& [key, value] : json_.items())
      check(known_.contains(key), "configuration: unknown key '{}'; known keys are {}",
            path_.empty() ? key : path_ + "." + key, names());
  }

 private:
  std::string names() const {
    std::string text;
    for (const std::string& name : known_) {
      if (!text.empty()) text += ", ";
      text += name;
    }
    return text;
  }

  const Json& json_;
  std::string path_;
  std::set<std::string> known_;
};

/// Text of a configuration struct, and a struct from text.
template <class Config>
std::string write_config(Config config) {
  FieldWriter writer;
  visit_fields(config, writer);
  return writer.take().dump(2) + "\n";
}

template <class Config>
Config read_config(const std::string& text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    fail("configuration: not valid JSON; {}", error.what());
  }
  Config config;
  FieldReader reader(json, "");
  visit_fields(config, reader);
  reader.finish();
  return config;
}

}  // namespace mf::detail
