#include "memformer/audit/mrbp_audit.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>

#include "memformer/audit/process_memory.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/replay/mrbp.h"
#include "memformer/replay/truncated.h"
#include "nn/parameters.h"
#include "tensor/backend.h"

namespace mf {
namespace {

/// The model as it is, called and counted; with a fault planted if one is asked for.
class Audited final : public WrappedRecurrence {
 public:
  Audited(const Recurrence& model, PlantedFault fault) : WrappedRecurrence(model), fault_(fault) {}

  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    ++runs_.memory_path;
    return inner_.next_state(pass, segment, state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    ++runs_.memory_path;
    ++runs_.prediction;
    StepResult result = inner_.step(pass, segment, state);
    // Cut off the tape, what G would flow into is gone.
    if (fault_ == PlantedFault::drop_state_seed)
      for (auto& entry : result.next) entry.value = constant(entry.value.value);
    return result;
  }

  /// The runs since the last call.
  ForwardRuns take_runs() const { return std::exchange(runs_, {}); }

 private:
  const PlantedFault fault_;
  mutable ForwardRuns runs_;
};

/// What one pass leaves.
struct Outcome {
  WindowResult result;
  NamedTensors gradients;  // of the parameters; undefined where none arrived
  std::int64_t peak_bytes = 0;
  std::optional<std::int64_t> process_peak_bytes;
  double seconds = 0.0;
  ForwardRuns runs;
};

using PassFunction = std::function<WindowResult(const Recurrence&)>;

Outcome run_pass(const Recurrence& audited, std::int64_t repeats, PlantedFault fault,
                 const PassFunction& pass) {
  const Audited model(audited, fault);
  std::vector<Parameter> parameters = model.parameters();
  const Device device = model.device();
  Outcome outcome;
  if (device == cpu) {
    release_cached();
    const ProcessPeak peak;
    pass(model);
    outcome.process_peak_bytes = peak.growth();
  }
  outcome.seconds = std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < repeats; ++i) {
    outcome.result = {};
    zero_grad(parameters);
    model.take_runs();
    const PeakScope peak(device);
    const auto begin = std::chrono::steady_clock::now();
    outcome.result = pass(model);
    synchronize(device);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    outcome.seconds = std::min(outcome.seconds, elapsed.count());
    outcome.peak_bytes = peak.growth();
    outcome.runs = model.take_runs();
  }
  outcome.gradients = gradients_of(parameters);
  zero_grad(parameters);
  return outcome;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && first_difference(a, b) < 0;
}

std::vector<double> values_or_zeros(const Tensor& tensor, const Tensor& like) {
  if (tensor.defined()) return tensor.to(DType::f64).to_vector<double>();
  return std::vector<double>(like.defined() ? static_cast<std::size_t>(like.elements()) : 0);
}

/// What two vectors differ by.
struct Difference {
  double largest = 0.0;  ///< max |a - b|
  double size = 0.0;     ///< max |b|
  double products = 0.0, squares_a = 0.0, squares_b = 0.0;

  double relative() const { return largest == 0.0 ? 0.0 : largest / size; }
  double cosine() const {
    const double norms = std::sqrt(squares_a * squares_b);
    return norms > 0.0 ? products / norms : (squares_a == squares_b ? 1.0 : 0.0);
  }
};

Difference difference_of(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = values_or_zeros(a, b), y = values_or_zeros(b, a);
  Difference difference;
  for (std::size_t i = 0; i < x.size(); ++i) {
    difference.largest = std::max(difference.largest, std::abs(x[i] - y[i]));
    difference.size = std::max(difference.size, std::abs(y[i]));
    difference.products += x[i] * y[i];
    difference.squares_a += x[i] * x[i];
    difference.squares_b += y[i] * y[i];
  }
  return difference;
}

AuditedPass compare(const Outcome& outcome, const Outcome& bptt) {
  AuditedPass audited;
  audited.peak_bytes = outcome.peak_bytes;
  audited.process_peak_bytes = outcome.process_peak_bytes;
  audited.seconds = outcome.seconds;
  audited.runs = outcome.runs;
  audited.differing = differing(everything_left(outcome.result, outcome.gradients),
                                everything_left(bptt.result, bptt.gradients));

  Difference all;  // its sums alone
  for (std::size_t i = 0; i < outcome.gradients.size(); ++i) {
    const auto& [name, gradient] = outcome.gradients[i];
    const Tensor& wanted = bptt.gradients[i].second;
    const Difference one = difference_of(gradient, wanted);
    audited.parameters.push_back(
        {name, same_bits(gradient, wanted), one.largest, one.relative(), one.cosine()});
    audited.largest_relative_error = std::max(audited.largest_relative_error, one.relative());
    all.products += one.products;
    all.squares_a += one.squares_a;
    all.squares_b += one.squares_b;
  }
  for (std::size_t i = 0; i < bptt.result.entry_gradient.size(); ++i)
    audited.largest_relative_error = std::max(
        audited.largest_relative_error,
        difference_of(outcome.result.entry_gradient[i].value, bptt.result.entry_gradient[i].value)
            .relative());
  audited.cosine = all.cosine();
  return audited;
}

Tensor random_tokens(const Shape& shape, std::int64_t bound, RngKey key) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(key.below(static_cast<std::uint64_t>(bound), i));
  return from_host(tokens, shape);
}

/// `targets` one place later, behind a begin token.
Tensor shifted(const Tensor& targets, std::int32_t begin) {
  std::vector<std::int32_t> tokens = targets.to_vector<std::int32_t>();
  const std::int64_t length = targets.size(1);
  for (std::int64_t row = 0; row < targets.size(0); ++row) {
    const auto first = tokens.begin() + row * length;
    std::shift_right(first, first + length, 1);
    *first = begin;
  }
  return from_host(tokens, targets.shape());
}

}  // namespace

NamedTensors gradients_of(const std::vector<Parameter>& parameters) {
  NamedTensors gradients;
  for (const Parameter& parameter : parameters)
    gradients.emplace_back(parameter.name(), parameter.grad());
  return gradients;
}

NamedTensors everything_left(const WindowResult& result, const NamedTensors& gradients) {
  NamedTensors all;
  all.emplace_back("losses of the segments",
                   from_host(result.segment_losses, {std::ssize(result.segment_losses)}));
  for (std::size_t t = 0; t < result.states.size(); ++t)
    for (const auto& entry : result.states[t])
      all.emplace_back(fmt::format("{} after {} segments", entry.name, t), entry.value);
  for (const auto& entry : result.entry_gradient)
    all.emplace_back("gradient of the entry " + entry.name, entry.value);
  for (const auto& [name, gradient] : gradients) all.emplace_back("gradient of " + name, gradient);
  return all;
}

std::vector<std::string> differing(const NamedTensors& ours, const NamedTensors& oracle) {
  check(ours.size() == oracle.size(), "audit: a pass left {} values, the other one {}", ours.size(),
        oracle.size());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < ours.size(); ++i)
    if (!same_bits(ours[i].second, oracle[i].second)) names.push_back(ours[i].first);
  return names;
}

AuditInputs audit_inputs(const Memformer& model, std::int64_t segments, std::int64_t batch,
                         std::uint64_t seed) {
  check(segments > 0, "audit: segments is {}; it must be positive", segments);
  check(batch > 0, "audit: batch is {}; it must be positive", batch);
  const RngKey key{seed};
  AuditInputs inputs;
  inputs.draws = key.at("draws");
  inputs.segments = random_window(model.config(), segments, batch, key.at("tokens"));
  for (Segment& segment : inputs.segments) segment = segment.to(model.device());
  inputs.entry = model.initial_state(batch);
  for (auto& tensor : inputs.entry) {
    tensor.value = normal(tensor.value.shape(), key.at("memory"), 0.0, 1.0, DType::f64)
                       .to(model.config().dtype)
                       .to(model.device());
    tensor.value.set_category(Category::state);
  }
  return inputs;
}

std::vector<Segment> random_window(const ModelConfig& config, std::int64_t count,
                                   std::int64_t batch, RngKey key) {
  const std::int64_t begin = config.vocabulary - 1;  // the last id, in text and in tasks
  check(begin > 0, "audit: model.vocabulary is 1; it must hold a token besides the begin token");
  std::vector<Tensor> tokens;
  for (std::int64_t t = 0; t <= count; ++t)
    tokens.push_back(
        random_tokens({batch, config.segment}, begin, key.at(static_cast<std::uint64_t>(t))));
  std::vector<Segment> segments;
  for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
    Segment segment;
    segment.tokens = tokens[t];
    segment.targets = tokens[t + 1];
    if (config.architecture == Architecture::encoder_decoder)
      segment.decoder_inputs = shifted(segment.targets, static_cast<std::int32_t>(begin));
    segment.scored = segment.targets.elements();
    segment.reset = zeros({batch}, DType::u8);  // in every segment, so that all cost the same
    if (t > 0 && static_cast<std::int64_t>(t) == count / 2)
      segment.reset.mutable_data<std::uint8_t>()[0] = 1;
    segments.push_back(std::move(segment));
  }
  return segments;
}

bool AuditReport::identical() const {
  return std::ranges::all_of(windows, [](const AuditedWindow& window) {
    return window.mrbp.differing.empty() && window.checkpointed.differing.empty();
  });
}

double AuditReport::mrbp_growth(std::size_t i) const {
  const AuditedWindow &longer = windows[i], &shorter = windows[i - 1];
  return static_cast<double>(longer.mrbp.peak_bytes - shorter.mrbp.peak_bytes) /
         static_cast<double>(longer.segments - shorter.segments);
}

CostModel cost_model(const AuditReport& report) {
  check(report.windows.size() > 1, "cost_model: {} windows were audited; two or more are needed",
        report.windows.size());
  const AuditedWindow& longer = report.windows.back();
  const AuditedWindow& shorter = report.windows[report.windows.size() - 2];
  CostModel model;
  model.gradients = report.parameter_bytes;
  model.activations =
      (longer.bptt.peak_bytes - shorter.bptt.peak_bytes) / (longer.segments - shorter.segments);
  model.state = report.state_bytes;
  model.memory_share = static_cast<double>(report.multiply_adds.memory_path) /
                       static_cast<double>(report.multiply_adds.total());
  return model;
}

AuditReport audit_mrbp(const Memformer& model, const AuditOptions& options) {
  check(!options.segments.empty(), "audit: no window is given; give lengths such as 1,2,4");
  for (std::size_t i = 0; i < options.segments.size(); ++i)
    check(
        options.segments[i] > (i == 0 ? 0 : options.segments[i - 1]),
        "audit: window {} has {} segments; give positive lengths, each longer than the one before",
        i + 1, options.segments[i]);
  check(options.repeats > 0, "audit: repeats is {}; it must be positive", options.repeats);

  AuditReport report;
  report.multiply_adds = multiply_adds(model.config());
  for (const Parameter& parameter : model.parameters())
    report.parameter_bytes += parameter.value().bytes();
  for (const std::int64_t count : options.segments) {
    const AuditInputs inputs = audit_inputs(model, count, options.batch, options.seed);
    const std::vector<Segment>& segments = inputs.segments;
    const State& entry = inputs.entry;
    const RngKey draws = inputs.draws;
    report.state_bytes = bytes_of(entry);
    const auto run = [&](const PassFunction& pass, PlantedFault fault = PlantedFault::none) {
      return run_pass(model, options.repeats, fault, pass);
    };
    AuditedWindow window;
    window.segments = count;
    const Outcome oracle = run([&](const auto& m) { return bptt(m, segments, entry, draws); });
    window.bptt = compare(oracle, oracle);
    window.mrbp = compare(
        run([&](const auto& m) { return mrbp(m, segments, entry, draws); }, options.fault), oracle);
    window.checkpointed = compare(
        run([&](const auto& m) { return checkpointed_bptt(m, segments, entry, draws); }), oracle);
    for (const std::int64_t length : {std::int64_t{1}, count / 2}) {
      const bool again = !window.truncated.empty() && length == 1;
      if (length < 1 || length >= count || again) continue;
      window.truncated.push_back({length, compare(run([&](const auto& m) {
                                                    return truncated_bptt(m, segments, entry, draws,
                                                                          length);
                                                  }),
                                                  oracle)});
    }
    report.windows.push_back(std::move(window));
  }
  return report;
}

ModelConfig audit_model() {
  ModelConfig config;
  config.width = 64;
  config.heads = 4;
  config.encoder_layers = 2;
  config.decoder_layers = 2;
  config.feed_forward = 256;
  config.segment = 32;
  config.slots = 8;
  config.dropout = 0.1;
  config.attention_dropout = 0.1;
  return config;
}

}  // namespace mf
