#include "memformer/replay/unroll.h"

#include "memformer/replay/sweep.h"

namespace mf {

State unroll(const Recurrence& model, std::span<const Segment> segments, std::int64_t begin,
             std::int64_t end, RngKey key, const WindowOptions& options, WindowResult& result) {
  const double weight = loss_weight(segments, options.scale);
  const CategoryScope category(Category::activation);
  Tape tape;
  const LiveState entry = leaves_of(tape, result.states.back());
  LiveState memory = entry;
  std::vector<Seed> seeds;
  for (std::int64_t t = begin; t < end; ++t) {
    const auto index = static_cast<std::size_t>(t);
    const Pass pass = pass_of(tape, t, key, options);
    if (t > begin) memory = cross_boundary(std::move(memory), t);
    const StepResult step = model.step(pass, segments[index], memory);
    add_loss_seeds(seeds, step, weight);
    book_step(result, t, segments[index], step, options);
    memory = step.next;
    result.states.push_back(kept(memory));
  }
  tape.backward(seeds);
  return gradient_of(tape, entry, begin);
}

}  // namespace mf
