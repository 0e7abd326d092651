#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "memformer/audit/op_cases.h"

/// Fused ops against their composition from plain ones, and values made again against kept ones.
namespace mf::test {
namespace {

struct Run {
  std::vector<Tensor> results;
  std::vector<Tensor> gradients;
  std::int64_t saved = 0;
};

using Function = std::function<std::vector<Var>(std::span<const Var>)>;

Run run(const Function& function, std::span<const Tensor> inputs) {
  Tape tape;
  std::vector<Var> leaves;
  for (const Tensor& input : inputs) leaves.push_back(tape.input(input));
  std::vector<Seed> seeds;
  Run result;
  for (const Var& y : function(leaves)) {
    const auto which = static_cast<std::uint64_t>(result.results.size());
    const Tensor seed = uniform(y.shape(), RngKey{7}.at(which), -1.0, 1.0, DType::f64);
    result.results.push_back(y.value);
    seeds.push_back({y, seed.to(y.dtype())});
  }
  result.saved = tape.saved_bytes();
  tape.backward(seeds);
  for (const Var& leaf : leaves) result.gradients.push_back(tape.grad(leaf));
  return result;
}

double largest_relative_error(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double worst = 0.0;
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    REQUIRE(a[i].shape() == b[i].shape());
    const Tensor difference = sub(a[i].to(DType::f64), b[i].to(DType::f64));
    const double size = std::sqrt(sum_of_squares(b[i].to(DType::f64)));
    worst = std::max(worst, std::sqrt(sum_of_squares(difference)) / (size > 0.0 ? size : 1.0));
  }
  return worst;
}

std::vector<Tensor> draw(const std::vector<Shape>& shapes, DType dtype) {
  std::vector<Tensor> tensors;
  for (const Shape& shape : shapes) {
    const auto which = static_cast<std::uint64_t>(tensors.size());
    tensors.push_back(uniform(shape, RngKey{11}.at(which), -1.0, 1.0, DType::f64).to(dtype));
  }
  return tensors;
}

void expect_same(const Function& fused, const Function& plain, const std::vector<Shape>& shapes) {
  for (const DType dtype : {DType::f64, DType::f32}) {
    const double gate = dtype == DType::f64 ? 1e-12 : 1e-5;
    const std::vector<Tensor> inputs = draw(shapes, dtype);
    const Run a = run(fused, inputs);
    const Run b = run(plain, inputs);
    CHECK(largest_relative_error(a.results, b.results) <= gate);
    CHECK(largest_relative_error(a.gradients, b.gradients) <= gate);
    CHECK(a.saved <= b.saved);
  }
}

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("fused: linear with a residual is linear and add") {
    const std::vector<Shape> shapes{{3, 37, 20}, {20, 33}, {33}, {3, 37, 33}};
    const auto fused = [](std::span<const Var> x) {
      return std::vector{linear(layer_norm(x[0], constant(full({20}, 1.0, x[0].dtype())),
                                           constant(zeros({20}, x[0].dtype()))),
                                x[1], x[2], x[3])};
    };
    const auto plain = [](std::span<const Var> x) {
      const Var normed = layer_norm(x[0], constant(full({20}, 1.0, x[0].dtype())),
                                    constant(zeros({20}, x[0].dtype())));
      // Through a view, the way back to the norm is lost: its result is kept.
      return std::vector{add(x[3], linear(reshape(normed, normed.shape()), x[1], x[2]))};
    };
    expect_same(fused, plain, shapes);
  }

  TEST_CASE("fused: projections are linears, and a norm before them is not kept") {
    const std::vector<Shape> shapes{{2, 19, 12}, {12}, {12}, {12, 8}, {12, 24},
                                    {12, 5},     {8},  {24}, {5}};
    const auto fused = [](std::span<const Var> x) {
      return projections(layer_norm(x[0], x[1], x[2]), x.subspan(3, 3), x.subspan(6, 3));
    };
    const auto plain = [](std::span<const Var> x) {
      const Var normed = layer_norm(x[0], x[1], x[2]);
      const Var kept = reshape(normed, normed.shape());
      return std::vector{linear(kept, x[3], x[6]), linear(kept, x[4], x[7]),
                         linear(kept, x[5], x[8])};
    };
    expect_same(fused, plain, shapes);
  }

  TEST_CASE("fused: feed_forward is linear, activation, linear and add") {
    const std::vector<Shape> shapes{{2, 65, 24}, {24, 70}, {70}, {70, 24}, {24}, {2, 65, 24}};
    for (const Unary function : {Unary::gelu, Unary::relu, Unary::silu, Unary::gelu_tanh}) {
      const auto fused = [function](std::span<const Var> x) {
        return std::vector{feed_forward(x[0], x[1], x[2], x[3], x[4], function, x[5])};
      };
      const auto plain = [function](std::span<const Var> x) {
        const Var h = linear(x[0], x[1], x[2]);
        const Var f = function == Unary::gelu   ? gelu(h)
                      : function == Unary::relu ? relu(h)
                      : function == Unary::silu ? silu(h)
                                                : gelu_tanh(h);
        return std::vector{add(x[5], linear(f, x[3], x[4]))};
      };
      expect_same(fused, plain, shapes);
    }
  }

  TEST_CASE("fused: neither the norm's result nor the activation's is on the tape") {
    const std::int64_t rows = 6, width = 8, hidden = 32, size = 4;
    Tape tape;
    const auto leaf = [&](const Shape& shape) {
      return tape.input(uniform(shape, RngKey{3}, -1.0, 1.0, DType::f32));
    };
    const Var normed = layer_norm(leaf({rows, width}), leaf({width}), leaf({width}));
    feed_forward(normed, leaf({width, hidden}), leaf({hidden}), leaf({hidden, width}),
                 leaf({width}), Unary::gelu);
    const std::int64_t norm = rows * width + width + 2 * rows;  // its input, gain, mean and rstd
    const std::int64_t weights = 2 * width * hidden;
    CHECK(tape.saved_bytes() == size * (norm + rows * hidden + weights));
  }

  TEST_CASE("fused: a value made again has the bits of the value kept") {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const std::vector<Tensor> inputs = draw({{3, 17, 40}, {40}, {40}}, dtype);
      Tape tape;
      const Var y = layer_norm(tape.input(inputs[0]), tape.input(inputs[1]), tape.input(inputs[2]));
      REQUIRE(y.recompute != nullptr);
      CHECK(first_difference((*y.recompute)(), y.value) == -1);
    }
  }

  TEST_CASE("fused: a value cannot be made again from what was changed since") {
    Tape tape;
    Tensor x = uniform({4, 8}, RngKey{1}, -1.0, 1.0, DType::f32);
    const Var gain = constant(full({8}, 1.0, DType::f32));
    const Var bias = constant(zeros({8}, DType::f32));
    const Var weight = tape.input(uniform({8, 3}, RngKey{2}, -1.0, 1.0, DType::f32));
    const Var y = sum(linear(layer_norm(tape.input(x), gain, bias), weight));
    x.fill_(0.5);
    CHECK_THROWS_AS(tape.backward(y), Error);
  }
}

}  // namespace mf::test
