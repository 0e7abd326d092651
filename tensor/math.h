#pragma once

#include <optional>
#include <span>
#include <vector>

#include "tensor/backend.h"
#include "tensor/tensor.h"

/// Checked functions on Tensors: they verify shapes, dtypes and devices, allocate the result and
/// call the backend's kernel. None records anything; autograd/ops has the same names on Var. Dtypes
/// are never promoted: mixing them is an error that names both.
namespace mf {

// Elementwise -----------------------------------------------------------------------------------

Tensor map(Unary function, const Tensor& x);
/// gx = gy * f'(x), with y = f(x).
Tensor map_backward(Unary function, const Tensor& x, const Tensor& y, const Tensor& gy);
Tensor negative(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor square(const Tensor& x);
Tensor reciprocal(const Tensor& x);
Tensor tanh(const Tensor& x);
Tensor sigmoid(const Tensor& x);
Tensor relu(const Tensor& x);
Tensor silu(const Tensor& x);       ///< x * sigmoid(x)
Tensor gelu(const Tensor& x);       ///< x * Phi(x), Phi the normal distribution function
Tensor gelu_tanh(const Tensor& x);  ///< the tanh approximation

/// Broadcasting arithmetic.
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
/// scale * x + shift.
Tensor affine(const Tensor& x, double scale, double shift = 0.0);
/// y += scale * x in place; x broadcasts to y.
void add_(Tensor& y, const Tensor& x, double scale = 1.0);
/// condition ? a : b, broadcasting; condition u8.
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b);
/// Zeroes each element with probability p and scales the rest by 1/(1-p). Its own backward.
Tensor dropout(const Tensor& x, double p, RngKey key);

// Reductions ------------------------------------------------------------------------------------

/// Sum over `axes` (all if empty); summed axes are dropped, or kept with extent 1.
Tensor sum(const Tensor& x, std::span<const int> axes = {}, bool keep = false);
Tensor sum(const Tensor& x, std::initializer_list<int> axes, bool keep = false);
Tensor mean(const Tensor& x, std::span<const int> axes = {}, bool keep = false);
/// Sum of `x` down to `shape`, the reverse of broadcasting.
Tensor sum_to(const Tensor& x, const Shape& shape);
struct MaxResult {
  Tensor values;
  Tensor indices;  ///< i32; the first of equals
};
/// Largest elements along `axis`, which is dropped.
MaxResult max(const Tensor& x, int axis);
/// i32 positions of the largest elements along `axis`, which is dropped.
Tensor argmax(const Tensor& x, int axis);
/// Host values, accumulated in f64.
double sum_of_squares(const Tensor& x);
/// Of all tensors together: the sum, in their order, of the sum of squares of each.
double sum_of_squares(std::span<const Tensor> tensors);
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
struct MappedLinear {
  Tensor linear;  ///< x weight + bias; undefined if not wanted
  Tensor mapped;  ///< f of it
};
/// linear and map in one pass.
MappedLinear linear_map(const Tensor& x, const Tensor& weight, const Tensor& bias, Unary function,
                        bool want_linear);
struct MappedLinearBackward {
  Tensor gradient;  ///< (gy weight^T) f'(x)
  Tensor mapped;    ///< f(x)
};
/// For y = f(x) weight: gy [R, out], weight [in, out], x [R, in].
MappedLinearBackward linear_map_backward(const Tensor& gy, const Tensor& weight, Unary function,
                                         const Tensor& x);

// Rows ------------------------------------------------------------------------------------------

Tensor softmax(const Tensor& x, int axis = -1);
Tensor softmax_backward(const Tensor& y, const Tensor& gy, int axis = -1);
Tensor log_softmax(const Tensor& x, int axis = -1);
Tensor log_softmax_backward(const Tensor& y, const Tensor& gy, int axis = -1);
/// log sum exp along `axis`, which is dropped.
Tensor logsumexp(const Tensor& x, int axis = -1);

struct LayerNormResult {
  Tensor y, mean, rstd;  ///< mean and rstd: shape of x without the last axis
};
/// Over the last axis; gain and bias [width].
LayerNormResult layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias, double epsilon);
struct LayerNormGrads {
  Tensor x, gain, bias;  ///< undefined where not wanted
};
/// If `sum` is given, the gradient of x is added to it in place and not returned.
LayerNormGrads layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                                   const Tensor& rstd, const Tensor& gy, bool want_x,
                                   bool want_gain, bool want_bias, Tensor* sum = nullptr);

struct NormalizeResult {
  Tensor y, norm;  ///< norm: shape of x without the last axis
};
/// radius * x / sqrt(|x|^2 + epsilon^2) over the last axis.
NormalizeResult normalize(const Tensor& x, double radius, double epsilon);
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
Tensor concat(std::span<const Tensor> parts, int axis);
/// zeros of `shape` with gy written at begin.. along `axis`: the backward of slice.
Tensor unslice(const Tensor& gy, const Shape& shape, int axis, std::int64_t begin);

// Attention and loss ----------------------------------------------------------------------------

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
  Tensor key, value;
};
/// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E]; mask (u8, 1 = attend) and bias broadcast to [B,H,T,S] and
/// may be undefined; neither reaches own keys. See AttentionOptions and Backend::attention.
AttentionResult attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                          const Tensor& bias, const AttentionOptions& options,
                          bool want_map = false, const OwnKeyValue& own = {});
struct AttentionGrads {
  /// Undefined where not wanted; bias is [B,H,T,S], not summed down.
  Tensor q, k, v, bias, own_key, own_value;
};
/// Of what is not there no gradient is made.
struct AttentionWants {
  bool q = true, k = true, v = true, bias = true, own_key = true, own_value = true;
};
AttentionGrads attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& mask, const Tensor& bias,
                                  const AttentionOptions& options, const Tensor& out,
                                  const Tensor& log_sum, const Tensor& gout, AttentionWants wants,
                                  const OwnKeyValue& own = {});

struct CrossEntropyResult {
  Tensor loss;     ///< 0-d: the weighted sum over rows
  Tensor log_sum;  ///< [rows]
};
/// logits [.., V], targets i32 [..]; rows whose target is `ignore` count nothing; weights [V] or
/// undefined. A target outside 0..V-1 is an Error on the cpu; on another device it makes the loss
/// NaN, and in the gradient its row.
CrossEntropyResult cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                                 std::int32_t ignore);
Tensor cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                              std::int32_t ignore, const Tensor& log_sum, const Tensor& gloss);

// Optimizer steps, in place ---------------------------------------------------------------------

void adam_(Tensor& parameter, const Tensor& gradient, double scale, const AdamOptions& options,
           std::int64_t step, Tensor& first_moment, Tensor& second_moment);
void sgd_(Tensor& parameter, const Tensor& gradient, double scale, double learning_rate,
          double momentum, double weight_decay, Tensor& velocity);

}  // namespace mf
