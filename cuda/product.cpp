#include <algorithm>
#include <optional>

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/kernels.h"

// Everything here is row-major; cuBLAS is column-major. A row-major matrix is, read column by
// column, its transpose, so that c = a b is asked for as c^T = b^T a^T.
namespace mf::cuda {
namespace {

/// A matrix as cuBLAS takes it: rows next to each other, or (transposed) columns.
struct Matrix {
  const void* data;
  std::int64_t rows, columns;
  std::int64_t leading;  ///< elements between neighbouring rows, or columns where transposed
  bool transposed;
};

/// The last two axes of a view, unless cuBLAS has no words for their strides: rows that overlap, or
/// neither stride 1.
template <class V>
std::optional<Matrix> matrix_of(const V& x) {
  const std::int64_t rows = x.shape[-2], columns = x.shape[-1];
  // The stride of an axis of extent 1 means nothing.
  const std::int64_t down = rows > 1 ? x.strides[-2] : columns;
  const std::int64_t across = columns > 1 ? x.strides[-1] : 1;
  if (across == 1 && down >= columns) return Matrix{x.data, rows, columns, down, false};
  const std::int64_t step = columns > 1 ? across : rows;
  if ((rows <= 1 || x.strides[-2] == 1) && step >= rows)
    return Matrix{x.data, rows, columns, step, true};
  return std::nullopt;
}

/// The batch axes of a product, and what each operand's strides along them are.
struct Batch {
  Shape extents, a, b, c;

  void append(std::int64_t extent, std::int64_t in_a, std::int64_t in_b, std::int64_t in_c) {
    const int last = extents.rank() - 1;
    if (last >= 0 && a[last] == in_a * extent && b[last] == in_b * extent &&
        c[last] == in_c * extent) {
      extents[last] *= extent;
      a[last] = in_a, b[last] = in_b, c[last] = in_c;
      return;
    }
    extents.append(extent), a.append(in_a), b.append(in_b), c.append(in_c);
  }
  void drop_last() {
    for (Shape* part : {&extents, &a, &b, &c}) *part = part->without(part->rank() - 1);
  }
};

Batch batch_of(const View& a, const View& b, const MutView& c) {
  Batch batch;
  for (int axis = 0; axis + 2 < c.shape.rank(); ++axis)
    if (c.shape[axis] != 1)
      batch.append(c.shape[axis], a.strides[axis], b.strides[axis], c.strides[axis]);
  return batch;
}

/// Makes the innermost batch axis rows of a and c where b has none: [.., M, K] x [K, N] is one tall
/// product.
void merge_batch_into_rows(Batch& batch, Matrix& a, Matrix& c) {
  const int last = batch.extents.rank() - 1;
  if (last < 0 || batch.b[last] != 0 || a.transposed || batch.a[last] != a.leading * a.rows ||
      batch.c[last] != c.leading * c.rows)
    return;
  a.rows = c.rows = a.rows * batch.extents[last];
  batch.drop_last();
}

/// c = alpha a b + beta c for `count` products whose operands lie `a_step`, `b_step` and `c_step`
/// elements apart.
template <class T>
void multiply(Context& context, T alpha, const Matrix& a, std::int64_t a_step, const Matrix& b,
              std::int64_t b_step, T beta, const Matrix& c, std::int64_t c_step,
              std::int64_t count) {
  check(!c.transposed && a.rows == c.rows && b.columns == c.columns && a.columns == b.rows &&
            a.leading >= std::max<std::int64_t>(1, a.transposed ? a.rows : a.columns) &&
            b.leading >= std::max<std::int64_t>(1, b.transposed ? b.rows : b.columns) &&
            c.leading >= std::max<std::int64_t>(1, c.columns),
        "matmul: operands do not fit; [{}, {}] by {} x [{}, {}] by {} to [{}, {}] by {}", a.rows,
        a.columns, a.leading, b.rows, b.columns, b.leading, c.rows, c.columns, c.leading);
  constexpr bool kDouble = sizeof(T) == sizeof(double);
  constexpr cudaDataType_t kType = kDouble ? CUDA_R_64F : CUDA_R_32F;
  const cublasComputeType_t compute = kDouble          ? CUBLAS_COMPUTE_64F
                                      : tf32_allowed() ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                       : CUBLAS_COMPUTE_32F;
  const auto operation = [](const Matrix& x) { return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  require_ok(cublasGemmStridedBatchedEx_64(engine_of(context).blas(), operation(b), operation(a),
                                           c.columns, c.rows, a.columns, &alpha, b.data, kType,
                                           b.leading, b_step, a.data, kType, a.leading, a_step,
                                           &beta, const_cast<void*>(c.data), kType, c.leading,
                                           c_step, count, compute, CUBLAS_GEMM_DEFAULT),
             "cublasGemmStridedBatchedEx");
}

/// c = base + bias, either of which may be absent but not both; true if there was something.
bool start_with(Context& context, const View& base, const View& bias, const MutView& c) {
  const bool in_place = base.data == c.data && base.data != nullptr;
  if (bias.data != nullptr) {
    Shape still = c.strides;
    for (int axis = 0; axis < still.rank(); ++axis) still[axis] = 0;
    still[-1] = 1;
    const View row{bias.data, bias.dtype, c.shape, still};
    if (base.data != nullptr) {
      combine(context, Binary::add, base, row, c);
    } else {
      copy(context, row, c);
    }
  } else if (base.data != nullptr && !in_place) {
    copy(context, base, c);
  }
  return base.data != nullptr || bias.data != nullptr;
}

/// Calls fn with x, or with a row-major copy of it where cuBLAS could not take x.
template <class T, class Fn>
void with_matrix(Context& context, const View& x, const Fn& fn) {
  if (matrix_of(x)) return fn(x);
  const Workspace<T> storage(context, x.shape.elements());
  const Shape strides = row_major_strides(x.shape);
  const MutView copied{storage.data(), x.dtype, x.shape, strides};
  copy(context, x, copied);
  fn(View{storage.data(), x.dtype, x.shape, strides});
}

template <class T>
void multiply_batch(Context& context, const View& a, const View& b, const MutView& c, T alpha,
                    T beta) {
  Matrix left = *matrix_of(a);
  const Matrix right = *matrix_of(b);
  Matrix target = *matrix_of(c);
  Batch batch = batch_of(a, b, c);
  merge_batch_into_rows(batch, left, target);
  // cuBLAS takes one batch axis, the innermost; the others are calls.
  std::int64_t count = 1, a_step = 0, b_step = 0, c_step = 0;
  if (batch.extents.rank() > 0) {
    count = batch.extents[-1];
    a_step = batch.a[-1], b_step = batch.b[-1], c_step = batch.c[-1];
    batch.drop_last();
  }
  const auto offset = [&](const Shape& strides, std::int64_t index) {
    std::int64_t sum = 0;
    for (int axis = batch.extents.rank() - 1; axis >= 0; --axis) {
      sum += index % batch.extents[axis] * strides[axis];
      index /= batch.extents[axis];
    }
    return sum * static_cast<std::int64_t>(sizeof(T));
  };
  const auto at = [&](Matrix x, std::int64_t bytes) {
    x.data = static_cast<const char*>(x.data) + bytes;
    return x;
  };
  for (std::int64_t i = 0; i < batch.extents.elements(); ++i) {
    multiply(context, alpha, at(left, offset(batch.a, i)), a_step, at(right, offset(batch.b, i)),
             b_step, beta, at(target, offset(batch.c, i)), c_step, count);
  }
}

}  // namespace

// a [batch.., M, K], b [batch.., K, N], c and base [batch.., M, N], bias [N].
void matmul(Context& context, View a, View b, MutView c, double alpha, View base, View bias) {
  if (c.shape.elements() == 0) return;
  const bool started = start_with(context, base, bias, c);
  if (a.shape[-1] == 0) {  // an empty sum, which cuBLAS does not take
    if (!started) fill(context, c, 0.0);
    return;
  }
  visit_float(c.dtype, [&](auto zero) {
    using T = decltype(zero);
    with_matrix<T>(context, a, [&](const View& left) {
      with_matrix<T>(context, b, [&](const View& right) {
        multiply_batch<T>(context, left, right, c, static_cast<T>(alpha), started ? T{1} : T{0});
      });
    });
  });
}

// a [M, K], b [K, N], bias [N], c, y [M, N].
void matmul_map(Context& context, View a, View b, View bias, Unary function, MutView c, MutView y) {
  const MutView& product = c.data != nullptr ? c : y;
  matmul(context, a, b, product, 1.0, View{}, bias);
  map(context, function, product, y);
}

// a [M, K], b [K, N], x, gx, y [M, N].
void matmul_map_backward(Context& context, View a, View b, Unary function, View x, MutView gx,
                         MutView y) {
  matmul(context, a, b, gx, 1.0, View{}, View{});
  map_and_differentiate(context, function, x, gx, y);
}

}  // namespace mf::cuda
