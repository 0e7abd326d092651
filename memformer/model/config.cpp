#include "memformer/model/config.h"

#include <cmath>

#include "memformer/model/config_fields.h"

namespace mf {

double ModelConfig::radius() const {
  return memory_radius > 0.0 ? memory_radius : std::sqrt(static_cast<double>(width));
}

void ModelConfig::use_v1_writer() {
  writer_project_value = true;
  memory_norm = MemoryNorm::none;
  forgetting = false;
}

void validate(const ModelConfig& c) {
  const auto positive = [](std::string_view name, auto value) {
    check(value > 0, "configuration: model.{} is {}; it must be positive", name, value);
  };
  const auto not_negative = [](std::string_view name, auto value) {
    check(value >= 0, "configuration: model.{} is {}; it must not be negative", name, value);
  };
  const auto probability = [](std::string_view name, double value) {
    check(value >= 0.0 && value < 1.0, "configuration: model.{} is {}; it must lie in [0, 1)", name,
          value);
  };
  const auto at_most = [](std::string_view name, std::int64_t value, std::int64_t limit) {
    check(value <= limit, "configuration: model.{} is {}; at most {} is supported", name, value,
          limit);
  };
  positive("vocabulary", c.vocabulary);
  positive("width", c.width);
  positive("heads", c.heads);
  positive("encoder_layers", c.encoder_layers);
  positive("feed_forward", c.feed_forward);
  positive("segment", c.segment);
  not_negative("slots", c.slots);
  not_negative("decoder_layers", c.decoder_layers);
  // Limits that keep a damaged file from sizing an array before anything else notices.
  at_most("vocabulary", c.vocabulary, 1 << 24);
  at_most("width", c.width, 1 << 16);
  at_most("feed_forward", c.feed_forward, 1 << 18);
  at_most("encoder_layers", c.encoder_layers, 1024);
  at_most("decoder_layers", c.decoder_layers, 1024);
  at_most("segment", c.segment, 1 << 20);
  at_most("slots", c.slots, 1 << 20);
  check(c.width % c.heads == 0,
        "configuration: model.heads is {}, which does not divide model.width {}; choose a divisor",
        c.heads, c.width);
  check(c.architecture == Architecture::encoder_only || c.decoder_layers > 0,
        "configuration: model.decoder_layers is 0; give at least one, or set architecture to "
        "encoder_only");
  probability("dropout", c.dropout);
  probability("attention_dropout", c.attention_dropout);
  positive("norm_epsilon", c.norm_epsilon);
  positive("temperature", c.temperature);
  positive("embedding_scale", c.embedding_scale);
  not_negative("embedding_deviation", c.embedding_deviation);
  not_negative("memory_radius", c.memory_radius);
  positive("memory_epsilon", c.memory_epsilon);
  positive("forgetting_initial_norm", c.forgetting_initial_norm);
  if (c.positions == Positions::relative_bias) {
    check(c.relative_buckets >= 4 && c.relative_buckets % 4 == 0,
          "configuration: model.relative_buckets is {}; it must be a positive multiple of 4",
          c.relative_buckets);
    check(c.relative_max_distance > c.relative_buckets / 2,
          "configuration: model.relative_max_distance is {}; it must exceed half the buckets, {}",
          c.relative_max_distance, c.relative_buckets / 2);
  }
  check(is_float(c.dtype), "configuration: model.dtype is {}; use f32 or f64", c.dtype);
}

std::string to_json(const ModelConfig& config) { return detail::write_config(config); }

ModelConfig model_config_from_json(const std::string& text) {
  ModelConfig config = detail::read_config<ModelConfig>(text);
  validate(config);
  return config;
}

}  // namespace mf
