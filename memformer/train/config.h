#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memformer/baselines/registry.h"
#include "memformer/model/config.h"
#include "memformer/model/multiply_adds.h"
#include "memformer/replay/window.h"
#include "nn/schedule.h"

namespace mf {

/// What to read.
struct DataConfig {
  std::string source = "kjv";    ///< as load_corpus takes it, or "task:NAME", as make_task takes it
  std::int64_t batch = 16;       ///< rows, each with its own place in the text and its own memory
  double train_fraction = 0.90;  ///< of the bytes
  double valid_fraction = 0.05;  ///< the rest is the test split
  bool score_first_segment = false;  ///< as TextStreamOptions::score_first_segment

  // Synthetic tasks: a curriculum from `difficulty` to `max_difficulty`, one up each time the
  // running accuracy passes `promote_at`. Some windows are drawn with a lower difficulty, so that
  // what was learned is kept.
  std::int64_t difficulty = 1;      ///< tasks: where the curriculum begins
  std::int64_t max_difficulty = 1;  ///< tasks: where it ends
  double promote_at = 0.97;         ///< tasks: running accuracy at which it goes one up
  double easier_fraction = 0.3;     ///< tasks: windows drawn with a lower difficulty
  std::int64_t task_segment = 4;    ///< tokens in a segment, for tasks written as one sequence

  /// Whether `source` names a task and not a text.
  bool is_task() const { return source.starts_with("task:"); }
  /// The NAME of "task:NAME".
  std::string task() const { return source.substr(5); }
  /// Field by field.
  friend bool operator==(const DataConfig&, const DataConfig&) = default;
};

/// How a window is gone back through.
enum class Method {
  mrbp,      ///< mrbp()
  bptt,      ///< bptt()
  truncated  ///< truncated_bptt()
};
/// What updates the parameters.
enum class OptimizerKind {
  adam,  ///< Adam, which is AdamW where weight_decay is positive
  sgd    ///< Sgd
};

/// How to train.
struct TrainConfig {
  std::int64_t steps = 1000;     ///< optimizer steps
  Method method = Method::mrbp;  ///< same gradients by mrbp and bptt, in other amounts of memory
  std::int64_t horizon = 8;      ///< segments in a window (text; a task's window is the whole task)
  std::int64_t stride = 0;       ///< segments the window moves on by; 0: horizon
  std::int64_t truncation = 1;   ///< segments in a chunk, for method truncated
  std::int64_t detach_every = 0;     ///< boundary rule of every state: 0 keeps the gradient
  LossScale loss = LossScale::mean;  ///< of the loss whose gradients are made
  bool check_replay = true;          ///< compare replayed states bit for bit (mrbp)

  OptimizerKind optimizer = OptimizerKind::adam;  ///< with its hyperparameters below
  double learning_rate = 1e-3;                    ///< at the peak
  std::int64_t warmup = 100;                      ///< steps of linear warm-up
  std::int64_t decay_steps = 0;  ///< length of the cosine schedule; 0: `steps`; -1: constant rate
  double learning_rate_floor = 0.1;  ///< fraction of learning_rate left at the end of the schedule
  double beta1 = 0.9;                ///< adam
  double beta2 = 0.99;               ///< adam
  double epsilon = 1e-8;             ///< adam
  double weight_decay = 0.0;  ///< on matrices only; adam: decoupled, sgd: a part of the gradient
  double momentum = 0.9;      ///< sgd
  double clip = 1.0;          ///< largest global gradient norm; 0: no clipping

  std::int64_t seed = 1;            ///< of weights, data and dropout
  std::int64_t log_every = 10;      ///< steps between lines of metrics.jsonl
  std::int64_t eval_every = 0;      ///< steps between evaluations on the validation split; 0: none
  std::int64_t eval_bytes = 65536;  ///< of the validation split, at most; 0: all
  std::int64_t checkpoint_every = 200;  ///< steps between checkpoints

  /// The learning rates of these settings.
  Schedule schedule() const;
  /// Field by field.
  friend bool operator==(const TrainConfig&, const TrainConfig&) = default;
};

/// One run: one JSON file with every hyperparameter, {"model": {..}, "data": {..}, "train": {..}}.
struct RunConfig {
  ModelConfig model;  ///< "model", where its "name" is memformer, as it is if absent
  /// "model", where its "name" is that of a baseline; `model` counts for nothing then.
  std::optional<BaselineConfig> baseline;
  DataConfig data;    ///< "data"
  TrainConfig train;  ///< "train"

  /// Field by field.
  friend bool operator==(const RunConfig&, const RunConfig&) = default;
};

/// "memformer" and the names of all baselines.
std::vector<std::string> model_names();
/// "memformer", or the name of the baseline.
std::string model_name(const RunConfig& config);
/// A configuration with the defaults of this model; see `baseline_names`.
void choose_model(RunConfig& config, const std::string& name);
/// Number of token ids of the model.
std::int64_t vocabulary_of(const RunConfig& config);
/// Longest segment of the model, in tokens.
std::int64_t segment_of(const RunConfig& config);
/// What the model is asked for: baselines predict the next token, the Memformer the next segment.
Prediction prediction_of(const RunConfig& config);
/// Of the model and a full segment.
MultiplyAdds multiply_adds(const RunConfig& config);
/// The model. Throws Error if its configuration is impossible.
std::unique_ptr<Recurrence> make_model(const RunConfig& config, RngKey key);

/// Throws Error naming the first impossible value.
void validate(const RunConfig& config);
/// The whole configuration as JSON text, every field present.
std::string to_json(const RunConfig& config);
/// The configuration of such a text. Absent keys keep their defaults; unknown keys, wrong types and
/// impossible values are Errors by name.
RunConfig run_config_from_json(const std::string& text);
/// The same from a file.
RunConfig read_run_config(const std::string& path);
/// The configuration with "train.steps=200" and the like applied. Throws Error on an unknown key.
/// "model.name=NAME" begins with the defaults of that model, if it is another one.
RunConfig with_settings(const RunConfig& config, const std::vector<std::string>& settings);
/// Path of the first field in which the two differ, "" if none does.
std::string first_difference(const RunConfig& a, const RunConfig& b);

}  // namespace mf
