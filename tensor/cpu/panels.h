#pragma once

#include <algorithm>
#include <cstdint>

#include "tensor/cpu/product.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/tile.h"

/// Matrices packed for the tiles of tile.h.
namespace mf::cpu_kernels::MEMFORMER_ISA {

/// Part `index` of n things cut into `parts` nearly equal parts.
struct Part {
  std::int64_t begin, size;
};
inline Part part(std::int64_t n, std::int64_t parts, std::int64_t index) {
  const std::int64_t begin = index * n / parts;
  return {begin, (index + 1) * n / parts - begin};
}

/// How many rows ahead packing asks for: rows far apart are out of reach of the processor's own
/// prefetching. An address beyond the end does no harm.
inline constexpr std::int64_t kPrefetchRows = 8;

/// to [depth][width] = transpose of from [count][depth], rows `stride` apart; zeros beyond count.
/// width is whole vectors.
template <class T>
void pack_transposed(const T* from, std::int64_t stride, std::int64_t count, std::int64_t depth,
                     std::int64_t width, T* to) {
  constexpr std::int64_t kSize = kVector<T>;
  for (std::int64_t first = 0; first < width; first += kSize) {
    const std::int64_t rows = std::clamp<std::int64_t>(count - first, 0, kSize);
    for (std::int64_t k = 0; k < depth; k += kSize) {
      const std::int64_t columns = std::min(kSize, depth - k);
      Vector<T> block[static_cast<std::size_t>(kSize)];
#pragma GCC unroll 16
      for (std::int64_t r = 0; r < kSize; ++r) {
        const T* const row = from + (first + r) * stride + k;
        block[r] = r >= rows          ? Vector<T>{}
                   : columns == kSize ? load(row)
                                      : load_first(row, columns);
      }
      transpose(block);
#pragma GCC unroll 16
      for (std::int64_t c = 0; c < kSize; ++c)
        if (c < columns) store(to + (k + c) * width + first, block[c]);
    }
  }
}

/// to [depth][width] = from [depth][count], rows `stride` apart; zeros beyond count. width is whole
/// vectors.
template <class T>
void pack_rows(const T* from, std::int64_t stride, std::int64_t count, std::int64_t depth,
               std::int64_t width, T* to) {
  for (std::int64_t k = 0; k < depth; ++k, from += stride, to += width) {
    for (std::int64_t j = 0; j < width; j += kVector<T>) {
      const std::int64_t rest = count - j;
      store(to + j, rest >= kVector<T> ? load(from + j)
                                       : load_first(from + j, std::max<std::int64_t>(rest, 0)));
    }
  }
}

/// b [depth, columns] as panels of Vectors vectors, one after the other; the last one may be
/// `last_width` wide, in whole vectors, with zeros beyond b's columns.
template <int Vectors, class T>
void pack_panels(Matrix<const T> b, std::int64_t last_width, T* to) {
  constexpr std::int64_t kColumns = Vectors * kVector<T>;
  const std::int64_t depth = b.rows, whole = b.rows_lie() ? b.columns / kColumns : 0;
  // Each row of all whole panels at a stretch: memory is read fastest so.
  for (std::int64_t k = 0; k < depth; ++k) {
    const T* const row = b.data + k * b.row_stride;
    prefetch(row + kPrefetchRows * b.row_stride, whole * kColumns);
    for (std::int64_t i = 0; i < whole; ++i) {
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j)
        store(to + (i * depth + k) * kColumns + j * kVector<T>,
              load(row + i * kColumns + j * kVector<T>));
    }
  }
  for (std::int64_t column = whole * kColumns; column < b.columns; column += kColumns) {
    const std::int64_t count = std::min(kColumns, b.columns - column);
    const std::int64_t width = count == kColumns ? kColumns : last_width;
    const T* const from = b.data + column * b.column_stride;
    if (b.rows_lie()) {
      pack_rows(from, b.row_stride, count, depth, width, to + column * depth);
    } else {
      pack_transposed(from, b.column_stride, count, depth, width, to + column * depth);
    }
  }
}

/// A matrix b [depth, columns] packed once for several products: panels as wide as a tile, the last
/// one a single vector where that is enough, with zeros beyond b's columns.
template <class T>
class Panels {
 public:
  /// Room for b's of this shape.
  Panels(std::int64_t depth, std::int64_t columns)
      : depth_(depth), columns_(columns), packed_(depth * padded(columns)) {}

  /// Columns that a product writes: whole vectors.
  static std::int64_t padded(std::int64_t columns) {
    return ceil_div(columns, kVector<T>) * kVector<T>;
  }

  void pack(Matrix<const T> b) {
    pack_panels<kTileVectors>(b, padded(columns_ % kTileColumns<T>), packed_.data());
  }

  /// c [a.rows, padded(columns)] = alpha a b', where b' are rows first.. of b, as many as a has
  /// columns, and its first columns; added to c if `adds`. One of a's strides is 1.
  void multiply(Matrix<const T> a, std::int64_t first, std::int64_t columns, T alpha, T* c,
                std::int64_t c_stride, bool adds = false) const {
    const std::int64_t row_panels = ceil_div(a.rows, kTileRows);
    for (std::int64_t column = 0; column < columns; column += kTileColumns<T>) {
      const std::int64_t width = padded(std::min<std::int64_t>(kTileColumns<T>, columns_ - column));
      const std::int64_t wanted = std::min(width, padded(columns - column));
      const T* const b = packed_.data() + column * depth_ + first * width;
      for (std::int64_t i = 0; i < row_panels; ++i) {
        const Part rows = part(a.rows, row_panels, i);
        T* const to = c + rows.begin * c_stride + column;
        multiply_tile(rows.size, wanted, a.columns, a.data + rows.begin * a.row_stride,
                      a.row_stride, a.column_stride, b, width,
                      {to, c_stride, alpha, adds ? to : nullptr, c_stride, nullptr});
      }
    }
  }

 private:
  const std::int64_t depth_, columns_;
  const Scratch<T> packed_;
};

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
