#include "memformer/replay/mrbp.h"

#include "memformer/replay/sweep.h"

namespace mf {

WindowResult mrbp(const Recurrence& model, std::span<const Segment> segments, const State& entry,
                  RngKey key, const WindowOptions& options) {
  const auto count = static_cast<std::int64_t>(segments.size());
  check(count > 0, "mrbp: the window has no segments");
  const auto at = [](std::int64_t t) { return static_cast<std::size_t>(t); };
  const CategoryScope category(Category::activation);

  WindowResult result = start_result(segments, entry);
  std::vector<State>& memories = result.states;  // the replay buffer, eq. M1
  show(options, {ReplayLine::keep_entry, 0, memories});

  // Forward, eq. M2: the memory path of all segments but the last, which the loop below runs. In
  // anomaly mode it is recorded, and forgotten: only a tape can name the op that made a NaN.
  for (std::int64_t t = 0; t + 1 < count; ++t) {
    Tape tape = options.check_finite ? Tape() : Tape::off();
    const Pass pass = pass_of(tape, t, key, options);
    memories.push_back(
        kept(model.next_state(pass, segments[at(t)], constants_of(memories.back()))));
    show(options, {ReplayLine::write_memory, t, memories});
  }

  // Backward, eq. M4: newest segment first, each on a tape of its own.
  const double weight = loss_weight(segments, options.scale);
  State gradient;  // G of eq. M3, at the state after segment t; empty: no loss lies behind it
  show(options, {ReplayLine::absent_gradient, count - 1, memories, &gradient});
  for (std::int64_t t = count - 1; t >= 0; --t) {
    Tape tape;
    const Pass pass = pass_of(tape, t, key, options);
    const LiveState memory = leaves_of(tape, memories[at(t)]);
    show(options, {ReplayLine::fresh_leaf, t, memories, &gradient, &tape});
    std::vector<Seed> seeds;
    {
      const StepResult step = model.step(pass, segments[at(t)], memory);
      if (t + 1 == count) {
        memories.push_back(kept(step.next));
      } else if (options.check_replay) {
        require_same_bits(values_of(step.next), memories[at(t + 1)], t);
      }
      show(options, {ReplayLine::recompute, t, memories, &gradient, &tape, &step});
      add_loss_seeds(seeds, step, weight);
      add_state_seeds(seeds, step.next, gradient);
      book_step(result, t, segments[at(t)], step, options);
    }
    tape.backward(seeds);  // eq. M5
    show(options, {ReplayLine::sweep, t, memories, &gradient, &tape, nullptr, seeds});
    gradient = gradient_of(tape, memory, t);  // eq. M6
    show(options, {ReplayLine::hand_back, t, memories, &gradient, &tape});
  }
  result.entry_gradient = std::move(gradient);
  add_up_losses(result);
  show(options, {ReplayLine::hand_out, 0, memories, &result.entry_gradient});
  return result;
}

}  // namespace mf
