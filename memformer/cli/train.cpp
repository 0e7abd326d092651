#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <memory>

#include "memformer/cli/commands.h"
#include "memformer/cli/device.h"
#include "memformer/cli/progress.h"
#include "memformer/train/evaluate.h"
#include "nn/parameters.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/memory.h"

namespace mf::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;
void note_interrupt(int) { interrupted = 1; }

struct TrainArguments {
  std::string model;
  std::string config;
  std::vector<std::string> settings;
  std::string out;
  bool resume = false;
  bool anomaly = false;
  Device device;
};

Trainer make_trainer(const TrainArguments& arguments) {
  const bool configured = !arguments.config.empty() || !arguments.settings.empty();
  if (arguments.resume && !configured && arguments.model.empty())
    return Trainer::resume(arguments.out, {}, arguments.device);
  const std::string file = !arguments.config.empty() ? arguments.config
                           : arguments.resume        ? config_path(arguments.out)
                                                     : "";
  RunConfig config;
  if (!file.empty()) {
    config = read_run_config(file);
    check(arguments.model.empty() || arguments.model == model_name(config),
          "train: {} describes a {}, but --model is {}; leave --model out, or give a configuration "
          "of that model",
          file, model_name(config), arguments.model);
  } else if (!arguments.model.empty()) {
    choose_model(config, arguments.model);
  }
  config = with_settings(config, arguments.settings);
  if (arguments.resume) return Trainer::resume(arguments.out, config, arguments.device);
  return Trainer::start(config, arguments.out, arguments.device);
}

/// Largest resident size of this process so far.
std::int64_t process_peak_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

void train(const TrainArguments& arguments) {
  Trainer trainer = make_trainer(arguments);
  trainer.check_finite(arguments.anomaly);
  const RunConfig& config = trainer.config();
  const std::string isa(name_of(current_isa()));
  const std::string& before = trainer.progress().isa;
  if (!before.empty() && before != isa)
    std::printf(
        "note: the checkpoint was made with %s and this run goes on with %s: bits may differ from "
        "those of the uninterrupted run (--isa %s avoids that)\n",
        before.c_str(), isa.c_str(), before.c_str());
  const std::string device = full_name(trainer.device());
  const std::string& device_before = trainer.progress().device;
  if (!device_before.empty() && device_before != device)
    std::printf(
        "note: the checkpoint was made on %s, this run goes on with %s: bits may differ from those "
        "of the uninterrupted run\n",
        device_before.c_str(), device.c_str());
  if (config.data.is_task()) {
    std::printf("data: %s, %lld rows\n", config.data.source.c_str(),
                static_cast<long long>(config.data.batch));
  } else {
    const Corpus& corpus = trainer.corpus();
    std::printf("data: %s, %lld bytes, sha256 %s%s%s\n", corpus.name.c_str(),
                static_cast<long long>(corpus.bytes), corpus.sha256.c_str(),
                corpus.note.empty() ? "" : ", ", corpus.note.c_str());
  }
  std::printf(
      "model: %s, %lld parameters; %lld steps from step %lld, %s, %d threads, %s; run folder %s\n",
      model_name(config).c_str(),
      static_cast<long long>(count_elements(trainer.model().parameters())),
      static_cast<long long>(config.train.steps), static_cast<long long>(trainer.progress().step),
      device.c_str(), threads(), isa.c_str(), arguments.out.c_str());
  std::fflush(stdout);
  std::signal(SIGINT, note_interrupt);
  std::signal(SIGTERM, note_interrupt);
  {
    ProgressLine progress(config.train.steps, trainer.progress().step, config.train.log_every);
    trainer.run([&](const StepMetrics& metrics) { progress.show(metrics); },
                [] { return interrupted != 0; });
  }
  std::printf("%s at step %lld; checkpoint %s\n", trainer.done() ? "done" : "interrupted",
              static_cast<long long>(trainer.progress().step),
              checkpoint_path(arguments.out).c_str());
  std::printf("peak memory: %s in tensors, %s of the process\n",
              readable_bytes(memory_stats(trainer.device()).peak).c_str(),
              readable_bytes(process_peak_bytes()).c_str());
  if (!trainer.done()) throw CLI::RuntimeError(130);
}

}  // namespace

void add_train(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "train", "train a model; writes config.json, metrics.jsonl and checkpoints into one folder");
  const auto arguments = std::make_shared<TrainArguments>();
  command->add_option("--config", arguments->config,
                      "JSON file with every hyperparameter; absent keys "
                      "keep their defaults");
  command
      ->add_option("--model", arguments->model,
                   "the model, if no configuration says so; with its defaults")
      ->check(CLI::IsMember(model_names()));
  command->add_option("--set", arguments->settings, "change a key, such as --set train.steps=200");
  command->add_option("--out", arguments->out, "folder of the run")->required();
  command->add_flag("--resume", arguments->resume, "go on from the run's checkpoint, bit for bit");
  command->add_flag("--anomaly", arguments->anomaly,
                    "check every value and gradient as it is made: the first NaN or infinity ends "
                    "the run, naming step, segment, op, module, shapes and ranges; slower");
  add_device(*command, arguments->device);
  command->callback([arguments] { train(*arguments); });
}

}  // namespace mf::cli
