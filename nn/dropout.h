#pragma once

#include "autograd/ops/dropout.h"
#include "autograd/pass.h"

namespace mf {

/// Dropout in training, nothing in evaluation. The mask is a function of the pass's key.
inline Var dropout(const Pass& pass, const Var& x, double probability) {
  return pass.mode == Mode::train && probability > 0.0 ? dropout(x, probability, pass.key) : x;
}

}  // namespace mf
