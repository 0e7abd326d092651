#include "memformer/bench/growth.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tensor/backend.h"
#include "tensor/cpu/parallel.h"

namespace mf::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kSegmentsByLength = 2;

GrowthPoint point_of(const GrowthOptions& options, std::int64_t segments, std::int64_t length,
                     std::int64_t steps) {
  StepOptions step;
  step.model = options.model;
  step.model.segment = length;
  step.device = options.device;
  step.mode = options.mode;
  step.batch = 1;
  step.segments = segments;
  step.steps = steps;
  step.warmup = steps > 1 ? 1 : 0;
  const StepReport report = bench_step(step);
  return {segments * length, segments, length, report.seconds(),
          report.peak_bytes - report.standing_bytes};
}

/// Points at doubled numbers of tokens; `split` gives segments and length of one.
template <class Split>
std::vector<GrowthPoint> points_of(const GrowthOptions& options, const Split& split) {
  std::vector<GrowthPoint> points;
  for (std::int64_t tokens = options.smallest; tokens <= options.largest; tokens *= 2) {
    const auto [segments, length] = split(tokens);
    if (segments < 1 || length < 1) continue;
    const double expected = points.empty() ? 0.0 : 4.0 * points.back().seconds;
    if (expected > options.seconds) break;
    // Short steps are repeated, with one before to take memory from the system.
    const std::int64_t steps = expected < 0.1 ? 5 : expected < 1.0 ? 3 : 1;
    points.push_back(point_of(options, segments, length, steps));
  }
  return points;
}

Json to_json(const std::vector<GrowthPoint>& points) {
  Json rows = Json::array();
  for (const GrowthPoint& point : points)
    rows.push_back({{"tokens", point.tokens},
                    {"segments", point.segments},
                    {"seg", point.segment},
                    {"step_s", point.seconds},
                    {"active_peak_bytes", point.peak_bytes}});
  return rows;
}

}  // namespace

GrowthReport bench_growth(const GrowthOptions& options) {
  check(options.smallest > 0 && options.smallest <= options.largest,
        "bench growth: tokens go from {} to {}; give two positive numbers, the smaller one first",
        options.smallest, options.largest);
  check(options.largest <= std::int64_t{1} << 24,
        "bench growth: {} tokens are too many; give at most 2^24", options.largest);
  check(options.seconds > 0.0, "bench growth: seconds is {}; it must be positive", options.seconds);
  GrowthReport report;
  report.options = options;
  report.threads = threads();
  const std::int64_t length = options.model.segment;
  report.by_segments = points_of(options, [&](std::int64_t tokens) {
    return std::pair{tokens / length, length};
  });
  report.by_length = points_of(options, [](std::int64_t tokens) {
    return std::pair{kSegmentsByLength, tokens / kSegmentsByLength};
  });
  check(!report.by_segments.empty(),
        "bench growth: {} tokens are less than one segment of {}; raise --to or lower --segment",
        options.largest, length);
  return report;
}

std::string to_json(const GrowthReport& report) {
  return Json{{"mode", name_of(report.options.mode)},
              {"dim", report.options.model.width},
              {"slots", report.options.model.slots},
              {"device", full_name(report.options.device)},
              {"threads", report.threads},
              {"by_segments", to_json(report.by_segments)},
              {"by_length", to_json(report.by_length)}}
      .dump();
}

}  // namespace mf::bench
