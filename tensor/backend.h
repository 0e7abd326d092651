#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/random.h"
#include "tensor/shape.h"

namespace mf {

namespace detail {
inline const Shape no_axes;
}

/// What a kernel sees of a tensor, for the time of the call: shape and strides are the tensor's
/// own. `data` already points at the first element; strides count elements. An absent optional
/// argument has `data == nullptr`.
struct View {
  const void* data = nullptr;              ///< the first element, in the device's memory
  DType dtype = DType::f32;                ///< of the elements
  const Shape& shape = detail::no_axes;    ///< extents
  const Shape& strides = detail::no_axes;  ///< elements between neighbours along each axis

  /// `data` as elements of type T, unchecked: T must be what `dtype` says.
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

/// A View that the kernel may write.
struct MutView {
  void* data = nullptr;                    ///< the first element, in the device's memory
  DType dtype = DType::f32;                ///< of the elements
  const Shape& shape = detail::no_axes;    ///< extents
  const Shape& strides = detail::no_axes;  ///< elements between neighbours along each axis

  /// `data` as elements of type T, unchecked: T must be what `dtype` says.
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  /// The same elements, read only.
  operator View() const { return {data, dtype, shape, strides}; }
};

/// What a kernel runs on. A backend with streams and handles keeps them behind `native`.
struct Context {
  Device device;           ///< where the kernel's tensors are
  void* native = nullptr;  ///< the backend's own; null on the cpu
};

/// Elementwise functions; value and derivative of each are in formulas.h.
enum class Unary : std::uint8_t {
  negative,    ///< -x
  exp,         ///< e^x
  log,         ///< ln x
  sqrt,        ///< square root; NaN below 0
  square,      ///< x^2
  reciprocal,  ///< 1 / x
  tanh,        ///< hyperbolic tangent
  sigmoid,     ///< 1 / (1 + e^-x)
  relu,        ///< max(x, 0)
  silu,        ///< x sigmoid(x)
  gelu,        ///< x Phi(x), Phi the distribution function of the standard normal distribution
  gelu_tanh    ///< gelu with Phi approximated by tanh
};
/// Elementwise functions of two operands a and b.
enum class Binary : std::uint8_t {
  add,  ///< a + b
  sub,  ///< a - b
  mul,  ///< a b
  div   ///< a / b
};
/// Options of attention. For query i and key j:
///   logit_ij = (scale * q_i . k_j + bias_ij) / temperature, -inf where masked;
///   causal: query i sees keys j <= i + (S - T).
/// Where each query has a key of its own, it always sees it: own logit_i = scale * q_i . own_key_i
/// / temperature.
struct AttentionOptions {
  bool causal = false;       ///< query i does not see keys j > i + (S - T)
  double scale = 0.0;        ///< 0 stands for 1/sqrt(D)
  double temperature = 1.0;  ///< divides the logits; positive
  double dropout = 0.0;      ///< probability that a weight is zeroed; kept weights grow by 1/(1-p)
  /// Of the dropout: weight (b,h,i,j) uses element ((b*H+h)*T+i)*W+j, where W = S; with own keys W
  /// = S+1, and the own weight is j = S.
  RngKey key{};
};

/// Hyperparameters of a step of Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019);
/// the equations stand at mf::Adam.
struct AdamOptions {
  double learning_rate = 1e-3;  ///< of this step
  double beta1 = 0.9;           ///< what is left of the first moment after a step, in [0, 1)
  double beta2 = 0.999;         ///< the same of the second moment
  double epsilon = 1e-8;        ///< added to the square root of the second moment
  double weight_decay = 0.0;    ///< decoupled: parameter *= 1 - learning_rate * weight_decay
};

/// A named entry of the table. Calling an empty one is an error that names it.
template <class Signature>
struct Kernel;

/// The form of every entry: a function of the context and of `Args`, without result.
template <class... Args>
struct Kernel<void(Args...)> {
  const char* name;                               ///< for messages and reports
  void (*function)(Context&, Args...) = nullptr;  ///< null where the backend lacks it

  /// Calls the function. Throws Error naming kernel and device if there is none.
  void operator()(Context& context, const Args&... args) const {
    check(function != nullptr, "{}: the {} backend has no kernel for it; move the inputs to cpu",
          name, context.device);
    function(context, args...);
  }
};

/// The closed set of things a device must do: one table per kind of device. tensor/math.cpp checks
/// arguments and allocates results; kernels trust them. Unless said otherwise a view may have any
/// strides; "rows" are contiguous row-major tensors seen as [rows, width of the last axis].
/// Reductions have one fixed order, so that results do not depend on threads or launches.
struct Backend {
  const char* device = "";  ///< kind of device that the table is for: "cpu", "cuda"

  // Memory.

  /// A block of `bytes` > 0 on the device; nullptr when there is no memory left.
  void* (*allocate)(Device, std::int64_t bytes) = nullptr;
  /// Gives a block of `allocate` back.
  void (*free)(Device, void* data) = nullptr;
  /// What the device has left, for messages; null where nobody counts it.
  std::int64_t (*free_bytes)(Device) = nullptr;
  /// Copies from the host; returns when the host's memory may change.
  void (*upload)(Context&, void* device_data, const void* host, std::int64_t bytes) = nullptr;
  /// Copies to the host, behind all that is queued; returns when the host's memory holds the
  /// values.
  void (*download)(Context&, void* host, const void* device_data, std::int64_t bytes) = nullptr;
  /// Returns when all that is queued is done.
  void (*synchronize)(Context&) = nullptr;
  /// As mf::full_name, without the device's own name; may be absent.
  std::string (*model_name)(Device) = nullptr;

  /// y = x elementwise, same shape, any strides, any pair of dtypes.
  Kernel<void(View x, MutView y)> copy{"copy"};
  /// Every element of y becomes `value`, rounded to its dtype.
  Kernel<void(MutView y, double value)> fill{"fill"};
  /// Draws of RngKey's stream in [low, high), element i in row-major order; y contiguous.
  Kernel<void(MutView y, RngKey key, double low, double high)> uniform{"uniform"};
  /// Normal draws as those of mf::normal, in row-major order; y contiguous.
  Kernel<void(MutView y, RngKey key, double mean, double deviation)> normal{"normal"};

  // Elementwise: all views have the shape of the result (stride 0 where broadcast).

  /// y = f(x).
  Kernel<void(Unary, View x, MutView y)> map{"map"};
  /// gx = gy * f'(x), with y = f(x).
  Kernel<void(Unary, View x, View y, View gy, MutView gx)> map_backward{"map_backward"};
  /// y = a op b.
  Kernel<void(Binary, View a, View b, MutView y)> combine{"combine"};
  /// y = scale * x + shift.
  Kernel<void(View x, double scale, double shift, MutView y)> affine{"affine"};
  /// y += scale * x.
  Kernel<void(View x, double scale, MutView y)> accumulate{"accumulate"};
  /// y = condition ? a : b, condition u8.
  Kernel<void(View condition, View a, View b, MutView y)> select{"select"};
  /// y_i = keep_i ? x_i / (1 - p) : 0, keep_i = key.uniform(i) >= p; rows. Its own backward.
  Kernel<void(View x, double p, RngKey key, MutView y)> dropout{"dropout"};

  // Reductions. x is contiguous [outer, n, inner]; y and index are contiguous [outer, inner].

  /// y[o, i] = sum over n of x[o, n, i].
  Kernel<void(View x, MutView y)> sum{"sum"};
  /// Largest element and its position; the first of equals; NaN wins. `y` or `index` may be absent.
  Kernel<void(View x, MutView y, MutView index)> max{"max"};
  /// y (f64, one element) = sum of x_i^2 accumulated in f64; x contiguous.
  Kernel<void(View x, MutView y)> sum_of_squares{"sum_of_squares"};
  /// y (f64, one element) = number of elements that are NaN or infinite; x contiguous.
  Kernel<void(View x, MutView y)> count_nonfinite{"count_nonfinite"};

  /// c = alpha * a b + base + bias; a [batch.., M, K], b [batch.., K, N], c [batch.., M, N] with
  /// equal batch extents (stride 0 where broadcast). One of the last two strides of each is 1, and
  /// c's last stride is 1. base, shaped as c with last stride 1, may be c itself; bias is [N],
  /// contiguous; both may be absent.
  Kernel<void(View a, View b, MutView c, double alpha, View base, View bias)> matmul{"matmul"};

  /// y = f(c), c = a b + bias: a [M, K], b [K, N] as in matmul, bias [N] or absent; c and y
  /// contiguous, c may be absent.
  Kernel<void(View a, View b, View bias, Unary, MutView c, MutView y)> matmul_map{"matmul_map"};
  /// gx = (a b) f'(x) and y = f(x); x, gx and y [M, N] contiguous.
  Kernel<void(View a, View b, Unary, View x, MutView gx, MutView y)> matmul_map_backward{
      "matmul_map_backward"};

  // Rows of the last axis.

  /// y_i = exp(x_i) / sum_j exp(x_j), computed from x - max x.
  Kernel<void(View x, MutView y)> softmax{"softmax"};
  /// gx = y (gy - sum_j gy_j y_j), with y = softmax(x).
  Kernel<void(View y, View gy, MutView gx)> softmax_backward{"softmax_backward"};
  /// y_i = x_i - log sum_j exp x_j.
  Kernel<void(View x, MutView y)> log_softmax{"log_softmax"};
  /// gx = gy - exp(y) sum_j gy_j, with y = log_softmax(x).
  Kernel<void(View y, View gy, MutView gx)> log_softmax_backward{"log_softmax_backward"};
  /// y [rows] = log sum_j exp x_j; -inf for a row of -inf.
  Kernel<void(View x, MutView y)> logsumexp{"logsumexp"};
  /// y = (x - mean) * rstd * gain + bias, rstd = 1 / sqrt(variance + epsilon); mean, rstd [rows].
  Kernel<void(View x, View gain, View bias, double epsilon, MutView y, MutView mean, MutView rstd)>
      layer_norm{"layer_norm"};
  /// With n = (x - mean) rstd and h = gy gain: gx = rstd (h - mean(h) - n mean(h n)), ggain = sum
  /// of gy n and gbias = sum of gy over rows, in a fixed order. Any of the three may be absent.
  /// base, if given, is added to gx and may be gx itself.
  Kernel<void(View x, View gain, View mean, View rstd, View gy, View base, MutView gx,
              MutView ggain, MutView gbias)>
      layer_norm_backward{"layer_norm_backward"};
  /// y = radius * x / r, r = sqrt(sum_j x_j^2 + epsilon^2); r [rows].
  Kernel<void(View x, double radius, double epsilon, MutView y, MutView r)> normalize{"normalize"};
  /// gx = radius * (gy - x (x . gy) / r^2) / r.
  Kernel<void(View x, View r, View gy, double radius, MutView gx)> normalize_backward{
      "normalize_backward"};

  // Indices are i32. On the cpu they are already checked to be in range. On another device the host
  // does not read them, and kernels must bear any: gathers write NaN (all bits one, where elements
  // are integers) for an index out of range, scatters leave it out.
  /// y [n, width] = table [rows, width] at ids [n]; all contiguous.
  Kernel<void(View table, View ids, MutView y)> gather_rows{"gather_rows"};
  /// gtable[ids_i] += gy_i in the order of i.
  Kernel<void(View ids, View gy, MutView gtable)> scatter_rows{"scatter_rows"};
  /// y [rows, m] = x [rows, n] at index [rows, m] along the last axis. x and y contiguous; index
  /// may have stride 0 along its rows.
  Kernel<void(View x, View index, MutView y)> gather{"gather"};
  /// gx[r, index[r, j]] += gy[r, j] in the order of j.
  Kernel<void(View index, View gy, MutView gx)> scatter{"scatter"};

  /// out [B,H,T,E] = softmax_j(logit) v and log_sum [B,H,T] = logsumexp_j(logit), before dropout.
  /// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E] and out: last stride 1. mask (u8, 1 = attend) and bias:
  /// [B,H,T,S] with stride 0 where broadcast, or absent. own_key as q and own_value as out, or both
  /// absent: then softmax and log_sum go over the own logit too, and out_i += own weight_i
  /// own_value_i. map [B,H,T,S], with own keys [B,H,T,S+1], the own weight last (after dropout), or
  /// absent. A row with every key masked and no own key gives zeros and log_sum -inf.
  Kernel<void(View q, View k, View v, View mask, View bias, View own_key, View own_value,
              const AttentionOptions&, MutView out, MutView log_sum, MutView map)>
      attention{"attention"};
  /// Gradients, each absent or written in full; gbias [B,H,T,S] contiguous (math sums it down).
  /// Weights are recomputed from log_sum; nothing of size T x S is read.
  Kernel<void(View q, View k, View v, View mask, View bias, View own_key, View own_value,
              const AttentionOptions&, View out, View log_sum, View gout, MutView gq, MutView gk,
              MutView gv, MutView gbias, MutView gown_key, MutView gown_value)>
      attention_backward{"attention_backward"};

  /// loss (one element) = sum_i w_i (log_sum_i - logits_i,target_i) over rows whose target is not
  /// `ignore`; w_i = weights[target_i] or 1 if absent; accumulated in f64. log_sum [rows] is kept.
  /// Targets as indices above: one out of range makes the loss NaN.
  Kernel<void(View logits, View targets, View weights, std::int32_t ignore, MutView loss,
              MutView log_sum)>
      cross_entropy{"cross_entropy"};
  /// glogits = gloss * w_i (softmax(logits_i) - onehot(target_i)); NaN in the row of a target out
  /// of range.
  Kernel<void(View logits, View targets, View weights, std::int32_t ignore, View log_sum,
              View gloss, MutView glogits)>
      cross_entropy_backward{"cross_entropy_backward"};

  // Optimizer steps, in place on contiguous tensors; gradient is scaled by `scale` first.

  /// A step of mf::Adam; `step` counts from 1. All four tensors have one shape and dtype.
  Kernel<void(View gradient, double scale, const AdamOptions&, std::int64_t step, MutView parameter,
              MutView first_moment, MutView second_moment)>
      adam{"adam"};
  /// velocity = momentum * velocity + gradient; parameter -= learning_rate * velocity. velocity may
  /// be absent (momentum 0).
  Kernel<void(View gradient, double scale, double learning_rate, double momentum,
              double weight_decay, MutView parameter, MutView velocity)>
      sgd{"sgd"};

  /// Calls fn(kernel) for every entry: for reports and for tests that none is missing.
  template <class F>
  void each(F&& fn) const {
    fn(copy), fn(fill), fn(uniform), fn(normal), fn(map), fn(map_backward), fn(combine), fn(affine);
    fn(accumulate), fn(select), fn(dropout), fn(sum), fn(max), fn(sum_of_squares);
    fn(count_nonfinite), fn(matmul), fn(matmul_map), fn(matmul_map_backward), fn(softmax),
        fn(softmax_backward), fn(log_softmax);
    fn(log_softmax_backward), fn(logsumexp), fn(layer_norm), fn(layer_norm_backward);
    fn(normalize), fn(normalize_backward), fn(gather_rows), fn(scatter_rows), fn(gather);
    fn(scatter), fn(attention), fn(attention_backward), fn(cross_entropy);
    fn(cross_entropy_backward), fn(adam), fn(sgd);
  }
};

/// Makes `backend`, which must outlive all tensors, serve every device of `kind`. The cpu is there
/// from the start; other backends are installed by the program (cuda::install()), never by static
/// constructors.
void register_backend(Device::Kind kind, const Backend* backend);
/// Throws Error if no backend serves `device`.
const Backend& backend_for(Device device);
/// The context of `device`, made on first use.
Context& context_for(Device device);
/// Waits until everything queued on `device` is done; the cpu queues nothing.
void synchronize(Device device);
/// What bits depend on, for records: "cpu", or "cuda:0 (NVIDIA H100, 9.0)", with ", TF32" where
/// products may round their operands.
std::string full_name(Device device);

/// The CPU's table (tensor/cpu/).
const Backend& cpu_backend();

}  // namespace mf
