// Chapter 4 of the walkthrough: docs/walkthrough/04-checkpoint-and-recompute.md.
// Keep only some values of a chain, and make the others again when the sweep needs them: the same
// gradient, bit for bit, for fewer bytes and more work.

#include <cstdio>

#include "autograd/ops.h"
#include "autograd/replay.h"
#include "nn/dropout.h"
#include "tensor/memory.h"

namespace {

using namespace mf;

constexpr std::int64_t kBlocks = 16, kWidth = 1000;

/// What a run leaves: its gradients, and what it took.
struct Run {
  Tensor input_gradient, weight_gradient;
  std::int64_t entries = 0, saved = 0, peak = 0;
  int blocks_run = 0;
};

/// x -> dropout(tanh(w x)), 16 times. `group` blocks at a time are one entry of the tape; 0: each
/// op is an entry. `counted`: draws come from a counter instead of the pass's key.
Run run_chain(std::int64_t group, bool counted = false) {
  Parameter weight(uniform({kWidth}, RngKey{1}, 0.5, 1.5, DType::f64), "weight");
  Run run;
  const auto block = [&](const Pass& pass, const Var& x) {
    ++run.blocks_run;
    const Pass draws{pass.tape,
                     counted ? RngKey{static_cast<std::uint64_t>(run.blocks_run)} : pass.key,
                     pass.mode,
                     {}};
    return dropout(draws, tanh(mul(pass.tape.param(weight), x)), 0.1);
  };
  const auto blocks = [&](std::int64_t from, std::int64_t to) {
    return [&block, from, to](const Pass& pass, const Var& x) {
      Var y = x;
      for (std::int64_t i = from; i < to; ++i) y = block(pass.at("block", i), y);
      return y;
    };
  };

  const Tensor start = uniform({kWidth}, RngKey{2}, -1.0, 1.0, DType::f64);
  const PeakScope peak;
  Tape tape;
  const Pass pass{tape, RngKey{3}, Mode::train, {}};
  const Var x = tape.input(start, "x");
  Var y = x;
  if (group == 0) y = blocks(0, kBlocks)(pass, x);
  for (std::int64_t i = 0; group > 0 && i < kBlocks; i += group)
    y = replay(pass, blocks(i, i + group), y);
  run.entries = tape.size();
  run.saved = tape.saved_bytes();
  tape.backward(sum(y));
  run.input_gradient = tape.grad(x);
  run.weight_gradient = weight.grad();
  run.peak = peak.growth();
  return run;
}

bool same_bits(const Run& a, const Run& b) {
  return first_difference(a.input_gradient, b.input_gradient) < 0 &&
         first_difference(a.weight_gradient, b.weight_gradient) < 0;
}

}  // namespace

int main() {
  bool right = true;
  const Run everything = run_chain(0);
  std::printf("kept                 entries  bytes kept  peak bytes  blocks run  gradients\n");
  for (const std::int64_t group : {0, 1, 2, 4, 8, 16}) {
    const Run run = run_chain(group);
    const bool same = same_bits(run, everything);
    char kept[32] = "every op's need";
    if (group > 0) std::snprintf(kept, sizeof(kept), "input of every %d", static_cast<int>(group));
    std::printf("%-20s %7d  %10d  %10d  %10d  %s\n", kept, static_cast<int>(run.entries),
                static_cast<int>(run.saved), static_cast<int>(run.peak), run.blocks_run,
                same ? "same bits" : "DIFFERENT");
    right &= same && run.blocks_run == (group == 0 ? 16 : 32);
  }

  // The condition: run again, the block must be the same function. With draws from a counter the
  // second run drops other elements, and nothing fails; the gradient is just wrong.
  const bool luck = same_bits(run_chain(4, true), run_chain(0, true));
  std::printf("draws from a key: the second run repeats the first; from a counter: %s gradients\n",
              luck ? "the same" : "other");
  right &= !luck;
  return right ? 0 : 1;
}
