#include "memformer/replay/sweep.h"

#include <numeric>

#include "tensor/math.h"

namespace mf {
namespace {

void add_scalar_seed(std::vector<Seed>& seeds, const Var& loss, double weight) {
  if (loss.on_tape()) seeds.push_back({loss, scalar(weight, loss.dtype(), loss.value.device())});
}

/// Reads a loss at once where that costs nothing.
void book(std::vector<double>& values, std::vector<Tensor>& unread, std::size_t t,
          const Tensor& loss) {
  if (!loss.defined()) return;
  if (loss.device() == cpu) {
    values[t] = loss.item();
  } else {
    unread.resize(values.size());
    unread[t] = loss;
  }
}

double add_up(std::vector<double>& values, std::vector<Tensor>& unread) {
  std::vector<Tensor> defined;
  for (const Tensor& loss : unread)
    if (loss.defined()) defined.push_back(loss.reshape({1}));
  if (!defined.empty()) {
    const std::vector<double> read = concat(defined, 0).to(DType::f64).to_vector<double>();
    auto next = read.begin();
    for (std::size_t t = 0; t < unread.size(); ++t)
      if (unread[t].defined()) values[t] = *next++;
  }
  unread.clear();
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

Pass pass_of(Tape& tape, std::int64_t t, RngKey key, const WindowOptions& options) {
  tape.check_finite(options.check_finite);
  return {tape, key.at(static_cast<std::uint64_t>(t)), options.mode,
          options.check_finite ? fmt::format("segment {}", t) : std::string()};
}

WindowResult start_result(std::span<const Segment> segments, const State& entry) {
  WindowResult result;
  result.scored = scored_targets(segments);
  result.segment_losses.assign(segments.size(), 0.0);
  result.segment_auxiliaries.assign(segments.size(), 0.0);
  result.states.push_back(entry);
  return result;
}

void add_loss_seeds(std::vector<Seed>& seeds, const StepResult& step, double weight) {
  add_scalar_seed(seeds, step.loss, weight);
  add_scalar_seed(seeds, step.auxiliary, 1.0);
}

void add_state_seeds(std::vector<Seed>& seeds, const LiveState& next, const State& gradient) {
  for (std::size_t i = 0; i < gradient.size(); ++i)
    if (gradient[i].value.defined() && next[i].value.on_tape())
      seeds.push_back({next[i].value, gradient[i].value});
}

State gradient_of(const Tape& tape, const LiveState& memory, std::int64_t t) {
  State gradient;
  for (const auto& entry : memory) {
    const bool arrives =
        entry.value.on_tape() && tape.reached(entry.value) && !entry.boundary.cuts_before(t);
    gradient.push_back({entry.name, arrives ? tape.grad(entry.value) : Tensor{},
                        entry.differentiable, entry.boundary});
  }
  return gradient;
}

void book_step(WindowResult& result, std::int64_t t, const Segment& segment, const StepResult& step,
               const WindowOptions& options) {
  const auto index = static_cast<std::size_t>(t);
  book(result.segment_losses, result.unread_losses, index, step.loss.value);
  book(result.segment_auxiliaries, result.unread_auxiliaries, index, step.auxiliary.value);
  if (options.observe) options.observe(t, segment, step.outputs.value);
}

void add_up_losses(WindowResult& result) {
  result.loss_sum = add_up(result.segment_losses, result.unread_losses);
  result.auxiliary = add_up(result.segment_auxiliaries, result.unread_auxiliaries);
}

}  // namespace mf
