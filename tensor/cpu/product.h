#pragma once

#include <cstdint>

namespace mf::cpu_kernels {

/// A strided matrix; one of the strides is 1.
template <class T>
struct Matrix {
  T* data = nullptr;
  std::int64_t rows = 0, columns = 0;
  std::int64_t row_stride = 0, column_stride = 1;

  Matrix transposed() const { return {data, columns, rows, column_stride, row_stride}; }
  Matrix row_block(std::int64_t first, std::int64_t count) const {
    return {data + first * row_stride, count, columns, row_stride, column_stride};
  }
  Matrix column_block(std::int64_t first, std::int64_t count) const {
    return {data + first * column_stride, rows, count, row_stride, column_stride};
  }
  operator Matrix<const T>() const { return {data, rows, columns, row_stride, column_stride}; }
};

/// c = alpha * a b (+ c if accumulate), on this thread; a [M, K], b [K, N], c [M, N] with columns
/// of c next to each other. For float and double, in matmul.cpp.
template <class T>
void product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, T alpha, bool accumulate);

extern template void product(Matrix<const float>, Matrix<const float>, Matrix<float>, float, bool);
extern template void product(Matrix<const double>, Matrix<const double>, Matrix<double>, double,
                             bool);

}  // namespace mf::cpu_kernels
