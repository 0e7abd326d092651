#include "tensor/math.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "tensor/view.h"
#include "tensor/work.h"

namespace mf {
namespace {

using detail::mut_view;
using detail::view;

void require_device(std::string_view operation, const Tensor& x, const Tensor& other) {
  check(other.device() == x.device(), "{}: devices are mixed; {} and {}; move one with to()",
        operation, x, other);
}

/// Checks that every operand is a defined floating tensor of one dtype on one device.
template <class... More>
void require_floats(std::string_view operation, const Tensor& first, const More&... more) {
  const auto one = [&](const Tensor& x) {
    check(x.defined(), "{}: an operand is undefined; make it with empty, zeros or from_host",
          operation);
    check(is_float(x.dtype()), "{}: {} is not floating; convert with to(DType::f32)", operation, x);
    check(x.dtype() == first.dtype(),
          "{}: dtypes are mixed; {} and {}; convert one with to(), nothing is promoted", operation,
          first, x);
    require_device(operation, first, x);
  };
  one(first);
  (one(more), ...);
}

void require_shape(std::string_view operation, std::string_view what, const Tensor& x,
                   const Shape& shape) {
  check(x.defined() && x.shape() == shape, "{}: {} must have shape {}; got {}", operation, what,
        shape, x);
}

/// Checks the ids that go with `x`. Those of a device are left to its kernels: to read them here
/// would be to wait for all that is queued.
void require_indices(std::string_view operation, const Tensor& x, const Tensor& indices,
                     std::int64_t bound) {
  check(indices.defined() && indices.dtype() == DType::i32,
        "{}: ids must be i32; got {}; convert with to(DType::i32)", operation, indices);
  require_device(operation, x, indices);
  if (indices.device() != cpu || indices.elements() == 0) return;
  const Tensor host = indices.contiguous();
  const std::int32_t* ids = host.data<std::int32_t>();
  for (std::int64_t i = 0; i < host.elements(); ++i)
    check(ids[i] >= 0 && ids[i] < bound,
          "{}: id {} at position {} is out of range; valid ids are 0 to {}", operation, ids[i], i,
          bound - 1);
}

void require_rank(std::string_view operation, const Tensor& x, int least) {
  check(x.rank() >= least, "{}: {} has rank {}, at least {} is needed; reshape it first", operation,
        x, x.rank(), least);
}

const Backend& backend_of(const Tensor& x) { return backend_for(x.device()); }
Context& context_of(const Tensor& x) { return context_for(x.device()); }

std::int64_t width_of(const Tensor& x) { return x.size(-1); }
Shape without_last(const Tensor& x) { return x.shape().without(x.rank() - 1); }

/// Runs `kernel(rows, result)` on x with `axis` moved last and made contiguous.
template <class F>
Tensor along_axis(std::string_view operation, const Tensor& x, int axis, F&& kernel) {
  require_rank(operation, x, 1);
  const int i = resolve_axis(axis, x.rank(), operation);
  const Tensor rows = x.transpose(i, -1).contiguous();
  return kernel(rows).transpose(i, -1);
}

/// Of tensors of one shape.
Tensor combine_equal(Binary function, const Tensor& a, const Tensor& b) {
  Tensor y = empty_like(a);
  backend_of(a).combine(context_of(a), function, view(a), view(b), mut_view(y));
  return y;
}

Tensor combine(Binary function, std::string_view operation, const Tensor& a, const Tensor& b) {
  require_floats(operation, a, b);
  if (a.shape() == b.shape()) return combine_equal(function, a, b);
  const Shape shape = broadcast(a.shape(), b.shape(), operation);
  return combine_equal(function, a.expand(shape), b.expand(shape));
}

Tensor broadcast_optional(std::string_view operation, std::string_view what, const Tensor& x,
                          const Shape& shape) {
  if (!x.defined() || x.shape() == shape) return x;
  check(broadcast(x.shape(), shape, operation) == shape, "{}: {} {} does not broadcast to {}",
        operation, what, x, shape);
  return x.expand(shape);
}

/// [batch.., M, K] with one of the last two strides 1; a copy only where neither is.
Tensor matrix_operand(const Tensor& x) {
  const bool rows = x.strides()[-1] == 1 || x.size(-1) <= 1;
  const bool columns = x.strides()[-2] == 1 || x.size(-2) <= 1;
  return rows || columns ? x : x.contiguous();
}

/// Attention reads rows of the last axis; a copy only where they are not contiguous.
Tensor row_operand(const Tensor& x) {
  return x.strides()[-1] == 1 || x.size(-1) <= 1 ? x : x.contiguous();
}

struct MatmulShapes {
  Shape a, b, c;
};

MatmulShapes matmul_shapes(const Tensor& a, const Tensor& b) {
  require_floats("matmul", a, b);
  require_rank("matmul", a, 2);
  require_rank("matmul", b, 2);
  check(a.size(-1) == b.size(-2), "matmul: inner sizes differ: {} x {}; transpose an operand?", a,
        b);
  const auto leading = [](const Tensor& x) {
    return x.shape().without(x.rank() - 1).without(x.rank() - 2);
  };
  const Shape batch = broadcast(leading(a), leading(b), "matmul");
  const auto with = [&](std::int64_t rows, std::int64_t columns) {
    Shape shape = batch;
    shape.append(rows);
    shape.append(columns);
    return shape;
  };
  return {with(a.size(-2), a.size(-1)), with(b.size(-2), b.size(-1)), with(a.size(-2), b.size(-1))};
}

}  // namespace

// Elementwise -----------------------------------------------------------------------------------

Tensor map(Unary function, const Tensor& x) {
  require_floats("map", x);
  Tensor y = empty_like(x);
  backend_of(x).map(context_of(x), function, view(x), mut_view(y));
  return y;
}

Tensor map_backward(Unary function, const Tensor& x, const Tensor& y, const Tensor& gy) {
  require_floats("map_backward", x, y, gy);
  require_shape("map_backward", "gy", gy, x.shape());
  Tensor gx = empty_like(x);
  backend_of(x).map_backward(context_of(x), function, view(x), view(y), view(gy), mut_view(gx));
  return gx;
}

Tensor negative(const Tensor& x) { return map(Unary::negative, x); }
Tensor exp(const Tensor& x) { return map(Unary::exp, x); }
Tensor log(const Tensor& x) { return map(Unary::log, x); }
Tensor sqrt(const Tensor& x) { return map(Unary::sqrt, x); }
Tensor square(const Tensor& x) { return map(Unary::square, x); }
Tensor reciprocal(const Tensor& x) { return map(Unary::reciprocal, x); }
Tensor tanh(const Tensor& x) { return map(Unary::tanh, x); }
Tensor sigmoid(const Tensor& x) { return map(Unary::sigmoid, x); }
Tensor relu(const Tensor& x) { return map(Unary::relu, x); }
Tensor silu(const Tensor& x) { return map(Unary::silu, x); }
Tensor gelu(const Tensor& x) { return map(Unary::gelu, x); }
Tensor gelu_tanh(const Tensor& x) { return map(Unary::gelu_tanh, x); }

Tensor add(const Tensor& a, const Tensor& b) { return combine(Binary::add, "add", a, b); }
Tensor sub(const Tensor& a, const Tensor& b) { return combine(Binary::sub, "sub", a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return combine(Binary::mul, "mul", a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return combine(Binary::div, "div", a, b); }

Tensor affine(const Tensor& x, double scale, double shift) {
  require_floats("affine", x);
  Tensor y = empty_like(x);
  backend_of(x).affine(context_of(x), view(x), scale, shift, mut_view(y));
  return y;
}

void add_(Tensor& y, const Tensor& x, double scale) {
  require_floats("add_", y, x);
  detail::require_writable("add_", y, x);
  if (x.shape() != y.shape()) return add_(y, broadcast_optional("add_", "x", x, y.shape()), scale);
  backend_of(y).accumulate(context_of(y), view(x), scale, mut_view(y));
}

Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  require_floats("where", a, b);
  check(condition.defined() && condition.dtype() == DType::u8,
        "where: condition must be u8; got {}", condition);
  require_device("where", a, condition);
  const Shape shape =
      broadcast(condition.shape(), broadcast(a.shape(), b.shape(), "where"), "where");
  Tensor y = empty(shape, a.dtype(), a.device());
  backend_of(a).select(context_of(a), view(condition.expand(shape)), view(a.expand(shape)),
                       view(b.expand(shape)), mut_view(y));
  return y;
}

Tensor dropout(const Tensor& x, double p, RngKey key) {
  require_floats("dropout", x);
  check(p >= 0.0 && p < 1.0, "dropout: probability {} is not in [0, 1)", p);
  Tensor y = empty_like(x);
  backend_of(x).dropout(context_of(x), view(x.contiguous()), p, key, mut_view(y));
  return y;
}

// Reductions ------------------------------------------------------------------------------------

Tensor sum(const Tensor& x, std::initializer_list<int> axes, bool keep) {
  return sum(x, std::span<const int>(axes.begin(), axes.size()), keep);
}

Tensor sum(const Tensor& x, std::span<const int> axes, bool keep) {
  require_floats("sum", x);
  std::array<bool, Shape::kMaxRank> summed{};
  for (const int axis : axes) {
    bool& flag = summed[static_cast<std::size_t>(resolve_axis(axis, x.rank(), "sum"))];
    check(!flag, "sum: axis {} is named twice; name each axis once", axis);
    flag = true;
  }
  if (axes.empty()) summed.fill(true);
  // Runs of neighbouring axes are summed one after the other, the last run first.
  Tensor y = x.contiguous();
  for (int end = x.rank(); end > 0;) {
    int begin = end - 1;
    const bool reduce = summed[static_cast<std::size_t>(begin)];
    while (begin > 0 && summed[static_cast<std::size_t>(begin - 1)] == reduce) --begin;
    if (reduce) {
      std::int64_t outer = 1, n = 1, inner = 1;
      Shape kept = y.shape();
      for (int i = 0; i < y.rank(); ++i) {
        (i < begin ? outer : i < end ? n : inner) *= y.size(i);
        if (i >= begin && i < end) kept[i] = 1;
      }
      Tensor part = empty(kept, x.dtype(), x.device());
      backend_of(x).sum(context_of(x), view(y.reshape({outer, n, inner})), mut_view(part));
      y = part;
    }
    end = begin;
  }
  if (x.rank() == 0) return x.clone();  // nothing was summed, and a result is never an operand
  if (keep) return y;
  Shape dropped;
  for (int i = 0; i < x.rank(); ++i)
    if (!summed[static_cast<std::size_t>(i)]) dropped.append(x.size(i));
  return y.reshape(dropped);
}

Tensor mean(const Tensor& x, std::span<const int> axes, bool keep) {
  const Tensor total = sum(x, axes, keep);
  std::int64_t count = 1;
  for (int i = 0; i < x.rank() && axes.empty(); ++i) count *= x.size(i);
  for (const int axis : axes) count *= x.size(axis);
  check(count > 0, "mean: {} has no elements to average over the given axes", x);
  return affine(total, 1.0 / static_cast<double>(count));
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  check(broadcast(x.shape(), shape, "sum_to") == x.shape(), "sum_to: {} does not broadcast to {}",
        shape, x);
  std::array<int, Shape::kMaxRank> axes{};
  std::size_t count = 0;
  const int extra = x.rank() - shape.rank();
  for (int i = 0; i < x.rank(); ++i)
    if (i < extra || (shape[i - extra] == 1 && x.size(i) != 1)) axes[count++] = i;
  if (count == 0) return x.reshape(shape);
  return sum(x, std::span<const int>(axes.data(), count), true).reshape(shape);
}

MaxResult max(const Tensor& x, int axis) {
  require_floats("max", x);
  const int i = resolve_axis(axis, x.rank(), "max");
  check(x.size(i) > 0, "max: axis {} of {} is empty", i, x);
  std::int64_t outer = 1, inner = 1;
  for (int j = 0; j < x.rank(); ++j)
    if (j != i) (j < i ? outer : inner) *= x.size(j);
  MaxResult result{empty(x.shape().without(i), x.dtype(), x.device()),
                   empty(x.shape().without(i), DType::i32, x.device())};
  backend_of(x).max(context_of(x), view(x.contiguous().reshape({outer, x.size(i), inner})),
                    mut_view(result.values), mut_view(result.indices));
  return result;
}

Tensor argmax(const Tensor& x, int axis) { return max(x, axis).indices; }

double sum_of_squares(const Tensor& x) { return sum_of_squares(std::span(&x, 1)); }

double sum_of_squares(std::span<const Tensor> tensors) {
  if (tensors.empty()) return 0.0;
  for (const Tensor& x : tensors) require_floats("sum_of_squares", tensors.front(), x);
  // All are asked for before the first is read, as reading waits for the device.
  const Tensor& first = tensors.front();
  const Tensor sums = empty({std::ssize(tensors)}, DType::f64, first.device());
  for (std::int64_t i = 0; i < sums.elements(); ++i) {
    Tensor sum = sums.slice(0, i, i + 1);
    backend_of(first).sum_of_squares(
        context_of(first), view(tensors[static_cast<std::size_t>(i)].contiguous()), mut_view(sum));
  }
  double total = 0.0;
  for (const double sum : sums.to_vector<double>()) total += sum;
  return total;
}

std::int64_t count_nonfinite(const Tensor& x) {
  require_floats("count_nonfinite", x);
  Tensor y = empty({}, DType::f64, x.device());
  backend_of(x).count_nonfinite(context_of(x), view(x.contiguous()), mut_view(y));
  return static_cast<std::int64_t>(y.item());
}

// Products --------------------------------------------------------------------------------------

Tensor matmul(const Tensor& a, const Tensor& b, double alpha) {
  const MatmulShapes shapes = matmul_shapes(a, b);
  Tensor c = empty(shapes.c, a.dtype(), a.device());
  detail::count_multiply_adds(shapes.c.elements() * a.size(-1));
  backend_of(a).matmul(context_of(a), view(matrix_operand(a).expand(shapes.a)),
                       view(matrix_operand(b).expand(shapes.b)), mut_view(c), alpha, View{},
                       View{});
  return c;
}

void matmul_add_(Tensor& c, const Tensor& a, const Tensor& b, double alpha) {
  const MatmulShapes shapes = matmul_shapes(a, b);
  require_floats("matmul_add_", c, a);
  require_shape("matmul_add_", "c", c, shapes.c);
  check(c.is_contiguous(), "matmul_add_: c must be contiguous; got {} with strides {}", c,
        c.strides());
  detail::count_multiply_adds(shapes.c.elements() * a.size(-1));
  backend_of(a).matmul(context_of(a), view(matrix_operand(a).expand(shapes.a)),
                       view(matrix_operand(b).expand(shapes.b)), mut_view(c), alpha, view(c),
                       View{});
}

namespace {

/// The operands of linear as matrices, checked.
struct LinearOperands {
  Tensor rows;   ///< x as [R, in]
  Shape result;  ///< [.., out]
};

LinearOperands linear_operands(const Tensor& x, const Tensor& weight, const Tensor& bias,
                               const Tensor& residual) {
  require_floats("linear", x, weight);
  require_rank("linear", x, 1);
  check(weight.rank() == 2 && weight.size(0) == x.size(-1),
        "linear: weight must be [{}, out] for input {}; got {}", x.size(-1), x, weight);
  const Shape shape = x.shape().with(x.rank() - 1, weight.size(1));
  if (bias.defined()) {
    require_floats("linear", x, bias);
    require_shape("linear", "bias", bias, {weight.size(1)});
  }
  if (residual.defined()) {
    require_floats("linear", x, residual);
    require_shape("linear", "residual", residual, shape);
  }
  // Of rank 3 and more only contiguous rows are surely one matrix.
  return {
      matrix_operand(
          (x.rank() == 2 ? x : x.contiguous()).reshape({without_last(x).elements(), x.size(-1)})),
      shape};
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& residual) {
  const LinearOperands operands = linear_operands(x, weight, bias, residual);
  Tensor y = empty({operands.rows.size(0), weight.size(1)}, x.dtype(), x.device());
  detail::count_multiply_adds(operands.rows.elements() * weight.size(1));
  const Tensor added = residual.defined() ? residual.contiguous().reshape(y.shape()) : Tensor{};
  backend_of(x).matmul(context_of(x), view(operands.rows), view(matrix_operand(weight)),
                       mut_view(y), 1.0, view(added),
                       view(bias.defined() ? bias.contiguous() : bias));
  return y.reshape(operands.result);
}

MappedLinear linear_map(const Tensor& x, const Tensor& weight, const Tensor& bias, Unary function,
                        bool want_linear) {
  const LinearOperands operands = linear_operands(x, weight, bias, {});
  const Shape shape{operands.rows.size(0), weight.size(1)};
  MappedLinear result;
  if (want_linear) result.linear = empty(shape, x.dtype(), x.device());
  result.mapped = empty(shape, x.dtype(), x.device());
  detail::count_multiply_adds(operands.rows.elements() * weight.size(1));
  backend_of(x).matmul_map(context_of(x), view(operands.rows), view(matrix_operand(weight)),
                           view(bias.defined() ? bias.contiguous() : bias), function,
                           mut_view(result.linear), mut_view(result.mapped));
  if (want_linear) result.linear = result.linear.reshape(operands.result);
  result.mapped = result.mapped.reshape(operands.result);
  return result;
}

MappedLinearBackward linear_map_backward(const Tensor& gy, const Tensor& weight, Unary function,
                                         const Tensor& x) {
  require_floats("linear_map_backward", gy, weight, x);
  check(weight.rank() == 2 && gy.rank() == 2 && gy.size(1) == weight.size(1),
        "linear_map_backward: gy {} does not fit weight {}", gy, weight);
  require_shape("linear_map_backward", "x", x, {gy.size(0), weight.size(0)});
  MappedLinearBackward result{empty_like(x), empty_like(x)};
  detail::count_multiply_adds(gy.elements() * weight.size(0));
  backend_of(x).matmul_map_backward(
      context_of(x), view(matrix_operand(gy)), view(matrix_operand(weight).transpose()), function,
      view(x.contiguous()), mut_view(result.gradient), mut_view(result.mapped));
  return result;
}

// Rows ------------------------------------------------------------------------------------------

namespace {

using RowKernel = Kernel<void(View, MutView)> Backend::*;
using RowBackwardKernel = Kernel<void(View, View, MutView)> Backend::*;

Tensor rows_forward(std::string_view operation, RowKernel kernel, const Tensor& x, int axis) {
  require_floats(operation, x);
  return along_axis(operation, x, axis, [&](const Tensor& rows) {
    Tensor y = empty_like(rows);
    (backend_of(x).*kernel)(context_of(x), view(rows), mut_view(y));
    return y;
  });
}

Tensor rows_backward(std::string_view operation, RowBackwardKernel kernel, const Tensor& y,
                     const Tensor& gy, int axis) {
  require_floats(operation, y, gy);
  require_shape(operation, "gy", gy, y.shape());
  return along_axis(operation, y, axis, [&](const Tensor& rows) {
    Tensor gx = empty_like(rows);
    (backend_of(y).*kernel)(context_of(y), view(rows), view(gy.transpose(axis, -1).contiguous()),
                            mut_view(gx));
    return gx;
  });
}

}  // namespace

Tensor softmax(const Tensor& x, int axis) {
  return rows_forward("softmax", &Backend::softmax, x, axis);
}
Tensor softmax_backward(const Tensor& y, const Tensor& gy, int axis) {
  return rows_backward("softmax_backward", &Backend::softmax_backward, y, gy, axis);
}
Tensor log_softmax(const Tensor& x, int axis) {
  return rows_forward("log_softmax", &Backend::log_softmax, x, axis);
}
Tensor log_softmax_backward(const Tensor& y, const Tensor& gy, int axis) {
  return rows_backward("log_softmax_backward", &Backend::log_softmax_backward, y, gy, axis);
}

Tensor logsumexp(const Tensor& x, int axis) {
  require_floats("logsumexp", x);
  require_rank("logsumexp", x, 1);
  const int i = resolve_axis(axis, x.rank(), "logsumexp");
  const Tensor rows = x.transpose(i, -1).contiguous();
  Tensor y = empty(rows.shape().with(x.rank() - 1, 1), x.dtype(), x.device());
  backend_of(x).logsumexp(context_of(x), view(rows), mut_view(y));
  return y.transpose(i, -1).contiguous().reshape(x.shape().without(i));
}

LayerNormResult layer_norm(const Tensor& x, const Tensor& gain, const Tensor& bias,
                           double epsilon) {
  require_floats("layer_norm", x, gain, bias);
  require_rank("layer_norm", x, 1);
  require_shape("layer_norm", "gain", gain, {width_of(x)});
  require_shape("layer_norm", "bias", bias, {width_of(x)});
  LayerNormResult result{empty_like(x), empty(without_last(x), x.dtype(), x.device()),
                         empty(without_last(x), x.dtype(), x.device())};
  backend_of(x).layer_norm(context_of(x), view(x.contiguous()), view(gain.contiguous()),
                           view(bias.contiguous()), epsilon, mut_view(result.y),
                           mut_view(result.mean), mut_view(result.rstd));
  return result;
}

LayerNormGrads layer_norm_backward(const Tensor& x, const Tensor& gain, const Tensor& mean,
                                   const Tensor& rstd, const Tensor& gy, bool want_x,
                                   bool want_gain, bool want_bias, Tensor* sum) {
  require_floats("layer_norm_backward", x, gain, mean, rstd, gy);
  require_shape("layer_norm_backward", "gy", gy, x.shape());
  if (sum != nullptr) {
    require_floats("layer_norm_backward", x, *sum);
    require_shape("layer_norm_backward", "sum", *sum, x.shape());
  }
  LayerNormGrads grads;
  if (want_x && sum == nullptr) grads.x = empty_like(x);
  if (want_gain) grads.gain = empty_like(gain);
  if (want_bias) grads.bias = empty_like(gain);
  backend_of(x).layer_norm_backward(
      context_of(x), view(x.contiguous()), view(gain.contiguous()), view(mean.contiguous()),
      view(rstd.contiguous()), view(gy.contiguous()), sum ? view(*sum) : View{},
      mut_view(sum ? *sum : grads.x), mut_view(grads.gain), mut_view(grads.bias));
  return grads;
}

NormalizeResult normalize(const Tensor& x, double radius, double epsilon) {
  require_floats("normalize", x);
  require_rank("normalize", x, 1);
  check(radius > 0.0 && epsilon >= 0.0,
        "normalize: radius {} must be positive and epsilon {} not negative", radius, epsilon);
  NormalizeResult result{empty_like(x), empty(without_last(x), x.dtype(), x.device())};
  backend_of(x).normalize(context_of(x), view(x.contiguous()), radius, epsilon, mut_view(result.y),
                          mut_view(result.norm));
  return result;
}

Tensor normalize_backward(const Tensor& x, const Tensor& norm, const Tensor& gy, double radius) {
  require_floats("normalize_backward", x, norm, gy);
  require_shape("normalize_backward", "gy", gy, x.shape());
  Tensor gx = empty_like(x);
  backend_of(x).normalize_backward(context_of(x), view(x.contiguous()), view(norm.contiguous()),
                                   view(gy.contiguous()), radius, mut_view(gx));
  return gx;
}

// Indexing --------------------------------------------------------------------------------------

Tensor gather_rows(const Tensor& table, const Tensor& ids) {
  require_floats("gather_rows", table);
  check(table.rank() == 2, "gather_rows: the table must be [rows, width]; got {}", table);
  require_indices("gather_rows", table, ids, table.size(0));
  Shape shape = ids.shape();
  shape.append(table.size(1));
  Tensor y = empty(shape, table.dtype(), table.device());
  backend_of(table).gather_rows(context_of(table), view(table.contiguous()),
                                view(ids.contiguous().reshape({ids.elements()})), mut_view(y));
  return y;
}

Tensor scatter_rows(const Tensor& ids, const Tensor& gy, std::int64_t rows) {
  require_floats("scatter_rows", gy);
  require_indices("scatter_rows", gy, ids, rows);
  Shape expected = ids.shape();
  expected.append(gy.size(-1));
  require_shape("scatter_rows", "gy", gy, expected);
  Tensor table = zeros({rows, gy.size(-1)}, gy.dtype(), gy.device());
  backend_of(gy).scatter_rows(context_of(gy), view(ids.contiguous().reshape({ids.elements()})),
                              view(gy.contiguous()), mut_view(table));
  return table;
}

namespace {

/// The index of gather and scatter, broadcast to the leading extents of `x` and made rows.
Tensor index_rows(std::string_view operation, const Tensor& x, const Tensor& index,
                  std::int64_t bound) {
  require_indices(operation, x, index, bound);
  require_rank(operation, index, 1);
  const Shape leading = without_last(x);
  Shape shape = leading;
  shape.append(index.size(-1));
  const Tensor expanded = broadcast_optional(operation, "index", index, shape);
  return index.rank() == 1 ? index.expand({leading.elements(), index.size(-1)})
                           : expanded.contiguous().reshape({leading.elements(), index.size(-1)});
}

}  // namespace

Tensor gather(const Tensor& x, const Tensor& index) {
  require_floats("gather", x);
  require_rank("gather", x, 1);
  const Shape leading = without_last(x);
  const Tensor rows = index_rows("gather", x, index, x.size(-1));
  Tensor y = empty({leading.elements(), rows.size(-1)}, x.dtype(), x.device());
  backend_of(x).gather(context_of(x),
                       view(x.contiguous().reshape({leading.elements(), x.size(-1)})), view(rows),
                       mut_view(y));
  return y.reshape(x.shape().with(x.rank() - 1, rows.size(-1)));
}

Tensor scatter(const Tensor& index, const Tensor& gy, std::int64_t n) {
  require_floats("scatter", gy);
  require_rank("scatter", gy, 1);
  const Shape leading = without_last(gy);
  const Tensor rows = index_rows("scatter", gy, index, n);
  check(rows.size(-1) == gy.size(-1), "scatter: index {} and gy {} differ in their last axis",
        index, gy);
  Tensor gx = zeros({leading.elements(), n}, gy.dtype(), gy.device());
  backend_of(gy).scatter(context_of(gy), view(rows),
                         view(gy.contiguous().reshape({leading.elements(), gy.size(-1)})),
                         mut_view(gx));
  return gx.reshape(gy.shape().with(gy.rank() - 1, n));
}

Tensor concat(std::span<const Tensor> parts, int axis) {
  check(!parts.empty(), "concat: no tensors given");
  const Tensor& first = parts.front();
  check(first.defined(), "concat: the first tensor is undefined");
  const int i = resolve_axis(axis, first.rank(), "concat");
  std::int64_t total = 0;
  for (const Tensor& part : parts) {
    check(part.defined() && part.dtype() == first.dtype() && part.device() == first.device() &&
              part.rank() == first.rank() && part.shape().without(i) == first.shape().without(i),
          "concat: {} and {} must agree but for axis {}", first, part, i);
    total += part.size(i);
  }
  Tensor y = empty(first.shape().with(i, total), first.dtype(), first.device());
  std::int64_t begin = 0;
  for (const Tensor& part : parts) {
    Tensor place = y.slice(i, begin, begin + part.size(i));
    place.copy_(part);
    begin += part.size(i);
  }
  return y;
}

Tensor unslice(const Tensor& gy, const Shape& shape, int axis, std::int64_t begin) {
  Tensor gx = zeros(shape, gy.dtype(), gy.device());
  Tensor place = gx.slice(axis, begin, begin + gy.size(axis));
  place.copy_(gy);
  return gx;
}

// Attention and loss ----------------------------------------------------------------------------

namespace {

Shape attention_shape(const Tensor& q, const Tensor& k, const Tensor& v) {
  require_floats("attention", q, k, v);
  check(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
        "attention: query, key and value must be [batch, heads, length, width]; got {}, {}, {}", q,
        k, v);
  check(
      q.size(0) == k.size(0) && k.size(0) == v.size(0) && q.size(1) == k.size(1) &&
          k.size(1) == v.size(1) && q.size(3) == k.size(3) && k.size(2) == v.size(2),
      "attention: query {}, key {} and value {} do not fit; batch and heads must agree, key width "
      "must equal query width, value length must equal key length",
      q, k, v);
  return {q.size(0), q.size(1), q.size(2), k.size(2)};
}

AttentionOptions checked(const AttentionOptions& options, const Tensor& q) {
  check(options.temperature > 0.0, "attention: temperature {} must be positive",
        options.temperature);
  check(options.dropout >= 0.0 && options.dropout < 1.0, "attention: dropout {} is not in [0, 1)",
        options.dropout);
  AttentionOptions result = options;
  if (result.scale == 0.0) result.scale = 1.0 / std::sqrt(static_cast<double>(q.size(3)));
  return result;
}

/// [B, H, T, E] whose storage is [B, T, H, E].
Tensor empty_heads(const Tensor& like, std::int64_t width) {
  return empty({like.size(0), like.size(2), like.size(1), width}, like.dtype(), like.device())
      .transpose(1, 2);
}

Tensor attention_mask(const Tensor& q, const Tensor& mask, const Shape& scores) {
  if (!mask.defined()) return mask;
  check(mask.dtype() == DType::u8, "attention: mask must be u8; got {}", mask);
  require_device("attention", q, mask);
  return broadcast_optional("attention", "mask", mask, scores);
}

/// Own keys and values as the kernels take them.
OwnKeyValue checked(const OwnKeyValue& own, const Tensor& q, const Tensor& v) {
  check(own.key.defined() == own.value.defined(),
        "attention: own key {} and own value {} go together; give both or neither", own.key,
        own.value);
  if (!own.key.defined()) return own;
  require_floats("attention", q, own.key, own.value);
  require_shape("attention", "own key", own.key, q.shape());
  require_shape("attention", "own value", own.value, q.shape().with(3, v.size(3)));
  return {row_operand(own.key), row_operand(own.value)};
}

}  // namespace

AttentionResult attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask,
                          const Tensor& bias, const AttentionOptions& options, bool want_map,
                          const OwnKeyValue& own) {
  const Shape scores = attention_shape(q, k, v);
  if (bias.defined()) require_floats("attention", q, bias);
  const OwnKeyValue own_rows = checked(own, q, v);
  AttentionResult result{empty_heads(q, v.size(3)),
                         empty({q.size(0), q.size(1), q.size(2)}, q.dtype(), q.device()), Tensor{}};
  if (want_map) {
    const std::int64_t weights = own.key.defined() ? k.size(2) + 1 : k.size(2);
    result.map = empty(scores.with(3, weights), q.dtype(), q.device());
  }
  const std::int64_t pairs =
      own.key.defined() ? scores.elements() + result.log_sum.elements() : scores.elements();
  detail::count_multiply_adds(pairs * (q.size(3) + v.size(3)));
  backend_of(q).attention(context_of(q), view(row_operand(q)), view(row_operand(k)),
                          view(row_operand(v)), view(attention_mask(q, mask, scores)),
                          view(broadcast_optional("attention", "bias", bias, scores)),
                          view(own_rows.key), view(own_rows.value), checked(options, q),
                          mut_view(result.out), mut_view(result.log_sum), mut_view(result.map));
  return result;
}

AttentionGrads attention_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& mask, const Tensor& bias,
                                  const AttentionOptions& options, const Tensor& out,
                                  const Tensor& log_sum, const Tensor& gout, AttentionWants wants,
                                  const OwnKeyValue& own) {
  const Shape scores = attention_shape(q, k, v);
  require_floats("attention_backward", q, out, log_sum, gout);
  require_shape("attention_backward", "gout", gout, out.shape());
  if (bias.defined()) require_floats("attention_backward", q, bias);
  const OwnKeyValue own_rows = checked(own, q, v);
  AttentionGrads grads;
  if (wants.q) grads.q = empty_heads(q, q.size(3));
  if (wants.k) grads.k = empty_heads(k, k.size(3));
  if (wants.v) grads.v = empty_heads(v, v.size(3));
  if (wants.bias && bias.defined()) grads.bias = empty(scores, q.dtype(), q.device());
  if (wants.own_key && own.key.defined()) grads.own_key = empty_heads(q, q.size(3));
  if (wants.own_value && own.value.defined()) grads.own_value = empty_heads(q, v.size(3));
  // The weights once more, the gradient that arrives at them, and what is wanted.
  const auto products = [&](bool want_k, bool want_v, bool want_bias) {
    const std::int64_t of_keys = 1 + (wants.q ? 1 : 0) + (want_k ? 1 : 0);
    const std::int64_t of_values = (wants.q || want_k || want_bias ? 1 : 0) + (want_v ? 1 : 0);
    return of_keys * q.size(3) + of_values * v.size(3);
  };
  detail::count_multiply_adds(scores.elements() * products(wants.k, wants.v, grads.bias.defined()));
  if (own.key.defined())
    detail::count_multiply_adds(log_sum.elements() *
                                products(wants.own_key, wants.own_value, false));
  backend_of(q).attention_backward(
      context_of(q), view(row_operand(q)), view(row_operand(k)), view(row_operand(v)),
      view(attention_mask(q, mask, scores)),
      view(broadcast_optional("attention", "bias", bias, scores)), view(own_rows.key),
      view(own_rows.value), checked(options, q), view(row_operand(out)), view(log_sum),
      view(row_operand(gout)), mut_view(grads.q), mut_view(grads.k), mut_view(grads.v),
      mut_view(grads.bias), mut_view(grads.own_key), mut_view(grads.own_value));
  return grads;
}

namespace {

/// [rows, V] logits, [rows] targets and [V] weights, checked and in rows.
struct LossRows {
  Tensor logits, targets, weights;
};

LossRows loss_rows(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                   std::int32_t ignore) {
  require_floats("cross_entropy", logits);
  require_rank("cross_entropy", logits, 1);
  check(
      targets.defined() && targets.dtype() == DType::i32 && targets.shape() == without_last(logits),
      "cross_entropy: targets must be i32{} for logits {}; got {}", without_last(logits), logits,
      targets);
  const std::int64_t classes = logits.size(-1);
  if (weights.defined()) {
    require_floats("cross_entropy", logits, weights);
    require_shape("cross_entropy", "label weights", weights, {classes});
  }
  require_device("cross_entropy", logits, targets);
  if (targets.device() == cpu) {  // as ids
    for (const std::int32_t target : targets.to_vector<std::int32_t>())
      check(target == ignore || (target >= 0 && target < classes),
            "cross_entropy: target {} is out of range; valid are 0 to {} and {} (ignored)", target,
            classes - 1, ignore);
  }
  return {logits.contiguous().reshape({targets.elements(), classes}),
          targets.contiguous().reshape({targets.elements()}),
          weights.defined() ? weights.contiguous() : Tensor{}};
}

}  // namespace

CrossEntropyResult cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                                 std::int32_t ignore) {
  const LossRows rows = loss_rows(logits, targets, weights, ignore);
  CrossEntropyResult result{empty({}, logits.dtype(), logits.device()),
                            empty(rows.targets.shape(), logits.dtype(), logits.device())};
  backend_of(logits).cross_entropy(context_of(logits), view(rows.logits), view(rows.targets),
                                   view(rows.weights), ignore, mut_view(result.loss),
                                   mut_view(result.log_sum));
  return result;
}

Tensor cross_entropy_backward(const Tensor& logits, const Tensor& targets, const Tensor& weights,
                              std::int32_t ignore, const Tensor& log_sum, const Tensor& gloss) {
  const LossRows rows = loss_rows(logits, targets, weights, ignore);
  require_floats("cross_entropy_backward", logits, log_sum, gloss);
  Tensor gx = empty(logits.shape(), logits.dtype(), logits.device());
  backend_of(logits).cross_entropy_backward(context_of(logits), view(rows.logits),
                                            view(rows.targets), view(rows.weights), ignore,
                                            view(log_sum.contiguous()), view(gloss), mut_view(gx));
  return gx;
}

// Optimizer steps -------------------------------------------------------------------------------

void adam_(Tensor& parameter, const Tensor& gradient, double scale, const AdamOptions& options,
           std::int64_t step, Tensor& first_moment, Tensor& second_moment) {
  require_floats("adam_", parameter, gradient, first_moment, second_moment);
  require_shape("adam_", "gradient", gradient, parameter.shape());
  require_shape("adam_", "first moment", first_moment, parameter.shape());
  require_shape("adam_", "second moment", second_moment, parameter.shape());
  check(parameter.is_contiguous(), "adam_: the parameter must be contiguous; got {}", parameter);
  check(step >= 1, "adam_: step {} must count from 1", step);
  backend_of(parameter).adam(context_of(parameter), view(gradient.contiguous()), scale, options,
                             step, mut_view(parameter), mut_view(first_moment),
                             mut_view(second_moment));
}

void sgd_(Tensor& parameter, const Tensor& gradient, double scale, double learning_rate,
          double momentum, double weight_decay, Tensor& velocity) {
  require_floats("sgd_", parameter, gradient);
  require_shape("sgd_", "gradient", gradient, parameter.shape());
  check(parameter.is_contiguous(), "sgd_: the parameter must be contiguous; got {}", parameter);
  if (velocity.defined()) {
    require_floats("sgd_", parameter, velocity);
    require_shape("sgd_", "velocity", velocity, parameter.shape());
  }
  check(momentum == 0.0 || velocity.defined(), "sgd_: momentum {} needs a velocity tensor",
        momentum);
  backend_of(parameter).sgd(context_of(parameter), view(gradient.contiguous()), scale,
                            learning_rate, momentum, weight_decay, mut_view(parameter),
                            mut_view(velocity));
}

}  // namespace mf
