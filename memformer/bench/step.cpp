#include "memformer/bench/step.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "memformer/audit/summary.h"
#include "memformer/bench/peak.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/replay/mrbp.h"
#include "memformer/replay/truncated.h"
#include "nn/optimizer.h"
#include "nn/parameters.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/memory.h"

namespace mf::bench {
namespace {

using Json = nlohmann::ordered_json;

WindowResult run_window(const StepOptions& options, const Recurrence& model,
                        std::span<const Segment> segments, const State& entry, RngKey key) {
  switch (options.mode) {
    case StepMode::bptt:
      return bptt(model, segments, entry, key);
    case StepMode::checkpointed:
      return checkpointed_bptt(model, segments, entry, key);
    case StepMode::truncated:
      return truncated_bptt(model, segments, entry, key, options.truncate);
    case StepMode::mrbp:
      return mrbp(model, segments, entry, key);
  }
  fail("bench step: unknown mode");
}

void require_positive(const char* name, std::int64_t value) {
  check(value > 0, "bench: {} is {}; it must be positive", name, value);
}

std::vector<double> walls_of(const StepReport& report) {
  std::vector<double> walls;
  for (const Times& times : report.times) walls.push_back(times.wall);
  return walls;
}

/// Columns begin..begin+count-1 of i32 [rows, columns].
Tensor columns_of(const Tensor& text, std::int64_t begin, std::int64_t count) {
  return text.slice(1, begin, begin + count).clone();
}

}  // namespace

const char* name_of(StepMode mode) {
  switch (mode) {
    case StepMode::bptt:
      return "bptt";
    case StepMode::checkpointed:
      return "checkpointed";
    case StepMode::truncated:
      return "truncated";
    case StepMode::mrbp:
      return "mrbp";
  }
  return "";
}

ModelConfig config_of(const ModelShape& shape) {
  require_positive("width", shape.width);
  require_positive("feed-forward", shape.feed_forward);
  ModelConfig config;
  if (shape.decoder_layers == 0) config.architecture = Architecture::encoder_only;
  config.width = shape.width;
  config.encoder_layers = shape.encoder_layers;
  config.decoder_layers = shape.decoder_layers;
  config.heads = shape.heads;
  config.feed_forward = shape.feed_forward * shape.width;
  config.segment = shape.segment;
  config.slots = shape.slots;
  config.vocabulary = shape.vocabulary;
  config.dtype = shape.dtype;
  config.tie_embeddings = config.tie_output = false;
  config.memory_read_norm = ReadNorm::none;
  config.memory_radius = 1.0;
  config.temperature = 0.25;
  config.forgetting_initial_norm = std::sqrt(static_cast<double>(shape.width));
  validate(config);
  return config;
}

std::vector<Segment> language_window(const ModelConfig& config, std::int64_t batch,
                                     std::int64_t segments, RngKey key) {
  const std::int64_t length = config.segment;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(batch * (segments * length + 1)));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(key.below(static_cast<std::uint64_t>(config.vocabulary), i));
  const Tensor text = from_host(ids, {batch, segments * length + 1});
  std::vector<Segment> window;
  for (std::int64_t t = 0; t < segments; ++t) {
    Segment& segment = window.emplace_back();
    segment.tokens = columns_of(text, t * length, length);
    if (config.architecture == Architecture::encoder_decoder)
      segment.decoder_inputs = segment.tokens;
    segment.targets = columns_of(text, t * length + 1, length);
    segment.scored = segment.targets.elements();
  }
  window.front().reset = full({batch}, 1, DType::u8);
  return window;
}

double StepReport::seconds() const { return median(walls_of(*this)); }

double StepReport::tokens() const {
  return static_cast<double>(options.batch * options.segments * options.model.segment);
}

double StepReport::flops() const {
  const MultiplyAdds counts = multiply_adds(config_of(options.model));
  return 2.0 * 3.0 * static_cast<double>(options.batch * options.segments) *
         static_cast<double>(counts.total());
}

double StepReport::flop_use() const { return flops() / seconds() / 1e9 / peak_gflops.median; }

StepReport bench_step(const StepOptions& options) {
  const ModelConfig config = config_of(options.model);
  require_positive("batch", options.batch);
  require_positive("segments", options.segments);
  require_positive("steps", options.steps);
  require_positive("truncate", options.truncate);
  check(options.warmup >= 0, "bench: warmup is {}; it must not be negative", options.warmup);

  StepReport report;
  report.options = options;
  report.threads = threads();
  report.start_resident_mb = resident_mb();
  const RngKey key{options.seed};
  const Memformer model(config, key.at("weights"));
  std::vector<Parameter> parameters = model.parameters();
  move_to(options.device, parameters);
  report.parameters = count_elements(parameters);
  std::vector<Segment> segments =
      language_window(config, options.batch, options.segments, key.at("tokens"));
  for (Segment& segment : segments) segment = segment.to(options.device);
  const State entry = model.initial_state(options.batch);
  Adam adam(parameters, {});
  report.standing_bytes = memory_stats(options.device).active;

  FmaPeak peak(config.dtype, true);
  std::vector<double> peaks;
  std::optional<OpProfile> profile;
  for (std::int64_t step = 0; step < options.warmup + options.steps; ++step) {
    if (options.profile && step == options.warmup) profile.emplace();
    const PeakScope scope(options.device);
    const std::int64_t faults = minor_page_faults();
    const Stopwatch stopwatch;
    zero_grad(parameters);
    report.losses.push_back(
        run_window(options, model, segments, entry, key.at("draws")).mean_loss());
    adam.step(AdamOptions{}.learning_rate, 1.0);
    synchronize(options.device);
    const Times times = stopwatch.elapsed();
    report.peak_bytes = std::max(report.peak_bytes, scope.peak());
    if (step < options.warmup) continue;
    report.page_faults.push_back(minor_page_faults() - faults);
    report.times.push_back(times);
    if (options.device == cpu) peaks.push_back(peak.measure(5e-3) / 1e9);
  }
  if (profile) report.profile = profile->rows();
  std::erase_if(peaks, [](double value) { return !std::isfinite(value); });
  report.peak_gflops = spread_of(peaks);
  report.peak_resident_mb = peak_resident_mb();
  return report;
}

std::string to_json(const StepReport& report) {
  const StepOptions& options = report.options;
  const ModelShape& model = options.model;
  const std::vector<double> walls = walls_of(report);
  std::vector<double> cpu, faults;
  for (const Times& times : report.times) cpu.push_back(times.cpu);
  for (const std::int64_t count : report.page_faults) faults.push_back(static_cast<double>(count));
  const double seconds = report.seconds();
  Json json{{"mode", name_of(options.mode)},
            {"dim", model.width},
            {"enc", model.encoder_layers},
            {"dec", model.decoder_layers},
            {"heads", model.heads},
            {"seg", model.segment},
            {"slots", model.slots},
            {"batch", options.batch},
            {"segments", options.segments},
            {"device", full_name(options.device)},
            {"threads", report.threads},
            {"dtype", name_of(model.dtype)},
            {"isa", name_of(current_isa())},
            {"params", report.parameters},
            {"step_s", seconds},
            {"step_s_min", std::ranges::min(walls)},
            {"step_s_max", std::ranges::max(walls)},
            {"cpu_s", median(cpu)},
            {"tokens_per_s", report.tokens() / seconds},
            {"peak_rss_mb", report.peak_resident_mb},
            {"import_rss_mb", report.start_resident_mb},
            {"loss_first", report.losses.front()},
            {"loss_last", report.losses.back()},
            {"steps", options.steps},
            {"active_peak_bytes", report.peak_bytes},
            {"active_standing_bytes", report.standing_bytes},
            {"minor_faults", median(faults)},
            {"model_gflop", report.flops() / 1e9},
            {"model_gflop_per_s", report.flops() / seconds / 1e9}};
  // JSON has no NaN: without a clean repetition of the FMA loop, or off the cpu, there is no such
  // number.
  const bool has_peak = std::isfinite(report.peak_gflops.median);
  json["fma_peak_gflop_per_s"] = has_peak ? Json(report.peak_gflops.median) : Json(nullptr);
  json["model_flop_use"] = has_peak ? Json(report.flop_use()) : Json(nullptr);
  for (const ProfileRow& row : report.profile)
    json["profile"].push_back(
        {{"op", row.op}, {"phase", row.phase}, {"calls", row.calls}, {"seconds", row.seconds}});
  return json.dump();
}

}  // namespace mf::bench
