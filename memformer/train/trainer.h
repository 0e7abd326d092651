#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "memformer/data/corpus.h"
#include "memformer/data/synthetic.h"
#include "memformer/data/text_stream.h"
#include "memformer/train/checkpoint.h"
#include "tensor/file.h"

namespace mf {

/// One line of metrics.jsonl. All but `seconds` and `tokens_per_second` are the same bits in every
/// run of one build, configuration and data, also across a resume.
struct StepMetrics {
  std::int64_t step = 0;                   ///< counted from 1
  double loss = 0.0;                       ///< nats per scored target
  double bits_per_byte = 0.0;              ///< loss / ln 2
  double gradient_norm = 0.0;              ///< before clipping
  double learning_rate = 0.0;              ///< of this step
  std::int64_t tokens = 0;                 ///< scored targets so far
  double epoch = 0.0;                      ///< text only
  std::optional<double> accuracy;          ///< tasks: of this window
  std::optional<double> running_accuracy;  ///< tasks: at the curriculum's difficulty
  std::optional<std::int64_t> difficulty;  ///< tasks: of the curriculum
  /// Text, in steps that are evaluated: of the validation split.
  std::optional<double> valid_bits_per_byte;
  std::int64_t active_bytes = 0;   ///< after the step: parameters, optimizer, memory
  std::int64_t peak_bytes = 0;     ///< of the step
  double seconds = 0.0;            ///< of the step
  double tokens_per_second = 0.0;  ///< scored targets
};
/// One JSON object, without a newline.
std::string to_json(const StepMetrics& metrics);

/// Trains a model as a RunConfig says, in the folder of one run: config.json, manifest.json,
/// metrics.jsonl, checkpoint.safetensors. The folder is this Trainer's alone while it lives: a
/// second one, of any process, is refused.
class Trainer {
 public:
  /// Starts a new run in `folder` ("" keeps nothing on disk). Throws Error if it holds one already.
  /// Weights, optimizer and memory live on `device`.
  static Trainer start(const RunConfig& config, const std::string& folder, Device device = cpu);
  /// Goes on from the run's checkpoint; metrics past it are dropped, as their steps will be run
  /// again. Throws Error if `config` is given and is not the run's.
  static Trainer resume(const std::string& folder, const std::optional<RunConfig>& config = {},
                        Device device = cpu);

  /// One window, one optimizer step; appends a line to metrics.jsonl at every log_every steps, and
  /// checkpoints. Throws Error if the loss or the gradient is not finite, naming the first op that
  /// made it so; weights and files are then those of the step before.
  StepMetrics step();
  /// Anomaly mode: each value and gradient is checked as it is made, so the first NaN or infinity
  /// ends the step with an Error that names step, segment, op, module, shapes and ranges. Costs
  /// about one more pass over all values. Without it a step that went wrong is run again so.
  void check_finite(bool on) { check_finite_ = on; }
  /// Whether train.steps are done.
  bool done() const { return progress_.step >= config_.train.steps; }
  /// Steps until done, or until `stop` returns true after a step; ends with a checkpoint.
  void run(
      const std::function<void(const StepMetrics&)>& observe,
      const std::function<bool()>& stop = [] { return false; });

  /// Of the run.
  const RunConfig& config() const { return config_; }
  /// Where weights, optimizer and memory are.
  Device device() const { return device_; }
  /// With the weights of the last step.
  const Recurrence& model() const { return *model_; }
  /// Steps and tokens so far, place in the data, curriculum.
  const Progress& progress() const { return progress_; }
  /// The text; empty for tasks.
  const Corpus& corpus() const { return corpus_; }
  /// Its parts; empty for tasks.
  const Split& split() const { return split_; }
  /// Writes the run's checkpoint now. Throws Error if the run has no folder.
  void checkpoint() const;

 private:
  Trainer(RunConfig config, std::string folder, Device device);
  /// The next window's segments and the state it starts from.
  std::vector<Segment> next_window();
  WindowResult back_propagate(const std::vector<Segment>& segments, const WindowOptions& options);
  void require_finite(const std::vector<Segment>& segments, double loss, double norm);
  void advance(const WindowResult& result);
  void update_curriculum(double accuracy);
  void append_metrics(const StepMetrics& metrics) const;
  void write_manifest() const;
  RngKey step_key() const;

  RunConfig config_;
  std::string folder_;
  Device device_;
  detail::Descriptor lock_;  // on FOLDER/lock; the system drops it with the process
  Corpus corpus_;
  Split split_;
  std::unique_ptr<SyntheticTask> task_;
  std::int64_t window_difficulty_ = 0;  // tasks: of the window being trained
  std::optional<TextStream> stream_;
  std::optional<SlidingWindow> window_;
  // Stream positions before each segment the window holds, so that a checkpoint can name the first.
  std::deque<std::vector<std::int64_t>> positions_;
  std::unique_ptr<Recurrence> model_;
  std::vector<Parameter> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  State state_;
  Progress progress_;
  bool check_finite_ = false;
};

}  // namespace mf
