#pragma once

#include <cstdint>
#include <functional>

#include "tensor/cpu/target.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {

/// A strided matrix; one of the strides is 1.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t row_stride = 0, column_stride = 1;

  /// Whether the elements of a row are next to each other.
  bool rows_lie() const { return column_stride == 1 || columns == 1; }
  Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
  Matrix row_block(std::int64_t first, std::int64_t count) const {
    return {data + first * row_stride, count, columns, row_stride, column_stride};
  }
  Matrix column_block(std::int64_t first, std::int64_t count) const {
    return {data + first * column_stride, rows, count, row_stride, column_stride};
  }
  operator Matrix<const T>() const { return {data, rows, columns, row_stride, column_stride}; }
};

/// Called with a block of rows and columns of c once it is final, on the thread that made it, while
/// it is still in that core's cache.
using AfterBlock = std::function<void(std::int64_t row, std::int64_t rows, std::int64_t column,
                                      std::int64_t columns)>;

/// What becomes of a product a b: c = alpha * a b + base + bias.
template <class T>
struct ProductOptions {
  T alpha = T{1};
  /// Shape of c, rows next to each other; may be c itself (accumulate). Null: nothing is added.
  const T* base = nullptr;
  std::int64_t base_stride = 0;
  const T* bias = nullptr;            ///< one per column; null: nothing
  const AfterBlock* after = nullptr;  ///< null: nothing
};

/// c = alpha * a b + base + bias on this thread; a [M, K], b [K, N], c [M, N] with columns of c
/// next to each other. An element is summed in the order of k, in blocks of fixed depth, whatever M
/// and N are. For float and double.
template <class T>
void product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c,
             const ProductOptions<T>& options = {});
/// The same, bit for bit, on all threads.
template <class T>
void parallel_product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c,
                      const ProductOptions<T>& options = {});

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
