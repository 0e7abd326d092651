#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/vector_math.h"
#include "tensor/formulas.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

/// The last two axes of element (or batch) `data`.
template <class T, class V>
Matrix<T> matrix_of(const V& view, T* data) {
  return {data, view.shape[-2], view.shape[-1], view.strides[-2], view.strides[-1]};
}

/// The batch axes of the three operands, merged into the rows where b has none: [.., M, K] x [K, N]
/// is one tall product.
struct Batch {
  Shape extents;
  Shape a, b, c, base;  ///< strides

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

Batch batch_of(const View& a, const View& b, const View& c, const View& base) {
  Batch batch;
  for (int axis = 0; axis + 2 < c.shape.rank(); ++axis) {
    if (c.shape[axis] == 1) continue;
    batch.extents.append(c.shape[axis]);
    batch.a.append(a.strides[axis]);
    batch.b.append(b.strides[axis]);
    batch.c.append(c.strides[axis]);
    batch.base.append(base.data ? base.strides[axis] : 0);
  }
  return batch;
}

/// Drops the innermost batch axes that can be rows of a and c.
template <class T>
void merge_batch_into_rows(Batch& batch, std::int64_t base_stride, Matrix<const T>& a,
                           Matrix<T>& c) {
  while (batch.extents.rank() > 0) {
    const int last = batch.extents.rank() - 1;
    const bool even = batch.a[last] == a.row_stride * a.rows &&
                      batch.c[last] == c.row_stride * c.rows &&
                      batch.base[last] == base_stride * c.rows;
    if (batch.b[last] != 0 || !even) return;
    a.rows = c.rows = a.rows * batch.extents[last];
    for (Shape* part : {&batch.a, &batch.b, &batch.c, &batch.base}) *part = part->without(last);
    batch.extents = batch.extents.without(last);
  }
}

}  // namespace

// a [batch.., M, K], b [batch.., K, N], c and base [batch.., M, N], bias [N].
void matmul(Context&, View a, View b, MutView c, double alpha, View base, View bias) {
  visit_float(c.dtype, [&](auto zero) {
    using T = decltype(zero);
    auto left = matrix_of(a, a.as<T>());
    const auto right = matrix_of(b, b.as<T>());
    auto target = matrix_of(c, c.as<T>());
    Batch batch = batch_of(a, b, c, base);
    const std::int64_t base_stride = base.data ? base.strides[-2] : 0;
    merge_batch_into_rows(batch, base_stride, left, target);

    const auto run = [&](std::int64_t item, const auto& multiply) {
      Matrix<const T> x = left;
      Matrix<const T> y = right;
      Matrix<T> z = target;
      x.data += batch.offset(batch.a, item);
      y.data += batch.offset(batch.b, item);
      z.data += batch.offset(batch.c, item);
      const T* const added = base.data ? base.as<T>() + batch.offset(batch.base, item) : nullptr;
      multiply(x, y, z,
               ProductOptions<T>{static_cast<T>(alpha), added, base_stride, bias.as<T>(), nullptr});
    };
    // Many products share the threads out; a few large ones each use them all.
    const std::int64_t count = batch.count();
    if (count < 2 * threads()) {
      for (std::int64_t item = 0; item < count; ++item)
        run(item, [](const auto&... of) { parallel_product<T>(of...); });
      return;
    }
    const std::int64_t cost = target.rows * target.columns * left.columns / 8;
    for_chunks(count, cost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t item = begin; item < end; ++item)
        run(item, [](const auto&... of) { product<T>(of...); });
    });
  });
}

namespace {

/// Calls fn(offset, n) for each row of the block of a row-major matrix with `width` columns.
template <class F>
AfterBlock for_rows_of_block(std::int64_t width, const F& fn) {
  return
      [width, &fn](std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
        for (std::int64_t r = row; r < row + rows; ++r) fn(r * width + column, columns);
      };
}

}  // namespace

// a [M, K], b [K, N], bias [N], c, y [M, N].
void matmul_map(Context&, View a, View b, View bias, Unary function, MutView c, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    formulas::visit(function, [&](auto formula) {
      using Formula = decltype(formula);
      MutView product = c.data ? c : y;
      const T* const in = product.as<T>();
      T* const out = y.as<T>();
      const auto map_row = [in, out](std::int64_t offset, std::int64_t n) {
#pragma omp simd
        for (std::int64_t j = offset; j < offset + n; ++j)
          out[j] = Formula::template value<VectorMath>(in[j]);
      };
      const AfterBlock after = for_rows_of_block(y.shape[1], map_row);
      parallel_product<T>(matrix_of(a, a.as<T>()), matrix_of(b, b.as<T>()),
                          matrix_of(product, product.as<T>()),
                          {T{1}, nullptr, 0, bias.as<T>(), &after});
    });
  });
}

// a [M, K], b [K, N], x, gx, y [M, N].
void matmul_map_backward(Context&, View a, View b, Unary function, View x, MutView gx, MutView y) {
  visit_float(y.dtype, [&](auto zero) {
    using T = decltype(zero);
    formulas::visit(function, [&](auto formula) {
      using Formula = decltype(formula);
      const T* const in = x.as<T>();
      T* const gradient = gx.as<T>();
      T* const out = y.as<T>();
      const auto differentiate_row = [=](std::int64_t offset, std::int64_t n) {
#pragma omp simd
        for (std::int64_t j = offset; j < offset + n; ++j) {
          const T value = Formula::template value<VectorMath>(in[j]);
          gradient[j] *= Formula::template derivative<VectorMath>(in[j], value);
          out[j] = value;
        }
      };
      const AfterBlock after = for_rows_of_block(y.shape[1], differentiate_row);
      parallel_product<T>(matrix_of(a, a.as<T>()), matrix_of(b, b.as<T>()),
                          matrix_of(gx, gx.as<T>()), {T{1}, nullptr, 0, nullptr, &after});
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
