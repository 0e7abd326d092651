// What the benchmarks count and conclude; how fast anything is, is not tested.

#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "memformer/bench/generation.h"
#include "memformer/bench/growth.h"
#include "memformer/bench/kernels.h"
#include "memformer/bench/peak.h"
#include "memformer/bench/step.h"
#include "tensor/cpu/isa.h"
#include "tests/support.h"

namespace mf::test {
namespace {

using bench::StepMode;
using nlohmann::json;

bench::StepOptions small_step(StepMode mode) {
  bench::StepOptions options;
  options.model = {.width = 16,
                   .encoder_layers = 1,
                   .decoder_layers = 1,
                   .heads = 2,
                   .feed_forward = 2,
                   .segment = 8,
                   .slots = 2,
                   .vocabulary = 11};
  options.mode = mode;
  options.batch = 2;
  options.segments = 4;
  options.steps = 3;
  options.warmup = 1;
  return options;
}

}  // namespace

TEST_SUITE("bench") {
  TEST_CASE("bench: quantiles, medians and geometric means are those worked out by hand") {
    CHECK(bench::median({3.0, 1.0, 2.0}) == 2.0);
    CHECK(bench::median({4.0, 1.0, 2.0, 3.0}) == 2.5);
    CHECK(bench::quantile({10.0, 20.0, 30.0}, 0.0) == 10.0);
    CHECK(bench::quantile({10.0, 20.0, 30.0}, 1.0) == 30.0);
    CHECK(bench::quantile({10.0, 20.0, 30.0}, 0.25) == 15.0);
    CHECK(bench::quantile({7.0}, 0.9) == 7.0);
    CHECK(std::isnan(bench::median({})));
    CHECK(bench::geometric_mean({2.0, 8.0}) == doctest::Approx(4.0));
    CHECK(std::isnan(bench::geometric_mean({})));
    CHECK(std::isnan(bench::geometric_mean({1.0, 0.0})));
  }

  TEST_CASE("bench: a repetition is thrown away if the thread waited for the processor") {
    const ThreadScope one(1);
    CHECK(bench::undisturbed({.wall = 1.0, .cpu = 0.98, .thread = 0.98}));
    CHECK_FALSE(bench::undisturbed({.wall = 1.0, .cpu = 1.9, .thread = 0.95}));
  }

  TEST_CASE("bench: the default step has the peer's parameters and 28.7 GFLOP a segment") {
    bench::StepReport report;
    report.options.segments = 1;
    CHECK(report.flops() == doctest::Approx(28.69e9).epsilon(0.001));
    const Memformer model(bench::config_of(report.options.model), RngKey{1});
    std::int64_t count = 0;
    for (const Parameter& parameter : model.parameters()) count += parameter.value().elements();
    // torch_peer.py prints 4,682,752; its writer has three biases of 256 more.
    CHECK(count == 4682752 - 3 * 256);
  }

  TEST_CASE("bench: a window is one text, each token scored on the next, M_0 at its start") {
    const ModelConfig config = bench::config_of(small_step(StepMode::mrbp).model);
    const std::vector<Segment> window = bench::language_window(config, 2, 3, RngKey{4});
    REQUIRE(window.size() == 3);
    std::vector<std::int32_t> read, scored;
    for (const Segment& segment : window)
      for (std::int64_t i = 0; i < config.segment; ++i) {
        read.push_back(segment.tokens.data<std::int32_t>()[i]);
        scored.push_back(segment.targets.data<std::int32_t>()[i]);
      }
    CHECK(std::equal(read.begin() + 1, read.end(), scored.begin()));
    CHECK(window[0].reset.to_vector<std::uint8_t>() == std::vector<std::uint8_t>{1, 1});
    CHECK_FALSE(window[1].reset.defined());
    CHECK(scored_targets(window) == 2 * 3 * config.segment);
  }

  TEST_CASE("bench: exact modes train alike, truncation does not, and MRBP has the lower peak") {
    std::map<StepMode, bench::StepReport> reports;
    for (const StepMode mode :
         {StepMode::bptt, StepMode::checkpointed, StepMode::mrbp, StepMode::truncated})
      reports.emplace(mode, bench::bench_step(small_step(mode)));
    const bench::StepReport& unrolled = reports.at(StepMode::bptt);
    CHECK(unrolled.losses.size() == 4);
    CHECK(unrolled.times.size() == 3);
    CHECK(unrolled.losses.back() < unrolled.losses.front());
    CHECK(reports.at(StepMode::mrbp).losses == unrolled.losses);
    CHECK(reports.at(StepMode::checkpointed).losses == unrolled.losses);
    CHECK(reports.at(StepMode::truncated).losses != unrolled.losses);
    for (const StepMode mode : {StepMode::checkpointed, StepMode::mrbp})
      CHECK(reports.at(mode).peak_bytes < unrolled.peak_bytes);
    CHECK(unrolled.standing_bytes > 3 * 4 * unrolled.parameters);

    const json report = json::parse(bench::to_json(unrolled));
    // The fields of torch_peer.py that a comparison needs.
    for (const char* key :
         {"mode",       "dim",        "enc",      "dec",          "heads",       "seg",
          "slots",      "batch",      "segments", "threads",      "params",      "step_s",
          "step_s_min", "step_s_max", "cpu_s",    "tokens_per_s", "peak_rss_mb", "import_rss_mb",
          "loss_first", "loss_last",  "steps",    "device"})
      CHECK_MESSAGE(report.contains(key), key);
    CHECK(report["mode"] == "bptt");
    CHECK(report["device"] == "cpu");
    CHECK(report["tokens_per_s"].get<double>() > 0.0);
  }

  TEST_CASE("bench: the FMA loop and the bandwidth are of a plausible size") {
    // NaN where the machine is too busy to measure.
    const Isa usual = current_isa();
    for (const DType dtype : {DType::f32, DType::f64}) {
      for (const Isa isa : available_isas()) {
        set_isa(isa);
        const double peak = bench::FmaPeak(dtype, false).measure(1e-4);
        CHECK((std::isnan(peak) || (peak > 1e7 && peak < 1e13)));
      }
      set_isa(usual);
      bench::Bandwidth memory(dtype, 10000);
      for (const double bandwidth : {memory.copy(1e-4), memory.triad(1e-4)})
        CHECK((std::isnan(bandwidth) || (bandwidth > 1e6 && bandwidth < 1e14)));
      const double copies = bench::CopySpeed(dtype, 10000, cpu).measure(1e-4);
      CHECK((copies > 1e6 && copies < 1e14));
    }
  }

  TEST_CASE("bench: kernels are filtered by name, in any case of letters, and none is an error") {
    bench::KernelOptions options;
    options.seconds = 0.0;
    options.filter = "OverHead: mul of 16, recorded";
    const bench::KernelReport report = bench::bench_kernels(options);
    REQUIRE(report.cases.size() == 2);
    REQUIRE(report.families.size() == 1);
    CHECK(report.cases[0].kept + report.cases[0].disturbed == report.rounds);
    const json parsed = json::parse(bench::to_json(report));
    CHECK(parsed["cases"][1]["name"] == "mul of 16, recorded and swept");
    CHECK(parsed["cases"][1]["unit"] == "ns");
    CHECK(parsed["families"][0]["unit"] == "ns");
    CHECK(parsed["device"] == "cpu");
    options.filter = "no such kernel";
    CHECK_THROWS_WITH_AS(bench::bench_kernels(options), doctest::Contains("no such kernel"), Error);
  }

  TEST_CASE("bench: products are compared on the cpu only, memory everywhere, times nowhere") {
    using bench::Rate;
    CHECK(bench::is_compared(Rate::gflops, cpu));
    CHECK_FALSE(bench::is_compared(Rate::gflops, cuda_device()));
    CHECK(bench::is_compared(Rate::gbytes, cpu));
    CHECK(bench::is_compared(Rate::gbytes, cuda_device()));
    CHECK_FALSE(bench::is_compared(Rate::nanoseconds, cpu));
  }

  TEST_CASE("bench: growth doubles the tokens by segments and by length, and keeps to its limits") {
    bench::GrowthOptions options;
    options.model = small_step(StepMode::mrbp).model;
    options.smallest = 16;
    options.largest = 64;
    const bench::GrowthReport report = bench::bench_growth(options);
    REQUIRE(report.by_segments.size() == 3);
    REQUIRE(report.by_length.size() == 3);
    CHECK(report.by_segments[2].tokens == 64);
    CHECK(report.by_segments[2].segments == 8);
    CHECK(report.by_length[2].segment == 32);
    CHECK(json::parse(bench::to_json(report))["by_length"].size() == 3);
    options.largest = 8;
    CHECK_THROWS_WITH_AS(bench::bench_growth(options), doctest::Contains("16 to 8"), Error);
    options.smallest = 4;
    options.largest = 7;
    CHECK_THROWS_WITH_AS(bench::bench_growth(options), doctest::Contains("less than one segment"),
                         Error);
  }

  TEST_CASE("bench: generation counts its tokens, and impossible options are errors") {
    bench::GenerationOptions options;
    options.model = small_step(StepMode::mrbp).model;
    options.tokens = 20;
    const bench::GenerationReport report = bench::bench_generation(options);
    CHECK(report.tokens_per_second() == doctest::Approx(20.0 / report.times.wall));
    CHECK(json::parse(bench::to_json(report))["tokens"] == 20);
    options.tokens = 0;
    CHECK_THROWS_WITH_AS(bench::bench_generation(options), doctest::Contains("tokens is 0"), Error);

    bench::StepOptions step = small_step(StepMode::mrbp);
    step.batch = 0;
    CHECK_THROWS_WITH_AS(bench::bench_step(step), doctest::Contains("batch is 0"), Error);
    step = small_step(StepMode::mrbp);
    step.model.heads = 3;
    CHECK_THROWS_WITH_AS(bench::bench_step(step), doctest::Contains("does not divide"), Error);
  }
}

}  // namespace mf::test
