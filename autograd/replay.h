#pragma once

#include <functional>
#include <span>
#include <vector>

#include "autograd/pass.h"

namespace mf {

/// A function of Vars. It must be repeatable: what it draws comes from pass.key, what it reads
/// besides its inputs does not change before the sweep.
using ReplayFunction = std::function<std::vector<Var>(const Pass&, std::span<const Var>)>;

/// Checkpoint and recompute. Runs `fn` without recording its inside and records one entry that
/// saves only the inputs; the sweep opens a tape of its own, runs `fn` again with the same key,
/// sweeps that, and hands the inputs' gradients out. Parameters used inside get theirs by
/// write-through, so the entry is recorded whenever `pass.tape` records, even if no input is on it.
/// Replays nest.
std::vector<Var> replay(const Pass& pass, ReplayFunction fn, std::span<const Var> inputs);
/// The same for one input and one result.
Var replay(const Pass& pass, std::function<Var(const Pass&, const Var&)> fn, const Var& input);

}  // namespace mf
