#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "memformer/cli/commands.h"
#include "memformer/cli/device.h"
#include "memformer/data/bytes.h"
#include "memformer/data/corpus.h"
#include "memformer/data/ngram.h"
#include "memformer/data/synthetic.h"
#include "memformer/train/checkpoint.h"
#include "memformer/train/evaluate.h"

namespace mf::cli {
namespace {

struct EvalArguments {
  std::string run;
  std::string data;
  std::string split = "test";
  std::int64_t bytes = 0;
  std::int64_t batch = 8;
  std::int64_t windows = 50;
  std::int64_t difficulty = 0;
  bool ngram = false;
  bool json = false;
  Device device;
};

std::string joined(const std::vector<std::string>& documents) {
  std::string text;
  for (const std::string& document : documents) text += document;
  return text;
}

void print_row(const char* name, double bits) {
  std::printf("  %-42s %.4f bits/byte\n", name, bits);
}

void evaluate_text(const EvalArguments& arguments, const TrainedModel& trained) {
  const RunConfig& config = trained.config;
  check(
      vocabulary_of(config) == kByteVocabulary,
      "eval: the model has a vocabulary of {}, text needs {}; give a run that was trained on text",
      vocabulary_of(config), kByteVocabulary);
  check(!arguments.ngram || arguments.split != "all",
        "eval: --ngram needs a training split; --split all has none");
  const std::string source = arguments.data.empty() ? config.data.source : arguments.data;
  const Corpus corpus = load_corpus(source);
  std::vector<std::string> train_text, text;
  if (arguments.split == "all") {
    text = corpus.documents;
  } else {
    Split split = split_corpus(corpus, config.data.train_fraction, config.data.valid_fraction);
    text = arguments.split == "valid"   ? std::move(split.valid)
           : arguments.split == "train" ? split.train
                                        : std::move(split.test);
    train_text = std::move(split.train);
  }
  EvaluateOptions options{.batch = arguments.batch,
                          .segment_length = segment_of(config),
                          .max_bytes = arguments.bytes,
                          .prediction = prediction_of(config),
                          .score_first_segment = config.data.score_first_segment,
                          .reset_every_segment = false};
  const Evaluation with = evaluate(*trained.model, text, options);
  options.reset_every_segment = true;
  const Evaluation without = evaluate(*trained.model, text, options);
  nlohmann::ordered_json json{{"run", arguments.run},
                              {"step", trained.step},
                              {"source", source},
                              {"split", arguments.split},
                              {"scored_bytes", with.scored},
                              {"bits_per_byte", with.bits_per_byte()},
                              {"bits_per_byte_memory_reset", without.bits_per_byte()}};
  if (arguments.ngram) {
    std::string scored_text = joined(text);
    if (arguments.bytes > 0)
      scored_text.resize(std::min(scored_text.size(), static_cast<std::size_t>(arguments.bytes)));
    for (const int order : {4, 5})
      json["ngram_order_" + std::to_string(order)] =
          ngram_bits_per_byte(joined(train_text), scored_text, order);
  }
  if (arguments.json) {
    std::printf("%s\n", json.dump().c_str());
    return;
  }
  std::printf("%s, %s split, %lld bytes scored, step %lld\n", source.c_str(),
              arguments.split.c_str(), static_cast<long long>(with.scored),
              static_cast<long long>(trained.step));
  print_row("with memory", with.bits_per_byte());
  print_row("memory reset at every segment", without.bits_per_byte());
  if (arguments.ngram) {
    print_row("n-gram of order 4 (Witten-Bell, reference)", json["ngram_order_4"].get<double>());
    print_row("n-gram of order 5 (Witten-Bell, reference)", json["ngram_order_5"].get<double>());
  }
}

/// Fraction of right answers over fresh windows, with the memory or with it reset at every segment.
double task_accuracy(const TrainedModel& trained, const SyntheticTask& task, std::int64_t windows,
                     std::int64_t batch, bool reset) {
  double right = 0.0;
  std::int64_t scored = 0;
  const Device device = trained.model->device();
  const RngKey key = RngKey{static_cast<std::uint64_t>(trained.config.train.seed)}.at("eval");
  for (std::int64_t w = 0; w < windows; ++w) {
    State state = trained.model->initial_state(batch);
    for (Segment segment : task.window(key.at(static_cast<std::uint64_t>(w)), batch)) {
      if (reset) segment.reset = full({batch}, 1.0, DType::u8);
      segment = segment.to(device);
      StepValues step = evaluate_step(*trained.model, segment, state);
      if (segment.scored > 0) {
        right += exact_match(step.outputs, segment.targets) * static_cast<double>(segment.scored);
        scored += segment.scored;
      }
      state = std::move(step.next);
    }
  }
  return right / static_cast<double>(scored);
}

void evaluate_task(const EvalArguments& arguments, const TrainedModel& trained) {
  const DataConfig& data = trained.config.data;
  const std::int64_t difficulty =
      arguments.difficulty > 0 ? arguments.difficulty : data.max_difficulty;
  const auto task = make_task(data.task(), {.difficulty = static_cast<int>(difficulty),
                                            .segment_length = data.task_segment,
                                            .prediction = prediction_of(trained.config)});
  const double with = task_accuracy(trained, *task, arguments.windows, data.batch, false);
  const double without = task_accuracy(trained, *task, arguments.windows, data.batch, true);
  if (arguments.json) {
    std::printf("%s\n", nlohmann::ordered_json{{"run", arguments.run},
                                               {"step", trained.step},
                                               {"task", task->name()},
                                               {"difficulty", difficulty},
                                               {"segments", task->segments()},
                                               {"accuracy", with},
                                               {"accuracy_memory_reset", without},
                                               {"chance", task->chance()}}
                            .dump()
                            .c_str());
    return;
  }
  std::printf("%s, difficulty %lld, %lld segments, %lld windows of %lld rows, step %lld\n",
              task->name().c_str(), static_cast<long long>(difficulty),
              static_cast<long long>(task->segments()), static_cast<long long>(arguments.windows),
              static_cast<long long>(data.batch), static_cast<long long>(trained.step));
  std::printf("  %-42s %.4f\n", "accuracy with memory", with);
  std::printf("  %-42s %.4f\n", "accuracy, memory reset at every segment", without);
  std::printf("  %-42s %.4f\n", "chance", task->chance());
}

void evaluate_run(const EvalArguments& arguments) {
  const TrainedModel trained = load_trained(arguments.run, arguments.device);
  if (trained.config.data.is_task() && arguments.data.empty()) {
    evaluate_task(arguments, trained);
  } else {
    evaluate_text(arguments, trained);
  }
}

}  // namespace

void add_eval(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "eval",
      "measure a trained model, with its memory and with the memory reset at every segment");
  const auto arguments = std::make_shared<EvalArguments>();
  command->add_option("--run", arguments->run, "folder of the run")->required();
  command->add_option("--data", arguments->data, "another corpus than the run's");
  command->add_option("--split", arguments->split, "train, valid, test or all")
      ->check(CLI::IsMember({"train", "valid", "test", "all"}));
  command->add_option("--bytes", arguments->bytes, "read at most this much of the split; 0: all")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--batch", arguments->batch, "rows, each with a share of the text")
      ->check(CLI::PositiveNumber);
  command->add_option("--windows", arguments->windows, "tasks: windows to draw")
      ->check(CLI::PositiveNumber);
  command->add_option("--difficulty", arguments->difficulty, "tasks; 0: the run's largest")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--ngram", arguments->ngram, "print byte n-gram references on the same split");
  command->add_flag("--json", arguments->json, "one JSON object");
  add_device(*command, arguments->device);
  command->callback([arguments] { evaluate_run(*arguments); });
}

}  // namespace mf::cli
