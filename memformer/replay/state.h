#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autograd/tape.h"

namespace mf {

/// What happens to the gradient where one segment's state becomes the next segment's input.
struct Boundary {
  /// 0: keep, the gradient flows through every boundary. 1: detach at each boundary. k: detach
  /// before the segments k, 2k, .. of a window, counted from its first.
  std::int64_t detach_every = 0;

  /// Whether the gradient stops between segments `segment` - 1 and `segment` of a window.
  bool cuts_before(std::int64_t segment) const {
    return detach_every > 0 && segment > 0 && segment % detach_every == 0;
  }
};

/// One tensor of a recurrent state. T is Tensor at rest and Var inside a pass.
template <class T>
struct StateEntry {
  std::string name;            ///< for messages and checkpoints
  T value;                     ///< first axis: the batch
  bool differentiable = true;  ///< false: carried only (token ids, counters, sampled indices)
  Boundary boundary{};         ///< belongs to the state that came in; a step hands it on
};

/// The state handed from segment to segment: an ordered list, since models carry more than one
/// tensor. It may grow over the first segments. `State` rests in buffers, `LiveState` belongs to
/// one pass.
using State = std::vector<StateEntry<Tensor>>;
/// A State inside one pass: its Vars are on that pass's tape, or constants.
using LiveState = std::vector<StateEntry<Var>>;

/// The values of a live state.
State values_of(const LiveState& state);
/// The same, booked in the memory ledger as states.
State kept(const LiveState& state);
/// The state as constants: nothing flows back into it.
LiveState constants_of(const State& state);
/// The state as fresh leaves of `tape`; what is not differentiable becomes constants.
LiveState leaves_of(Tape& tape, const State& state);
/// The state with the entries that `segment`'s boundary cuts made constant.
LiveState cross_boundary(LiveState state, std::int64_t segment);
/// The state with one rule for all its entries.
State with_boundary(State state, Boundary boundary);
/// `x` [B, ..] with the rows that start a document replaced by `initial`, which broadcasts to x;
/// `reset` u8 [B] or undefined. No gradient passes from such a row to x.
Var reset_rows(const Var& x, const Var& initial, const Tensor& reset);
/// Bytes of all entries.
std::int64_t bytes_of(const State& state);

/// Throws Error naming segment, entry and first differing element unless all bits agree.
void require_same_bits(const State& replayed, const State& stored, std::int64_t segment);

}  // namespace mf
