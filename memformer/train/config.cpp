#include "memformer/train/config.h"

#include <algorithm>

#include "memformer/model/config_fields.h"
#include "memformer/model/memformer.h"
#include "tensor/io.h"

namespace mf {
namespace detail {

template <>
struct Words<Method> {
  static constexpr std::pair<Method, const char*> kAll[] = {
      {Method::mrbp, "mrbp"}, {Method::bptt, "bptt"}, {Method::truncated, "truncated"}};
};
template <>
struct Words<OptimizerKind> {
  static constexpr std::pair<OptimizerKind, const char*> kAll[] = {{OptimizerKind::adam, "adam"},
                                                                   {OptimizerKind::sgd, "sgd"}};
};
template <>
struct Words<LossScale> {
  static constexpr std::pair<LossScale, const char*> kAll[] = {{LossScale::mean, "mean"},
                                                               {LossScale::sum, "sum"}};
};

template <class Field>
void visit_fields(DataConfig& c, Field&& field) {
  field("source", c.source);
  field("batch", c.batch);
  field("train_fraction", c.train_fraction);
  field("valid_fraction", c.valid_fraction);
  field("score_first_segment", c.score_first_segment);
  field("difficulty", c.difficulty);
  field("max_difficulty", c.max_difficulty);
  field("promote_at", c.promote_at);
  field("easier_fraction", c.easier_fraction);
  field("task_segment", c.task_segment);
}

template <class Field>
void visit_fields(TrainConfig& c, Field&& field) {
  field("steps", c.steps);
  field("method", c.method);
  field("horizon", c.horizon);
  field("stride", c.stride);
  field("truncation", c.truncation);
  field("detach_every", c.detach_every);
  field("loss", c.loss);
  field("check_replay", c.check_replay);
  field("optimizer", c.optimizer);
  field("learning_rate", c.learning_rate);
  field("warmup", c.warmup);
  field("decay_steps", c.decay_steps);
  field("learning_rate_floor", c.learning_rate_floor);
  field("beta1", c.beta1);
  field("beta2", c.beta2);
  field("epsilon", c.epsilon);
  field("weight_decay", c.weight_decay);
  field("momentum", c.momentum);
  field("clip", c.clip);
  field("seed", c.seed);
  field("log_every", c.log_every);
  field("eval_every", c.eval_every);
  field("eval_bytes", c.eval_bytes);
  field("checkpoint_every", c.checkpoint_every);
}

/// The part "model" of a run's configuration: its keys are those of the model that "name" names.
struct ModelSection {
  RunConfig& run;
};

template <class Field>
void visit_fields(ModelSection& section, Field&& field) {
  RunConfig& run = section.run;
  std::string name = model_name(run);
  field("name", name);
  if (name != model_name(run)) choose_model(run, name);
  if (run.baseline) {
    std::visit([&](auto& config) { config.each_field(field); }, *run.baseline);
  } else {
    visit_fields(run.model, field);
  }
}

template <class Field>
void visit_fields(RunConfig& c, Field&& field) {
  ModelSection model{c};
  field("model", model);
  field("data", c.data);
  field("train", c.train);
}

namespace {

/// "a.b" -> json["a"]["b"].
Json& at_path(Json& json, const std::string& path) {
  const auto dot = path.find('.');
  if (dot == std::string::npos) return json[path];
  return at_path(json[path.substr(0, dot)], path.substr(dot + 1));
}

}  // namespace
}  // namespace detail

Schedule TrainConfig::schedule() const {
  const std::int64_t total = decay_steps < 0 ? 0 : decay_steps == 0 ? steps : decay_steps;
  return {learning_rate, warmup, total, learning_rate_floor};
}

namespace {

constexpr const char* kMemformer = "memformer";

}  // namespace

std::vector<std::string> model_names() {
  std::vector<std::string> names = baseline_names();
  names.insert(names.begin(), kMemformer);
  return names;
}

std::string model_name(const RunConfig& config) {
  return config.baseline ? name_of(*config.baseline) : kMemformer;
}

void choose_model(RunConfig& config, const std::string& name) {
  config.model = {};
  config.baseline.reset();
  if (name != kMemformer) config.baseline = baseline_config(name);
}

std::int64_t vocabulary_of(const RunConfig& config) {
  return config.baseline ? shared(*config.baseline).vocabulary : config.model.vocabulary;
}

std::int64_t segment_of(const RunConfig& config) {
  return config.baseline ? shared(*config.baseline).segment : config.model.segment;
}

Prediction prediction_of(const RunConfig& config) {
  return config.baseline ? Prediction::next_token : Prediction::next_segment;
}

MultiplyAdds multiply_adds(const RunConfig& config) {
  return config.baseline ? multiply_adds(*config.baseline) : multiply_adds(config.model);
}

std::unique_ptr<Recurrence> make_model(const RunConfig& config, RngKey key) {
  if (config.baseline) return make_baseline(*config.baseline, key);
  return std::make_unique<Memformer>(config.model, key);
}

void validate(const RunConfig& config) {
  if (config.baseline) {
    validate(*config.baseline);
  } else {
    validate(config.model);
  }
  const auto positive = [](std::string_view name, auto value) {
    check(value > 0, "configuration: {} is {}; it must be positive", name, value);
  };
  const auto not_negative = [](std::string_view name, auto value) {
    check(value >= 0, "configuration: {} is {}; it must not be negative", name, value);
  };
  const auto fraction = [](std::string_view name, double value) {
    check(value >= 0.0 && value <= 1.0, "configuration: {} is {}; it must lie in [0, 1]", name,
          value);
  };
  const DataConfig& data = config.data;
  check(!data.source.empty(),
        "configuration: data.source is empty; give kjv, system:cxx, fashion-mnist, idx:FOLDER, "
        "file:PATH or task:NAME");
  positive("data.batch", data.batch);
  fraction("data.train_fraction", data.train_fraction);
  fraction("data.valid_fraction", data.valid_fraction);
  check(data.train_fraction > 0.0 && data.train_fraction + data.valid_fraction <= 1.0,
        "configuration: data.train_fraction {} and data.valid_fraction {} must be positive and sum "
        "to "
        "at most 1",
        data.train_fraction, data.valid_fraction);
  check(data.difficulty >= 1 && data.max_difficulty >= data.difficulty,
        "configuration: data.difficulty {} must be at least 1 and at most data.max_difficulty {}",
        data.difficulty, data.max_difficulty);
  fraction("data.promote_at", data.promote_at);
  fraction("data.easier_fraction", data.easier_fraction);
  positive("data.task_segment", data.task_segment);
  const TrainConfig& train = config.train;
  positive("train.steps", train.steps);
  positive("train.horizon", train.horizon);
  check(train.stride >= 0 && train.stride <= train.horizon,
        "configuration: train.stride is {}; it must lie in 1..{}, train.horizon, or be 0 for that",
        train.stride, train.horizon);
  positive("train.truncation", train.truncation);
  not_negative("train.detach_every", train.detach_every);
  positive("train.learning_rate", train.learning_rate);
  not_negative("train.warmup", train.warmup);
  check(train.decay_steps >= -1,
        "configuration: train.decay_steps is {}; give -1 (constant), 0 (train.steps) or a length",
        train.decay_steps);
  fraction("train.learning_rate_floor", train.learning_rate_floor);
  fraction("train.beta1", train.beta1);
  fraction("train.beta2", train.beta2);
  check(train.beta1 < 1.0 && train.beta2 < 1.0,
        "configuration: train.beta1 {} and train.beta2 {} must be below 1", train.beta1,
        train.beta2);
  positive("train.epsilon", train.epsilon);
  not_negative("train.weight_decay", train.weight_decay);
  fraction("train.momentum", train.momentum);
  not_negative("train.clip", train.clip);
  not_negative("train.seed", train.seed);
  positive("train.log_every", train.log_every);
  not_negative("train.eval_every", train.eval_every);
  not_negative("train.eval_bytes", train.eval_bytes);
  positive("train.checkpoint_every", train.checkpoint_every);
}

std::string to_json(const RunConfig& config) { return detail::write_config(config); }

RunConfig run_config_from_json(const std::string& text) {
  RunConfig config = detail::read_config<RunConfig>(text);
  validate(config);
  return config;
}

RunConfig read_run_config(const std::string& path) { return run_config_from_json(read_file(path)); }

RunConfig with_settings(const RunConfig& config, const std::vector<std::string>& settings) {
  detail::Json json = detail::Json::parse(to_json(config));
  // Another model starts from its own defaults, so its name comes before its other settings.
  std::vector<std::string> ordered = settings;
  std::stable_partition(ordered.begin(), ordered.end(), [](const std::string& setting) {
    return setting.starts_with("model.name=");
  });
  for (const std::string& setting : ordered) {
    const auto equals = setting.find('=');
    check(equals != std::string::npos && equals > 0,
          "configuration: '{}' is not a setting; write key=value, such as train.steps=200",
          setting);
    const std::string value = setting.substr(equals + 1);
    // What is no JSON value is text: data.source=kjv needs no quotes.
    const detail::Json parsed = detail::Json::parse(value, nullptr, false);
    const std::string key = setting.substr(0, equals);
    if (key == "model.name" && json["model"]["name"] != value)
      json["model"] = detail::Json::object();
    try {
      detail::at_path(json, key) = parsed.is_discarded() ? detail::Json(value) : parsed;
    } catch (const detail::Json::exception&) {
      fail("configuration: unknown key '{}'; keys look like train.steps", key);
    }
  }
  return run_config_from_json(json.dump());
}

std::string first_difference(const RunConfig& a, const RunConfig& b) {
  const detail::Json x = detail::Json::parse(to_json(a)).flatten();
  const detail::Json y = detail::Json::parse(to_json(b)).flatten();
  for (const auto& [path, value] : x.items()) {
    if (y.contains(path) && y.at(path) == value) continue;
    std::string name = path.substr(1);
    for (char& c : name)
      if (c == '/') c = '.';
    return name;
  }
  return "";
}

}  // namespace mf
