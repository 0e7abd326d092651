#include "memformer/train/trainer.h"

#include <fcntl.h>
#include <sys/file.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>

#include "memformer/data/bytes.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"
#include "memformer/replay/truncated.h"
#include "memformer/train/evaluate.h"
#include "nn/parameters.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/io.h"

namespace mf {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// A lock on FOLDER/lock that lasts as long as the descriptor. Throws Error if another one holds
/// it.
detail::Descriptor lock_folder(const std::string& folder) {
  const std::string path = folder + "/lock";
  detail::Descriptor lock(path, O_RDWR | O_CREAT, 0644);
  const bool locked = lock.is_open() && ::flock(lock.number(), LOCK_EX | LOCK_NB) == 0;
  check(locked || errno != EWOULDBLOCK,
        "train: the run folder {} is in use by another process; wait for it or give another folder",
        folder);
  check(locked, "train: cannot lock {}; {}", path, std::generic_category().message(errno));
  return lock;
}

/// The lines of metrics.jsonl up to `step`; a last line cut short by a crash is dropped.
std::string metrics_up_to(const std::string& path, std::int64_t step) {
  if (!fs::exists(path)) return "";
  std::string kept;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line) && !file.eof();) {
    const Json json = Json::parse(line, nullptr, false);
    const bool counted = json.is_object() && json.contains("step") && json["step"].is_number();
    if (!counted || json["step"].get<std::int64_t>() > step) break;
    kept += line + "\n";
  }
  return kept;
}

/// The vocabulary follows from the data; a configuration that says otherwise is wrong.
void require_vocabulary(const RunConfig& config, std::int64_t needed) {
  check(vocabulary_of(config) == needed,
        "configuration: model.vocabulary is {}, but {} needs {}; set model.vocabulary={}",
        vocabulary_of(config), config.data.source, needed, needed);
}

std::unique_ptr<Optimizer> make_optimizer(const TrainConfig& train,
                                          const std::vector<Parameter>& parameters) {
  if (train.optimizer == OptimizerKind::sgd)
    return std::make_unique<Sgd>(parameters, train.momentum, train.weight_decay);
  return std::make_unique<Adam>(
      parameters, AdamOptions{train.learning_rate, train.beta1, train.beta2, train.epsilon,
                              train.weight_decay});
}

}  // namespace

std::string to_json(const StepMetrics& m) {
  Json json{{"step", m.step},
            {"loss", m.loss},
            {"bits_per_byte", m.bits_per_byte},
            {"gradient_norm", m.gradient_norm},
            {"learning_rate", m.learning_rate},
            {"tokens", m.tokens},
            {"epoch", m.epoch}};
  if (m.accuracy) json["accuracy"] = *m.accuracy;
  if (m.running_accuracy) json["running_accuracy"] = *m.running_accuracy;
  if (m.difficulty) json["difficulty"] = *m.difficulty;
  if (m.valid_bits_per_byte) json["valid_bits_per_byte"] = *m.valid_bits_per_byte;
  json["active_bytes"] = m.active_bytes;
  json["peak_bytes"] = m.peak_bytes;
  json["seconds"] = m.seconds;
  json["tokens_per_second"] = m.tokens_per_second;
  return json.dump();
}

Trainer::Trainer(RunConfig config, std::string folder, Device device)
    : config_(std::move(config)), folder_(std::move(folder)), device_(device) {
  validate(config_);
  const DataConfig& data = config_.data;
  if (data.is_task()) {
    task_ = make_task(data.task(), {.difficulty = static_cast<int>(data.difficulty),
                                    .segment_length = data.task_segment,
                                    .prediction = prediction_of(config_)});
    require_vocabulary(config_, task_->vocabulary());
    check(data.max_difficulty <= task_->max_difficulty(),
          "configuration: data.max_difficulty is {}; task {} allows at most {}",
          data.max_difficulty, task_->name(), task_->max_difficulty());
    progress_.difficulty = data.difficulty;
  } else {
    require_vocabulary(config_, kByteVocabulary);
    check(config_.baseline || config_.model.architecture == Architecture::encoder_decoder,
          "configuration: model.architecture is encoder_only; text is scored on the next segment, "
          "which "
          "needs a decoder");
    corpus_ = load_corpus(data.source);
    split_ = split_corpus(corpus_, data.train_fraction, data.valid_fraction);
    stream_.emplace(split_.train, TextStreamOptions{.batch = data.batch,
                                                    .segment_length = segment_of(config_),
                                                    .prediction = prediction_of(config_),
                                                    .score_first_segment = data.score_first_segment,
                                                    .wrap = true});
    const TrainConfig& train = config_.train;
    window_.emplace(train.horizon, train.stride > 0 ? train.stride : train.horizon);
    progress_.data_sha256 = corpus_.sha256;
    progress_.stream_position = stream_->position();
  }
  const RngKey seed{static_cast<std::uint64_t>(config_.train.seed)};
  model_ = make_model(config_, seed.at("weights"));
  parameters_ = model_->parameters();
  move_to(device_, parameters_);
  optimizer_ = make_optimizer(config_.train, parameters_);
  state_ = with_boundary(model_->initial_state(data.batch), {config_.train.detach_every});
  for (auto& entry : state_) {
    entry.value = entry.value.clone();  // a row each, no longer views of the forgetting vectors
    entry.value.set_category(Category::state);
  }
}

Trainer Trainer::start(const RunConfig& config, const std::string& folder, Device device) {
  Trainer trainer(config, folder, device);
  if (!folder.empty()) {
    std::error_code error;
    fs::create_directories(folder, error);
    check(!error, "train: cannot make the folder {}; {}", folder, error.message());
    trainer.lock_ = lock_folder(folder);
    check(!fs::exists(checkpoint_path(folder)),
          "train: {} holds a run already; go on with --resume, or give another folder", folder);
    write_file_atomically(config_path(folder), to_json(trainer.config_));
    trainer.write_manifest();
    write_file_atomically(metrics_path(folder), "");
    trainer.checkpoint();
  }
  return trainer;
}

Trainer Trainer::resume(const std::string& folder, const std::optional<RunConfig>& config,
                        Device device) {
  const std::string path = checkpoint_path(folder);
  check(fs::exists(path),
        "train: {} does not exist, there is nothing to resume; start a run without --resume", path);
  Trainer trainer(config ? *config : read_run_config(config_path(folder)), folder, device);
  trainer.lock_ = lock_folder(folder);
  const std::string sha256 = trainer.progress_.data_sha256;
  trainer.progress_ =
      load_checkpoint(path, trainer.config_, *trainer.model_, *trainer.optimizer_, trainer.state_);
  check(
      trainer.progress_.data_sha256 == sha256,
      "train: the data of {} have changed since the checkpoint; SHA-256 was {}, is {}; restore the "
      "data, or start a new run",
      trainer.config_.data.source, trainer.progress_.data_sha256, sha256);
  if (trainer.stream_) trainer.stream_->seek(trainer.progress_.stream_position);
  write_file_atomically(metrics_path(folder),
                        metrics_up_to(metrics_path(folder), trainer.progress_.step));
  if (config) write_file_atomically(config_path(folder), to_json(*config));
  trainer.write_manifest();
  return trainer;
}

RngKey Trainer::step_key() const {
  return RngKey{static_cast<std::uint64_t>(config_.train.seed)}.at("train").at(
      static_cast<std::uint64_t>(progress_.step));
}

std::vector<Segment> Trainer::next_window() {
  if (task_) {
    const RngKey key = step_key().at("data");
    window_difficulty_ = progress_.difficulty;
    if (progress_.difficulty > config_.data.difficulty &&
        key.at("easier").uniform(0) < config_.data.easier_fraction)
      window_difficulty_ =
          config_.data.difficulty +
          static_cast<std::int64_t>(key.at("easier").below(
              static_cast<std::uint64_t>(progress_.difficulty - config_.data.difficulty), 1));
    task_->set_difficulty(static_cast<int>(window_difficulty_));
    std::vector<Segment> segments = task_->window(key, config_.data.batch);
    for (Segment& segment : segments) segment = segment.to(device_);
    return segments;
  }
  const bool filled = window_->fill([&](Segment& segment) {
    positions_.push_back(stream_->position());
    segment = stream_->next()->to(device_);
    return true;
  });
  check(filled, "train: the text ended");
  return {window_->segments().begin(), window_->segments().end()};
}

WindowResult Trainer::back_propagate(const std::vector<Segment>& segments,
                                     const WindowOptions& options) {
  const RngKey key = step_key().at("window");
  zero_grad(parameters_);
  switch (config_.train.method) {
    case Method::bptt:
      return bptt(*model_, segments, state_, key, options);
    case Method::truncated:
      return truncated_bptt(*model_, segments, state_, key, config_.train.truncation, options);
    case Method::mrbp:
      break;
  }
  return mrbp(*model_, segments, state_, key, options);
}

void Trainer::require_finite(const std::vector<Segment>& segments, double loss, double norm) {
  if (std::isfinite(loss) && std::isfinite(norm)) return;
  std::string cause = "no op made a value that is not finite when the step ran again";
  try {
    WindowOptions options;
    options.scale = config_.train.loss;
    options.check_replay = false;
    options.check_finite = true;
    back_propagate(segments, options);
  } catch (const Error& error) {
    cause = error.what();
  }
  fail("train: step {} gave loss {} and gradient norm {}; first cause: {}", progress_.step + 1,
       loss, norm, cause);
}

void Trainer::advance(const WindowResult& result) {
  if (task_) return;  // each window is a whole task
  state_ = window_->advance(result);
  positions_.erase(positions_.begin(), positions_.begin() + window_->stride());
  progress_.stream_position = positions_.empty() ? stream_->position() : positions_.front();
}

void Trainer::update_curriculum(double accuracy) {
  if (window_difficulty_ != progress_.difficulty) return;
  constexpr double kMemory = 0.95;  // of the running mean: about the last 20 windows
  progress_.running_accuracy = kMemory * progress_.running_accuracy + (1.0 - kMemory) * accuracy;
  if (progress_.running_accuracy > config_.data.promote_at &&
      progress_.difficulty < config_.data.max_difficulty) {
    ++progress_.difficulty;
    progress_.running_accuracy = 0.0;
  }
}

StepMetrics Trainer::step() {
  const auto begin = std::chrono::steady_clock::now();
  const PeakScope peak(device_);
  const std::vector<Segment> segments = next_window();
  double accuracy = 0.0;
  WindowOptions options;
  options.scale = config_.train.loss;
  options.check_replay = config_.train.check_replay;
  options.check_finite = check_finite_;
  if (task_)
    options.observe = [&](std::int64_t, const Segment& segment, const Tensor& outputs) {
      // The scored segments of a window weigh by their scored targets.
      if (segment.scored > 0)
        accuracy += exact_match(outputs, segment.targets) * static_cast<double>(segment.scored) /
                    static_cast<double>(scored_targets(segments));
    };
  const WindowResult result = [&] {
    try {
      return back_propagate(segments, options);
    } catch (const Error& error) {
      fail("train: step {}: {}", progress_.step + 1, error.what());
    }
  }();

  StepMetrics metrics;
  metrics.loss = result.mean_loss();
  metrics.bits_per_byte = metrics.loss / std::numbers::ln2;
  metrics.gradient_norm = global_gradient_norm(parameters_);
  require_finite(segments, metrics.loss, metrics.gradient_norm);
  metrics.learning_rate = config_.train.schedule().at(progress_.step);
  optimizer_->step(metrics.learning_rate, clip_factor(metrics.gradient_norm, config_.train.clip));
  zero_grad(parameters_);
  advance(result);
  ++progress_.step;
  progress_.tokens += result.scored;
  metrics.step = progress_.step;
  metrics.tokens = progress_.tokens;
  if (stream_) metrics.epoch = stream_->epochs();
  if (task_) {
    metrics.accuracy = accuracy;
    metrics.difficulty = window_difficulty_;
    update_curriculum(accuracy);
    metrics.running_accuracy = progress_.running_accuracy;
  }
  metrics.active_bytes = memory_stats(device_).active;
  metrics.peak_bytes = peak.peak();
  metrics.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  metrics.tokens_per_second = static_cast<double>(result.scored) / metrics.seconds;

  const TrainConfig& train = config_.train;
  const bool evaluates = stream_ && train.eval_every > 0 && progress_.step % train.eval_every == 0;
  if (evaluates)
    metrics.valid_bits_per_byte = evaluate(*model_, split_.valid,
                                           {.batch = config_.data.batch,
                                            .segment_length = segment_of(config_),
                                            .max_bytes = train.eval_bytes,
                                            .prediction = prediction_of(config_),
                                            .score_first_segment = config_.data.score_first_segment,
                                            .reset_every_segment = false})
                                      .bits_per_byte();
  if (!folder_.empty()) {
    if (evaluates || progress_.step % train.log_every == 0 || done()) append_metrics(metrics);
    if (progress_.step % train.checkpoint_every == 0 || done()) checkpoint();
  }
  return metrics;
}

void Trainer::run(const std::function<void(const StepMetrics&)>& observe,
                  const std::function<bool()>& stop) {
  while (!done()) {
    observe(step());
    if (stop()) break;
  }
  if (!folder_.empty() && !done()) checkpoint();  // the last step has written its own
}

void Trainer::checkpoint() const {
  check(!folder_.empty(), "train: a run without a folder keeps no checkpoint; give it one");
  save_checkpoint(checkpoint_path(folder_), config_, *model_, *optimizer_, state_, progress_);
}

void Trainer::append_metrics(const StepMetrics& metrics) const {
  std::ofstream file(metrics_path(folder_), std::ios::app);
  file << to_json(metrics) + "\n" << std::flush;
  check(file.good(), "train: cannot append to {}; is the disk full?", metrics_path(folder_));
}

void Trainer::write_manifest() const {
  Json json{{"program", "memformer 0.1.0"},
            {"threads", threads()},
            {"device", full_name(device_)},
            {"isa", std::string(name_of(current_isa()))},
            {"seed", config_.train.seed},
            {"model", model_name(config_)},
            {"parameters", count_elements(parameters_)},
            {"data", {{"source", config_.data.source}}}};
  const MultiplyAdds counts = multiply_adds(config_);
  json["multiply_adds_per_token"] =
      static_cast<double>(counts.total()) / static_cast<double>(segment_of(config_));
  if (stream_) {
    json["data"]["name"] = corpus_.name;
    json["data"]["bytes"] = corpus_.bytes;
    json["data"]["sha256"] = corpus_.sha256;
    json["data"]["note"] = corpus_.note;
  }
  write_file_atomically(folder_ + "/manifest.json", json.dump(2) + "\n");
}

}  // namespace mf
