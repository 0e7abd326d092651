#include "memformer/audit/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "memformer/replay/mrbp.h"
#include "nn/parameters.h"
#include "tensor/math.h"

namespace mf {
namespace {

// What must be so, in the order of the report.
enum class Check : std::size_t {
  order,
  bits,
  ops,
  one_tape,
  own_tape,
  swept,
  seeds,
  losses,
  unwatched,
};
constexpr std::array kClaims{
    "every segment but the last runs once without a tape, oldest first; then every segment once on "
    "a tape, newest first",
    "each recomputed memory has the bits of the kept one",
    "a replayed step begins with the ops of the first pass, in their order",
    "one tape at a time: when one begins, memories, gradients of parameters and G are all that is "
    "live, to the byte",
    "behind a step no more is live besides than what its tape saved and the step gave",
    "behind its sweep a tape holds nothing",
    "what segment t + 1 hands back is the seed at M_{t+1}, bit for bit; the last segment has none",
    "the segments' losses, oldest first, add up to the window's",
    "losses, memories and gradients have the bits of a run that nobody watches",
};

/// The forward ops that ran, by name; one at a time.
class OpTrail {
 public:
  OpTrail() { names().clear(); }

  /// Those since it was last asked.
  std::vector<std::string> take() { return std::exchange(names(), {}); }

 private:
  static std::vector<std::string>& names() {
    static std::vector<std::string> all;
    return all;
  }
  static void note(const OpEvent& event) {
    if (event.begins && event.phase == OpPhase::forward) names().emplace_back(event.op);
  }

  const OpObservation observation_{"trace", note};
};

/// Notes in which order the segments are run, and which ops each run takes.
class Witness final : public WrappedRecurrence {
 public:
  struct Run {
    ReplayLine line;  ///< write_memory: the memory path; recompute: the whole step
    std::int64_t segment;
    std::vector<std::string> ops;
  };

  Witness(const Recurrence& model, std::span<const Segment> segments)
      : WrappedRecurrence(model), segments_(segments) {}

  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    trail_.take();
    LiveState next = inner_.next_state(pass, segment, state);
    note(ReplayLine::write_memory, segment);
    return next;
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    trail_.take();
    StepResult result = inner_.step(pass, segment, state);
    note(ReplayLine::recompute, segment);
    return result;
  }

  const std::vector<Run>& runs() const { return runs_; }

 private:
  void note(ReplayLine line, const Segment& segment) const {
    runs_.push_back({line, &segment - segments_.data(), trail_.take()});
  }

  std::span<const Segment> segments_;
  mutable OpTrail trail_;
  mutable std::vector<Run> runs_;
};

/// The values of a state on the host, so that looking back at them keeps no tensor alive.
using HostState = std::vector<std::optional<std::vector<double>>>;

HostState on_host(const State& state) {
  HostState values;
  for (const auto& entry : state) {
    values.emplace_back();
    if (entry.value.defined()) values.back() = entry.value.to(DType::f64).to_vector<double>();
  }
  return values;
}

bool same_bits(const std::optional<std::vector<double>>& a,
               const std::optional<std::vector<double>>& b) {
  if (!a || !b) return !a && !b;
  return a->size() == b->size() &&
         std::memcmp(a->data(), b->data(), a->size() * sizeof(double)) == 0;
}

std::optional<double> norm_of(const State& state) {
  std::vector<Tensor> tensors;
  for (const auto& entry : state)
    if (entry.value.defined() && is_float(entry.value.dtype()))
      tensors.push_back(entry.value.contiguous());
  if (tensors.empty()) return std::nullopt;
  return std::sqrt(sum_of_squares(tensors));
}

std::string part_of(const std::string& module) {
  return module.empty() ? "loss" : module.substr(0, module.find('/'));
}

/// The tape's entries by part of the model, in the order in which the parts first ran.
std::vector<TapePart> parts_of(const TapeReport& report) {
  std::vector<TapePart> parts;
  std::vector<std::map<std::string, int>> ops;
  for (const TapeReport::Row& row : report.rows) {
    const std::string name = part_of(row.module);
    auto part = std::ranges::find(parts, name, &TapePart::name);
    if (part == parts.end()) {
      part = parts.emplace(parts.end());
      part->name = name;
      part->memory_path = name == "encoder" || name == "memory" || name == "writer";
      ops.emplace_back();
    }
    part->entries += 1;
    part->saved_bytes += row.saved_bytes;
    ops[static_cast<std::size_t>(part - parts.begin())][row.op] += 1;
  }
  for (std::size_t i = 0; i < parts.size(); ++i)
    for (const auto& [op, count] : ops[i])
      parts[i].ops += fmt::format("{}{} {}", parts[i].ops.empty() ? "" : ", ", op, count);
  return parts;
}

/// Looks at every moment of a window. It holds no tensor between them, so that what is live is the
/// window's own.
class Watcher {
 public:
  Watcher(const Recurrence& model, const AuditInputs& inputs)
      : parameters_(model.parameters()),
        device_(model.device()),
        last_(std::ssize(inputs.segments) - 1),
        before_(memory_stats(device_)) {
    for (const char* claim : kClaims) trace_.checks.push_back({claim, ""});
    for (const auto& entry : inputs.entry) known_.insert(entry.value.storage_id());
    for (const Segment& segment : inputs.segments) {
      std::vector<std::uint8_t> reset;
      if (segment.reset.defined()) reset = segment.reset.to_vector<std::uint8_t>();
      reset_rows_.push_back(std::ranges::count(reset, 1));
    }
    trace_.before_bytes = before_.active;
    peak_.emplace(device_);
  }

  void see(const ReplayMoment& moment);
  /// Holds the runs of the model, and what the watched window left, against what must be.
  WindowTrace finish(const Witness& witness, const WindowResult& result,
                     const std::vector<std::string>& differing);

 private:
  void require(bool holds, Check check, const std::string& failure) {
    std::string& first = trace_.checks[static_cast<std::size_t>(check)].failure;
    if (!holds && first.empty()) first = failure;
  }
  void see_step(const ReplayMoment& moment, TraceRow& row);
  void see_sweep(const ReplayMoment& moment);
  void require_nothing_else(const ReplayMoment& moment, const TraceRow& row);

  WindowTrace trace_;
  std::vector<Parameter> parameters_;
  Device device_;
  std::int64_t last_;
  MemoryStats before_;
  std::optional<PeakScope> peak_;
  std::set<const void*> known_;            // storages that were there before
  std::vector<std::int64_t> reset_rows_;   // by segment
  std::map<std::int64_t, double> losses_;  // by segment
  std::int64_t waiting_bytes_ = 0;         // of losses that wait on a device
  std::int64_t leaf_bytes_ = 0;            // live when the tape began
  std::vector<std::int32_t> next_ids_;     // of M_{t+1} on the tape; -1: not on it
  HostState handed_;                       // G, as the segment after handed it back
};

void Watcher::see(const ReplayMoment& moment) {
  const MemoryStats now = memory_stats(device_);
  TraceRow row;
  row.line = moment.line;
  row.segment = moment.segment;
  row.reset_rows = reset_rows_[static_cast<std::size_t>(moment.segment)];
  row.kept = std::ssize(moment.memories);
  row.live_bytes = now.active - before_.active;
  row.peak_bytes = peak_->peak() - before_.active;
  for (std::size_t c = 0; c < row.by_category.size(); ++c)
    if (static_cast<Category>(c) != Category::workspace)
      row.by_category[c] = now.by_category[c] - before_.by_category[c];
  if (moment.tape != nullptr) {
    row.has_tape = true;
    row.entries = moment.tape->size();
    row.saved_bytes = moment.tape->saved_bytes();
  }
  if (moment.gradient != nullptr) {
    row.knows_gradient = true;
    const bool out = moment.line == ReplayLine::hand_back || moment.line == ReplayLine::hand_out;
    (out ? row.gradient_out : row.gradient_in) = norm_of(*moment.gradient);
  }
  const auto t = static_cast<std::size_t>(moment.segment);
  if (moment.line != ReplayLine::hand_out) row.state_in = norm_of(moment.memories[t]);
  switch (moment.line) {
    case ReplayLine::write_memory:
      row.state_out = norm_of(moment.memories[t + 1]);
      [[fallthrough]];
    case ReplayLine::hand_out:
      require_nothing_else(moment, row);
      break;
    case ReplayLine::fresh_leaf:
      require_nothing_else(moment, row);
      leaf_bytes_ = row.live_bytes;
      break;
    case ReplayLine::recompute:
      see_step(moment, row);
      break;
    case ReplayLine::sweep:
      require(row.saved_bytes == 0, Check::swept,
              fmt::format("segment {}: {} bytes", moment.segment, row.saved_bytes));
      see_sweep(moment);
      break;
    case ReplayLine::hand_back:
      handed_ = on_host(*moment.gradient);
      break;
    case ReplayLine::keep_entry:
    case ReplayLine::absent_gradient:
      break;
  }
  trace_.rows.push_back(std::move(row));
  peak_.emplace(device_);  // what was looked at here does not count
}

void Watcher::see_step(const ReplayMoment& moment, TraceRow& row) {
  const auto t = static_cast<std::size_t>(moment.segment);
  const StepResult& step = *moment.step;
  row.state_out = norm_of(values_of(step.next));
  row.parts = parts_of(moment.tape->report());
  std::int64_t own = row.saved_bytes;
  for (const Var* given : {&step.outputs, &step.loss, &step.auxiliary})
    own += given->value.storage_bytes();
  next_ids_.clear();
  for (const auto& entry : step.next) {
    own += entry.value.value.storage_bytes();
    next_ids_.push_back(entry.value.on_tape() ? entry.value.id : -1);
  }
  require(row.live_bytes - leaf_bytes_ <= own, Check::own_tape,
          fmt::format("segment {}: {} bytes, {} of its tape and results", moment.segment,
                      row.live_bytes - leaf_bytes_, own));
  if (step.loss.value.defined()) {
    row.loss = step.loss.value.item();
    losses_[moment.segment] = *row.loss;
    if (device_ != cpu) waiting_bytes_ += step.loss.value.storage_bytes();
  }
  if (moment.segment == last_) return;
  row.same_bits = true;
  for (std::size_t i = 0; i < step.next.size(); ++i) {
    const std::int64_t at =
        first_difference(step.next[i].value.value, moment.memories[t + 1][i].value);
    if (at < 0) continue;
    row.same_bits = false;
    require(false, Check::bits,
            fmt::format("segment {}: '{}' of M_{} differs at element {}", t, step.next[i].name,
                        t + 1, at));
  }
}

void Watcher::see_sweep(const ReplayMoment& moment) {
  for (std::size_t i = 0; i < next_ids_.size(); ++i) {
    std::optional<std::vector<double>> seeded;
    for (const Seed& seed : moment.seeds)
      if (next_ids_[i] >= 0 && seed.var.id == next_ids_[i])
        seeded = seed.gradient.to(DType::f64).to_vector<double>();
    const auto handed = i < handed_.size() ? handed_[i] : std::nullopt;
    require(same_bits(seeded, handed), Check::seeds,
            fmt::format("segment {}: the seed at M_{} {}", moment.segment, moment.segment + 1,
                        !seeded  ? "is missing"
                        : handed ? "is another one"
                                 : "comes from nowhere"));
  }
}

void Watcher::require_nothing_else(const ReplayMoment& moment, const TraceRow& row) {
  std::set<const void*> met = known_;
  std::int64_t bytes = waiting_bytes_;
  const auto count = [&](const Tensor& tensor) {
    if (tensor.defined() && met.insert(tensor.storage_id()).second) bytes += tensor.storage_bytes();
  };
  for (const State& memory : moment.memories)
    for (const auto& entry : memory) count(entry.value);
  for (const Parameter& parameter : parameters_) count(parameter.grad());
  if (moment.gradient != nullptr)
    for (const auto& entry : *moment.gradient) count(entry.value);
  if (moment.line == ReplayLine::hand_out) bytes -= waiting_bytes_;  // they have been read
  require(row.live_bytes == bytes, Check::one_tape,
          fmt::format("'{}' of segment {}: {} bytes are live, {} of memories and gradients",
                      name_of(moment.line), moment.segment, row.live_bytes, bytes));
}

WindowTrace Watcher::finish(const Witness& witness, const WindowResult& result,
                            const std::vector<std::string>& differing) {
  peak_.reset();
  const std::vector<Witness::Run>& runs = witness.runs();
  const auto count = static_cast<std::size_t>(last_) + 1;
  bool in_order = runs.size() == 2 * count - 1;
  for (std::size_t i = 0; in_order && i < runs.size(); ++i) {
    const bool first_pass = i + 1 < count;
    in_order = runs[i].line == (first_pass ? ReplayLine::write_memory : ReplayLine::recompute) &&
               runs[i].segment == static_cast<std::int64_t>(first_pass ? i : 2 * count - 2 - i);
  }
  std::string ran;
  for (const Witness::Run& run : runs)
    ran += fmt::format(" {}{}", run.line == ReplayLine::write_memory ? "" : "r", run.segment);
  require(in_order, Check::order, "ran (r: on a tape):" + ran);
  for (std::size_t i = 0; in_order && i + 1 < count; ++i) {
    const auto &first = runs[i].ops, &again = runs[2 * count - 2 - i].ops;
    require(first.size() <= again.size() &&
                std::ranges::equal(first, std::span(again).first(first.size())),
            Check::ops, fmt::format("segment {}: {} ops, then {}", i, first.size(), again.size()));
  }
  double sum = 0.0;
  for (const auto& [segment, loss] : losses_) sum += loss;
  require(sum == result.loss_sum, Check::losses, fmt::format("{} and {}", sum, result.loss_sum));
  require(differing.empty(), Check::unwatched,
          differing.empty()
              ? ""
              : fmt::format("{} tensors differ, first: {}", differing.size(), differing.front()));
  return std::move(trace_);
}

/// The model with one step that draws from another key than the first pass did.
class WrongReplayKey final : public WrappedRecurrence {
 public:
  WrongReplayKey(const Recurrence& model, const Segment& victim)
      : WrappedRecurrence(model), victim_(victim) {}
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    if (&segment != &victim_) return inner_.step(pass, segment, state);
    return inner_.step({pass.tape, pass.key.at("another"), pass.mode, pass.module}, segment, state);
  }

 private:
  const Segment& victim_;
};

}  // namespace

bool WindowTrace::holds() const {
  return std::ranges::all_of(checks, [](const TraceCheck& check) { return check.failure.empty(); });
}

WindowTrace trace_window(const Recurrence& traced, const Recurrence& plain,
                         const AuditInputs& inputs, const WindowOptions& options) {
  std::vector<Parameter> parameters = plain.parameters();
  zero_grad(parameters);
  const WindowResult expected = mrbp(plain, inputs.segments, inputs.entry, inputs.draws, options);
  const NamedTensors gradients = gradients_of(parameters);
  zero_grad(parameters);

  const Witness witness(traced, inputs.segments);
  Watcher watcher(witness, inputs);
  WindowOptions watched = options;
  watched.watch = [&](const ReplayMoment& moment) { watcher.see(moment); };
  const WindowResult result = mrbp(witness, inputs.segments, inputs.entry, inputs.draws, watched);
  WindowTrace trace = watcher.finish(witness, result,
                                     differing(everything_left(result, gradients_of(parameters)),
                                               everything_left(expected, gradients)));
  zero_grad(parameters);
  return trace;
}

WindowTrace trace_mrbp(const Memformer& model, const TraceOptions& options) {
  const AuditInputs inputs = audit_inputs(model, options.segments, options.batch, options.seed);
  if (!options.wrong_replay_key) return trace_window(model, model, inputs);
  const ModelConfig& config = model.config();
  check(config.dropout > 0.0 || config.attention_dropout > 0.0,
        "trace: the model has no dropout and draws nothing, so another key changes nothing; set "
        "model.dropout");
  WindowOptions unchecked;
  unchecked.check_replay = false;
  const Segment& victim = inputs.segments[inputs.segments.size() > 1 ? 1 : 0];
  return trace_window(WrongReplayKey(model, victim), model, inputs, unchecked);
}

std::span<const ListingLine> algorithm_listing() {
  using enum ReplayLine;
  static constexpr ListingLine kLines[] = {
      {"1   The replay buffer holds the oldest memory, M_0.", false, keep_entry},
      {"  WindowResult result = start_result(segments, entry);", true, keep_entry},
      {"  std::vector<State>& memories = result.states;  // the replay buffer, eq. M1", true,
       keep_entry},
      {"2   For each segment but the last, oldest first, without a tape: the memory path", false,
       write_memory},
      {"    makes M_{t+1} from M_t, which is kept.", false, write_memory},
      {"  for (std::int64_t t = 0; t + 1 < count; ++t) {", true, write_memory},
      {"    Tape tape = options.check_finite ? Tape() : Tape::off();", true, write_memory},
      {"    const Pass pass = pass_of(tape, t, key, options);", true, write_memory},
      {"    memories.push_back(", true, write_memory},
      {"        kept(model.next_state(pass, segments[at(t)], constants_of(memories.back()))));",
       true, write_memory},
      {"3   G is absent: no loss lies behind the last memory.", false, absent_gradient},
      {"  State gradient;  // G of eq. M3, at the state after segment t; empty: no loss lies "
       "behind it",
       true, absent_gradient},
      {"4   For each segment, newest first, on a tape of its own, with M_t as its leaf:", false,
       fresh_leaf},
      {"  for (std::int64_t t = count - 1; t >= 0; --t) {", true, fresh_leaf},
      {"    Tape tape;", true, fresh_leaf},
      {"    const Pass pass = pass_of(tape, t, key, options);", true, fresh_leaf},
      {"    const LiveState memory = leaves_of(tape, memories[at(t)]);", true, fresh_leaf},
      {"    run the whole step again, with the key of the first pass.", false, recompute},
      {"      const StepResult step = model.step(pass, segments[at(t)], memory);", true, recompute},
      {"4a  The memory it makes must have the bits of the kept one; the last one is kept.", false,
       recompute},
      {"        memories.push_back(kept(step.next));", true, recompute, true},
      {"        require_same_bits(values_of(step.next), memories[at(t + 1)], t);", true, recompute,
       false},
      {"5   One sweep back from two seeds: the segment's loss, and M_{t+1} with gradient G.", false,
       sweep},
      {"      add_loss_seeds(seeds, step, weight);", true, sweep},
      {"      add_state_seeds(seeds, step.next, gradient);", true, sweep},
      {"    tape.backward(seeds);  // eq. M5", true, sweep},
      {"6   G is now the gradient at M_t; the tape dies with the loop's body.", false, hand_back},
      {"    gradient = gradient_of(tape, memory, t);  // eq. M6", true, hand_back},
      {"7   The memories and the gradient at M_0 are handed out.", false, hand_out},
      {"  result.entry_gradient = std::move(gradient);", true, hand_out},
      {"  return result;", true, hand_out},
  };
  return kLines;
}

bool ran(const ListingLine& line, const TraceRow& row) {
  return line.line == row.line && line.last_segment.value_or(!row.same_bits) == !row.same_bits;
}

const char* name_of(ReplayLine line) {
  switch (line) {
    case ReplayLine::keep_entry:
      return "1 keep the entry";
    case ReplayLine::write_memory:
      return "2 write a memory";
    case ReplayLine::absent_gradient:
      return "3 G is absent";
    case ReplayLine::fresh_leaf:
      return "4 fresh tape";
    case ReplayLine::recompute:
      return "4 recompute";
    case ReplayLine::sweep:
      return "5 sweep";
    case ReplayLine::hand_back:
      return "6 hand back";
    case ReplayLine::hand_out:
      return "7 hand out";
  }
  return "";
}

}  // namespace mf
