#pragma once

#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "memformer/model/memformer.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"
#include "nn/parameters.h"
#include "tensor/cpu/parallel.h"
#include "tensor/math.h"
#include "tensor/memory.h"

/// What the tests of layers, models and replay share: comparisons, random configurations and
/// windows, and one record of everything that a pass over a window leaves behind.
namespace mf::test {

// Comparisons -----------------------------------------------------------------------------------

/// Same shape, dtype and bits. Two undefined tensors are identical: "no gradient" is not "zero".
inline bool identical(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() ||
         (a.shape() == b.shape() && a.dtype() == b.dtype() && first_difference(a, b) < 0);
}
inline bool identical(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

inline std::vector<double> doubles(const Tensor& x) { return x.to(DType::f64).to_vector<double>(); }

/// Largest |a - b| relative to the largest |b|; infinite if a value is not finite. What is below
/// 1e-15 in both is rounding of an exact zero (the gradient of a key bias, for one).
inline double relative_difference(const Tensor& a, const Tensor& b) {
  check(a.shape() == b.shape(), "relative_difference: shapes differ; {} and {}", a, b);
  const std::vector<double> x = doubles(a), y = doubles(b);
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i]) || !std::isfinite(y[i]))
      return std::numeric_limits<double>::infinity();
    difference = std::max(difference, std::abs(x[i] - y[i]));
    size = std::max(size, std::abs(y[i]));
  }
  return difference < 1e-15 ? 0.0 : difference / size;
}

inline Tensor random_tensor(const Shape& shape, RngKey key, DType dtype = DType::f64) {
  return normal(shape, key, 0.0, 1.0, DType::f64).to(dtype);
}

using mf::perturb;

// Random configurations -------------------------------------------------------------------------

/// Draws one after the other from one key.
class Draws {
 public:
  explicit Draws(RngKey key) : key_(key) {}

  /// Uniform in low..high.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(
                     key_.below(static_cast<std::uint64_t>(high - low + 1), next_++));
  }
  bool chance(double probability) { return key_.uniform(next_++) < probability; }
  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[between(0, static_cast<std::int64_t>(values.size()) - 1)];
  }
  RngKey key() { return key_.at(next_++); }

 private:
  RngKey key_;
  std::uint64_t next_ = 0;
};

/// A small model with every switch drawn.
inline ModelConfig random_config(Draws& draw, DType dtype) {
  ModelConfig c;
  c.architecture = draw.chance(0.7) ? Architecture::encoder_decoder : Architecture::encoder_only;
  c.vocabulary = 11;
  c.width = 8;
  c.heads = draw.between(1, 2);
  c.encoder_layers = draw.between(1, 3);
  c.decoder_layers = draw.between(1, 3);
  c.feed_forward = 12;
  c.segment = 5;
  c.slots = draw.between(0, 4);
  c.activation = draw.pick({Activation::gelu, Activation::relu, Activation::silu});
  c.dropout = draw.pick({0.0, 0.2});
  c.attention_dropout = draw.pick({0.0, 0.2});
  c.final_norm = draw.chance(0.7);
  c.positions = draw.pick({Positions::learned, Positions::sinusoidal, Positions::relative_bias,
                           Positions::simplified_relative, Positions::none});
  c.relative_buckets = 4;
  c.relative_max_distance = 8;
  c.embedding_scale = draw.pick({1.0, 2.0});
  c.attention_bias = draw.chance(0.5);
  c.tie_embeddings = draw.chance(0.5);
  c.tie_output = draw.chance(0.5);
  c.memory_read_norm = draw.pick({ReadNorm::shared, ReadNorm::own, ReadNorm::none});
  c.writer_project_value = draw.chance(0.5);
  c.writer_shared_key = draw.chance(0.5);
  c.writer_output_projection = draw.chance(0.5);
  c.temperature = draw.pick({1.0, 0.25});
  c.memory_norm = draw.pick({MemoryNorm::l2, MemoryNorm::layer_norm, MemoryNorm::none});
  c.memory_radius = draw.pick({0.0, 1.0});
  c.forgetting = draw.chance(0.5);
  c.forgetting_initial_norm = draw.pick({0.5, 2.0});
  c.layer_replay = draw.chance(0.3);
  c.dtype = dtype;
  return c;
}

/// i32 [rows, columns] of ids below `bound`.
inline Tensor random_ids(Draws& draw, std::int64_t rows, std::int64_t columns, std::int64_t bound) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * columns));
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(draw.between(0, bound - 1));
  return from_host(ids, {rows, columns});
}

/// u8 [rows, columns]: the first 1..columns places of each row are real tokens.
inline Tensor random_padding(Draws& draw, std::int64_t rows, std::int64_t columns) {
  std::vector<std::uint8_t> real;
  for (std::int64_t b = 0; b < rows; ++b) {
    const std::int64_t length = draw.between(1, columns);
    for (std::int64_t i = 0; i < columns; ++i) real.push_back(i < length ? 1 : 0);
  }
  return from_host(real, {rows, columns});
}

/// A segment of any length up to the model's, padded or not, scored in part or not at all.
inline Segment random_segment(Draws& draw, const ModelConfig& c, std::int64_t batch,
                              bool has_targets) {
  Segment segment;
  const std::int64_t length = draw.between(1, c.segment);
  segment.tokens = random_ids(draw, batch, length, c.vocabulary);
  if (draw.chance(0.5)) segment.padding = random_padding(draw, batch, length);
  if (draw.chance(0.3)) {
    std::vector<std::uint8_t> reset(static_cast<std::size_t>(batch));
    for (std::uint8_t& row : reset) row = draw.chance(0.5) ? 1 : 0;
    segment.reset = from_host(reset, {batch});
  }
  if (!has_targets) return segment;
  const bool decodes = c.architecture == Architecture::encoder_decoder;
  const std::int64_t targets = decodes ? draw.between(1, c.segment) : length;
  if (decodes) segment.decoder_inputs = random_ids(draw, batch, targets, c.vocabulary);
  std::vector<std::int32_t> wanted(static_cast<std::size_t>(batch * targets));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const bool scored = i == 0 || draw.chance(0.8);
    wanted[i] = scored ? static_cast<std::int32_t>(draw.between(0, c.vocabulary - 1)) : kIgnore;
    segment.scored += scored ? 1 : 0;
  }
  segment.targets = from_host(wanted, {batch, targets});
  return segment;
}

/// A model, a window and all else that a pass over it needs, drawn from one key.
struct Trial {
  ModelConfig config;
  Memformer model;
  std::vector<Segment> segments;
  State entry;
  RngKey key;
};

/// A window of `count` segments. Losses at some steps only, always at the last; M_0 inside the
/// window (every row of segment 0 is reset) in half of them, else a memory carried in.
inline Trial random_trial(Draws& draw, const ModelConfig& config, std::int64_t count) {
  Trial trial{config, Memformer(config, draw.key()), {}, {}, draw.key()};
  perturb(trial.model.parameters(), draw.key());
  const std::int64_t batch = draw.between(1, 3);
  for (std::int64_t t = 0; t < count; ++t)
    trial.segments.push_back(
        random_segment(draw, config, batch, t + 1 == count || draw.chance(0.6)));
  if (draw.chance(0.5)) trial.segments.front().reset = full({batch}, 1, DType::u8);
  trial.entry = trial.model.initial_state(batch);
  for (auto& entry : trial.entry)
    entry.value = random_tensor(entry.value.shape(), draw.key(), config.dtype);
  return trial;
}

inline std::string describe(const Trial& trial) {
  return std::to_string(trial.segments.size()) + " segments of " + to_json(trial.config);
}

/// Which values each switch took: a set of random configurations must have met them all.
class Coverage {
 public:
  void add(const std::string& name, const std::string& value) { ++seen_[name][value]; }
  void add(const ModelConfig& c) {
    const auto flag = [this](const std::string& name, bool value) { add(name, value ? "1" : "0"); };
    const auto word = [this](const std::string& name, auto value) {
      add(name, std::to_string(static_cast<int>(value)));
    };
    word("architecture", c.architecture);
    word("heads", c.heads);
    word("encoder_layers", c.encoder_layers);
    word("decoder_layers", c.decoder_layers);
    word("slots", c.slots);
    word("activation", c.activation);
    flag("dropout", c.dropout > 0.0);
    flag("attention_dropout", c.attention_dropout > 0.0);
    flag("final_norm", c.final_norm);
    flag("layer_replay", c.layer_replay);
    word("positions", c.positions);
    flag("attention_bias", c.attention_bias);
    flag("tie_embeddings", c.tie_embeddings);
    flag("tie_output", c.tie_output);
    word("memory_read_norm", c.memory_read_norm);
    flag("writer_project_value", c.writer_project_value);
    flag("writer_shared_key", c.writer_shared_key);
    flag("writer_output_projection", c.writer_output_projection);
    flag("temperature", c.temperature < 1.0);
    word("memory_norm", c.memory_norm);
    flag("memory_radius", c.memory_radius > 0.0);
    flag("forgetting", c.forgetting);
  }
  void add(const Trial& trial) {
    add(trial.config);
    add("segments", std::to_string(trial.segments.size()));
    bool padded = false, unscored = false, reset = false;
    for (std::size_t t = 0; t < trial.segments.size(); ++t) {
      padded |= trial.segments[t].padding.defined();
      unscored |= !trial.segments[t].targets.defined();
      reset |= t > 0 && trial.segments[t].reset.defined();
    }
    add("padding", padded ? "1" : "0");
    add("unscored segment", unscored ? "1" : "0");
    add("reset inside", reset ? "1" : "0");
  }

  /// The switches that took fewer than this many values: "name: 1 of 2", or empty.
  std::string missing(const std::map<std::string, std::size_t>& expected) const {
    std::string text;
    for (const auto& [name, count] : expected) {
      const auto found = seen_.find(name);
      const std::size_t values = found == seen_.end() ? 0 : found->second.size();
      if (values < count)
        text += name + ": " + std::to_string(values) + " of " + std::to_string(count) + "; ";
    }
    return text;
  }

 private:
  std::map<std::string, std::map<std::string, int>> seen_;
};

/// How many values each switch of a random configuration can take.
inline std::map<std::string, std::size_t> all_switches() {
  return {{"architecture", 2},
          {"heads", 2},
          {"encoder_layers", 3},
          {"decoder_layers", 3},
          {"slots", 5},
          {"activation", 3},
          {"dropout", 2},
          {"attention_dropout", 2},
          {"final_norm", 2},
          {"layer_replay", 2},
          {"positions", 5},
          {"attention_bias", 2},
          {"tie_embeddings", 2},
          {"tie_output", 2},
          {"memory_read_norm", 3},
          {"writer_project_value", 2},
          {"writer_shared_key", 2},
          {"writer_output_projection", 2},
          {"temperature", 2},
          {"memory_norm", 3},
          {"memory_radius", 2},
          {"forgetting", 2},
          {"padding", 2},
          {"unscored segment", 2},
          {"reset inside", 2}};
}

// Passes over a window --------------------------------------------------------------------------

using WindowMethod = WindowResult (*)(const Recurrence&, std::span<const Segment>, const State&,
                                      RngKey, const WindowOptions&);

/// Peak of active bytes above what the window's inputs, the weights, their gradients and the entry
/// state take. The gradients are there beforehand, as in a window that adds to another's: else the
/// writer's would come with the third segment, since the last write of a window gets none.
inline std::int64_t peak_of(WindowMethod method, const Recurrence& model,
                            std::span<const Segment> segments, const State& entry, RngKey key) {
  std::vector<Parameter> parameters = model.parameters();
  for (Parameter& parameter : parameters) parameter.grad() = zeros_like(parameter.value());
  const PeakScope scope;
  const WindowResult result = method(model, segments, entry, key, {});
  const std::int64_t peak = scope.growth();
  zero_grad(parameters);
  return peak;
}
inline std::int64_t peak_of(WindowMethod method, const Trial& trial) {
  return peak_of(method, trial.model, trial.segments, trial.entry, trial.key);
}

/// kMethod with an observer that keeps every segment's logits: a negative control of what counts
/// bytes.
template <auto kMethod>
WindowResult hoarding(const Recurrence& model, std::span<const Segment> segments,
                      const State& entry, RngKey key, const WindowOptions&) {
  std::vector<Tensor> hoard;
  WindowOptions options;
  options.observe = [&](std::int64_t, const Segment&, const Tensor& outputs) {
    hoard.push_back(outputs);
  };
  return kMethod(model, segments, entry, key, options);
}

/// All that a pass over a window leaves.
struct Outcome {
  WindowResult result;
  std::vector<std::pair<std::string, Tensor>> gradients;  ///< by parameter, undefined: none arrived
};

template <class Method>
Outcome run_window(const Method& method, const Recurrence& model, std::span<const Segment> segments,
                   const State& entry, RngKey key, const WindowOptions& options = {}) {
  std::vector<Parameter> parameters = model.parameters();
  zero_grad(parameters);
  Outcome outcome{method(model, segments, entry, key, options), {}};
  for (Parameter& parameter : parameters) {
    outcome.gradients.emplace_back(parameter.name(), parameter.grad());
    parameter.zero_grad();
  }
  return outcome;
}

template <class Method>
Outcome run_window(const Method& method, const Trial& trial, const WindowOptions& options = {}) {
  return run_window(method, trial.model, trial.segments, trial.entry, trial.key, options);
}

/// Names everything that differs in any bit: losses, states, entry gradient, parameter gradients.
inline std::vector<std::string> differences(const Outcome& a, const Outcome& b) {
  std::vector<std::string> names;
  const auto compare = [&](const std::string& name, const auto& x, const auto& y) {
    if (!identical(x, y)) names.push_back(name);
  };
  const auto compare_states = [&](const std::string& name, const State& x, const State& y) {
    if (x.size() != y.size()) return names.push_back(name + ": number of tensors");
    for (std::size_t i = 0; i < x.size(); ++i)
      compare(name + " " + x[i].name, x[i].value, y[i].value);
  };
  if (a.result.segment_losses.size() != b.result.segment_losses.size() ||
      a.result.states.size() != b.result.states.size() || a.gradients.size() != b.gradients.size())
    return {"numbers of segments, states or parameters"};
  compare("loss", a.result.loss_sum, b.result.loss_sum);
  compare("auxiliary loss", a.result.auxiliary, b.result.auxiliary);
  if (a.result.scored != b.result.scored) names.push_back("scored");
  for (std::size_t t = 0; t < a.result.segment_losses.size(); ++t)
    compare("loss of segment " + std::to_string(t), a.result.segment_losses[t],
            b.result.segment_losses[t]);
  for (std::size_t t = 0; t < a.result.states.size(); ++t)
    compare_states("state " + std::to_string(t), a.result.states[t], b.result.states[t]);
  compare_states("entry gradient", a.result.entry_gradient, b.result.entry_gradient);
  for (std::size_t i = 0; i < a.gradients.size(); ++i)
    compare("gradient of " + a.gradients[i].first, a.gradients[i].second, b.gradients[i].second);
  return names;
}

/// One line for a failure message.
inline std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// A recurrence that behaves like another one but for what a test overrides.
using Wrapped = WrappedRecurrence;

/// Forgets to hand the gradient of the next state back: what MRBP is without its seed G.
class WithoutSeed final : public Wrapped {
 public:
  using Wrapped::Wrapped;
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result = inner_.step(pass, segment, state);
    for (auto& entry : result.next) entry.value = constant(entry.value.value);
    return result;
  }
};

}  // namespace mf::test
