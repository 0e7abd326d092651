#include <doctest/doctest.h>

#include <limits>

#include "ops_table.h"

/// Faults planted in backward functions, one each. A gradient check that lets one of them pass is
/// worth nothing; a gradient check that refuses the right op beside it is worth nothing either.
namespace mf::test {
namespace {

using Values = std::span<const Tensor>;
using Function = std::function<Var(std::span<const Var>)>;

/// A wrong backward is given the inputs, the result, its gradient, and where to put theirs.
using Backward = std::function<void(Values x, const Tensor& y, const Tensor& gy, Grads& g)>;

/// The forward of a right op with a wrong backward.
struct Mutant {
  static constexpr const char* kName = "mutant";
  Function right;
  Backward wrong;
  std::vector<Tensor> inputs{};
  Tensor result{};

  Tensor forward(Wants, Values values) {
    std::vector<Var> constants;
    for (const Tensor& value : values) constants.push_back(constant(value));
    inputs.assign(values.begin(), values.end());
    return result = right(constants).value;
  }
  void backward(const Tensor& gy, Grads& g) const { wrong(inputs, result, gy, g); }
  auto saved() { return std::tie(); }
};

struct Control {
  std::string fault;
  std::vector<Shape> shapes;
  Function right;
  Backward wrong;
};

const RngKey kKey{21};

/// Mask of causal attention, seen `shift` keys too far.
Tensor causal_mask(std::int64_t queries, std::int64_t keys, std::int64_t shift) {
  std::vector<std::uint8_t> bits;
  for (std::int64_t i = 0; i < queries; ++i)
    for (std::int64_t j = 0; j < keys; ++j)
      bits.push_back(j <= i + (keys - queries) + shift ? 1 : 0);
  return from_host(bits, {queries, keys});
}

void attention_gradients(Values x, const Tensor& gy, const Tensor& mask,
                         const AttentionOptions& options, Grads& g) {
  const AttentionResult result = attention(x[0], x[1], x[2], mask, Tensor{}, options);
  AttentionGrads grads = attention_backward(x[0], x[1], x[2], mask, Tensor{}, options, result.out,
                                            result.log_sum, gy, {});
  g.add(0, grads.q);
  g.add(1, grads.k);
  g.add(2, grads.v);
}

const std::vector<Shape> kHeads{{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}};

std::vector<Control> controls() {
  const Tensor ids = from_host<std::int32_t>({0, 2, 2, 1}, {4});
  const Tensor targets = from_host<std::int32_t>({1, -1, 0}, {3});
  return {
      {"sub: wrong sign for the second input",
       {{2, 3}, {2, 3}},
       [](auto x) { return sub(x[0], x[1]); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, gy);
         g.add(1, gy);
       }},
      {"square: the factor 2 is missing",
       {{2, 3}},
       [](auto x) { return square(x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) { g.add(0, mul(gy, x[0])); }},
      {"silu: the term of the sigmoid's derivative is missing",
       {{2, 3}},
       [](auto x) { return silu(x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, mul(gy, sigmoid(x[0])));
       }},
      {"softmax: backward along the wrong axis",
       {{3, 3}},
       [](auto x) { return softmax(x[0], 1); },
       [](Values, const Tensor& y, const Tensor& gy, Grads& g) {
         g.add(0, softmax_backward(y, gy, 0));
       }},
      {"mul: a repeated input is counted once",
       {{2, 3}},
       [](auto x) { return mul(x[0], x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) { g.add(0, mul(gy, x[0])); }},
      {"attention: the causal mask of backward is off by one", kHeads,
       [](auto x) { return attention(x[0], x[1], x[2], {.options = {.causal = true}}).out; },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         attention_gradients(x, gy, causal_mask(3, 3, 1), {}, g);
       }},
      {"linear: the weight is not transposed",
       {{2, 3}, {3, 3}},
       [](auto x) { return linear(x[0], x[1]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, matmul(gy, x[1]));
         g.add(1, matmul(x[0].transpose(), gy));
       }},
      {"tanh: the saved result is of an older input",
       {{2, 3}},
       [](auto x) { return tanh(x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const Tensor stale = tanh(affine(x[0], 1.0, 1e-3));
         g.add(0, map_backward(Unary::tanh, stale, stale, gy));
       }},
      {"add: the broadcast input gets the mean of the rows, not their sum",
       {{4, 3}, {3}},
       [](auto x) { return add(x[0], x[1]); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, gy);
         g.add(1, affine(sum(gy, {0}), 0.25));
       }},
      {"mul: gradients of the two inputs are swapped",
       {{2, 3}, {2, 3}},
       [](auto x) { return mul(x[0], x[1]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, mul(gy, x[0]));
         g.add(1, mul(gy, x[1]));
       }},
      {"linear: the bias gets no gradient",
       {{2, 3}, {3, 2}, {2}},
       [](auto x) { return linear(x[0], x[1], x[2]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, matmul(gy, x[1].transpose()));
         g.add(1, matmul(x[0].transpose(), gy));
       }},
      {"softmax: the row term sum(gy y) is missing",
       {{2, 4}},
       [](auto x) { return softmax(x[0]); },
       [](Values, const Tensor& y, const Tensor& gy, Grads& g) { g.add(0, mul(gy, y)); }},
      {"layer_norm: the term of the mean is missing",
       {{3, 4}, {4}, {4}},
       [](auto x) { return layer_norm(x[0], x[1], x[2], 1e-5); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const LayerNormResult saved = layer_norm(x[0], x[1], x[2], 1e-5);
         LayerNormGrads grads =
             layer_norm_backward(x[0], x[1], saved.mean, saved.rstd, gy, true, true, true);
         const int last[] = {-1};
         const Tensor lost = mul(mean(mul(gy, x[1]), last, true), saved.rstd.reshape({3, 1}));
         g.add(0, add(grads.x, lost));
         g.add(1, grads.gain);
         g.add(2, grads.bias);
       }},
      {"normalize: the projection on the sphere is missing",
       {{3, 4}},
       [](auto x) { return normalize(x[0], 2.0, 1e-3); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const Tensor r = normalize(x[0], 2.0, 1e-3).norm.reshape({3, 1});
         g.add(0, affine(div(gy, r), 2.0));
       }},
      {"dropout: the mask is drawn again from another key",
       {{4, 5}},
       [](auto x) { return dropout(x[0], 0.5, kKey); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, dropout(gy, 0.5, kKey.at("other")));
       }},
      {"gather: the gradient is scattered one place too far",
       {{2, 4}},
       [ids](auto x) { return gather(x[0], ids); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, scatter(from_host<std::int32_t>({1, 3, 3, 2}, {4}), gy, 4));
       }},
      {"max: the gradient goes to the last element instead of the largest",
       {{3, 4}},
       [](auto x) { return max(x[0], 1); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, unslice(gy.reshape({3, 1}), {3, 4}, 1, 3));
       }},
      {"cross_entropy: ignored rows are counted",
       {{3, 4}},
       [targets](auto x) {
         return cross_entropy(x[0], targets, {.reduction = CrossEntropyOptions::Reduction::sum});
       },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const Tensor all = from_host<std::int32_t>({1, 0, 0}, {3});
         const CrossEntropyResult saved = cross_entropy(x[0], all, Tensor{}, -1);
         g.add(0, cross_entropy_backward(x[0], all, Tensor{}, -1, saved.log_sum, gy));
       }},
      {"attention: backward forgets the temperature", kHeads,
       [](auto x) { return attention(x[0], x[1], x[2], {.options = {.temperature = 0.7}}).out; },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         attention_gradients(x, gy, Tensor{}, {}, g);
       }},
      {"attention: the query gets nothing from its own key",
       {{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}},
       [](auto x) { return attention(x[0], x[1], x[2], {.own_key = x[3], .own_value = x[4]}).out; },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const OwnKeyValue own{x[3], x[4]};
         const AttentionResult result = attention(x[0], x[1], x[2], {}, {}, {}, true, own);
         const AttentionGrads grads = attention_backward(x[0], x[1], x[2], {}, {}, {}, result.out,
                                                         result.log_sum, gy, {}, own);
         // gown_key_i = scale ds_i q_i gives ds_i; what is lost is scale ds_i own_key_i.
         const int last[] = {-1};
         const Tensor per_query =
             div(sum(mul(grads.own_key, x[0]), last, true), sum(mul(x[0], x[0]), last, true));
         g.add(0, sub(grads.q, mul(per_query, x[3])));
         g.add(1, grads.k);
         g.add(2, grads.v);
         g.add(3, grads.own_key);
         g.add(4, grads.own_value);
       }},
      {"exp: the gradient is NaN in one place",
       {{2, 3}},
       [](auto x) { return exp(x[0]); },
       [](Values, const Tensor& y, const Tensor& gy, Grads& g) {
         Tensor gx = mul(gy, y);
         gx.slice(0, 1, 2).slice(1, 2, 3).fill_(std::numeric_limits<double>::quiet_NaN());
         g.add(0, gx);
       }},
  };
}

std::vector<Tensor> inputs_of(const Control& control) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < control.shapes.size(); ++i)
    inputs.push_back(uniform(control.shapes[i], kKey.at(i), -1.5, 1.5, DType::f64));
  return inputs;
}

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE(
      "grad_check: catches all twenty-one planted faults and accepts the right op beside each") {
    int caught = 0;
    for (const Control& control : controls()) {
      const std::vector<Tensor> inputs = inputs_of(control);
      const GradReport right = grad_check(
          control.fault, [&](Tape&, std::span<const Var> x) { return control.right(x); }, inputs);
      CHECK_MESSAGE(right.ok, describe(right));
      const GradReport wrong = grad_check(
          control.fault,
          [&](Tape&, std::span<const Var> x) {
            return record(Mutant{control.right, control.wrong}, x);
          },
          inputs);
      CHECK_MESSAGE(!wrong.ok, "not caught: " << control.fault);
      caught += wrong.ok ? 0 : 1;
    }
    CHECK(caught == 21);
  }

  TEST_CASE("grad_check: kinks of relu and max fail, and are counted where they are skipped") {
    const Tensor x = from_host({-1.0, 0.0, 2.0, 0.0}, {2, 2});
    const GradFunction rectified = [](Tape&, std::span<const Var> v) { return relu(v[0]); };
    GradCheckOptions options;
    CHECK(!grad_check("relu at 0", rectified, std::span(&x, 1), options).ok);
    options.skip = [](int, std::int64_t, double value) { return value == 0.0; };
    const GradReport skipped = grad_check("relu at 0", rectified, std::span(&x, 1), options);
    CHECK(skipped.ok);
    CHECK(skipped.checked == 2);
    CHECK(skipped.skipped == 2);

    const Tensor ties = from_host({3.0, 3.0, 1.0, 2.0, 5.0, 4.0}, {2, 3});
    const GradFunction largest = [](Tape&, std::span<const Var> v) { return max(v[0], 1); };
    options.skip = nullptr;
    CHECK(!grad_check("max of equals", largest, std::span(&ties, 1), options).ok);
    options.skip = [](int, std::int64_t index, double) { return index < 2; };
    const GradReport untied = grad_check("max of equals", largest, std::span(&ties, 1), options);
    CHECK(untied.ok);
    CHECK(untied.checked == 4);
    CHECK(untied.skipped == 2);
  }

  TEST_CASE("grad_check: finite differences of f32 at step 1e-5 fail, and f32 is refused") {
    const Tensor x = uniform({4, 5}, RngKey{2}, -1.5, 1.5, DType::f32);
    const GradFunction block = [](Tape&, std::span<const Var> v) {
      return softmax(gelu(matmul(v[0], transpose(v[0]))));
    };
    GradCheckOptions options;
    options.step = 1e-5;
    CHECK_THROWS_AS(grad_check("f32", block, std::span(&x, 1), options), Error);
    options.allow_f32 = true;
    CHECK(!grad_check("f32", block, std::span(&x, 1), options).ok);
    const Tensor wide = x.to(DType::f64);
    CHECK(grad_check("f64", block, std::span(&wide, 1)).ok);
  }
}

}  // namespace mf::test
