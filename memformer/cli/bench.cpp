#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>

#include "memformer/bench/cost.h"
#include "memformer/bench/generation.h"
#include "memformer/bench/growth.h"
#include "memformer/bench/kernels.h"
#include "memformer/bench/step.h"
#include "memformer/cli/commands.h"
#include "memformer/cli/device.h"
#include "memformer/cli/progress.h"
#include "tensor/io.h"

namespace mf::cli {
namespace {

using bench::ModelShape;
using bench::StepMode;

/// A report goes to a file and its table to the screen; with "-" the report alone is printed.
template <class Report, class Print>
void publish(const Report& report, const std::string& json, const Print& print_report) {
  const std::string text = json.empty() ? "" : to_json(report) + "\n";
  if (json == "-") {
    std::fputs(text.c_str(), stdout);
  } else {
    print_report(report);
    if (!json.empty()) write_file_atomically(json, text);
  }
}

std::string or_dash(double value, const char* format) {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : "-";
}

std::string range_of(const bench::Spread& spread) {
  return std::isfinite(spread.low) ? fmt::format("[{:.1f} - {:.1f}]", spread.low, spread.high) : "";
}

std::string readable_spread(const bench::Spread& spread) {
  return or_dash(spread.median, "{:.1f}") + " " + range_of(spread);
}

/// "2 threads", or the device where that is not the cpu.
std::string place_of(Device device, int threads) {
  return device == cpu ? fmt::format("{} threads", threads) : describe(device);
}

// memformer bench kernels ------------------------------------------------------------------------

void print_kernels(const bench::KernelReport& report) {
  if (report.device == cpu) {
    std::printf("%s, %d threads, %lld rounds, instruction set %s\n",
                std::string(name_of(report.dtype)).c_str(), report.threads,
                static_cast<long long>(report.rounds), report.isa.c_str());
    std::printf("FMA peak   one thread %s GFLOP/s, all %s GFLOP/s\n",
                readable_spread(report.peak_one).c_str(), readable_spread(report.peak_all).c_str());
    std::printf("bandwidth  copy %s GB/s, triad %s GB/s\n\n", readable_spread(report.copy).c_str(),
                readable_spread(report.triad).c_str());
  } else {
    std::printf("%s, %s, %lld rounds\n", std::string(name_of(report.dtype)).c_str(),
                describe(report.device).c_str(), static_cast<long long>(report.rounds));
    std::printf("bandwidth  copy %s GB/s\n\n", readable_spread(report.copy).c_str());
  }
  std::printf("%-15s %-36s %9s %17s  %-8s %8s %6s %9s\n", "family", "case", "median", "[p10 - p90]",
              "unit", "% of max", "kept", "disturbed");
  for (const bench::KernelResult& row : report.cases) {
    std::printf("%-15s %-36s %9s %17s  %-8s %8s %6lld %9lld\n", row.family.c_str(),
                row.name.c_str(), or_dash(row.value.median, "{:.1f}").c_str(),
                range_of(row.value).c_str(), unit_of(row.rate),
                or_dash(row.percent.median, "{:.1f}").c_str(), static_cast<long long>(row.kept),
                static_cast<long long>(row.disturbed));
  }
  std::printf("\n%-15s %15s %8s %8s  %s\n", "family", "geometric mean", "worst", "best",
              "worst case");
  for (const bench::KernelFamily& family : report.families) {
    const std::string mean =
        or_dash(family.mean, "{:.1f}") + " " + (family.unit == "percent" ? "%" : family.unit);
    std::printf("%-15s %15s %8s %8s  %s\n", family.name.c_str(), mean.c_str(),
                or_dash(family.worst, "{:.1f}").c_str(), or_dash(family.best, "{:.1f}").c_str(),
                family.worst_name.c_str());
  }
}

struct KernelArguments {
  bench::KernelOptions options;
  std::string dtype = "f32";
  std::string json;
};

DType dtype_named(const std::string& name) { return name == "f64" ? DType::f64 : DType::f32; }

void add_json(CLI::App& command, std::string& json) {
  command.add_option("--json", json, "also write one JSON object to this file; - prints it alone");
}

CLI::Option* add_dtype(CLI::App& command, std::string& dtype) {
  return command.add_option("--dtype", dtype, "f32 or f64")->check(CLI::IsMember({"f32", "f64"}));
}

void add_bench_kernels(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "kernels",
      "matrix products, row kernels and small ops, beside the processor's peak and bandwidth");
  const auto arguments = std::make_shared<KernelArguments>();
  command->option_defaults()->always_capture_default();
  add_dtype(*command, arguments->dtype);
  add_device(*command, arguments->options.device);
  command->add_flag("--small", arguments->options.small,
                    "the cpu's operands on a device too, though they do not fill a GPU");
  command->add_option("--filter", arguments->options.filter, "only cases with this in their name");
  command->add_option("--seconds", arguments->options.seconds, "rounds are begun for so long")
      ->check(CLI::NonNegativeNumber);
  add_json(*command, arguments->json);
  command->callback([arguments] {
    arguments->options.dtype = dtype_named(arguments->dtype);
    publish(bench::bench_kernels(arguments->options), arguments->json, print_kernels);
  });
}

// memformer bench step ---------------------------------------------------------------------------

/// Options that describe the model; `dtype` is read when the command runs.
void add_model(CLI::App& command, ModelShape& model, std::string& dtype) {
  command.add_option("--width", model.width, "features of a token");
  command.add_option("--encoder-layers", model.encoder_layers, "layers");
  command.add_option("--decoder-layers", model.decoder_layers, "layers; 0: no decoder");
  command.add_option("--heads", model.heads, "attention heads");
  command.add_option("--feed-forward", model.feed_forward, "its width, as a multiple of --width");
  command.add_option("--segment", model.segment, "tokens in a segment");
  command.add_option("--slots", model.slots, "memory slots; 0: no memory");
  add_dtype(command, dtype);
}

const std::map<std::string, StepMode> kModes{{"bptt", StepMode::bptt},
                                             {"checkpointed", StepMode::checkpointed},
                                             {"truncated", StepMode::truncated},
                                             {"mrbp", StepMode::mrbp}};

CLI::Option* add_mode(CLI::App& command, std::string& mode) {
  return command.add_option("--mode", mode, "bptt, checkpointed, truncated or mrbp")
      ->check(CLI::IsMember(kModes));
}

void print_profile(const bench::StepReport& report) {
  if (report.profile.empty()) return;
  double total = 0.0, seen = 0.0;
  for (const bench::Times& times : report.times) total += times.wall;
  std::printf("\n%-20s %-9s %9s %10s %7s\n", "op", "phase", "calls", "seconds", "share");
  for (const bench::ProfileRow& row : report.profile) {
    seen += row.seconds;
    std::printf("%-20s %-9s %9lld %10.4f %6.1f %%\n", row.op.c_str(), row.phase.c_str(),
                static_cast<long long>(row.calls), row.seconds, 100.0 * row.seconds / total);
  }
  std::printf("%-20s %-9s %9s %10.4f %6.1f %%\n", "the rest", "", "", total - seen,
              100.0 * (total - seen) / total);
}

void print_step(const bench::StepReport& report) {
  const bench::StepOptions& options = report.options;
  const ModelShape& model = options.model;
  std::printf(
      "%s, %s, %s: width %lld, %lld + %lld layers, %lld heads, %lld slots, "
      "%lld segments of %lld x %lld tokens, %lld parameters\n",
      name_of(options.mode), std::string(name_of(model.dtype)).c_str(),
      place_of(options.device, report.threads).c_str(), static_cast<long long>(model.width),
      static_cast<long long>(model.encoder_layers), static_cast<long long>(model.decoder_layers),
      static_cast<long long>(model.heads), static_cast<long long>(model.slots),
      static_cast<long long>(options.segments), static_cast<long long>(options.batch),
      static_cast<long long>(model.segment), static_cast<long long>(report.parameters));
  std::vector<double> walls, processor, faults;
  for (const bench::Times& times : report.times) {
    walls.push_back(times.wall);
    processor.push_back(times.cpu);
  }
  for (const std::int64_t count : report.page_faults) faults.push_back(static_cast<double>(count));
  std::printf("step          %.4f s [%.4f - %.4f], %.4f s of CPU, %.0f page faults\n",
              report.seconds(), bench::quantile(walls, 0.0), bench::quantile(walls, 1.0),
              bench::median(processor), bench::median(faults));
  std::printf("tokens        %.1f /s\n", report.tokens() / report.seconds());
  std::printf("model FLOP    %.2f G a step, %.1f G/s", report.flops() / 1e9,
              report.flops() / report.seconds() / 1e9);
  if (options.device == cpu)
    std::printf(", %s %% of the FMA peak of %s G/s",
                or_dash(100.0 * report.flop_use(), "{:.1f}").c_str(),
                or_dash(report.peak_gflops.median, "{:.1f}").c_str());
  std::printf("\n");
  std::printf("memory        %s active at the peak, %s between steps, %.1f MiB resident\n",
              readable_bytes(report.peak_bytes).c_str(),
              readable_bytes(report.standing_bytes).c_str(), report.peak_resident_mb);
  std::printf("loss          %.5f first, %.5f last\n", report.losses.front(), report.losses.back());
  print_profile(report);
}

struct StepArguments {
  bench::StepOptions options;
  std::string mode = "mrbp";
  std::string dtype = "f32";
  std::string json;
};

void add_bench_step(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "step", "training steps on random tokens: the job of tests/benchmarks/torch_peer.py");
  const auto arguments = std::make_shared<StepArguments>();
  bench::StepOptions& options = arguments->options;
  command->option_defaults()->always_capture_default();
  add_mode(*command, arguments->mode);
  add_device(*command, options.device);
  add_model(*command, options.model, arguments->dtype);
  command->add_option("--vocabulary", options.model.vocabulary, "tokens to choose from");
  command->add_option("--batch", options.batch, "rows");
  command->add_option("--segments", options.segments, "segments in the window");
  command->add_option("--truncate", options.truncate, "segments in a chunk of --mode truncated");
  command->add_option("--steps", options.steps, "timed steps");
  command->add_option("--warmup", options.warmup, "steps before them");
  command->add_option("--seed", options.seed, "of weights and tokens");
  command->add_flag("--profile", options.profile, "also print the share of each op");
  add_json(*command, arguments->json);
  command->callback([arguments] {
    arguments->options.mode = kModes.at(arguments->mode);
    arguments->options.model.dtype = dtype_named(arguments->dtype);
    publish(bench::bench_step(arguments->options), arguments->json, print_step);
  });
}

// memformer bench generate -----------------------------------------------------------------------

void print_generation(const bench::GenerationReport& report) {
  std::printf("%s: %.1f tokens/s, %lld tokens in %.3f s, %.3f s of CPU\n",
              place_of(report.options.device, report.threads).c_str(), report.tokens_per_second(),
              static_cast<long long>(report.options.tokens), report.times.wall, report.times.cpu);
  std::printf(
      "a token takes %.3f ms [%.3f - %.3f]; the prompt took %.3f ms; %s active at the peak\n",
      1e3 * report.token_seconds.median, 1e3 * report.token_seconds.low,
      1e3 * report.token_seconds.high, 1e3 * report.prompt_seconds,
      readable_bytes(report.peak_bytes).c_str());
}

struct GenerationArguments {
  bench::GenerationOptions options;
  std::string dtype = "f32";
  std::string json;
};

void add_bench_generate(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "generate", "bytes of one row, one after the other, with fresh weights");
  const auto arguments = std::make_shared<GenerationArguments>();
  bench::GenerationOptions& options = arguments->options;
  command->option_defaults()->always_capture_default();
  add_device(*command, options.device);
  add_model(*command, options.model, arguments->dtype);
  command->add_option("--tokens", options.tokens, "bytes to generate");
  command->add_option("--prompt", options.prompt, "bytes of the prompt; 0: one segment");
  command->add_option("--seed", options.seed, "of weights, prompt and draws");
  add_json(*command, arguments->json);
  command->callback([arguments] {
    arguments->options.model.dtype = dtype_named(arguments->dtype);
    publish(bench::bench_generation(arguments->options), arguments->json, print_generation);
  });
}

// memformer bench growth -------------------------------------------------------------------------

void print_points(const std::vector<bench::GrowthPoint>& points) {
  std::printf("%9s %9s %9s %12s %7s %12s %7s\n", "tokens", "segments", "length", "seconds", "ratio",
              "peak", "ratio");
  const bench::GrowthPoint* before = nullptr;
  for (const bench::GrowthPoint& point : points) {
    const double doublings =
        before ? std::log2(static_cast<double>(point.tokens) / static_cast<double>(before->tokens))
               : 0.0;
    const auto ratio = [&](double now, double then) {
      return before ? fmt::format("{:.2f}", std::pow(now / then, 1.0 / doublings)) : "-";
    };
    std::printf("%9lld %9lld %9lld %12.5f %7s %12s %7s\n", static_cast<long long>(point.tokens),
                static_cast<long long>(point.segments), static_cast<long long>(point.segment),
                point.seconds, before ? ratio(point.seconds, before->seconds).c_str() : "-",
                readable_bytes(point.peak_bytes).c_str(),
                before ? ratio(static_cast<double>(point.peak_bytes),
                               static_cast<double>(before->peak_bytes))
                             .c_str()
                       : "-");
    before = &point;
  }
}

void print_growth(const bench::GrowthReport& report) {
  const ModelShape& model = report.options.model;
  std::printf("%s, %s, width %lld, %lld + %lld layers, %lld slots, one row\n\n",
              name_of(report.options.mode), place_of(report.options.device, report.threads).c_str(),
              static_cast<long long>(model.width), static_cast<long long>(model.encoder_layers),
              static_cast<long long>(model.decoder_layers), static_cast<long long>(model.slots));
  std::printf("more segments of %lld tokens\n", static_cast<long long>(model.segment));
  print_points(report.by_segments);
  std::printf("\ntwo segments of more tokens\n");
  print_points(report.by_length);
  std::printf(
      "\nratio: to the line before; 2 a doubling is linear. peak: above weights and tokens\n");
}

struct GrowthArguments {
  bench::GrowthOptions options;
  std::string mode = "mrbp";
  std::string dtype = "f32";
  std::string json;
};

void add_bench_growth(CLI::App& parent) {
  CLI::App* command =
      parent.add_subcommand("growth", "time and memory of a training step as the text doubles");
  const auto arguments = std::make_shared<GrowthArguments>();
  bench::GrowthOptions& options = arguments->options;
  command->option_defaults()->always_capture_default();
  add_mode(*command, arguments->mode);
  add_device(*command, options.device);
  add_model(*command, options.model, arguments->dtype);
  command->add_option("--from", options.smallest, "tokens of the first point");
  command->add_option("--to", options.largest, "most tokens of a point");
  command->add_option("--seconds", options.seconds, "no point is begun that may take longer");
  add_json(*command, arguments->json);
  command->callback([arguments] {
    arguments->options.mode = kModes.at(arguments->mode);
    arguments->options.model.dtype = dtype_named(arguments->dtype);
    publish(bench::bench_growth(arguments->options), arguments->json, print_growth);
  });
}

// memformer bench cost ---------------------------------------------------------------------------

struct CostArguments {
  bench::CostOptions options;
  std::string over = "length";
  std::string table;
  std::string json, html;
};

/// How this process was called.
std::string command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::string line;
  for (std::string word; std::getline(file, word, '\0');) line += (line.empty() ? "" : " ") + word;
  return line;
}

void add_cost_shape(CLI::App& command, bench::CostShape& shape) {
  command.add_option("--width", shape.width, "features of a token");
  command.add_option("--heads", shape.heads, "attention heads");
  command.add_option("--feed-forward", shape.feed_forward, "hidden features");
  command.add_option("--encoder-layers", shape.encoder_layers, "of the Memformer");
  command.add_option("--decoder-layers", shape.decoder_layers, "of the Memformer");
  command.add_option("--layers", shape.layers,
                     "of each baseline; 0: as many as bring its parameters closest to the "
                     "Memformer's");
  command.add_option("--vocabulary", shape.vocabulary, "tokens to choose from");
  command.add_option("--segment", shape.segment, "tokens in a segment");
  command.add_option("--slots", shape.slots, "of the Memformer");
  command.add_option("--cache", shape.cache, "rows a layer: transformer-xl, compressive");
  command.add_option("--compressed", shape.compressed, "rows a layer: compressive");
  command.add_option("--memory-tokens", shape.memory_tokens, "of rmt");
}

void bench_cost_command(const CostArguments& arguments) {
  bench::CostOptions options = arguments.options;
  options.axis = arguments.over == "memory" ? bench::CostAxis::memory : bench::CostAxis::length;
  options.command = command_line();
  options.own_processes = true;
  options.progress = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  const bench::CostReport found =
      arguments.table.empty() ? bench::bench_cost(options) : bench::bench_cost_methods(options);
  const Report report = bench::report_of(found);
  if (!arguments.html.empty()) write_file_atomically(arguments.html, report.html());
  publish(found, arguments.json, [&](const bench::CostReport&) {
    std::printf("%s", report.text().c_str());
    if (!arguments.html.empty()) std::printf("page: %s\n", arguments.html.c_str());
  });
  if (!report.holds()) throw CLI::RuntimeError(1);
}

void add_bench_cost(CLI::App& parent) {
  CLI::App* command = parent.add_subcommand(
      "cost",
      "work, memory and time of the Memformer and the baselines as the text or the memory doubles");
  const auto arguments = std::make_shared<CostArguments>();
  bench::CostOptions& options = arguments->options;
  command->option_defaults()->always_capture_default();
  CLI::Option* over = command->add_option("--over", arguments->over, "what doubles: length, memory")
                          ->check(CLI::IsMember({"length", "memory"}));
  command
      ->add_option("--table", arguments->table,
                   "mrbp: bptt, checkpointed and mrbp in the paper's setting instead")
      ->check(CLI::IsMember({"mrbp"}))
      ->excludes(over);
  add_cost_shape(*command, options.shape);
  command->add_option("--models", options.models, "those to measure, with commas between")
      ->delimiter(',')
      ->check(CLI::IsMember(model_names()));
  command->add_option("--from", options.from, "first length or memory; 0: 128 tokens, 32 rows");
  command->add_option("--to", options.to, "last one; 0: 65536 tokens, 2048 rows");
  command->add_option("--length", options.length, "tokens of the text with --over memory");
  command->add_option("--batch", options.batch, "rows; 0: 1, and 4 with --table mrbp")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--training", options.training,
                    "a training step on the text as one window, by mrbp and bptt");
  command->add_option("--repeats", options.repeats, "timed runs of a point; its median counts");
  command->add_option("--limit-seconds", options.limit_seconds,
                      "no run is begun that may take longer");
  command->add_option("--limit-bytes", options.limit_bytes, "nor one that may need more");
  command->add_option("--at-length", options.at_length, "length of the ratios");
  command->add_option("--seed", options.seed, "of weights and tokens");
  add_json(*command, arguments->json);
  command->add_option("--html", arguments->html, "also write the report as a page to this file");
  command->callback([arguments] { bench_cost_command(*arguments); });
}

}  // namespace

void add_bench(CLI::App& program) {
  CLI::App* bench = program.add_subcommand("bench", "how fast it is; see docs/benchmarks.md");
  bench->require_subcommand(1);
  add_bench_kernels(*bench);
  add_bench_step(*bench);
  add_bench_generate(*bench);
  add_bench_growth(*bench);
  add_bench_cost(*bench);
}

}  // namespace mf::cli
