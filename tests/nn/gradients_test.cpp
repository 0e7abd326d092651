// Every layer's gradients against finite differences, in f64, for its inputs and its parameters.

#include <doctest/doctest.h>

#include "autograd/grad_check.h"
#include "autograd/ops.h"
#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/layer_norm.h"
#include "tests/support.h"

namespace mf::test {
namespace {

/// A layer's forward pass on leaves.
using Forward = std::function<Var(const Pass&, std::span<const Var>)>;

GradReport check_layer(const std::string& name, const Forward& forward,
                       std::vector<Parameter> parameters, std::vector<Tensor> inputs) {
  perturb(parameters, RngKey{61});
  const GradFunction on_tape = [&](Tape& tape, std::span<const Var> leaves) {
    return forward(Pass{tape, RngKey{62}, Mode::train, {}}, leaves);
  };
  return grad_check(name, on_tape, inputs, {}, parameters);
}

/// The same for a layer with one input.
template <class Layer>
GradReport check_unary(const std::string& name, const Layer& layer, const Shape& shape) {
  return check_layer(name,
                     [&](const Pass& pass, std::span<const Var> x) { return layer(pass, x[0]); },
                     parameters(layer), {random_tensor(shape, RngKey{63})});
}

/// u8 [batch, 1, 1, keys]: row b sees the first keys - b of them.
Tensor shrinking_mask(std::int64_t batch, std::int64_t keys) {
  std::vector<std::uint8_t> real;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t j = 0; j < keys; ++j)
      real.push_back(j < std::max<std::int64_t>(1, keys - b) ? 1 : 0);
  return from_host(real, {batch, 1, 1, keys});
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("linear: gradients with and without bias, for rows and batches of rows") {
    for (const bool bias : {true, false}) {
      const Linear layer(4, 3, bias, RngKey{1}, DType::f64);
      for (const Shape& shape : {Shape{5, 4}, Shape{2, 3, 4}, Shape{1, 1, 4}}) {
        const GradReport report = check_unary("linear", layer, shape);
        CHECK_MESSAGE(report.ok, describe(report));
        CHECK(report.checked == shape.elements() + 12 + (bias ? 3 : 0));
      }
    }
  }

  TEST_CASE("layer check: a parameter that the layer reads past the tape is caught and named") {
    const Linear layer(4, 3, true, RngKey{1}, DType::f64);
    const Forward bypass = [&](const Pass& pass, std::span<const Var> x) {
      return linear(x[0], constant(layer.weight.value()), pass.tape.param(layer.bias));
    };
    const GradReport report = check_layer("linear past the tape", bypass, parameters(layer),
                                          {random_tensor({5, 4}, RngKey{2})});
    REQUIRE(!report.ok);
    for (const GradReport::Failure& failure : report.failures) CHECK(failure.input == "weight");
  }

  TEST_CASE("embedding: gradients of the table, rows used twice and not at all") {
    const Embedding layer(5, 3, 1.0, RngKey{1}, DType::f64);
    const Tensor ids = from_host<std::int32_t>({0, 2, 2, 4, 0, 2}, {2, 3});
    const Forward forward = [&](const Pass& pass, std::span<const Var>) {
      return layer(pass, ids);
    };
    const GradReport report = check_layer("embedding", forward, parameters(layer), {});
    CHECK_MESSAGE(report.ok, describe(report));
    CHECK(report.checked == 15);
  }

  TEST_CASE("layer_norm: gradients of input, gain and bias") {
    const LayerNorm layer(6, 1e-5, DType::f64);
    for (const Shape& shape : {Shape{4, 6}, Shape{2, 3, 6}}) {
      const GradReport report = check_unary("layer_norm", layer, shape);
      CHECK_MESSAGE(report.ok, describe(report));
    }
  }

  TEST_CASE("feed_forward: gradients for each activation, with and without dropout") {
    for (const Activation activation : {Activation::gelu, Activation::relu, Activation::silu})
      for (const double dropout_probability : {0.0, 0.4}) {
        const FeedForward layer(4, 7, activation, dropout_probability, RngKey{1}, DType::f64);
        const GradReport report = check_unary("feed_forward", layer, {2, 3, 4});
        CHECK_MESSAGE(report.ok, describe(report));
      }
  }

  TEST_CASE(
      "attention: gradients for self, cross, causal, masked and biased attention of any length") {
    constexpr std::int64_t kWidth = 4, kBatch = 2;
    for (const std::int64_t heads : {1, 2, 4})
      for (const std::int64_t queries : {1, 3, 5})
        for (const std::int64_t keys : {std::int64_t{0}, std::int64_t{2}, std::int64_t{4}}) {
          const bool self = keys == 0;  // 0 stands for the queries themselves
          const double dropout_probability = heads == 2 ? 0.3 : 0.0;
          const MultiHeadAttention layer(kWidth, heads, heads != 4, dropout_probability, RngKey{1},
                                         DType::f64);
          std::vector<Tensor> inputs;
          inputs.reserve(3);
          inputs.push_back(random_tensor({kBatch, queries, kWidth}, RngKey{2}));
          if (!self) inputs.push_back(random_tensor({kBatch, keys, kWidth}, RngKey{3}));
          const std::int64_t seen_keys = self ? queries : keys;
          inputs.push_back(random_tensor({heads, queries, seen_keys}, RngKey{4}));
          for (const bool masked : {false, true}) {
            const Forward forward = [&](const Pass& pass, std::span<const Var> x) {
              AttentionScope seen;
              seen.causal = self;
              seen.bias = x.back();
              if (masked) seen.mask = shrinking_mask(kBatch, seen_keys);
              return layer(pass, x[0], self ? x[0] : x[1], seen);
            };
            const GradReport report = check_layer("attention", forward, parameters(layer), inputs);
            CHECK_MESSAGE(report.ok, heads << " heads, " << queries << " queries, " << keys
                                           << " keys, masked " << masked << ": "
                                           << describe(report));
          }
        }
  }

  TEST_CASE("attention: gradients with the relative table, causal or not, masked or not") {
    for (const bool causal : {false, true})
      for (const bool masked : {false, true})
        for (const std::int64_t length : {1, 2, 4}) {
          MultiHeadAttention layer(4, 2, true, masked ? 0.3 : 0.0, RngKey{1}, DType::f64);
          layer.use_relative_positions(4, RngKey{2}, DType::f64);
          const Forward forward = [&](const Pass& pass, std::span<const Var> x) {
            AttentionScope seen;
            seen.causal = causal;
            if (masked) seen.mask = shrinking_mask(2, length);
            return layer(pass, x[0], x[0], seen);
          };
          const GradReport report = check_layer("relative attention", forward, parameters(layer),
                                                {random_tensor({2, length, 4}, RngKey{3})});
          CHECK_MESSAGE(report.ok, describe(report));
        }
  }

  TEST_CASE("relative_bias: gradients of the table, one-sided and two-sided") {
    for (const bool two_sided : {true, false}) {
      const RelativeBias layer(8, 16, two_sided, 2, RngKey{1}, DType::f64);
      const Forward forward = [&](const Pass& pass, std::span<const Var>) {
        return layer(pass, 5, 7);
      };
      const GradReport report = check_layer("relative_bias", forward, parameters(layer), {});
      CHECK_MESSAGE(report.ok, describe(report));
    }
  }
}

}  // namespace mf::test
