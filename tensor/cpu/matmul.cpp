#if defined(__GNUC__) && !defined(__clang__)
// GCC 12's own AVX-512 intrinsics start from `__m512d y = y` (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#define EIGEN_DONT_PARALLELIZE  // threads are ours, see parallel.h
#include <Eigen/Core>
#include <algorithm>
#include <type_traits>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/rows.h"

namespace mf::cpu_kernels {
namespace {

template <class T, int Order>
using Map =
    Eigen::Map<std::conditional_t<std::is_const_v<T>,
                                  const Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic,
                                                      Eigen::Dynamic, Order>,
                                  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Order>>,
               Eigen::Unaligned, Eigen::OuterStride<>>;

/// Calls fn with `m` as an Eigen map of the storage order that its strides allow.
template <class T, class F>
void with_map(const Matrix<T>& m, const F& fn) {
  if (m.column_stride == 1 || m.columns == 1) {
    fn(Map<T, Eigen::RowMajor>(m.data, m.rows, m.columns, Eigen::OuterStride<>(m.row_stride)));
  } else {
    fn(Map<T, Eigen::ColMajor>(m.data, m.rows, m.columns, Eigen::OuterStride<>(m.column_stride)));
  }
}

/// Below Eigen's own limit for coefficient-wise products, whose bits depend on addresses.
template <class T>
bool is_tiny(const Matrix<const T>& a, const Matrix<T>& c) {
  return c.rows + c.columns + a.columns < 20;
}

template <class T>
void tiny_product(const Matrix<const T>& a, const Matrix<const T>& b, const Matrix<T>& c, T alpha) {
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t j = 0; j < c.columns; ++j) {
      const T* x = a.data + i * a.row_stride;
      const T* y = b.data + j * b.column_stride;
      T sum{0};
      for (std::int64_t k = 0; k < a.columns; ++k) {
        sum += *x * *y;
        x += a.column_stride;
        y += b.row_stride;
      }
      c.data[i * c.row_stride + j] += alpha * sum;
    }
  }
}

/// The last two axes of element (or batch) `data`.
template <class T, class V>
Matrix<T> matrix_of(const V& view, T* data) {
  return {data, view.shape[-2], view.shape[-1], view.strides[-2], view.strides[-1]};
}

/// The batch axes of the three operands, merged into the rows where b has none: [.., M, K] x [K, N]
/// is one tall product.
struct Batch {
  Shape extents;
  Shape a, b, c;  ///< strides

  std::int64_t count() const { return extents.elements(); }
  std::int64_t offset(const Shape& strides, std::int64_t index) const {
    std::int64_t sum = 0;
    for (int axis = extents.rank() - 1; axis >= 0; --axis) {
      sum += index % extents[axis] * strides[axis];
      index /= extents[axis];
    }
    return sum;
  }
};

Batch batch_of(const View& a, const View& b, const View& c) {
  Batch batch;
  for (int axis = 0; axis + 2 < c.shape.rank(); ++axis) {
    if (c.shape[axis] == 1) continue;
    batch.extents.append(c.shape[axis]);
    batch.a.append(a.strides[axis]);
    batch.b.append(b.strides[axis]);
    batch.c.append(c.strides[axis]);
  }
  return batch;
}

/// Drops the innermost batch axes that can be rows of a and c.
template <class T>
void merge_batch_into_rows(Batch& batch, Matrix<const T>& a, Matrix<T>& c) {
  while (batch.extents.rank() > 0) {
    const int last = batch.extents.rank() - 1;
    const bool even =
        batch.a[last] == a.row_stride * a.rows && batch.c[last] == c.row_stride * c.rows;
    if (batch.b[last] != 0 || !even) return;
    a.rows = c.rows = a.rows * batch.extents[last];
    for (Shape* part : {&batch.a, &batch.b, &batch.c}) *part = part->without(last);
    batch.extents = batch.extents.without(last);
  }
}

/// How one product is cut into jobs. A function of the shape alone: other panels give other bits.
/// Each panel packs its part of both operands anew, so panels are few and not thin.
struct Panels {
  std::int64_t rows, columns;  ///< extents of one panel
  std::int64_t down, across;   ///< panels along M and N

  Panels(std::int64_t m, std::int64_t k, std::int64_t n) : rows(m), columns(n), down(1), across(1) {
    constexpr std::int64_t kWork = 1 << 20;  // smaller products are one panel
    if (m * n * std::max<std::int64_t>(k, 1) < kWork) return;
    down = std::clamp<std::int64_t>(m / 128, 1, 8);
    across = std::clamp<std::int64_t>(n / 64, 1, std::max<std::int64_t>(4 / down, 1));
    rows = (m + down - 1) / down;
    columns = (n + across - 1) / across;
    down = (m + rows - 1) / rows;
    across = (n + columns - 1) / columns;
  }
};

}  // namespace

template <class T>
void product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, T alpha, bool accumulate) {
  if (!accumulate) {
    for (std::int64_t i = 0; i < c.rows; ++i)
      std::fill_n(c.data + i * c.row_stride, c.columns, T{0});
  }
  if (c.rows == 0 || c.columns == 0 || a.columns == 0) return;
  if (is_tiny(a, c)) return tiny_product(a, b, c, alpha);
  Map<T, Eigen::RowMajor> target(c.data, c.rows, c.columns, Eigen::OuterStride<>(c.row_stride));
  with_map(a, [&](const auto& left) {
    with_map(b, [&](const auto& right) { target.noalias() += alpha * left * right; });
  });
}

template void product(Matrix<const float>, Matrix<const float>, Matrix<float>, float, bool);
template void product(Matrix<const double>, Matrix<const double>, Matrix<double>, double, bool);

// a [batch.., M, K], b [batch.., K, N], c [batch.., M, N].
void matmul(Context&, View a, View b, MutView c, double alpha, bool accumulate) {
  visit_float(c.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto left = matrix_of(a, a.as<T>());
    const auto right = matrix_of(b, b.as<T>());
    auto target = matrix_of(c, c.as<T>());
    Batch batch = batch_of(a, b, c);
    merge_batch_into_rows(batch, left, target);

    const Panels panels(target.rows, left.columns, target.columns);
    const std::int64_t per_product = panels.down * panels.across;
    const std::int64_t cost =
        panels.rows * panels.columns * std::max<std::int64_t>(left.columns, 1) / 8;
    for_chunks(batch.count() * per_product, cost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t job = begin; job < end; ++job) {
        const std::int64_t item = job / per_product;
        const std::int64_t row = job % per_product / panels.across * panels.rows;
        const std::int64_t column = job % panels.across * panels.columns;
        const std::int64_t rows = std::min(panels.rows, target.rows - row);
        const std::int64_t columns = std::min(panels.columns, target.columns - column);
        Matrix<const T> x = left.row_block(row, rows);
        Matrix<const T> y = right.column_block(column, columns);
        Matrix<T> z = target.row_block(row, rows).column_block(column, columns);
        x.data += batch.offset(batch.a, item);
        y.data += batch.offset(batch.b, item);
        z.data += batch.offset(batch.c, item);
        product<T>(x, y, z, static_cast<T>(alpha), accumulate);
      }
    });
  });
}

}  // namespace mf::cpu_kernels
