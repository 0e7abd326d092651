// What the benchmarks count and conclude; how fast anything is, is not tested.

#include <doctest/doctest.h>

#include <cmath>
#include <csignal>
#include <nlohmann/json.hpp>
#include <set>

#include "memformer/bench/child.h"
#include "memformer/bench/cost.h"
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

bench::CostOptions small_cost() {
  bench::CostOptions options;
  options.shape = {.width = 8,
                   .heads = 2,
                   .feed_forward = 16,
                   .encoder_layers = 1,
                   .decoder_layers = 1,
                   .layers = 2,
                   .vocabulary = 11,
                   .segment = 4,
                   .slots = 2,
                   .cache = 4,
                   .compressed = 2,
                   .memory_tokens = 2};
  options.from = 8;
  options.to = 32;
  options.length = 16;
  options.at_length = 16;
  options.repeats = 1;
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
    // torch_peer.py prints 4,682,752; its writer has three biases of 256 more.
    CHECK(count_elements(model.parameters()) == 4682752 - 3 * 256);
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

  TEST_CASE("bench: cost runs every model at every length, and counts what the closed forms have") {
    std::vector<std::string> told;
    bench::CostOptions options = small_cost();
    options.progress = [&](const std::string& line) { told.push_back(line); };
    bench::CostReport report = bench::bench_cost(options);
    CHECK(report.holds());
    REQUIRE(report.rows.size() == 3 * model_names().size());
    CHECK(told.size() == report.rows.size());
    for (const bench::CostRow& row : report.rows) {
      CAPTURE(row.model);
      CHECK(row.not_run == "");
      CHECK(row.cost.scored == row.x - 4);
      CHECK(row.cost.multiply_adds > 0);
      CHECK(row.cost.peak_bytes > row.cost.active_bytes);
      CHECK((row.cost.state_bytes > 0) == (row.model != "transformer"));
    }
    CHECK(report.rows.back().model == "lstm");
    CHECK(report.rows.back().x == 32);
    REQUIRE(report.ratios.size() >= 4);
    for (const bench::CostRatio& ratio : report.ratios) {
      CHECK(ratio.x == 16);
      CHECK(ratio.over == "memformer");
      CHECK(ratio.ratio > 0.0);
    }
    CHECK(report.ratios[0].measure == "multiply_adds");
    CHECK(report.ratios[2].measure == "state_bytes");
    CHECK(report.ratios[2].of == "transformer-xl");  // a transformer carries nothing
    // Two caches and the mask of 4 rows, over 2 slots of width 8.
    CHECK(report.ratios[2].ratio == doctest::Approx((2 * 4 * 8 * 4 + 4) / (2.0 * 8 * 4)));

    const json parsed = json::parse(bench::to_json(report));
    CHECK(parsed["kind"] == "cost");
    CHECK(parsed["holds"] == true);
    for (const char* key : {"command", "threads", "isa", "setting", "rows", "ratios"})
      CHECK_MESSAGE(parsed.contains(key), key);
    CHECK(parsed["setting"]["models"]["memformer"]["parameters"].get<int>() > 0);
    CHECK(parsed["setting"]["models"]["rmt"]["layers"] == 2);
    for (const char* key : {"model", "x_name", "x", "multiply_adds", "active_bytes", "peak_bytes",
                            "process_bytes", "state_bytes", "seconds", "tokens_per_second"})
      CHECK_MESSAGE(parsed["rows"][0].contains(key), key);
    CHECK_FALSE(parsed["rows"][0].contains("not_run"));
    CHECK(parsed["ratios"]["state_bytes"]["of"] == "transformer-xl");
    const std::string page = bench::report_of(report).html();
    for (const char* title : {"Work", "State carried on", "Time"})
      CHECK_MESSAGE(page.find(">" + std::string(title) + "<") != page.npos, title);

    // A wrong count, and a state that grows, are found.
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      bench::CostReport planted = report;
      planted.rows[i].cost.multiply_adds = planted.rows[i].expected + 1;
      CHECK_FALSE(planted.holds());
    }
    report.rows[6].cost.state_bytes += 4;
    CHECK(report.rows[6].model == "memformer");
    CHECK_FALSE(report.holds());
    CHECK(bench::report_of(report).text().find("NOT so") != std::string::npos);
  }

  TEST_CASE("bench: cost of two rows is that of one twice, but for what they share") {
    bench::CostOptions options = small_cost();
    const bench::CostReport one = bench::bench_cost(options);
    options.batch = 2;
    const bench::CostReport two = bench::bench_cost(options);
    CHECK(two.holds());
    const auto claims_counts = [](const bench::CostReport& report) {
      return bench::report_of(report).html().find("closed form") != std::string::npos;
    };
    CHECK(claims_counts(one));
    CHECK(!claims_counts(two));  // nobody has compared
    bench::CostReport idle = two;
    idle.rows[0].cost.multiply_adds = 0;
    CHECK(!idle.holds());
    REQUIRE(two.rows.size() == one.rows.size());
    for (std::size_t i = 0; i < one.rows.size(); ++i) {
      const std::int64_t shared =
          2 * one.rows[i].cost.multiply_adds - two.rows[i].cost.multiply_adds;
      // The projection of relative positions is made once for both rows.
      const bool relative =
          std::set<std::string>{"transformer-xl", "compressive", "rmt"}.contains(one.rows[i].model);
      CHECK((shared > 0) == relative);
      CHECK(shared >= 0);
      CHECK(two.rows[i].cost.multiply_adds > one.rows[i].cost.multiply_adds);
      CHECK(two.rows[i].cost.state_bytes == 2 * one.rows[i].cost.state_bytes);
      CHECK(two.rows[i].cost.scored == 2 * one.rows[i].cost.scored);
    }
    options.batch = -1;
    CHECK_THROWS_WITH_AS(bench::bench_cost(options), doctest::Contains("batch is -1"), Error);
    CHECK_THROWS_WITH_AS(bench::bench_cost_methods(options), doctest::Contains("batch is -1"),
                         Error);
  }

  TEST_CASE("bench: cost runs no point that may go over a limit, and says why") {
    bench::CostOptions options = small_cost();
    options.models = {"memformer", "rmt"};
    for (const bool seconds : {true, false}) {
      bench::CostOptions limited = options;
      if (seconds) {
        limited.limit_seconds = 1e-9;
      } else {
        limited.limit_bytes = 1;
      }
      const bench::CostReport report = bench::bench_cost(limited);
      REQUIRE(report.rows.size() == 6);
      for (std::size_t i = 0; i < 6; ++i) {
        const std::string& reason = report.rows[i].not_run;
        CHECK((reason == "") == (i < 2));  // nothing is known of the first points
        if (i >= 2) CHECK(reason.find(seconds ? "may take" : "may need") == 0);
      }
      const json row = json::parse(bench::to_json(report))["rows"][5];
      CHECK(row["not_run"].get<std::string>().find("more than") != std::string::npos);
      CHECK_FALSE(row.contains("seconds"));
      CHECK(bench::report_of(report).text().find("more than") != std::string::npos);
    }
  }

  TEST_CASE("bench: cost over memory measures the models that have one of a chosen size") {
    bench::CostOptions options = small_cost();
    options.axis = bench::CostAxis::memory;
    options.from = 8;
    options.to = 16;
    const bench::CostReport report = bench::bench_cost(options);
    CHECK(report.holds());
    REQUIRE(report.rows.size() == 8);
    std::map<std::string, std::vector<std::int64_t>> state;
    for (const bench::CostRow& row : report.rows) {
      state[row.model].push_back(row.cost.state_bytes);
      CHECK(row.cost.scored == 12);
    }
    CHECK(state["memformer"] == std::vector<std::int64_t>{8 * 8 * 4, 16 * 8 * 4});
    CHECK(state["rmt"] == state["memformer"]);
    CHECK(report.ratios.empty());
    CHECK(json::parse(bench::to_json(report))["rows"][0]["x_name"] == "memory");
  }

  TEST_CASE("bench: cost of training is that of one window, by MRBP and by full unrolling") {
    bench::CostOptions options = small_cost();
    options.training = true;
    options.from = options.to = 16;
    const bench::CostReport report = bench::bench_cost(options);
    CHECK(report.holds());
    REQUIRE(report.rows.size() == 2 * model_names().size());
    CHECK(report.rows[0].method == bench::CostMethod::mrbp);
    CHECK(report.rows[1].method == bench::CostMethod::bptt);
    // The memory path runs twice.
    CHECK(report.rows[0].cost.multiply_adds > report.rows[1].cost.multiply_adds);
    CHECK(report.rows[0].cost.active_bytes < report.rows[1].cost.active_bytes);
    CHECK(bench::report_of(report).html().find("Time, bptt") != std::string::npos);
  }

  TEST_CASE("bench: the methods stand beside each other at both horizons, MRBP below BPTT") {
    bench::CostOptions options = small_cost();
    options.repeats = 2;
    bench::CostReport report = bench::bench_cost_methods(options);
    CHECK(report.holds());
    REQUIRE(report.rows.size() == 6);
    CHECK(report.rows[5].x == 16);
    CHECK(report.rows[5].cost.scored == 4 * 16 * 4);
    const json parsed = json::parse(bench::to_json(report));
    CHECK(parsed["rows"][5]["method"] == "mrbp");
    CHECK(parsed["rows"][5]["x_name"] == "horizon");
    CHECK(parsed["rows"][5]["x"] == 16);
    CHECK(parsed["published"][0]["megabytes"] == 16177);
    CHECK(parsed["ratios"]["horizon_16"]["mrbp"]["seconds"]["of"] == "bptt");
    CHECK(parsed["ratios"]["horizon_4"]["checkpointed"]["active_bytes"]["ratio"].get<double>() > 1);
    CHECK(bench::report_of(report).text().find("7229") != std::string::npos);
    report.rows[5].cost.active_bytes = report.rows[3].cost.active_bytes;
    CHECK_FALSE(report.holds());
  }

  TEST_CASE("bench: both forms of a text hold the same tokens and score the same of them") {
    bench::CostJob job;
    job.tokens = 12;
    job.scored = 8;
    job.batch = 2;
    std::map<std::string, std::vector<std::int32_t>> scored;
    for (const char* model : {"memformer", "rmt"}) {
      job.model = bench::config_of(small_cost().shape, model);
      const std::vector<Segment> window = bench::cost_window(job);
      CHECK(window.size() == (job.model.baseline ? 3 : 2));
      CHECK(window.front().decoder_inputs.defined() == !job.model.baseline);
      for (int row = 0; row < 2; ++row)
        for (const Segment& segment : window)
          for (const std::int32_t id :
               segment.targets.slice(0, row, row + 1).contiguous().to_vector<std::int32_t>())
            if (id != kIgnore) scored[model].push_back(id);
      CHECK(window.front().tokens.size(1) == 4);
    }
    CHECK(scored["memformer"].size() == 16);
    CHECK(scored["memformer"] == scored["rmt"]);
    job.tokens = 10;
    CHECK_THROWS_WITH_AS(bench::cost_window(job), doctest::Contains("whole segments of 4"), Error);
    job.tokens = 12;
    job.scored = 12;
    CHECK_THROWS_WITH_AS(bench::cost_window(job), doctest::Contains("cannot be scored"), Error);
  }

  TEST_CASE("bench: layers that are not given bring the parameters closest to the Memformer's") {
    bench::CostShape shape = small_cost().shape;
    shape.layers = 0;
    const auto parameters = [&](const std::string& model, std::int64_t layers) {
      bench::CostShape own = shape;
      own.layers = layers;
      return bench::parameters_of(bench::config_of(own, model));
    };
    const std::int64_t aim = parameters("memformer", 0);
    CHECK(bench::layers_of(shape, "memformer") == 2);
    for (const std::string& model : baseline_names()) {
      const std::int64_t layers = bench::layers_of(shape, model);
      const std::int64_t distance = std::abs(parameters(model, layers) - aim);
      CHECK(distance <= std::abs(parameters(model, layers + 1) - aim));
      if (layers > 1) CHECK(distance <= std::abs(parameters(model, layers - 1) - aim));
    }
    CHECK(bench::with_memory(shape, "compressive", 8).cache == 4);
    CHECK(bench::with_memory(shape, "compressive", 8).compressed == 4);
    CHECK(bench::with_memory(shape, "transformer-xl", 8).cache == 8);
  }

  TEST_CASE("bench: a child process gives a result, its error, or how it ended") {
    CHECK(bench::in_child<std::int64_t>([] { return std::int64_t{42}; }) == 42);
    const auto failing = [](const std::function<int()>& work) { bench::in_child<int>(work); };
    CHECK_THROWS_WITH_AS(failing([]() -> int { fail("the reason is {}", 7); }),
                         doctest::Contains("the reason is 7"), Error);
    CHECK_THROWS_WITH_AS(failing([]() -> int {
                           std::raise(SIGKILL);
                           return 0;
                         }),
                         doctest::Contains("ended by signal 9"), Error);
  }

  TEST_CASE("bench: impossible options of cost are errors") {
    const auto refused = [](const auto& change, const char* words) {
      bench::CostOptions options = small_cost();
      change(options);
      CHECK_THROWS_WITH_AS(bench::bench_cost(options), doctest::Contains(words), Error);
    };
    refused([](auto& o) { o.to = 4; }, "points go from 8 to 4");
    refused([](auto& o) { o.from = 4; }, "whole segments of 4");
    refused([](auto& o) { o.shape.heads = 3; }, "does not divide");
    refused([](auto& o) { o.repeats = 0; }, "repeats is 0");
    refused([](auto& o) { o.limit_seconds = 0.0; }, "limits 0 s");
    refused([](auto& o) { o.models = {"perceptron"}; }, "known models");
    refused(
        [](auto& o) {
          o.axis = bench::CostAxis::memory;
          o.models = {"lstm"};
        },
        "memory of a chosen size");
  }
}

}  // namespace mf::test
