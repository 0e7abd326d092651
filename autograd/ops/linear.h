#pragma once

#include <vector>

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// [.., width] as [R, width].
inline Tensor rows_of(const Tensor& t) {
  const std::int64_t width = t.size(-1);
  return t.contiguous().reshape({t.shape().without(t.rank() - 1).elements(), width});
}

/// Adds the product a b to the gradient of an input of shape `shape`, in place where there is one.
inline void add_product(Grads& g, int input, const Tensor& a, const Tensor& b, const Shape& shape) {
  if (Tensor* sum = g.sum(input)) {
    Tensor rows = rows_of(*sum);
    matmul_add_(rows, a, b);
  } else {
    Tensor product = mf::matmul(a, b);
    product = product.reshape(shape);  // the only handle, so that it is moved in and not copied
    g.add(input, std::move(product));
  }
}

/// Adds the gradients of y = x W + b at the inputs of these numbers (0 is x; no bias: -1): gb = sum
/// of the rows of gy, gW = x^T gy, gx = gy W^T. `rows` are those of x; if undefined they are taken
/// from `x`, and left there for the next map of the same x.
inline void add_linear_gradients(Grads& g, const Tensor& gy, int weight, int bias,
                                 const SavedInput& x, Tensor& rows, const Saved& matrix) {
  const Tensor grows = rows_of(gy);
  if (bias >= 0 && g.wants(bias)) g.add(bias, mf::sum(grows, {0}));
  if (g.wants(weight)) {
    if (!rows.defined()) rows = rows_of(x.get());
    add_product(g, weight, rows.transpose(), grows, {rows.size(1), grows.size(1)});
  }
  if (g.wants(0)) {
    const Tensor& w = matrix;
    add_product(g, 0, grows, w.transpose(), gy.shape().with(gy.rank() - 1, w.size(0)));
  }
}

/// y = x W + b + residual (b and residual may be absent).
/// x: [.., in], weight: [in, out], bias: [out], residual: [.., out], one dtype. Result: [.., out].
/// Saves: x if weight needs a gradient (or how to make x again), weight if x does. Gradients, over
/// the R rows of x: gx = gy W^T, gW = x^T gy, gb = sum of the rows of gy, gresidual = gy.
/// Throws Error if weight is not [in, out], bias not [out] or residual not shaped as the result.
struct Linear {
  static constexpr const char* kName = "linear";
  bool has_bias = true;
  SavedInput x{};
  Saved weight{};

  Tensor forward(Wants wants, const Tensor& input, const Tensor& matrix) {
    if (wants[1]) x = wants.keep(0);
    if (wants[0]) weight = matrix;
    return mf::linear(input, matrix, Tensor{});
  }
  Tensor forward(Wants wants, const Tensor& input, const Tensor& matrix, const Tensor& last) {
    if (wants[1]) x = wants.keep(0);
    if (wants[0]) weight = matrix;
    return has_bias ? mf::linear(input, matrix, last) : mf::linear(input, matrix, {}, last);
  }
  Tensor forward(Wants wants, const Tensor& input, const Tensor& matrix, const Tensor& bias,
                 const Tensor& residual) {
    if (wants[1]) x = wants.keep(0);
    if (wants[0]) weight = matrix;
    return mf::linear(input, matrix, bias, residual);
  }
  void backward(const Tensor& gy, Grads& g) const {
    const int residual = has_bias ? 3 : 2;
    if (g.inputs() > residual) g.add(residual, gy);
    Tensor rows;
    add_linear_gradients(g, gy, 1, has_bias && g.inputs() > 2 ? 2 : -1, x, rows, weight);
  }
  auto saved() { return std::tie(x.tensor, weight); }
};

/// Several linear maps of one input: y_i = x W_i + b_i (all biases or none).
/// Inputs: x [.., in], then W_1 .. W_n [in, out_i], then b_1 .. b_n [out_i]. Results: [.., out_i].
/// Saves: x once (or how to make it again), and the weights. Gradients as those of linear, with
/// gx = sum_i gy_i W_i^T made in place.
struct Projections {
  static constexpr const char* kName = "projections";
  std::size_t count;
  SavedInput x{};
  std::vector<Saved> weights{};

  std::vector<Tensor> forward(Wants wants, std::span<const Tensor> inputs) {
    std::vector<Tensor> results;
    results.reserve(count);
    bool wants_weight = false;
    for (std::size_t i = 0; i < count; ++i) {
      const Tensor bias = inputs.size() > 1 + count ? inputs[1 + count + i] : Tensor{};
      results.push_back(mf::linear(inputs[0], inputs[1 + i], bias));
      if (wants[0]) weights.emplace_back(inputs[1 + i]);
      wants_weight |= wants[static_cast<int>(1 + i)];
    }
    if (wants_weight) x = wants.keep(0);
    return results;
  }
  void backward(std::span<const Tensor> gys, Grads& g) const {
    const bool has_biases = g.inputs() > static_cast<int>(1 + count);
    const Saved none;
    Tensor rows;
    for (std::size_t i = 0; i < count; ++i) {
      if (!gys[i].defined()) continue;
      const int weight = static_cast<int>(1 + i);
      add_linear_gradients(g, gys[i], weight, has_biases ? weight + static_cast<int>(count) : -1, x,
                           rows, g.wants(0) ? weights[i] : none);
    }
  }
  std::vector<const Saved*> saved() const {
    std::vector<const Saved*> list{&x.tensor};
    for (const Saved& weight : weights) list.push_back(&weight);
    return list;
  }
};

}  // namespace ops

/// x W + b + residual; bias and residual may have an undefined value. See ops::Linear.
inline Var linear(const Var& x, const Var& weight, const Var& bias, const Var& residual) {
  const bool has_bias = bias.value.defined();
  if (!residual.value.defined())
    return has_bias ? record(ops::Linear{}, x, weight, bias)
                    : record(ops::Linear{false}, x, weight);
  return has_bias ? record(ops::Linear{}, x, weight, bias, residual)
                  : record(ops::Linear{false}, x, weight, residual);
}
/// x W.
inline Var linear(const Var& x, const Var& weight) { return linear(x, weight, {}, {}); }
/// x W + b.
inline Var linear(const Var& x, const Var& weight, const Var& bias) {
  return linear(x, weight, bias, {});
}

/// x W_i + b_i for each i; as many biases as weights, or none. See ops::Projections.
inline std::vector<Var> projections(const Var& x, std::span<const Var> weights,
                                    std::span<const Var> biases = {}) {
  check(biases.empty() || biases.size() == weights.size(),
        "projections: {} weights have {} biases; give one for each, or none", weights.size(),
        biases.size());
  std::vector<Var> inputs;
  inputs.reserve(1 + weights.size() + biases.size());
  inputs.push_back(x);
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  inputs.insert(inputs.end(), biases.begin(), biases.end());
  return record(ops::Projections{weights.size()}, std::span<const Var>(inputs));
}

}  // namespace mf
