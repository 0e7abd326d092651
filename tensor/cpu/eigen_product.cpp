#include "tensor/cpu/eigen_product.h"

#define EIGEN_DONT_PARALLELIZE  // threads are ours, see parallel.h
#include <Eigen/Core>

namespace mf::cpu_kernels {
namespace {

template <class T, int Order>
using Map = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Order>,
                       Eigen::Unaligned, Eigen::OuterStride<>>;

/// Calls fn with the matrix as an Eigen map of the storage order that its strides allow.
template <class T, class F>
void with_map(const T* data, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
              std::int64_t column_stride, const F& fn) {
  if (column_stride == 1 || columns == 1) {
    fn(Map<T, Eigen::RowMajor>(data, rows, columns, Eigen::OuterStride<>(row_stride)));
  } else {
    fn(Map<T, Eigen::ColMajor>(data, rows, columns, Eigen::OuterStride<>(column_stride)));
  }
}

/// Eigen makes small products coefficient by coefficient, with bits that depend on addresses.
template <class T>
void add_tiny(const EigenProduct<T>& p) {
  for (std::int64_t i = 0; i < p.rows; ++i)
    for (std::int64_t j = 0; j < p.columns; ++j) {
      T sum{0};
      for (std::int64_t k = 0; k < p.depth; ++k)
        sum += p.a[i * p.a_row_stride + k * p.a_column_stride] *
               p.b[k * p.b_row_stride + j * p.b_column_stride];
      p.c[i * p.c_row_stride + j] += p.alpha * sum;
    }
}

template <class T>
void add(const EigenProduct<T>& p) {
  if (p.depth == 0) return;
  if (p.rows + p.columns + p.depth < EIGEN_GEMM_TO_COEFFBASED_THRESHOLD) return add_tiny(p);
  using Target = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<Target, Eigen::Unaligned, Eigen::OuterStride<>> c(
      p.c, p.rows, p.columns, Eigen::OuterStride<>(p.c_row_stride));
  with_map(p.a, p.rows, p.depth, p.a_row_stride, p.a_column_stride, [&](const auto& a) {
    with_map(p.b, p.depth, p.columns, p.b_row_stride, p.b_column_stride,
             [&](const auto& b) { c.noalias() += p.alpha * a * b; });
  });
}

template <class T>
void run_any(const EigenProduct<T>& p) {
  for (std::int64_t i = 0; i < p.rows; ++i) {
    T* const c = p.c + i * p.c_row_stride;
    const T* const base = p.base ? p.base + i * p.base_row_stride : nullptr;
    for (std::int64_t j = 0; j < p.columns; ++j) {
      const T value = base ? base[j] : T{0};
      c[j] = p.bias ? value + p.bias[j] : value;
    }
  }
  add(p);
}

}  // namespace

void run(const EigenProduct<float>& product) { run_any(product); }
void run(const EigenProduct<double>& product) { run_any(product); }

}  // namespace mf::cpu_kernels
