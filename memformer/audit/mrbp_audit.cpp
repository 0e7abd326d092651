#include "memformer/audit/mrbp_audit.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>

#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"
#include "memformer/replay/truncated.h"
#include "nn/parameters.h"
#include "tensor/backend.h"

namespace mf {
namespace {

/// The model with its next state cut off the tape: what G would flow into is gone.
class WithoutStateSeed final : public Recurrence {
 public:
  explicit WithoutStateSeed(const Recurrence& model) : model_(model) {}

  State initial_state(std::int64_t batch) const override { return model_.initial_state(batch); }
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    return model_.next_state(pass, segment, state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result = model_.step(pass, segment, state);
    for (auto& entry : result.next) entry.value = constant(entry.value.value);
    return result;
  }
  std::vector<Parameter> parameters() const override { return model_.parameters(); }

 private:
  const Recurrence& model_;
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// What one pass leaves.
struct Outcome {
  WindowResult result;
  NamedTensors gradients;  // of the parameters; undefined where none arrived
  std::int64_t peak_bytes = 0;
  double seconds = 0.0;
};

Outcome run_pass(const Recurrence& model, std::int64_t repeats,
                 const std::function<WindowResult()>& pass) {
  std::vector<Parameter> parameters = model.parameters();
  const Device device = model.device();
  Outcome outcome;
  outcome.seconds = std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < repeats; ++i) {
    outcome.result = {};
    zero_grad(parameters);
    const PeakScope peak(device);
    const auto begin = std::chrono::steady_clock::now();
    outcome.result = pass();
    synchronize(device);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    outcome.seconds = std::min(outcome.seconds, elapsed.count());
    outcome.peak_bytes = peak.growth();
  }
  for (const Parameter& parameter : parameters)
    outcome.gradients.emplace_back("gradient of " + parameter.name(), parameter.grad());
  zero_grad(parameters);
  return outcome;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && first_difference(a, b) < 0;
}

/// All that must be equal: losses, memories, gradients.
NamedTensors everything(const Outcome& outcome) {
  NamedTensors all;
  const WindowResult& result = outcome.result;
  all.emplace_back("losses of the segments",
                   from_host(result.segment_losses, {std::ssize(result.segment_losses)}));
  for (std::size_t t = 0; t < result.states.size(); ++t)
    for (const auto& entry : result.states[t])
      all.emplace_back(fmt::format("{} after {} segments", entry.name, t), entry.value);
  for (const auto& entry : result.entry_gradient)
    all.emplace_back("gradient of the entry " + entry.name, entry.value);
  all.insert(all.end(), outcome.gradients.begin(), outcome.gradients.end());
  return all;
}

std::vector<double> values_or_zeros(const Tensor& tensor, const Tensor& like) {
  if (tensor.defined()) return tensor.to(DType::f64).to_vector<double>();
  return std::vector<double>(like.defined() ? static_cast<std::size_t>(like.elements()) : 0);
}

/// max |a - b| / max |b|.
double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error = std::max(error, std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return error == 0.0 ? 0.0 : error / size;
}

AuditedPass compare(const Outcome& outcome, const Outcome& bptt) {
  AuditedPass audited;
  audited.peak_bytes = outcome.peak_bytes;
  audited.seconds = outcome.seconds;
  const NamedTensors ours = everything(outcome), oracle = everything(bptt);
  check(ours.size() == oracle.size(), "audit: a pass left {} values, BPTT {}", ours.size(),
        oracle.size());
  for (std::size_t i = 0; i < ours.size(); ++i)
    if (!same_bits(ours[i].second, oracle[i].second)) audited.differing.push_back(ours[i].first);

  double products = 0.0, our_squares = 0.0, oracle_squares = 0.0;
  for (std::size_t i = 0; i < outcome.gradients.size(); ++i) {
    const auto a = values_or_zeros(outcome.gradients[i].second, bptt.gradients[i].second);
    const auto b = values_or_zeros(bptt.gradients[i].second, outcome.gradients[i].second);
    audited.largest_relative_error = std::max(audited.largest_relative_error, relative_error(a, b));
    for (std::size_t j = 0; j < a.size(); ++j) {
      products += a[j] * b[j];
      our_squares += a[j] * a[j];
      oracle_squares += b[j] * b[j];
    }
  }
  for (std::size_t i = 0; i < bptt.result.entry_gradient.size(); ++i) {
    const Tensor& a = outcome.result.entry_gradient[i].value;
    const Tensor& b = bptt.result.entry_gradient[i].value;
    audited.largest_relative_error =
        std::max(audited.largest_relative_error,
                 relative_error(values_or_zeros(a, b), values_or_zeros(b, a)));
  }
  audited.cosine = products / std::sqrt(our_squares * oracle_squares);
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
  return std::ranges::all_of(
      windows, [](const AuditedWindow& window) { return window.mrbp.differing.empty(); });
}

double AuditReport::mrbp_growth(std::size_t i) const {
  const AuditedWindow &longer = windows[i], &shorter = windows[i - 1];
  return static_cast<double>(longer.mrbp.peak_bytes - shorter.mrbp.peak_bytes) /
         static_cast<double>(longer.segments - shorter.segments);
}

AuditReport audit_mrbp(const Memformer& model, const AuditOptions& options) {
  check(!options.segments.empty(), "audit: no window is given; give lengths such as 1,2,4");
  for (std::size_t i = 0; i < options.segments.size(); ++i)
    check(
        options.segments[i] > (i == 0 ? 0 : options.segments[i - 1]),
        "audit: window {} has {} segments; give positive lengths, each longer than the one before",
        i + 1, options.segments[i]);
  check(options.batch > 0, "audit: batch is {}; it must be positive", options.batch);
  check(options.repeats > 0, "audit: repeats is {}; it must be positive", options.repeats);

  const RngKey seed{options.seed};
  State entry = model.initial_state(options.batch);
  for (auto& tensor : entry) {
    const Shape shape = tensor.value.shape();
    tensor.value = normal(shape, seed.at("memory"), 0.0, 1.0, DType::f64)
                       .to(model.config().dtype)
                       .to(model.device());
  }
  const WithoutStateSeed faulty(model);
  const Recurrence& audited = options.fault == PlantedFault::drop_state_seed
                                  ? static_cast<const Recurrence&>(faulty)
                                  : model;
  const RngKey draws = seed.at("draws");

  AuditReport report;
  report.state_bytes = bytes_of(entry);
  for (const std::int64_t count : options.segments) {
    std::vector<Segment> segments =
        random_window(model.config(), count, options.batch, seed.at("tokens"));
    for (Segment& segment : segments) segment = segment.to(model.device());
    const auto run = [&](const std::function<WindowResult()>& pass) {
      return run_pass(model, options.repeats, pass);
    };
    AuditedWindow window;
    window.segments = count;
    const Outcome oracle = run([&] { return bptt(model, segments, entry, draws); });
    window.bptt = compare(oracle, oracle);
    window.mrbp = compare(run([&] { return mrbp(audited, segments, entry, draws); }), oracle);
    for (const std::int64_t length : {std::int64_t{1}, count / 2}) {
      const bool again = !window.truncated.empty() && length == 1;
      if (length < 1 || length >= count || again) continue;
      window.truncated.push_back(
          {length,
           compare(run([&] { return truncated_bptt(model, segments, entry, draws, length); }),
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
