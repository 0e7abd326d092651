#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y_i = keep_i ? x_i / (1 - p) : 0, keep_i = key.uniform(i) >= p.
/// x: f32|f64, any shape. Result: same shape and dtype.
/// Saves: nothing but the key (8 bytes); the mask is drawn again. Gradient: gx = dropout(gy), same
/// key. Throws Error unless 0 <= p < 1.
struct Dropout {
  static constexpr const char* kName = "dropout";
  double p;
  RngKey key;

  Tensor forward(Wants, const Tensor& x) const { return mf::dropout(x, p, key); }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, mf::dropout(gy, p, key)); }
  auto saved() { return std::tie(); }
};

}  // namespace ops

/// y_i = keep_i ? x_i / (1 - p) : 0, drawn from `key`; p = 0 gives x itself, unrecorded. See
/// ops::Dropout.
inline Var dropout(const Var& x, double p, RngKey key) {
  return p == 0.0 ? x : record(ops::Dropout{p, key}, x);
}

}  // namespace mf
