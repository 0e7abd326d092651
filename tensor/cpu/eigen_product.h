#pragma once

#include <cstdint>

/// The matrix product through Eigen, for builds with MEMFORMER_GEMM=eigen. It is compiled once, for
/// any processor, in a file of its own: Eigen's inline functions, compiled for an instruction set,
/// would be linked into the rest of the program too.
namespace mf::cpu_kernels {

/// c [rows, columns] = alpha * a b + base + bias; strides are of rows and columns, one of each pair
/// is 1, that of c's columns is. base may be c itself; base and bias may be null.
template <class T>
struct EigenProduct {
  const T *a, *b;
  std::int64_t rows, depth, columns;
  std::int64_t a_row_stride, a_column_stride, b_row_stride, b_column_stride;
  T* c;
  std::int64_t c_row_stride;
  T alpha;
  const T* base;
  std::int64_t base_row_stride;
  const T* bias;
};

void run(const EigenProduct<float>& product);
void run(const EigenProduct<double>& product);

}  // namespace mf::cpu_kernels
