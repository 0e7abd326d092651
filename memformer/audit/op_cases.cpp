#include "memformer/audit/op_cases.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace mf {
namespace {

using Inputs = std::span<const Var>;

std::int64_t nothing(const SavedQuery&) { return 0; }
std::int64_t first_input(const SavedQuery& q) { return q.inputs[0].bytes(); }
std::int64_t the_result(const SavedQuery& q) { return q.result.bytes(); }
/// The other side of each wanted side.
std::int64_t other_sides(const SavedQuery& q) {
  return (q.wants[0] ? q.inputs[1].bytes() : 0) + (q.wants[1] ? q.inputs[0].bytes() : 0);
}
/// What attention keeps when no mask is given: query, key, value, bias, out and log_sum.
std::int64_t attention_bytes(const SavedQuery& q) {
  std::int64_t bytes = q.result.bytes();
  for (const Tensor& input : q.inputs) bytes += input.bytes();
  const Tensor& query = q.inputs[0];
  return bytes + query.size(0) * query.size(1) * query.size(2) * size_of(query.dtype());
}

const std::vector<std::vector<Shape>> kBinaryShapes{
    {{3, 4}, {3, 4}}, {{3, 4}, {4}},       {{4}, {3, 4}},      {{3, 1}, {1, 4}},
    {{}, {2, 3}},     {{2, 1, 3}, {4, 1}}, {{1, 1}, {1, 1}},   {{}, {}},
    {{0, 3}, {3}},    {{2, 0}, {2, 1}},    {{2, 1}, {0, 1, 3}}};
const std::vector<std::vector<Shape>> kUnaryShapes{{{3, 4}}, {{2, 3, 2}}, {{1, 1}}, {{}}, {{0, 4}}};
const std::vector<std::vector<Shape>> kMatrixShapes{
    {{3, 4}}, {{5, 2}}, {{1, 1}}, {{1, 3}}, {{0, 4}}};

OpRow binary(std::string name, Var (*function)(const Var&, const Var&),
             std::function<std::int64_t(const SavedQuery&)> saved) {
  return {.name = std::move(name),
          .header = "arithmetic.h",
          .shapes = kBinaryShapes,
          .build = [function](Inputs x) { return function(x[0], x[1]); },
          .saved_bytes = std::move(saved)};
}

OpRow unary(std::string name, std::string header, std::function<Var(const Var&)> function,
            std::function<std::int64_t(const SavedQuery&)> saved) {
  return {.name = std::move(name),
          .header = std::move(header),
          .shapes = kUnaryShapes,
          .build = [function = std::move(function)](Inputs x) { return function(x[0]); },
          .saved_bytes = std::move(saved)};
}

OpRow matrix(std::string name, std::string variant, std::string header,
             std::function<Var(const Var&)> function,
             std::function<std::int64_t(const SavedQuery&)> saved) {
  OpRow row = unary(std::move(name), std::move(header), std::move(function), std::move(saved));
  row.variant = std::move(variant);
  row.shapes = kMatrixShapes;
  return row;
}

OpRow in_range(OpRow row, double low, double high) {
  row.low = low;
  row.high = high;
  return row;
}

OpRow with_shapes(OpRow row, std::vector<std::vector<Shape>> shapes) {
  row.shapes = std::move(shapes);
  return row;
}

/// x if a weight is wanted, both weights if x is.
std::int64_t projection_bytes(const SavedQuery& q) {
  const bool weight = q.wants[1] || q.wants[2];
  return (weight ? q.inputs[0].bytes() : 0) +
         (q.wants[0] ? q.inputs[1].bytes() + q.inputs[2].bytes() : 0);
}

OpRow feed_forward_row(std::string variant, Unary function, bool residual) {
  std::vector<std::vector<Shape>> shapes{{{4, 3}, {3, 5}, {5}, {5, 2}, {2}},
                                         {{2, 2, 3}, {3, 2}, {2}, {2, 3}, {3}},
                                         {{3}, {3, 2}, {2}, {2, 3}, {3}},
                                         {{1, 1}, {1, 1}, {1}, {1, 1}, {1}},
                                         {{0, 3}, {3, 2}, {2}, {2, 3}, {3}}};
  if (residual)
    for (std::vector<Shape>& set : shapes) set.push_back(set[0].with(set[0].rank() - 1, set[4][0]));
  return {
      .name = "feed_forward",
      .variant = std::move(variant),
      .header = "feed_forward.h",
      .shapes = std::move(shapes),
      .build =
          [function, residual](Inputs x) {
            return feed_forward(x[0], x[1], x[2], x[3], x[4], function, residual ? x[5] : Var{});
          },
      .saved_bytes =
          [](const SavedQuery& q) {
            const Tensor& x = q.inputs[0];
            const Tensor& up = q.inputs[1];
            const bool inner = q.wants[0] || q.wants[1] || q.wants[2];
            const std::int64_t hidden = x.elements() / x.size(-1) * up.size(1) * size_of(x.dtype());
            return (q.wants[1] ? x.bytes() : 0) + (inner || q.wants[3] ? hidden : 0) +
                   (q.wants[0] ? up.bytes() : 0) + (inner ? q.inputs[3].bytes() : 0);
          }};
}

/// query, key, value and, if `bias`, a bias.
OpRow attention_row(std::string variant, AttentionOptions options, bool bias = false) {
  std::vector<std::vector<Shape>> shapes{{{2, 2, 3, 4}, {2, 2, 5, 4}, {2, 2, 5, 3}},
                                         {{1, 2, 4, 2}, {1, 2, 4, 2}, {1, 2, 4, 2}},
                                         {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}},
                                         {{1, 2, 0, 3}, {1, 2, 2, 3}, {1, 2, 2, 3}},
                                         {{0, 2, 2, 3}, {0, 2, 2, 3}, {0, 2, 2, 3}}};
  if (bias) {
    const std::vector<Shape> biases{{2, 1, 5}, {1, 2, 4, 4}, {1}, {2}, {2, 2}};
    for (std::size_t i = 0; i < shapes.size(); ++i) shapes[i].push_back(biases[i]);
  }
  return {.name = "attention",
          .variant = std::move(variant),
          .header = "attention.h",
          .shapes = std::move(shapes),
          .build =
              [options, bias](Inputs x) {
                AttentionInputs inputs{.options = options};
                if (bias) inputs.bias = x[3];
                return attention(x[0], x[1], x[2], inputs).out;
              },
          .saved_bytes = attention_bytes};
}

/// query, key, value, own key and own value.
OpRow own_key_row(std::string variant, AttentionOptions options, bool masked = false) {
  const auto mask_of = [masked](const Tensor& query, const Tensor& key) {
    return masked ? some_bits({query.size(0), 1, 1, key.size(2)}, query.device()) : Tensor{};
  };
  std::vector<std::vector<Shape>> shapes{
      {{2, 2, 3, 4}, {2, 2, 5, 4}, {2, 2, 5, 3}, {2, 2, 3, 4}, {2, 2, 3, 3}},
      {{1, 2, 3, 2}, {1, 2, 3, 2}, {1, 2, 3, 2}, {1, 2, 3, 2}, {1, 2, 3, 2}},
      {{1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1}},
      {{1, 2, 0, 3}, {1, 2, 2, 3}, {1, 2, 2, 3}, {1, 2, 0, 3}, {1, 2, 0, 3}}};
  // An own key alone: the query's gradient is 0, with dropout only to rounding, where f32 and f64
  // cannot be compared.
  if (options.dropout == 0.0)
    shapes.push_back({{1, 2, 2, 3}, {1, 2, 0, 3}, {1, 2, 0, 2}, {1, 2, 2, 3}, {1, 2, 2, 2}});
  return {.name = "attention",
          .variant = std::move(variant),
          .header = "attention.h",
          .shapes = std::move(shapes),
          .build =
              [options, mask_of](Inputs x) {
                AttentionInputs inputs{.mask = mask_of(x[0].value, x[1].value), .options = options};
                inputs.own_key = x[3];
                inputs.own_value = x[4];
                return attention(x[0], x[1], x[2], inputs).out;
              },
          .saved_bytes =
              [mask_of](const SavedQuery& q) {
                const Tensor mask = mask_of(q.inputs[0], q.inputs[1]);
                return attention_bytes(q) + (mask.defined() ? mask.bytes() : 0);
              }};
}

OpRow cross_entropy_row(std::string variant, CrossEntropyOptions::Reduction reduction,
                        bool ignored_rows, bool weighted) {
  std::vector<std::vector<Shape>> shapes{{{4, 5}}, {{2, 3, 4}}, {{2, 1}}, {{1, 1}}, {{5}}};
  if (reduction == CrossEntropyOptions::Reduction::sum) shapes.push_back({{0, 3}});
  return {.name = "cross_entropy",
          .variant = std::move(variant),
          .header = "cross_entropy.h",
          .shapes = std::move(shapes),
          .build =
              [=](Inputs x) {
                const Shape rows = x[0].shape().without(x[0].rank() - 1);
                const std::int64_t labels = x[0].size(-1);
                Tensor targets = some_ids(rows, labels, x[0].device());
                if (ignored_rows && rows.elements() > 1)
                  targets.reshape({-1}).slice(0, 1, 2).fill_(-7.0);
                CrossEntropyOptions options{.ignore_index = -7, .reduction = reduction};
                if (weighted)
                  options.label_weights = uniform({labels}, RngKey{3}, 0.5, 2.0, DType::f64)
                                              .to(x[0].dtype())
                                              .to(x[0].device());
                return cross_entropy(x[0], targets, options);
              },
          .saved_bytes =
              [weighted](const SavedQuery& q) {
                const Tensor& x = q.inputs[0];
                const std::int64_t rows = x.elements() / x.size(-1);
                const std::int64_t weights = weighted ? x.size(-1) * size_of(x.dtype()) : 0;
                return x.bytes() + rows * (size_of(x.dtype()) + 4) + weights;
              }};
}

std::vector<OpRow> arithmetic_rows() {
  return {
      binary("add", add, nothing),
      binary("sub", sub, nothing),
      binary("mul", mul, other_sides),
      in_range(binary("div", div,
                      [](const SavedQuery& q) {
                        return q.inputs[1].bytes() + (q.wants[1] ? q.inputs[0].bytes() : 0);
                      }),
               0.5, 2.0),
      unary(
          "negative", "arithmetic.h", [](const Var& x) { return negative(x); }, nothing),
      unary(
          "scale", "arithmetic.h", [](const Var& x) { return scale(x, -0.7); }, nothing),
      unary(
          "affine", "arithmetic.h", [](const Var& x) { return affine(x, 1.3, 0.4); }, nothing),
  };
}

std::vector<OpRow> elementwise_rows() {
  const std::string header = "elementwise.h";
  OpRow rectified = unary(
      "relu", header, [](const Var& x) { return relu(x); }, the_result);
  rectified.kink = [](double x) { return std::abs(x) < 1e-4; };
  return {
      unary(
          "exp", header, [](const Var& x) { return exp(x); }, the_result),
      in_range(unary(
                   "log", header, [](const Var& x) { return log(x); }, first_input),
               0.5, 2.0),
      in_range(unary(
                   "sqrt", header, [](const Var& x) { return sqrt(x); }, the_result),
               0.5, 2.0),
      unary(
          "square", header, [](const Var& x) { return square(x); }, first_input),
      unary(
          "tanh", header, [](const Var& x) { return tanh(x); }, the_result),
      unary(
          "sigmoid", header, [](const Var& x) { return sigmoid(x); }, the_result),
      rectified,
      unary(
          "silu", header, [](const Var& x) { return silu(x); }, first_input),
      unary(
          "gelu", header, [](const Var& x) { return gelu(x); }, first_input),
      unary(
          "gelu_tanh", header, [](const Var& x) { return gelu_tanh(x); }, first_input),
  };
}

std::vector<OpRow> product_rows() {
  return {
      {.name = "matmul",
       .header = "matmul.h",
       .shapes = {{{3, 4}, {4, 2}},
                  {{3, 3}, {3, 3}},
                  {{2, 3, 4}, {4, 2}},
                  {{3, 4}, {2, 4, 2}},
                  {{2, 1, 3, 2}, {3, 2, 4}},
                  {{1, 1}, {1, 1}},
                  {{0, 3}, {3, 2}},
                  {{2, 0}, {0, 3}},
                  {{2, 3}, {3, 0}},
                  {{0, 2, 3}, {3, 2}}},
       .build = [](Inputs x) { return matmul(x[0], x[1]); },
       .saved_bytes = other_sides},
      {.name = "linear",
       .variant = "no bias",
       .header = "linear.h",
       .shapes = {{{5, 3}, {3, 4}},
                  {{3, 3}, {3, 3}},
                  {{2, 2, 3}, {3, 2}},
                  {{3}, {3, 2}},
                  {{1, 1}, {1, 1}},
                  {{0, 3}, {3, 2}}},
       .build = [](Inputs x) { return linear(x[0], x[1]); },
       .saved_bytes = other_sides},
      {.name = "linear",
       .variant = "bias",
       .header = "linear.h",
       .shapes = {{{5, 3}, {3, 4}, {4}},
                  {{2, 2, 3}, {3, 2}, {2}},
                  {{3}, {3, 2}, {2}},
                  {{1, 1}, {1, 1}, {1}},
                  {{0, 3}, {3, 2}, {2}},
                  {{3, 0}, {0, 2}, {2}},
                  {{3, 2}, {2, 0}, {0}}},
       .build = [](Inputs x) { return linear(x[0], x[1], x[2]); },
       .saved_bytes = other_sides},
      {.name = "linear",
       .variant = "bias and residual",
       .header = "linear.h",
       .shapes = {{{5, 3}, {3, 4}, {4}, {5, 4}},
                  {{2, 2, 3}, {3, 2}, {2}, {2, 2, 2}},
                  {{1, 1}, {1, 1}, {1}, {1, 1}},
                  {{3, 0}, {0, 2}, {2}, {3, 2}},
                  {{0, 3}, {3, 2}, {2}, {0, 2}}},
       .build = [](Inputs x) { return linear(x[0], x[1], x[2], x[3]); },
       .saved_bytes = other_sides},
      {.name = "linear",
       .variant = "residual",
       .header = "linear.h",
       .shapes = {{{5, 3}, {3, 4}, {5, 4}}, {{2, 2, 3}, {3, 2}, {2, 2, 2}}, {{3}, {3, 2}, {2}}},
       .build = [](Inputs x) { return linear(x[0], x[1], {}, x[2]); },
       .saved_bytes = other_sides},
      {.name = "projections",
       .header = "linear.h",
       .shapes = {{{5, 3}, {3, 4}, {3, 2}, {4}, {2}},
                  {{2, 2, 3}, {3, 3}, {3, 1}, {3}, {1}},
                  {{1, 1}, {1, 1}, {1, 2}, {1}, {2}},
                  {{0, 3}, {3, 2}, {3, 2}, {2}, {2}}},
       .build =
           [](Inputs x) {
             const std::vector<Var> y = projections(x[0], x.subspan(1, 2), x.subspan(3, 2));
             return concat(y, -1);
           },
       .saved_bytes = projection_bytes},
      {.name = "projections",
       .variant = "no biases, an unused result",
       .header = "linear.h",
       .shapes = {{{5, 3}, {3, 4}, {3, 2}}, {{2, 2, 3}, {3, 2}, {3, 1}}, {{3}, {3, 2}, {3, 1}}},
       .build = [](Inputs x) { return projections(x[0], x.subspan(1, 2))[1]; },
       .saved_bytes = projection_bytes},
      feed_forward_row("gelu", Unary::gelu, false),
      feed_forward_row("gelu, residual", Unary::gelu, true),
      feed_forward_row("silu", Unary::silu, false),
  };
}

std::vector<OpRow> reduction_rows() {
  const auto indices = [](const SavedQuery& q) { return q.result.elements() * 4; };
  return {
      unary(
          "sum", "sum.h", [](const Var& x) { return sum(x); }, nothing),
      matrix(
          "sum", "axis 0, kept", "sum.h", [](const Var& x) { return sum(x, {0}, true); }, nothing),
      with_shapes(matrix(
                      "sum", "axes -1 and 0", "sum.h",
                      [](const Var& x) {
                        return sum(x, {-1, 0});
                      },
                      nothing),
                  {{{2, 3, 2}}, {{1, 1, 1}}, {{4, 0, 2}}, {{0, 2, 3}}}),
      with_shapes(unary(
                      "mean", "mean.h", [](const Var& x) { return mean(x); }, nothing),
                  {{{3, 4}}, {{2, 3, 2}}, {{1, 1}}, {{}}}),
      matrix(
          "mean", "axis 1, kept", "mean.h", [](const Var& x) { return mean(x, {1}, true); },
          nothing),
      matrix(
          "mean", "axis -1", "mean.h", [](const Var& x) { return mean(x, {-1}); }, nothing),
      matrix(
          "max", "axis 1", "max.h", [](const Var& x) { return max(x, 1); }, indices),
      with_shapes(
          matrix(
              "max", "axis -2 of 3", "max.h", [](const Var& x) { return max(x, -2); }, indices),
          {{{2, 4, 3}}, {{1, 1, 1}}, {{0, 2, 3}}, {{2, 3, 0}}}),
      matrix(
          "softmax", "", "softmax.h", [](const Var& x) { return softmax(x); }, the_result),
      matrix(
          "softmax", "axis 0", "softmax.h", [](const Var& x) { return softmax(x, 0); }, the_result),
      matrix(
          "log_softmax", "", "log_softmax.h", [](const Var& x) { return log_softmax(x); },
          the_result),
      matrix(
          "log_softmax", "axis 0", "log_softmax.h", [](const Var& x) { return log_softmax(x, 0); },
          the_result),
      matrix(
          "logsumexp", "", "logsumexp.h", [](const Var& x) { return logsumexp(x); }, first_input),
      with_shapes(matrix(
                      "logsumexp", "axis 0", "logsumexp.h",
                      [](const Var& x) { return logsumexp(x, 0); }, first_input),
                  {{{3, 4}}, {{2, 3, 2}}, {{1, 1}}, {{3, 0}}}),
  };
}

std::vector<OpRow> normalization_rows() {
  return {
      {.name = "layer_norm",
       .header = "layer_norm.h",
       .shapes = {{{4, 5}, {5}, {5}},
                  {{2, 3, 4}, {4}, {4}},
                  {{5}, {5}, {5}},
                  {{1, 3}, {3}, {3}},
                  {{1, 1}, {1}, {1}},
                  {{3, 1}, {1}, {1}},
                  {{0, 4}, {4}, {4}}},
       .build = [](Inputs x) { return layer_norm(x[0], x[1], x[2], 1e-5); },
       .saved_bytes =
           [](const SavedQuery& q) {
             const Tensor& x = q.inputs[0];
             const std::int64_t rows = x.elements() / x.size(-1);
             return x.bytes() + q.inputs[1].bytes() + 2 * rows * size_of(x.dtype());
           }},
      {.name = "normalize",
       .header = "normalize.h",
       .shapes = {{{4, 3}}, {{2, 2, 3}}, {{5}}, {{1, 1}}, {{0, 3}}},
       .build = [](Inputs x) { return normalize(x[0], 1.7, 0.1); },
       .saved_bytes =
           [](const SavedQuery& q) {
             const Tensor& x = q.inputs[0];
             return x.bytes() + x.elements() / x.size(-1) * size_of(x.dtype());
           }},
  };
}

std::vector<OpRow> index_rows() {
  return {
      {.name = "embedding",
       .header = "embedding.h",
       .shapes = {{{5, 3}}, {{2, 4}}, {{1, 1}}, {{4, 1}}, {{3, 0}}},
       .build =
           [](Inputs x) {
             return embedding(x[0], some_ids({2, 4}, x[0].size(0), x[0].device()));
           },
       .saved_bytes = [](const SavedQuery&) { return 8 * 4; }},
      {.name = "embedding",
       .variant = "no ids",
       .header = "embedding.h",
       .shapes = {{{5, 3}}, {{1, 1}}, {{0, 2}}},
       .build =
           [](Inputs x) {
             return embedding(x[0], empty({0, 2}, DType::i32, x[0].device()));
           },
       .saved_bytes = nothing},
      {.name = "gather",
       .header = "gather.h",
       .shapes = {{{3, 5}}, {{2, 2, 3}}, {{4}}, {{1, 1}}, {{0, 2}}},
       .build =
           [](Inputs x) {
             const Shape shape = x[0].shape().with(x[0].rank() - 1, 4);
             return gather(x[0], some_ids(shape, x[0].size(-1), x[0].device()));
           },
       .saved_bytes = [](const SavedQuery& q) { return q.result.elements() * 4; }},
      {.name = "gather",
       .variant = "index broadcast",
       .header = "gather.h",
       .shapes = {{{3, 5}}, {{2, 2, 3}}, {{1, 1}}, {{0, 2}}},
       .build = [](Inputs x) { return gather(x[0], some_ids({6}, x[0].size(-1), x[0].device())); },
       .saved_bytes = [](const SavedQuery&) { return 6 * 4; }},
      {.name = "concat",
       .header = "concat.h",
       .shapes = {{{3, 2}, {3, 4}, {3, 1}},
                  {{2, 2}, {2, 2}, {2, 2}},
                  {{1, 1}, {1, 1}, {1, 1}},
                  {{2, 3}, {2, 0}, {2, 1}},
                  {{0, 3}, {0, 2}, {0, 1}}},
       .build = [](Inputs x) { return concat(x, 1); },
       .saved_bytes = nothing},
      {.name = "concat",
       .variant = "axis -3 of 3",
       .header = "concat.h",
       .shapes = {{{2, 3, 2}, {1, 3, 2}}, {{1, 1, 1}, {1, 1, 1}}, {{0, 2, 2}, {2, 2, 2}}},
       .build =
           [](Inputs x) {
             return concat({x[0], x[1]}, -3);
           },
       .saved_bytes = nothing},
  };
}

std::vector<OpRow> view_rows() {
  const auto view = [](std::string name, std::string variant,
                       std::vector<std::vector<Shape>> shapes,
                       std::function<Var(const Var&)> function) {
    return with_shapes(
        matrix(std::move(name), std::move(variant), "views.h", std::move(function), nothing),
        std::move(shapes));
  };
  const std::vector<std::vector<Shape>> cubes{{{2, 3, 4}}, {{1, 1, 1}}, {{3, 1, 2}}, {{2, 0, 3}}};
  OpRow reshaped = view(
      "reshape", "",
      {{{2, 6}}, {{3, 2, 2}}, {{4, 1}}, {{1, 1}}, {{1, 6}}, {{6}}, {{2, 1, 3}}, {{4, 0}}},
      [](const Var& x) {
        return x.value.elements() == 0 ? reshape(x, Shape{0, 2}) : reshape(x, {x.size(-1), -1});
      });
  reshaped.needs_row_major = true;
  return {
      view("slice", "axis 0", {{{4, 3}}, {{2, 2, 2}}, {{1, 1}}, {{3, 0}}},
           [](const Var& x) { return slice(x, 0, x.size(0) / 2, x.size(0)); }),
      view("slice", "axis -1", {{{2, 5}}, {{2, 2, 4}}, {{1, 1}}, {{0, 3}}},
           [](const Var& x) { return slice(x, -1, 0, (x.size(-1) + 1) / 2); }),
      view("permute", "", cubes,
           [](const Var& x) {
             return permute(x, {2, 0, 1});
           }),
      view("permute", "negative axes", cubes,
           [](const Var& x) {
             return permute(x, {-2, -1, 0});
           }),
      view("transpose", "", cubes, [](const Var& x) { return transpose(x); }),
      view("transpose", "axes 0 and -1", cubes, [](const Var& x) { return transpose(x, 0, -1); }),
      reshaped,
      view("expand", "", {{{3, 1}}, {{1, 1}}, {{1}}, {{0, 1}}},
           [](const Var& x) {
             Shape shape{2};
             for (const std::int64_t extent : x.shape()) shape.append(extent);
             shape[-1] = 4;
             return expand(x, shape);
           }),
      view("contiguous", "", cubes, [](const Var& x) { return contiguous(transpose(x, 0, 2)); }),
  };
}

std::vector<OpRow> selection_rows() {
  return {
      {.name = "where",
       .header = "where.h",
       .shapes = {{{3, 4}, {3, 4}}, {{4}, {3, 1}}, {{}, {2, 3}}, {{1, 1}, {1, 1}}, {{0, 3}, {3}}},
       .build =
           [](Inputs x) {
             return where(some_bits(broadcast(x[0].shape(), x[1].shape(), "test"), x[0].device()),
                          x[0], x[1]);
           },
       .saved_bytes = [](const SavedQuery& q) { return q.result.elements(); }},
      {.name = "where",
       .variant = "condition broadcasts",
       .header = "where.h",
       .shapes = {{{3, 4}, {4}}, {{1, 4}, {3, 1, 4}}, {{1}, {1}}, {{0, 4}, {4}}},
       .build =
           [](Inputs x) {
             return where(some_bits({3, 1, 1}, x[0].device()), x[0], x[1]);
           },
       .saved_bytes = [](const SavedQuery&) { return 3; }},
      {.name = "masked_fill",
       .header = "where.h",
       .shapes = {{{3, 4}}, {{2, 3, 2}}, {{1, 1}}, {{5}}, {{0, 4}}},
       .build =
           [](Inputs x) {
             return masked_fill(x[0], some_bits({x[0].size(-1)}, x[0].device()), -3.0);
           },
       .saved_bytes = [](const SavedQuery& q) { return q.inputs[0].size(-1); }},
      unary(
          "dropout", "dropout.h",
          [](const Var& x) { return dropout(x, 0.3, RngKey{11}.at("dropout")); }, nothing),
  };
}

std::vector<OpRow> attention_and_loss_rows() {
  const RngKey key{5};
  OpRow masked = attention_row("mask", {});
  masked.build = [](Inputs x) {
    AttentionInputs inputs{.mask = some_bits({x[0].size(2), x[1].size(2)}, x[0].device())};
    return attention(x[0], x[1], x[2], inputs).out;
  };
  masked.saved_bytes = [](const SavedQuery& q) {
    return attention_bytes(q) + q.inputs[0].size(2) * q.inputs[1].size(2);
  };
  OpRow mapped = attention_row("with its map", {.causal = true});
  mapped.build = [](Inputs x) {
    return attention(x[0], x[1], x[2], {.options = {.causal = true}, .want_map = true}).out;
  };
  OpRow no_keys = attention_row("no keys", {});
  no_keys.shapes = {{{1, 2, 2, 3}, {1, 2, 0, 3}, {1, 2, 0, 2}},
                    {{1, 1, 1, 1}, {1, 1, 0, 1}, {1, 1, 0, 1}}};
  OpRow own_bias = own_key_row("own keys, bias", {});
  own_bias.shapes = {
      {{2, 2, 3, 4}, {2, 2, 5, 4}, {2, 2, 5, 3}, {2, 2, 3, 4}, {2, 2, 3, 3}, {2, 1, 5}}};
  own_bias.build = [](Inputs x) {
    return attention(x[0], x[1], x[2], {.bias = x[5], .own_key = x[3], .own_value = x[4]}).out;
  };
  using Reduction = CrossEntropyOptions::Reduction;
  return {
      attention_row("plain", {}),
      attention_row("causal", {.causal = true}),
      attention_row("scale and temperature", {.scale = 0.8, .temperature = 0.6}),
      attention_row("bias", {}, true),
      attention_row("dropout", {.dropout = 0.4, .key = key}),
      attention_row("everything",
                    {.causal = true, .scale = 0.9, .temperature = 1.4, .dropout = 0.3, .key = key},
                    true),
      masked,
      mapped,
      no_keys,
      own_key_row("own keys", {}),
      own_key_row("own keys, mask", {}, true),
      own_key_row("own keys, everything",
                  {.causal = true, .scale = 0.9, .temperature = 1.4, .dropout = 0.3, .key = key},
                  true),
      own_bias,
      cross_entropy_row("sum", Reduction::sum, false, false),
      cross_entropy_row("mean", Reduction::mean, false, false),
      cross_entropy_row("mean, ignored rows", Reduction::mean, true, false),
      cross_entropy_row("mean, ignored rows, label weights", Reduction::mean, true, true),
      cross_entropy_row("sum, ignored rows, label weights", Reduction::sum, true, true),
  };
}

std::vector<int> reversed_axes(int rank) {
  std::vector<int> order(static_cast<std::size_t>(rank));
  std::iota(order.rbegin(), order.rend(), 0);
  return order;
}

Shape reversed(const Shape& shape) {
  Shape result;
  for (int i = shape.rank() - 1; i >= 0; --i) result.append(shape[i]);
  return result;
}

Shape padded(const Shape& shape) {
  Shape result;
  for (const std::int64_t extent : shape) result.append(extent + 2);
  return result;
}

/// `shape` with its first axis longer than 1 cut to 1.
Shape shrunk(Shape shape) {
  for (int i = 0; i < shape.rank(); ++i)
    if (shape[i] > 1) return shape.with(i, 1);
  return shape;
}

/// How a strided input is made from a leaf: the shape of the leaf, and the way back.
struct Layout {
  std::string label;
  Shape (*leaf)(const Shape&);
  Var (*arrange)(const Var& leaf, const Shape& shape);
};

Shape shrunk_leaf(const Shape& shape) { return shrunk(shape); }

const std::vector<Layout> kLayouts{
    {"permuted inputs", reversed,
     [](const Var& x, const Shape&) {
       return permute(x, std::span<const int>(reversed_axes(x.rank())));
     }},
    {"sliced inputs", padded,
     [](const Var& x, const Shape& shape) {
       Var y = x;
       for (int i = 0; i < shape.rank(); ++i) y = slice(y, i, 1, 1 + shape[i]);
       return y;
     }},
    {"expanded inputs", shrunk_leaf,
     [](const Var& x, const Shape& shape) { return expand(x, shape); }}};

/// How a gradient with unusual strides is made to arrive at the op.
struct Aftermath {
  std::string label;
  Var (*follow)(const Var& y);
};

const std::vector<Aftermath> kAftermaths{
    {"permuted gradient",
     [](const Var& y) { return permute(y, std::span<const int>(reversed_axes(y.rank()))); }},
    {"sliced gradients, two of them",
     [](const Var& y) {
       return y.rank() == 0 ? add(y, y) : concat({y, y}, -1);
     }},
    {"expanded gradient",
     [](const Var& y) { return y.rank() == 0 ? expand(y, {3}) : sum(y, {0}); }}};

}  // namespace

std::string title(const OpRow& row) {
  return row.variant.empty() ? row.name : row.name + " (" + row.variant + ")";
}

const std::vector<OpRow>& op_table() {
  static const std::vector<OpRow> table = [] {
    std::vector<OpRow> all;
    for (const auto& part : {arithmetic_rows(), elementwise_rows(), product_rows(),
                             reduction_rows(), normalization_rows(), index_rows(), view_rows(),
                             selection_rows(), attention_and_loss_rows()})
      all.insert(all.end(), part.begin(), part.end());
    return all;
  }();
  return table;
}

Tensor values(const OpRow& row, const Shape& shape, int which) {
  const RngKey key = RngKey{1}.at(row.name).at(static_cast<std::uint64_t>(which));
  return uniform(shape, key, row.low, row.high, DType::f64);
}

std::vector<Tensor> values(const OpRow& row, std::span<const Shape> shapes) {
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < shapes.size(); ++i)
    inputs.push_back(values(row, shapes[i], static_cast<int>(i)));
  return inputs;
}

Tensor some_ids(const Shape& shape, std::int64_t bound, Device device) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(RngKey{17}.below(static_cast<std::uint64_t>(bound), i));
  return from_host(ids, shape, device);
}

Tensor some_bits(const Shape& shape, Device device) {
  std::vector<std::uint8_t> bits(static_cast<std::size_t>(shape.elements()));
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = i % 3 == 1 ? 0 : 1;
  return from_host(bits, shape, device);
}

std::vector<OpCase> cases(const OpRow& row) {
  std::vector<OpCase> result;
  const std::vector<Shape>& base = row.shapes.front();
  const auto plain = [&row](Tape&, Inputs x) { return row.build(x); };
  result.push_back({"base", plain, values(row, base)});

  for (const Layout& layout : kLayouts) {
    if (row.needs_row_major) break;
    std::vector<Shape> leaves;
    for (const Shape& shape : base) leaves.push_back(layout.leaf(shape));
    const auto function = [&row, &layout, base](Tape&, Inputs x) {
      std::vector<Var> arranged;
      for (std::size_t i = 0; i < x.size(); ++i) arranged.push_back(layout.arrange(x[i], base[i]));
      return row.build(arranged);
    };
    result.push_back({layout.label, function, values(row, leaves)});
  }

  for (const Aftermath& aftermath : kAftermaths)
    result.push_back(
        {aftermath.label,
         [&row, &aftermath](Tape&, Inputs x) { return aftermath.follow(row.build(x)); },
         values(row, base)});

  result.push_back({"each input used by two ops",
                    [&row](Tape&, Inputs x) { return add(row.build(x), scale(row.build(x), 0.3)); },
                    values(row, base)});
  for (const std::vector<Shape>& shapes : row.shapes) {
    const bool equal = std::ranges::all_of(shapes, [&](const Shape& s) { return s == shapes[0]; });
    if (shapes.size() < 2 || !equal) continue;
    result.push_back({"one Var for all inputs, " + describe(shapes[0]),
                      [&row, n = shapes.size()](Tape&, Inputs x) {
                        return row.build(std::vector<Var>(n, x[0]));
                      },
                      {values(row, shapes[0], 0)}});
  }

  for (std::size_t i = 1; i < row.shapes.size(); ++i) {
    std::string label = "shapes";
    for (const Shape& shape : row.shapes[i]) label += " " + describe(shape);
    result.push_back({label, plain, values(row, row.shapes[i])});
  }
  return result;
}

}  // namespace mf
