// Chapter 5 of the walkthrough: docs/walkthrough/05-attention.md.
// Attention by hand, as five ops and as one; what each leaves on the tape; what a mask does; and
// what attention cannot see without positions.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "autograd/ops.h"

namespace {

using namespace mf;

/// eq. A1 from plain ops. q: [B, H, T, D]; k, v: [B, H, S, D].
Var five_ops(const Var& q, const Var& k, const Var& v) {
  const double factor = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  const Var weights = softmax(scale(matmul(q, transpose(k)), factor));
  return matmul(weights, v);
}

Var one_op(const Var& q, const Var& k, const Var& v) { return attention(q, k, v).out; }

double largest_difference(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double difference = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i)
    difference = std::max(difference, std::abs(x[i] - y[i]));
  return difference;
}

struct Recorded {
  Tensor out, query_gradient;
  std::int64_t saved = 0;
};

template <class F>
Recorded recorded(const F& attend, std::int64_t length) {
  const Shape shape{1, 1, length, 16};
  Tape tape;
  const Var q = tape.input(normal(shape, RngKey{1}, 0.0, 1.0, DType::f64));
  const Var k = tape.input(normal(shape, RngKey{2}, 0.0, 1.0, DType::f64));
  const Var v = tape.input(normal(shape, RngKey{3}, 0.0, 1.0, DType::f64));
  const Var out = attend(q, k, v);
  const std::int64_t saved = tape.saved_bytes();
  tape.backward({{out, normal(shape, RngKey{4}, 0.0, 1.0, DType::f64)}});
  return {out.value, tape.grad(q), saved};
}

}  // namespace

int main() {
  bool right = true;

  // One query, two keys, two values: on paper.
  const Tensor q = from_host({1.0, 0.0}, {1, 1, 1, 2});
  const Tensor k = from_host({0.0, 1.0, 1.0, 0.0}, {1, 1, 2, 2});
  const Tensor v = from_host({10.0, 0.0, 0.0, 10.0}, {1, 1, 2, 2});
  for (const double temperature : {1.0, 0.25, 0.05}) {
    const double ratio = std::exp((1.0 - 0.0) / std::sqrt(2.0) / temperature);  // of the weights
    AttentionOptions options;
    options.temperature = temperature;
    const AttentionResult result = attention(q, k, v, {}, {}, options, true);
    const std::vector<double> weights = result.map.to_vector<double>();
    const std::vector<double> out = result.out.to_vector<double>();
    std::printf("temperature %.2f: weights %.4f %.4f (by hand %.4f %.4f), out %.4f %.4f\n",
                temperature, weights[0], weights[1], 1.0 / (1.0 + ratio), ratio / (1.0 + ratio),
                out[0], out[1]);
    right &= std::abs(weights[1] - ratio / (1.0 + ratio)) < 1e-12;
  }

  // As five ops and as one: the same result and gradient, another tape.
  std::printf("tokens  five ops keep  one op keeps  results, gradients agree to 1e-12\n");
  for (const std::int64_t length : {16, 64, 256}) {
    const Recorded five = recorded(five_ops, length), one = recorded(one_op, length);
    const bool agree = largest_difference(five.out, one.out) < 1e-12 &&
                       largest_difference(five.query_gradient, one.query_gradient) < 1e-12;
    std::printf("%6d  %13d  %12d  %s\n", static_cast<int>(length), static_cast<int>(five.saved),
                static_cast<int>(one.saved), agree ? "yes" : "NO");
    right &= agree;
  }

  // A decoder must not see later tokens: change the last one, and compare the others' results.
  const Shape shape{1, 1, 6, 4};
  const Tensor x = normal(shape, RngKey{5}, 0.0, 1.0, DType::f64);
  Tensor changed = x.clone();
  changed.slice(2, 5, 6).fill_(9.0);
  for (const bool causal : {false, true}) {
    AttentionOptions options;
    options.causal = causal;
    const Tensor before = attention(x, x, x, {}, {}, options).out;
    const Tensor after = attention(changed, changed, changed, {}, {}, options).out;
    int unchanged = 0;
    for (std::int64_t t = 0; t < 6; ++t)
      unchanged += first_difference(before.slice(2, t, t + 1), after.slice(2, t, t + 1)) < 0;
    std::printf("%s: %d of the 5 earlier tokens keep every bit\n", causal ? "causal" : "not causal",
                unchanged);
    right &= unchanged == (causal ? 5 : 0);
  }

  // Keys and values in another order: the same to rounding. Order must be put in by positions.
  const Tensor rest = x.slice(2, 0, 5), last = x.slice(2, 5, 6);
  const Tensor turned = concat(std::vector{last, rest}, 2);
  const double moved = largest_difference(attention(x, x, x, {}, {}, {}).out,
                                          attention(x, turned, turned, {}, {}, {}).out);
  std::printf("keys in another order: the result is the same to 1e-12: %s\n",
              moved < 1e-12 ? "yes" : "NO");
  right &= moved < 1e-12;
  return right ? 0 : 1;
}
