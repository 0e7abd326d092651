#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "memformer/replay/recurrence.h"

namespace mf {

/// The line of Algorithm 1 that mrbp has just run (docs/mrbp.md).
enum class ReplayLine : std::uint8_t {
  keep_entry,       ///< 1: the replay buffer holds M_t
  write_memory,     ///< 2: a segment's memory path was run without a tape, M_{t+1} is kept
  absent_gradient,  ///< 3: G is absent
  fresh_leaf,       ///< 4: a new tape, with M_t as its leaf
  recompute,        ///< 4 and 4a: the step was run on it, the last M_{t+1} kept, others compared
  sweep,            ///< 5: the loss and M_{t+1}, with gradient G, were back-propagated
  hand_back,        ///< 6: G is the gradient at M_t
  hand_out,         ///< 7: the memories and the entry's gradient are the result
};

/// What mrbp shows to who watches it. Everything belongs to mrbp and holds during the call.
struct ReplayMoment {
  ReplayLine line;                     ///< that has just run
  std::int64_t segment;                ///< of the window, counted from 0
  const std::vector<State>& memories;  ///< the replay buffer
  const State* gradient = nullptr;     ///< G; null in the first pass, empty: absent
  const Tape* tape = nullptr;          ///< the segment's; null while there is none
  const StepResult* step = nullptr;    ///< at `recompute`
  std::span<const Seed> seeds = {};    ///< at `sweep`
};

}  // namespace mf
