#pragma once

#include <optional>
#include <span>
#include <vector>

#include "tensor/backend.h"
#include "tensor/tensor.h"

/// @file
/// Checked functions on Tensors: they verify shapes, dtypes and devices, allocate the result and
/// call the backend's kernel. None records anything; autograd/ops has the same names on Var. Dtypes
/// are never promoted: mixing them is an error that names both. In the docstrings gy is the
/// gradient that arrives at a result y, and gx the one that goes on to x.

namespace mf {

// Elementwise -----------------------------------------------------------------------------------

/// y = f(x), elementwise; f32 or f64, as all functions of this file unless said otherwise.
Tensor map(Unary function, const Tensor& x);
/// gx = gy * f'(x), with y = f(x).
Tensor map_backward(Unary function, const Tensor& x, const Tensor& y, const Tensor& gy);
Tensor negative(const Tensor& x);    ///< -x
Tensor exp(const Tensor& x);         ///< e^x
Tensor log(const Tensor& x);         ///< ln x
Tensor sqrt(const Tensor& x);        ///< square root; NaN below 0
Tensor square(const Tensor& x);      ///< x^2
Tensor reciprocal(const Tensor& x);  ///< 1 / x
Tensor tanh(const Tensor& x);        ///< hyperbolic tangent
Tensor sigmoid(const Tensor& x);     ///< 1 / (1 + e^-x)
Tensor relu(const Tensor& x);        ///< max(x, 0)
Tensor silu(const Tensor& x);        ///< x * sigmoid(x)
Tensor gelu(const Tensor& x);        ///< x * Phi(x), Phi the normal distribution function
Tensor gelu_tanh(const Tensor& x);   ///< the tanh approximation

/// a + b; as the three below, of shapes that broadcast by NumPy's rule, to the broadcast shape.
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);  ///< a - b
Tensor mul(const Tensor& a, const Tensor& b);  ///< a b, elementwise
Tensor div(const Tensor& a, const Tensor& b);  ///< a / b, elementwise
/// scale * x + shift.
Tensor affine(const Tensor& x, double scale, double shift = 0.0);
/// y += scale * x in place; x broadcasts to y. Throws Error where Tensor::copy_ would: y expanded,
/// or x another view of its elements.
void add_(Tensor& y, const Tensor& x, double scale = 1.0);
/// condition ? a : b, broadcasting; condition u8.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// Zeroes each element with probability p and scales the rest by 1/(1-p). Its own backward.
Tensor dropout(const Tensor& x, double p, RngKey key);

// Reductions ------------------------------------------------------------------------------------

/// Sum over `axes` (all if empty); summed axes are dropped, or kept with extent 1.
Tensor sum(const Tensor& x, std::span<const int> axes = {}, bool keep = false);
/// The same: `sum(x, {0, 2})`.
Tensor sum(const Tensor& x, std::initializer_list<int> axes, bool keep = false);
/// sum / number of elements in each sum, axes as in `sum`. Throws Error if that is 0.
Tensor mean(const Tensor& x, std::span<const int> axes = {}, bool keep = false);
/// Sum of `x` down to `shape`, the reverse of broadcasting.
Tensor sum_to(const Tensor& x, const Shape& shape);
/// What `max` gives; both with x's shape without the axis.
struct MaxResult {
  Tensor values;   ///< NaN where there is one along the axis
  Tensor indices;  ///< i32; the first of equals
};
/// Largest elements along `axis`, which is dropped.
MaxResult max(const Tensor& x, int axis);
/// i32 positions of the largest elements along `axis`, which is dropped.
Tensor argmax(const Tensor& x, int axis);
/// Sum of x_i^2, accumulated in f64 in a fixed order; waits for x's device, as does all that gives
/// a host value.
double sum_of_squares(const Tensor& x);
/// Of all tensors together: the sum, in their order, of the sum of squares of each.
double sum_of_squares(std::span<const Tensor> tensors);
/// How many elements are NaN or infinite.
std::int64_t count_nonfinite(const Tensor& x);

// Products --------------------------------------------------------------------------------------

/// a [.., M, K] x b [.., K, N] -> [.., M, N]; leading extents broadcast. Transposed operands are
/// given as views: matmul(a, b.transpose()).
Tensor matmul(const Tensor& a, const Tensor& b, double alpha = 1.0);
/// c = alpha * a b + c in place, c contiguous and without broadcast batch extents.
void matmul_add_(Tensor& c, const Tensor& a, const Tensor& b, double alpha = 1.0);
/// x [.., in] x weight [in, out] + bias [out] + residual [.., out]; the last two may be undefined.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Tensor& residual = {});
/// What `linear_map` gives, [.., out].
struct MappedLinear {
  Tensor linear;  ///< x weight + bias; undefined if not wanted
  Tensor mapped;  ///< f of it
};
/// f(x weight + bias), x [.., in], weight [in, out], bias [out] or undefined: `linear` and `map`
/// in one pass.
MappedLinear linear_map(const Tensor& x, const Tensor& weight, const Tensor& bias, Unary function,
                        bool want_linear);
/// What `linear_map_backward` gives, [R, in].
struct MappedLinearBackward {
  Tensor gradient;  ///< (gy weight^T) f'(x)
  Tensor mapped;    ///< f(x)
};
/// For y = f(x) weight: gy [R, out], weight [in, out], x [R, in].
MappedLinearBackward linear_map_backward(const Tensor& gy, const Tensor& weight, Unary function,
                                         const Tensor& x);

// Rows ------------------------------------------------------------------------------------------

/// y_i = exp(x_i) / sum_j exp(x_j) along `axis`, computed from x - max x.
Tensor softmax(const Tensor& x, int axis = -1);
/// gx = y (gy - sum(gy y)), with y = softmax(x).
Tensor softmax_backward(const Tensor& y, const Tensor& gy, int axis = -1);
/// y_i = x_i - log sum_j exp(x_j) along `axis`.
Tensor log_softmax(const Tensor& x, int axis = -1);
/// gx = gy - exp(y) sum(gy), with y = log_softmax(x).
Tensor log_softmax_backward(const Tensor& y, const Tensor& gy, int axis = -1);
/// log sum exp along `axis`, which is dropped.
Tensor logsumexp(const Tensor& x, int axis = -1);

/// What `layer_norm` gives.
struct LayerNormResult {
  Tensor y,  ///< shape of x
      mean,  ///< of each row: shape of x without the last axis
      rstd;  ///< 1 / sqrt(variance + epsilon) of each row
};
/// y = (x - mean) rstd gain + bias over the last axis; gain and bias [width]. The variance divides
/// by the width.
LayerNormResult layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon);
/// What `layer_norm_backward` gives; undefined where not wanted.
struct LayerNormGrads {
  Tensor x,  ///< shape of x
      gain,  ///< [width]
      bias;  ///< [width]
};
/// With n = (x - mean) rstd and h = gy gain: gx = rstd (h - mean(h) - n mean(h n)), ggain = sum of
/// gy n over rows, gbias = sum of gy over rows; mean and rstd as `layer_norm` gave them. If `sum`
/// is given, the gradient of x is added to it in place and not returned.
LayerNormGrads layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                                   const Tensor& rstd, const Tensor& gy, bool want_x,
                                   bool want_gain, bool want_bias, Tensor* sum = nullptr);

/// What `normalize` gives.
struct NormalizeResult {
  Tensor y,  ///< shape of x
      norm;  ///< r of each row: shape of x without the last axis
};
/// y = radius * x / r, r = sqrt(|x|^2 + epsilon^2), over the last axis. Throws Error unless
/// radius > 0 and epsilon >= 0.
NormalizeResult normalize(const Tensor& x, double radius, double epsilon);
/// gx = radius (gy - x (x . gy) / r^2) / r, r as `normalize` gave it.
Tensor normalize_backward(const Tensor& x, const Tensor& norm, const Tensor& gy, double radius);

// Indexing --------------------------------------------------------------------------------------

// An id out of range is an Error on the cpu. On another device the host does not read ids, as it
// would have to wait for them: the result of a gather is NaN there, and a scatter leaves it out.

/// table [rows, width] at ids (i32, any shape) -> ids.shape + [width].
Tensor gather_rows(const Tensor& table, const Tensor& ids);
/// zeros [rows, width] with gy added at ids, in order.
Tensor scatter_rows(const Tensor& ids, const Tensor& gy, std::int64_t rows);
/// x [.., n] at index [.., m] along the last axis -> [.., m]. index (i32) broadcasts over leading
/// axes.
Tensor gather(const Tensor& x, const Tensor& index);
/// zeros [.., n] with gy added at index, in order.
Tensor scatter(const Tensor& index, const Tensor& gy, std::int64_t n);
/// The parts one after the other along `axis`; they agree in dtype and all other extents.
Tensor concat(std::span<const Tensor> parts, int axis);
/// zeros of `shape` with gy written at begin.. along `axis`: the backward of slice.
Tensor unslice(const Tensor& gy, const Shape& shape, int axis, std::int64_t begin);

// Attention and loss ----------------------------------------------------------------------------

/// What `attention` gives.
struct AttentionResult {
  Tensor out;      ///< [B, H, T, E], stored as [B, T, H, E] so that merging heads is a view
  Tensor log_sum;  ///< [B, H, T]
  /// [B, H, T, S] if asked for, else undefined; [B, H, T, S + 1], the own weight last, where there
  /// are own keys.
  Tensor map;
};
/// A key [B,H,T,D] and a value [B,H,T,E] for each query, which no other query sees. Both or neither
/// are defined.
struct OwnKeyValue {
  Tensor key,  ///< [B, H, T, D]
      value;   ///< [B, H, T, E]
};
/// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E]; mask (u8, 1 = attend) and bias broadcast to [B,H,T,S] and
/// may be undefined; neither reaches own keys. See AttentionOptions and Backend::attention.
AttentionResult attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                          const Tensor& bias, const AttentionOptions& options,
                          bool want_map = false, const OwnKeyValue& own = {});
/// What `attention_backward` gives; undefined where not wanted.
struct AttentionGrads {
  Tensor q,       ///< [B, H, T, D]
      k,          ///< [B, H, S, D]
      v,          ///< [B, H, S, E]
      bias,       ///< [B, H, T, S], not summed down to the bias's shape
      own_key,    ///< [B, H, T, D]
      own_value;  ///< [B, H, T, E]
};
/// Which gradients `attention_backward` shall make. Of what is not there none is made.
struct AttentionWants {
  bool q = true,         ///< of the queries
      k = true,          ///< of the keys
      v = true,          ///< of the values
      bias = true,       ///< of the bias, if there is one
      own_key = true,    ///< of the own keys, if there are any
      own_value = true;  ///< of the own values, if there are any
};
/// The gradients of `attention`, from its arguments, its results `out` and `log_sum`, and the
/// gradient `gout` of out; the equations stand at ops::Attention. Weights are made again from
/// `log_sum`: nothing of T x S elements is kept but the gradient of the bias.
AttentionGrads attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& mask, const Tensor& bias,
                                  const AttentionOptions& options, const Tensor& out,
                                  const Tensor& log_sum, const Tensor& gout, AttentionWants wants,
                                  const OwnKeyValue& own = {});

/// What `cross_entropy` gives.
struct CrossEntropyResult {
  Tensor loss;     ///< 0-d: the weighted sum over rows
  Tensor log_sum;  ///< [rows]
};
/// logits [.., V], targets i32 [..]; rows whose target is `ignore` count nothing; weights [V] or
/// undefined. A target outside 0..V-1 is an Error on the cpu; on another device it makes the loss
/// NaN, and in the gradient its row.
CrossEntropyResult cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                                 std::int32_t ignore);
/// glogits_i = gloss w_i (softmax(logits_i) - onehot(target_i)), w_i the weight of the target, and
/// 0 in rows whose target is `ignore`; log_sum as `cross_entropy` gave it, gloss 0-d.
Tensor cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                              std::int32_t ignore, const Tensor& log_sum, const Tensor& gloss);

// Optimizer steps, in place ---------------------------------------------------------------------

/// A step of mf::Adam; the gradient is multiplied by `scale` first, and `step` counts from 1. All
/// tensors have the parameter's shape and dtype.
void adam_(Tensor& parameter, const Tensor& gradient, double scale, const AdamOptions& options,
           std::int64_t step, Tensor& first_moment, Tensor& second_moment);
/// A step of mf::Sgd; the gradient is multiplied by `scale` first. `velocity` has the parameter's
/// shape and dtype, or is undefined where momentum is 0.
void sgd_(Tensor& parameter, const Tensor& gradient, double scale, double learning_rate,
          double momentum, double weight_decay, Tensor& velocity);

}  // namespace mf
