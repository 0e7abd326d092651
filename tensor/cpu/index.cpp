#include <algorithm>
#include <cstring>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

/// Offset of row `row` of a view whose leading axes may have any strides.
std::int64_t row_offset(const View& view, std::int64_t row) {
  std::int64_t offset = 0;
  for (int axis = view.shape.rank() - 2; axis >= 0; --axis) {
    offset += row % view.shape[axis] * view.strides[axis];
    row /= view.shape[axis];
  }
  return offset;
}

}  // namespace

// table [rows, width], ids [n] -> y [n, width].
void gather_rows(Context&, View table, View ids, MutView y) {
  const std::int64_t row_bytes = table.shape[1] * size_of(table.dtype);
  const auto* const id = ids.as<std::int32_t>();
  for_chunks(ids.shape.elements(), table.shape[1], [&](std::int64_t begin, std::int64_t end) {
    if (row_bytes == 0) return;
    for (std::int64_t i = begin; i < end; ++i) {
      std::memcpy(y.as<std::byte>() + i * row_bytes, table.as<std::byte>() + id[i] * row_bytes,
                  static_cast<std::size_t>(row_bytes));
    }
  });
}

// ids [n], gy [n, width], gtable [rows, width].
void scatter_rows(Context&, View ids, View gy, MutView gtable) {
  visit_float(gtable.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto* const id = ids.as<std::int32_t>();
    const std::int64_t n = ids.shape.elements();
    const std::int64_t width = gtable.shape[1];
    // Ids repeat, so rows cannot be shared out; each job owns a block of columns instead.
    constexpr std::int64_t kColumns = 64;
    const std::int64_t blocks = ceil_div(width, kColumns);
    for_chunks(blocks, n * std::min(width, kColumns), [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = begin * kColumns;
      const std::int64_t columns = std::min(width, end * kColumns) - first;
      for (std::int64_t i = 0; i < n; ++i) {
        const T* const from = gy.as<T>() + i * width + first;
        T* const to = gtable.as<T>() + id[i] * width + first;
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) to[c] += from[c];
      }
    });
  });
}

// x [rows, n], index [rows, m] -> y [rows, m].
void gather(Context&, View x, View index, MutView y) {
  visit_any(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(y.shape);
    const std::int64_t n = rows_of(x.shape).width;
    const std::int64_t step = index.strides.rank() > 0 ? index.strides[-1] : 0;
    for_rows(rows, 2, [&](std::int64_t row) {
      const std::int32_t* const at = index.as<std::int32_t>() + row_offset(index, row);
      const T* const in = x.as<T>() + row * n;
      T* const out = y.as<T>() + row * rows.width;
      for (std::int64_t j = 0; j < rows.width; ++j) out[j] = in[at[j * step]];
    });
  });
}

// index [rows, m], gy [rows, m], gx [rows, n].
void scatter(Context&, View index, View gy, MutView gx) {
  visit_float(gx.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(gy.shape);
    const std::int64_t n = rows_of(gx.shape).width;
    const std::int64_t step = index.strides.rank() > 0 ? index.strides[-1] : 0;
    for_rows(rows, 2, [&](std::int64_t row) {
      const std::int32_t* const at = index.as<std::int32_t>() + row_offset(index, row);
      const T* const in = gy.as<T>() + row * rows.width;
      T* const out = gx.as<T>() + row * n;
      for (std::int64_t j = 0; j < rows.width; ++j) out[at[j * step]] += in[j];
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
