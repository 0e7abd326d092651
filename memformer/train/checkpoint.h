#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "memformer/model/memformer.h"
#include "memformer/train/config.h"
#include "nn/optimizer.h"

namespace mf {

/// Everything a run needs to go on bit for bit, besides weights, optimizer and state: counters, the
/// place in the data, the curriculum. Random draws need nothing: keys follow from seed and step.
struct Progress {
  std::int64_t step = 0;                      ///< optimizer steps done
  std::int64_t tokens = 0;                    ///< scored targets seen
  std::vector<std::int64_t> stream_position;  ///< before the first segment of the next window
  std::int64_t difficulty = 0;                ///< tasks: of the curriculum
  double running_accuracy = 0.0;              ///< tasks
  std::string data_sha256;                    ///< of the corpus; "" for tasks
  /// Of the kernels when the checkpoint was written ("avx2"); "" if there is none yet, or if it was
  /// made before this was recorded. Going on with another set is allowed; bits may then differ.
  std::string isa;
  /// full_name() of where it ran then; otherwise as `isa`.
  std::string device;
};

/// Writes `path`, all or nothing: weights ("model.NAME"), optimizer, carried state ("state.NAME"),
/// configuration and progress.
void save_checkpoint(const std::string& path, const RunConfig& config, const Recurrence& model,
                     const Optimizer& optimizer, const State& state, const Progress& progress);

/// Puts a checkpoint back. Throws Error unless it carries valid checksums, was made with the same
/// configuration (train.steps, log, evaluation and checkpoint intervals may differ) and holds every
/// tensor with its shape and dtype; nothing is changed then. A tensor of the carried state may have
/// other extents than `state` has behind the batch, as a cache grows from empty.
Progress load_checkpoint(const std::string& path, const RunConfig& config, Recurrence& model,
                         Optimizer& optimizer, State& state);

/// The configuration stored in a checkpoint.
RunConfig checkpoint_config(const std::string& path);

/// A trained model from a run's folder, on any device: its configuration and the weights of its
/// checkpoint.
struct TrainedModel {
  RunConfig config;                   ///< of the run
  std::unique_ptr<Recurrence> model;  ///< with the checkpoint's weights
  std::int64_t step = 0;              ///< optimizer steps behind them
  std::string isa;                    ///< as Progress::isa
};
/// Throws Error where the checkpoint is missing or damaged.
TrainedModel load_trained(const std::string& folder, Device device = cpu);

/// The model as a Memformer, for what only that one can do. Throws Error in the name of `command`
/// if it is another one.
const Memformer& as_memformer(const Recurrence& model, std::string_view command);

/// Only the weights, named as Memformer::parameters() names them, into `model`. The file may come
/// from elsewhere (no checksums), or be one of our checkpoints. Throws Error naming the first
/// parameter that is missing or has another shape; nothing is changed then.
void import_weights(const std::string& path, Memformer& model);

/// FOLDER/config.json.
std::string config_path(const std::string& folder);
/// FOLDER/checkpoint.safetensors.
std::string checkpoint_path(const std::string& folder);
/// FOLDER/metrics.jsonl, one StepMetrics a line.
std::string metrics_path(const std::string& folder);

}  // namespace mf
