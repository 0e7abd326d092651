#include "memformer/audit/determinism.h"

#include <algorithm>

#include "memformer/audit/temporary_folder.h"
#include "memformer/train/trainer.h"
#include "tensor/cpu/parallel.h"

namespace mf {
namespace {

/// What a run leaves.
struct Run {
  std::vector<double> losses, gradient_norms;
  std::vector<std::pair<std::string, Tensor>> weights;
};

void train(Trainer& trainer, std::int64_t steps, Run& run) {
  for (std::int64_t i = 0; i < steps; ++i) {
    const StepMetrics metrics = trainer.step();
    run.losses.push_back(metrics.loss);
    run.gradient_norms.push_back(metrics.gradient_norm);
  }
}

void take_weights(const Trainer& trainer, Run& run) {
  for (const Parameter& parameter : trainer.model().parameters())
    run.weights.emplace_back(parameter.name(), parameter.value().clone());
}

Run whole_run(const RunConfig& config, std::int64_t steps, Device device) {
  Run run;
  Trainer trainer = Trainer::start(config, "", device);
  train(trainer, steps, run);
  take_weights(trainer, run);
  return run;
}

Run resumed_run(const RunConfig& config, std::int64_t steps, Device device) {
  Run run;
  const detail::TemporaryFolder folder;
  {
    Trainer trainer = Trainer::start(config, folder.path(), device);
    train(trainer, steps / 2, run);
    trainer.checkpoint();
  }
  Trainer trainer = Trainer::resume(folder.path(), {}, device);
  train(trainer, steps - steps / 2, run);
  take_weights(trainer, run);
  return run;
}

DeterminismRow compare(std::string name, const Run& run, const Run& first) {
  DeterminismRow row;
  row.name = std::move(name);
  const auto note = [&row](std::string what) {
    if (row.first_difference.empty()) row.first_difference = std::move(what);
  };
  for (std::size_t i = 0; i < first.losses.size(); ++i) {
    if (run.losses[i] != first.losses[i]) {
      row.losses = false;
      note(fmt::format("loss of step {}", i + 1));
    }
    if (run.gradient_norms[i] != first.gradient_norms[i]) {
      row.gradient_norms = false;
      note(fmt::format("gradient norm of step {}", i + 1));
    }
  }
  for (std::size_t i = 0; i < first.weights.size(); ++i)
    if (first_difference(run.weights[i].second, first.weights[i].second) >= 0) {
      row.weights = false;
      note("weight " + first.weights[i].first);
    }
  return row;
}

}  // namespace

bool DeterminismReport::identical() const {
  return std::ranges::all_of(rows, &DeterminismRow::same);
}

RunConfig determinism_run() {
  RunConfig config;
  config.model.vocabulary = 34;
  config.model.width = 64;
  config.model.heads = 4;
  config.model.encoder_layers = 2;
  config.model.decoder_layers = 1;
  config.model.feed_forward = 256;
  config.model.segment = 2;
  config.model.slots = 8;
  config.model.dropout = 0.1;
  config.model.attention_dropout = 0.1;
  config.data.source = "task:remember";
  config.data.batch = 64;
  config.data.difficulty = 3;
  config.data.max_difficulty = 3;
  config.train.warmup = 0;
  return config;
}

DeterminismReport audit_determinism(RunConfig config, std::int64_t steps, Device device,
                                    DeterminismFault fault) {
  check(steps >= 2, "audit determinism: {} steps; two or more are needed to stop between", steps);
  config.train.steps = std::max(config.train.steps, steps);
  config.train.method = Method::mrbp;
  config.train.check_replay = true;
  RunConfig again = config, unrolled = config;
  if (fault == DeterminismFault::other_draws) ++again.train.seed;
  unrolled.train.method = Method::bptt;

  const auto on_threads = [&](int count, const RunConfig& run) {
    const ThreadScope scope(count);
    return whole_run(run, steps, device);
  };
  const Run first = on_threads(1, config);
  DeterminismReport report;
  report.steps = steps;
  report.losses = first.losses;
  report.rows.push_back(compare("again", on_threads(1, again), first));
  for (const int count : {2, 4})
    report.rows.push_back(
        compare(fmt::format("{} threads", count), on_threads(count, config), first));
  report.rows.push_back(compare(fmt::format("stopped after step {} and resumed", steps / 2),
                                resumed_run(config, steps, device), first));
  report.rows.push_back(
      compare("full unrolling instead of replay", on_threads(1, unrolled), first));
  return report;
}

}  // namespace mf
