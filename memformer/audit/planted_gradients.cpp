#include "memformer/audit/planted_gradients.h"

#include <limits>

#include "autograd/ops.h"

namespace mf {
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

struct Fault {
  std::string name, description;
  std::vector<Shape> shapes;
  Function right;
  Backward wrong;
};

std::vector<Fault> faults() {
  const Tensor ids = from_host<std::int32_t>({0, 2, 2, 1}, {4});
  const Tensor targets = from_host<std::int32_t>({1, -1, 0}, {3});
  return {
      {"sub-sign",
       "sub: wrong sign for the second input",
       {{2, 3}, {2, 3}},
       [](auto x) { return sub(x[0], x[1]); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, gy);
         g.add(1, gy);
       }},
      {"square-factor",
       "square: the factor 2 is missing",
       {{2, 3}},
       [](auto x) { return square(x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) { g.add(0, mul(gy, x[0])); }},
      {"silu-term",
       "silu: the term of the sigmoid's derivative is missing",
       {{2, 3}},
       [](auto x) { return silu(x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, mul(gy, sigmoid(x[0])));
       }},
      {"softmax-axis",
       "softmax: backward along the wrong axis",
       {{3, 3}},
       [](auto x) { return softmax(x[0], 1); },
       [](Values, const Tensor& y, const Tensor& gy, Grads& g) {
         g.add(0, softmax_backward(y, gy, 0));
       }},
      {"mul-repeated",
       "mul: a repeated input is counted once",
       {{2, 3}},
       [](auto x) { return mul(x[0], x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) { g.add(0, mul(gy, x[0])); }},
      {"attention-mask", "attention: the causal mask of backward is off by one", kHeads,
       [](auto x) { return attention(x[0], x[1], x[2], {.options = {.causal = true}}).out; },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         attention_gradients(x, gy, causal_mask(3, 3, 1), {}, g);
       }},
      {"linear-transpose",
       "linear: the weight is not transposed",
       {{2, 3}, {3, 3}},
       [](auto x) { return linear(x[0], x[1]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, matmul(gy, x[1]));
         g.add(1, matmul(x[0].transpose(), gy));
       }},
      {"tanh-stale",
       "tanh: the saved result is of an older input",
       {{2, 3}},
       [](auto x) { return tanh(x[0]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const Tensor stale = tanh(affine(x[0], 1.0, 1e-3));
         g.add(0, map_backward(Unary::tanh, stale, stale, gy));
       }},
      {"add-broadcast",
       "add: the broadcast input gets the mean of the rows, not their sum",
       {{4, 3}, {3}},
       [](auto x) { return add(x[0], x[1]); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, gy);
         g.add(1, affine(sum(gy, {0}), 0.25));
       }},
      {"mul-swapped",
       "mul: gradients of the two inputs are swapped",
       {{2, 3}, {2, 3}},
       [](auto x) { return mul(x[0], x[1]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, mul(gy, x[0]));
         g.add(1, mul(gy, x[1]));
       }},
      {"linear-bias",
       "linear: the bias gets no gradient",
       {{2, 3}, {3, 2}, {2}},
       [](auto x) { return linear(x[0], x[1], x[2]); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, matmul(gy, x[1].transpose()));
         g.add(1, matmul(x[0].transpose(), gy));
       }},
      {"softmax-term",
       "softmax: the row term sum(gy y) is missing",
       {{2, 4}},
       [](auto x) { return softmax(x[0]); },
       [](Values, const Tensor& y, const Tensor& gy, Grads& g) { g.add(0, mul(gy, y)); }},
      {"layer-norm-term",
       "layer_norm: the term of the mean is missing",
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
      {"normalize-term",
       "normalize: the projection on the sphere is missing",
       {{3, 4}},
       [](auto x) { return normalize(x[0], 2.0, 1e-3); },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const Tensor r = normalize(x[0], 2.0, 1e-3).norm.reshape({3, 1});
         g.add(0, affine(div(gy, r), 2.0));
       }},
      {"dropout-key",
       "dropout: the mask is drawn again from another key",
       {{4, 5}},
       [](auto x) { return dropout(x[0], 0.5, kKey); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, dropout(gy, 0.5, kKey.at("other")));
       }},
      {"gather-offset",
       "gather: the gradient is scattered one place too far",
       {{2, 4}},
       [ids](auto x) { return gather(x[0], ids); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, scatter(from_host<std::int32_t>({1, 3, 3, 2}, {4}), gy, 4));
       }},
      {"max-last",
       "max: the gradient goes to the last element instead of the largest",
       {{3, 4}},
       [](auto x) { return max(x[0], 1); },
       [](Values, const Tensor&, const Tensor& gy, Grads& g) {
         g.add(0, unslice(gy.reshape({3, 1}), {3, 4}, 1, 3));
       }},
      {"cross-entropy-ignored",
       "cross_entropy: ignored rows are counted",
       {{3, 4}},
       [targets](auto x) {
         return cross_entropy(x[0], targets, {.reduction = CrossEntropyOptions::Reduction::sum});
       },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         const Tensor all = from_host<std::int32_t>({1, 0, 0}, {3});
         const CrossEntropyResult saved = cross_entropy(x[0], all, Tensor{}, -1);
         g.add(0, cross_entropy_backward(x[0], all, Tensor{}, -1, saved.log_sum, gy));
       }},
      {"attention-temperature", "attention: backward forgets the temperature", kHeads,
       [](auto x) { return attention(x[0], x[1], x[2], {.options = {.temperature = 0.7}}).out; },
       [](Values x, const Tensor&, const Tensor& gy, Grads& g) {
         attention_gradients(x, gy, Tensor{}, {}, g);
       }},
      {"attention-own-key",
       "attention: the query gets nothing from its own key",
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
      {"exp-nan",
       "exp: the gradient is NaN in one place",
       {{2, 3}},
       [](auto x) { return exp(x[0]); },
       [](Values, const Tensor& y, const Tensor& gy, Grads& g) {
         Tensor gx = mul(gy, y);
         gx.slice(0, 1, 2).slice(1, 2, 3).fill_(std::numeric_limits<double>::quiet_NaN());
         g.add(0, gx);
       }},
  };
}

}  // namespace

std::vector<PlantedGradient> planted_gradients() {
  std::vector<PlantedGradient> list;
  for (const Fault& fault : faults()) {
    PlantedGradient planted{fault.name, fault.description, {}, fault.right, {}};
    for (std::size_t i = 0; i < fault.shapes.size(); ++i)
      planted.inputs.push_back(uniform(fault.shapes[i], kKey.at(i), -1.5, 1.5, DType::f64));
    planted.wrong = [fault](std::span<const Var> x) {
      return record(Mutant{fault.right, fault.wrong}, x);
    };
    list.push_back(std::move(planted));
  }
  return list;
}

}  // namespace mf
