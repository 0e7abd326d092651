#pragma once

#include "autograd/ops/linear.h"

namespace mf {

namespace ops {

/// y = f(h) W_2 + b_2 + residual, h = x W_1 + b_1, f an elementwise function (residual may be
/// absent). The same as linear, f, linear and add, but f(h) is made while h is in the cache, and
/// made again in backward instead of kept. x: [.., in], W_1: [in, hidden], b_1: [hidden], W_2:
/// [hidden, out], b_2: [out], residual: [.., out]. Saves: x (or how to make it again), h, W_1 and
/// W_2. Gradients, with gf = gy W_2^T, gh = gf f'(h): gW_2 = f(h)^T gy, gb_2 = rows of gy, gW_1 =
/// x^T gh, gb_1 = rows of gh, gx = gh W_1^T, gresidual = gy.
struct FeedForward {
  static constexpr const char* kName = "feed_forward";
  Unary function;
  SavedInput x{};
  Saved hidden{}, up{}, down{};

  Tensor forward(Wants wants, const Tensor& input, const Tensor& w1, const Tensor& b1,
                 const Tensor& w2, const Tensor& b2) {
    return forward(wants, input, w1, b1, w2, b2, Tensor{});
  }
  Tensor forward(Wants wants, const Tensor& input, const Tensor& w1, const Tensor& b1,
                 const Tensor& w2, const Tensor& b2, const Tensor& residual) {
    const bool inner = wants[0] || wants[1] || wants[2];
    MappedLinear h = linear_map(input, w1, b1, function, inner || wants[3]);
    if (inner || wants[3]) hidden = std::move(h.linear);
    if (wants[1]) x = wants.keep(0);
    if (wants[0]) up = w1;
    if (inner) down = w2;
    return mf::linear(h.mapped, w2, b2, residual);
  }
  void backward(const Tensor& gy, Grads& g) const {
    const Tensor grows = rows_of(gy);
    if (g.inputs() > 5) g.add(5, gy);
    if (g.wants(4)) g.add(4, mf::sum(grows, {0}));
    const bool inner = g.wants(0) || g.wants(1) || g.wants(2);
    if (!inner && !g.wants(3)) return;
    const Tensor h = rows_of(hidden);
    Tensor mapped, gh;
    if (inner) {
      MappedLinearBackward both = linear_map_backward(grows, down, function, h);
      mapped = std::move(both.mapped);
      gh = std::move(both.gradient);
    } else {
      mapped = map(function, h);
    }
    if (g.wants(3)) add_product(g, 3, mapped.transpose(), grows, {mapped.size(1), grows.size(1)});
    mapped = Tensor{};
    if (!inner) return;
    Tensor rows;
    add_linear_gradients(g, gh.reshape(gy.shape().with(gy.rank() - 1, h.size(1))), 1, 2, x, rows,
                         up);
  }
  auto saved() { return std::tie(x.tensor, hidden, up, down); }
};

}  // namespace ops

/// f(x W_1 + b_1) W_2 + b_2 + residual, where W_1, b_1 are up, up_bias, and W_2, b_2 down,
/// down_bias; residual may have an undefined value. See ops::FeedForward.
inline Var feed_forward(const Var& x, const Var& up, const Var& up_bias, const Var& down,
                        const Var& down_bias, Unary function, const Var& residual = {}) {
  return residual.value.defined()
             ? record(ops::FeedForward{function}, x, up, up_bias, down, down_bias, residual)
             : record(ops::FeedForward{function}, x, up, up_bias, down, down_bias);
}

}  // namespace mf
