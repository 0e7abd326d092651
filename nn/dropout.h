#pragma once

#include "autograd/ops/arithmetic.h"
#include "autograd/ops/dropout.h"
#include "autograd/pass.h"

namespace mf {

/// True in training with a probability above 0.
inline bool drops(const Pass& pass, double probability) {
  return pass.mode == Mode::train && probability > 0.0;
}

/// Dropout in training, nothing in evaluation. The mask is a function of the pass's key.
inline Var dropout(const Pass& pass, const Var& x, double probability) {
  return drops(pass, probability) ? dropout(x, probability, pass.key) : x;
}

/// x + dropout(sub-layer), the residual connection of a Transformer layer. `sublayer(residual)`
/// adds its argument, if defined, to its result: where nothing is dropped, its last product does
/// so.
template <class F>
Var add_residual(const Pass& pass, const Var& x, double probability, const F& sublayer) {
  if (!drops(pass, probability)) return sublayer(x);
  return add(x, dropout(pass, sublayer(Var{}), probability));
}

}  // namespace mf
