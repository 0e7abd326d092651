#include "memformer/bench/cost.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <tuple>

#include "memformer/audit/process_memory.h"
#include "memformer/bench/child.h"
#include "memformer/bench/measure.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/replay/mrbp.h"
#include "nn/optimizer.h"
#include "nn/parameters.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/memory.h"
#include "tensor/work.h"

namespace mf::bench {
namespace {

constexpr const char *kMemformer = "memformer", *kTransformer = "transformer",
                     *kTransformerXl = "transformer-xl", *kCompressive = "compressive",
                     *kRmt = "rmt";

void require_positive(const char* name, std::int64_t value) {
  check(value > 0, "bench cost: {} is {}; it must be positive", name, value);
}

}  // namespace

// Models -----------------------------------------------------------------------------------------

bool has_memory_size(const std::string& model) {
  return model == kMemformer || model == kTransformerXl || model == kCompressive || model == kRmt;
}

RunConfig config_of(const CostShape& shape, const std::string& model) {
  RunConfig config;
  choose_model(config, model);
  if (!config.baseline) {
    ModelConfig& c = config.model;
    c.vocabulary = shape.vocabulary;
    c.width = shape.width;
    c.heads = shape.heads;
    c.feed_forward = shape.feed_forward;
    c.encoder_layers = shape.encoder_layers;
    c.decoder_layers = shape.decoder_layers;
    c.segment = shape.segment;
    c.slots = shape.slots;
    return config;
  }
  std::visit(
      [&](auto& c) {
        c.vocabulary = shape.vocabulary;
        c.width = shape.width;
        c.layers = shape.layers;
        c.segment = shape.segment;
        if constexpr (requires { c.heads; }) {
          c.heads = shape.heads;
          c.feed_forward = shape.feed_forward;
        }
        if constexpr (requires { c.cache; }) c.cache = shape.cache;
        if constexpr (requires { c.compressed; }) c.compressed = shape.compressed;
        if constexpr (requires { c.memory; }) c.memory = shape.memory_tokens;
        // No table of positions, which would make the weights grow with the text.
        if constexpr (requires { c.positions; }) c.positions = Positions::sinusoidal;
      },
      *config.baseline);
  return config;
}

CostShape with_memory(CostShape shape, const std::string& model, std::int64_t rows) {
  shape.slots = shape.cache = shape.memory_tokens = rows;
  if (model == kCompressive) shape.cache = shape.compressed = rows / 2;
  return shape;
}

std::int64_t parameters_of(const RunConfig& config) {
  return count_elements(make_model(config, RngKey{0})->parameters());
}

std::int64_t layers_of(const CostShape& shape, const std::string& model) {
  if (model == kMemformer) return shape.encoder_layers + shape.decoder_layers;
  if (shape.layers > 0) return shape.layers;
  const auto parameters = [&](std::int64_t layers) {
    CostShape with_layers = shape;
    with_layers.layers = layers;
    return static_cast<double>(parameters_of(config_of(with_layers, model)));
  };
  const double one = parameters(1), layer = parameters(2) - one;
  const auto aim = static_cast<double>(parameters_of(config_of(shape, kMemformer)));
  return std::max<std::int64_t>(1, 1 + std::llround((aim - one) / layer));
}

// One measurement --------------------------------------------------------------------------------

const char* name_of(CostMethod method) {
  switch (method) {
    case CostMethod::inference:
      return "inference";
    case CostMethod::bptt:
      return "bptt";
    case CostMethod::checkpointed:
      return "checkpointed";
    case CostMethod::mrbp:
      return "mrbp";
  }
  return "";
}

std::vector<CostMethod> methods_of(const CostOptions& options) {
  if (options.training) return {CostMethod::mrbp, CostMethod::bptt};
  return {CostMethod::inference};
}

namespace {

bool reads_ahead(const CostJob& job) {
  return prediction_of(job.model) == Prediction::next_segment;
}

/// What is behind the last segment that a next-segment model predicts is not there to be read.
std::int64_t steps_of(const CostJob& job) {
  return job.tokens / segment_of(job.model) - (reads_ahead(job) ? 1 : 0);
}

}  // namespace

std::vector<Segment> cost_window(const CostJob& job) {
  const std::int64_t length = segment_of(job.model);
  const bool ahead = reads_ahead(job);
  check(job.tokens % length == 0 && job.tokens / length >= (ahead ? 2 : 1),
        "bench cost: a text of {} tokens is not {} whole segments of {}", job.tokens,
        ahead ? "two or more" : "one or more", length);
  check(job.scored > 0 && job.scored < job.tokens,
        "bench cost: {} of {} tokens cannot be scored; give 1 to {}", job.scored, job.tokens,
        job.tokens - 1);
  const RngKey key = RngKey{job.seed}.at("tokens");
  const auto vocabulary = static_cast<std::uint64_t>(vocabulary_of(job.model));
  // Token i of a row; those that are not scored, and what lies behind the text, are kIgnore.
  const auto token = [&](std::int64_t row, std::int64_t i) {
    return static_cast<std::int32_t>(
        key.below(vocabulary, static_cast<std::uint64_t>(row * job.tokens + i)));
  };
  const auto target = [&](std::int64_t row, std::int64_t i) {
    return i < job.tokens - job.scored || i >= job.tokens ? kIgnore : token(row, i);
  };
  const auto columns = [&](const auto& of, std::int64_t begin) {
    std::vector<std::int32_t> ids;
    for (std::int64_t row = 0; row < job.batch; ++row)
      for (std::int64_t i = begin; i < begin + length; ++i) ids.push_back(of(row, i));
    return from_host(ids, {job.batch, length});
  };
  const auto fed = [&](std::int64_t row, std::int64_t i) {  // shifted right behind a begin token
    return i % length == 0 ? static_cast<std::int32_t>(vocabulary - 1) : token(row, i - 1);
  };
  std::vector<Segment> window;
  for (std::int64_t t = 0; t < steps_of(job); ++t) {
    Segment& segment = window.emplace_back();
    segment.tokens = columns(token, t * length);
    if (ahead) segment.decoder_inputs = columns(fed, (t + 1) * length);
    segment.targets = columns(target, t * length + target_offset(prediction_of(job.model), length));
    for (const std::int32_t id : segment.targets.to_vector<std::int32_t>())
      segment.scored += id != kIgnore ? 1 : 0;
  }
  window.front().reset = full({job.batch}, 1, DType::u8);
  return window;
}

namespace {

WindowPass pass_of(CostMethod method) {
  return method == CostMethod::mrbp           ? mrbp
         : method == CostMethod::checkpointed ? checkpointed_bptt
                                              : bptt;
}

/// Reads the text; returns the state behind it.
State read_text(const Recurrence& model, std::span<const Segment> segments, State state) {
  for (const Segment& segment : segments) state = evaluate_step(model, segment, state).next;
  return state;
}

}  // namespace

Cost measure(const CostJob& job) {
  require_positive("batch", job.batch);
  require_positive("repeats", job.repeats);
  const RngKey key{job.seed};
  const std::unique_ptr<Recurrence> model = make_model(job.model, key.at("weights"));
  const std::vector<Segment> segments = cost_window(job);
  const State entry = model->initial_state(job.batch);
  std::vector<Parameter> parameters = model->parameters();
  std::optional<Adam> adam;
  if (job.method != CostMethod::inference) adam.emplace(parameters, AdamOptions{});
  const auto run = [&] {
    if (!adam) return bytes_of(read_text(*model, segments, entry));
    zero_grad(parameters);
    const WindowResult result =
        pass_of(job.method)(*model, segments, entry, key.at("draws"), WindowOptions{});
    adam->step(AdamOptions{}.learning_rate, 1.0);
    return bytes_of(result.states.back());
  };

  Cost cost;
  for (const Segment& segment : segments) cost.scored += segment.scored;
  std::vector<double> seconds;
  release_cached();
  {
    const ProcessPeak process;
    const PeakScope scope;
    const MultiplyAddCount count;
    const Stopwatch stopwatch;
    cost.state_bytes = run();
    const double wall = stopwatch.elapsed().wall;
    // A first training step also takes the memory that later ones find.
    if (wall >= 1.0 && !adam) seconds.push_back(wall);
    cost.multiply_adds = count.count();
    cost.active_bytes = scope.growth();
    cost.peak_bytes = scope.peak();
    cost.process_bytes = process.peak();
  }
  while (std::ssize(seconds) < job.repeats) {
    const Stopwatch stopwatch;
    run();
    seconds.push_back(stopwatch.elapsed().wall);
  }
  cost.seconds = median(seconds);
  return cost;
}

// Points -----------------------------------------------------------------------------------------

double CostRow::tokens_per_second() const {
  return static_cast<double>(cost.scored) / cost.seconds;
}

namespace {

/// The options with their defaults resolved.
CostOptions checked(CostOptions options) {
  const bool by_length = options.axis == CostAxis::length;
  if (options.from == 0) options.from = by_length ? 128 : 32;
  if (options.to == 0) options.to = by_length ? 65536 : 2048;
  if (options.batch == 0) options.batch = 1;
  require_positive("batch", options.batch);
  check(options.from > 0 && options.from <= options.to && options.to <= std::int64_t{1} << 24,
        "bench cost: points go from {} to {}; give two positive numbers up to 2^24, the smaller "
        "one first",
        options.from, options.to);
  const std::int64_t shortest = by_length ? options.from : options.length;
  require_positive("segment", options.shape.segment);
  check(shortest % options.shape.segment == 0 && shortest >= 2 * options.shape.segment,
        "bench cost: a text of {} tokens is not two or more whole segments of {}", shortest,
        options.shape.segment);
  require_positive("repeats", options.repeats);
  check(options.limit_seconds > 0.0 && options.limit_bytes > 0,
        "bench cost: the limits {} s and {} bytes must be positive", options.limit_seconds,
        options.limit_bytes);
  check(!options.models.empty(), "bench cost: no model is given; choose some of {}",
        fmt::join(model_names(), ", "));
  if (by_length) return options;
  std::erase_if(options.models, [](const std::string& name) { return !has_memory_size(name); });
  check(!options.models.empty(), "bench cost: none of the models has a memory of a chosen size");
  return options;
}

CostReport started(const CostOptions& options) {
  CostReport report;
  report.options = options;
  report.threads = threads();
  report.isa = name_of(current_isa());
  return report;
}

void tell(const CostOptions& options, const std::string& text) {
  if (options.progress) options.progress(text);
}

std::int64_t largest_bytes(const Cost& cost) {
  return std::max(cost.peak_bytes, cost.process_bytes.value_or(0));
}

/// What a point may take, going by those of the same model that were run.
class Forecast {
 public:
  void add(std::int64_t x, const Cost& cost) {
    before_ = last_;
    last_ = Point{x, cost.seconds, static_cast<double>(largest_bytes(cost))};
  }
  void stop(const std::string& reason) { stopped_ = reason; }

  /// Why the point x shall not be run; "" if it shall.
  std::string against(std::int64_t x, const CostOptions& options) const {
    if (!stopped_.empty() || !last_) return stopped_;
    if (const double seconds = expected(x, &Point::seconds); seconds > options.limit_seconds)
      return fmt::format("may take {:.3g} s, more than {:.3g}", seconds, options.limit_seconds);
    const double bytes = expected(x, &Point::bytes);
    if (bytes > static_cast<double>(options.limit_bytes))
      return fmt::format("may need {}, more than {}",
                         readable_bytes(static_cast<std::int64_t>(bytes)),
                         readable_bytes(options.limit_bytes));
    return "";
  }

 private:
  struct Point {
    std::int64_t x;
    double seconds, bytes;
  };

  double expected(std::int64_t x, double Point::*of) const {
    const double growth = before_ ? std::max(2.0, *last_.*of / (*before_.*of)) : 4.0;
    return *last_.*of *
           std::pow(growth, std::log2(static_cast<double>(x) / static_cast<double>(last_->x)));
  }

  std::optional<Point> before_, last_;
  std::string stopped_;
};

/// The job at x, and the multiply-adds that the closed form has for it.
std::pair<CostJob, std::int64_t> job_at(const CostOptions& options, CostShape shape,
                                        const std::string& model, CostMethod method,
                                        std::int64_t x) {
  const bool by_length = options.axis == CostAxis::length;
  if (!by_length) shape = with_memory(shape, model, x);
  CostJob job;
  job.tokens = by_length ? x : options.length;
  job.scored = job.tokens - shape.segment;
  if (model == kTransformer) shape.segment = job.tokens;  // attention over the whole text
  job.model = config_of(shape, model);
  job.method = method;
  job.batch = options.batch;
  job.repeats = options.repeats;
  job.seed = options.seed;
  // Rows share the projection of relative positions: the closed form is that of one.
  const bool exact = method == CostMethod::inference && options.batch == 1;
  return {job, exact ? steps_of(job) * multiply_adds(job.model).total() : 0};
}

constexpr std::array kMeasures{"multiply_adds", "active_bytes", "state_bytes", "process_bytes",
                               "seconds"};

double measure_of(const Cost& cost, const std::string& measure) {
  if (measure == "multiply_adds") return static_cast<double>(cost.multiply_adds);
  if (measure == "active_bytes") return static_cast<double>(cost.active_bytes);
  if (measure == "state_bytes") return static_cast<double>(cost.state_bytes);
  if (measure == "process_bytes") return static_cast<double>(cost.process_bytes.value_or(0));
  return cost.seconds;
}

/// At one length, of the one of Transformer and Transformer-XL that takes less, over the Memformer.
/// A measure that is 0 does not compete: a Transformer carries no state on.
std::vector<CostRatio> headlines(const CostReport& report) {
  std::vector<CostRatio> ratios;
  const CostOptions& options = report.options;
  const CostMethod method = options.training ? CostMethod::mrbp : CostMethod::inference;
  const auto value = [&](const std::string& model, const std::string& measure) {
    for (const CostRow& row : report.rows)
      if (row.model == model && row.method == method && row.x == options.at_length &&
          row.not_run.empty())
        return measure_of(row.cost, measure);
    return 0.0;
  };
  for (const char* measure : kMeasures) {
    const double own = value(kMemformer, measure);
    std::optional<CostRatio> best;
    for (const char* other : {kTransformerXl, kTransformer})
      if (const double its = value(other, measure);
          own > 0.0 && its > 0.0 && (!best || its / own < best->ratio))
        best = CostRatio{measure, other, kMemformer, options.at_length, its / own};
    if (best) ratios.push_back(*best);
  }
  return ratios;
}

}  // namespace

bool CostReport::holds() const {
  // Over these a memory fills first, and costs less until it has.
  const std::set<std::string> filled{kTransformerXl, kCompressive};
  std::int64_t run = 0, memformer_state = -1;
  std::map<std::int64_t, std::int64_t> unrolled;  // by horizon
  for (const CostRow& row : rows) {
    if (!row.not_run.empty()) continue;
    ++run;
    if (row.method == CostMethod::bptt) unrolled[row.x] = row.cost.active_bytes;
    if (methods && row.method == CostMethod::mrbp && row.cost.active_bytes >= unrolled[row.x])
      return false;
    const std::int64_t counted = row.cost.multiply_adds;
    if (counted <= 0) return false;
    if (row.expected > 0 && counted != row.expected &&
        !(filled.contains(row.model) && counted < row.expected))
      return false;
    if (row.model != kMemformer || methods || options.axis != CostAxis::length) continue;
    if (memformer_state >= 0 && row.cost.state_bytes != memformer_state) return false;
    memformer_state = row.cost.state_bytes;
  }
  return run > 0;
}

namespace {

/// work() here, or in a process of its own.
template <class T>
T apart(const CostOptions& options, const std::function<T()>& work) {
  return options.own_processes ? in_child(work) : work();
}

/// Layers and parameters of the model at the common shape.
CostModel described(const CostOptions& options, const std::string& model) {
  CostShape shape = options.shape;
  shape.layers = std::max<std::int64_t>(shape.layers, 1);
  validate(config_of(shape, model));
  using Numbers = std::array<std::int64_t, 2>;
  const Numbers numbers = apart<Numbers>(options, [&] {
    CostShape own = options.shape;
    own.layers = layers_of(own, model);
    return Numbers{own.layers, parameters_of(config_of(own, model))};
  });
  return {model, numbers[0], numbers[1]};
}

std::string told(const CostRow& row, const char* unit) {
  const std::string point =
      fmt::format("{}, {}, {} {}: ", row.model, name_of(row.method), row.x, unit);
  if (!row.not_run.empty()) return point + "not run; " + row.not_run;
  return point + fmt::format("{:.3g} s, {} active, {} in all", row.cost.seconds,
                             readable_bytes(row.cost.active_bytes),
                             readable_bytes(row.cost.peak_bytes));
}

}  // namespace

CostReport bench_cost(const CostOptions& given) {
  CostReport report = started(checked(given));
  const CostOptions& options = report.options;
  for (const std::string& model : options.models)
    report.models.push_back(described(options, model));

  std::map<std::pair<std::string, CostMethod>, Forecast> forecasts;
  for (std::int64_t x = options.from; x <= options.to; x *= 2)
    for (const CostModel& model : report.models)
      for (const CostMethod method : methods_of(options)) {
        CostShape shape = options.shape;
        shape.layers = model.layers;
        CostRow row{model.name, method, x, {}, 0, ""};
        Forecast& forecast = forecasts[{model.name, method}];
        row.not_run = forecast.against(x, options);
        if (row.not_run.empty()) {
          CostJob job;
          std::tie(job, row.expected) = job_at(options, shape, model.name, method, x);
          try {
            row.cost = apart<Cost>(options, [&] { return measure(job); });
            forecast.add(x, row.cost);
          } catch (const Error& error) {
            row.not_run = error.what();
            forecast.stop(fmt::format("stopped at {}: {}", x, error.what()));
          }
        }
        tell(options, told(row, options.axis == CostAxis::length ? "tokens" : "rows"));
        report.rows.push_back(std::move(row));
      }
  if (options.axis == CostAxis::length) report.ratios = headlines(report);
  return report;
}

CostReport bench_cost_methods(const CostOptions& given) {
  CostReport report = started(given);
  report.methods = true;
  if (report.options.batch == 0) report.options.batch = 4;
  const CostOptions& options = report.options;
  require_positive("batch", options.batch);
  require_positive("repeats", options.repeats);
  report.models = {described(options, kMemformer)};
  const std::array methods{CostMethod::bptt, CostMethod::checkpointed, CostMethod::mrbp};
  for (const std::int64_t horizon : {4, 16}) {
    CostJob job;
    job.model = config_of(options.shape, kMemformer);
    job.scored = horizon * options.shape.segment;
    job.tokens = job.scored + options.shape.segment;
    job.batch = options.batch;
    job.repeats = 1;
    job.seed = options.seed;
    std::map<CostMethod, std::vector<Cost>> costs;
    for (std::int64_t turn = 0; turn < options.repeats; ++turn)
      for (std::size_t i = 0; i < methods.size(); ++i) {
        // The other way round in every second turn.
        job.method = methods[turn % 2 == 0 ? i : methods.size() - 1 - i];
        costs[job.method].push_back(apart<Cost>(options, [&] { return measure(job); }));
        tell(options,
             told({kMemformer, job.method, horizon, costs[job.method].back(), 0, ""}, "segments"));
      }
    for (const CostMethod method : methods) {
      const std::vector<Cost>&own = costs[method], &full = costs[CostMethod::bptt];
      CostRow& row =
          report.rows.emplace_back(CostRow{kMemformer, method, horizon, own.front(), 0, ""});
      std::vector<double> seconds;
      for (const Cost& cost : own) {
        seconds.push_back(cost.seconds);
        if (cost.process_bytes > row.cost.process_bytes)
          row.cost.process_bytes = cost.process_bytes;
      }
      row.cost.seconds = median(seconds);
      if (method == CostMethod::bptt) continue;
      for (const std::string measure : kMeasures) {
        if (measure == "state_bytes") continue;  // one and the same
        std::vector<double> ratios;
        for (std::size_t turn = 0; turn < own.size(); ++turn)
          ratios.push_back(measure_of(full[turn], measure) / measure_of(own[turn], measure));
        if (const double ratio = median(ratios); std::isfinite(ratio))
          report.ratios.push_back({measure, "bptt", name_of(method), horizon, ratio});
      }
    }
  }
  return report;
}

}  // namespace mf::bench
