#include <algorithm>

#include "tensor/cpu/eigen_product.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/rows.h"

// In the place of product.cpp where MEMFORMER_GEMM is eigen.
namespace mf::cpu_kernels::MEMFORMER_ISA {

template <class T>
void product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const ProductOptions<T>& options) {
  run(EigenProduct<T>{a.data, b.data, c.rows, a.columns, c.columns, a.row_stride, a.column_stride,
                      b.row_stride, b.column_stride, c.data, c.row_stride, options.alpha,
                      options.base, options.base_stride, options.bias});
  if (options.after) (*options.after)(0, c.rows, 0, c.columns);
}

template <class T>
void parallel_product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c,
                      const ProductOptions<T>& options) {
  constexpr std::int64_t kRows = 256;  // in a job, for any number of threads: bits depend on it
  const std::int64_t jobs = std::max<std::int64_t>(1, c.rows / kRows);
  for_chunks(
      jobs, c.rows * c.columns * a.columns / jobs, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t job = begin; job < end; ++job) {
          const std::int64_t first = job * c.rows / jobs;
          const std::int64_t count = (job + 1) * c.rows / jobs - first;
          AfterBlock after;
          if (options.after)
            after = [&](std::int64_t row, std::int64_t rows, std::int64_t column,
                        std::int64_t width) { (*options.after)(first + row, rows, column, width); };
          ProductOptions<T> own = options;
          if (own.base) own.base += first * own.base_stride;
          own.after = options.after ? &after : nullptr;
          product<T>(a.row_block(first, count), b, c.row_block(first, count), own);
        }
      });
}

template void product(Matrix<const float>, Matrix<const float>, Matrix<float>,
                      const ProductOptions<float>&);
template void product(Matrix<const double>, Matrix<const double>, Matrix<double>,
                      const ProductOptions<double>&);
template void parallel_product(Matrix<const float>, Matrix<const float>, Matrix<float>,
                               const ProductOptions<float>&);
template void parallel_product(Matrix<const double>, Matrix<const double>, Matrix<double>,
                               const ProductOptions<double>&);

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
