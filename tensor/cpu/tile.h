#pragma once

#include <array>

#include "tensor/cpu/simd.h"

/// The innermost part of the matrix product: one tile of the result, held in registers.
namespace mf::cpu_kernels::MEMFORMER_ISA {

/// A tile is kTileRows x kTileColumns; its accumulators, one row of b and one broadcast element of
/// a fill the registers (32 with AVX-512, else 16).
inline constexpr int kTileRows = kVectorBytes == 64 ? 14 : 6;
inline constexpr int kTileVectors = 2;
template <class T>
inline constexpr int kTileColumns = kTileVectors* kVector<T>;

/// How a tile is written: c = alpha * sum + base + bias. Strides are between rows.
template <class T>
struct TileTarget {
  T* c;
  std::int64_t c_stride;
  T alpha;
  const T* base;  ///< null: nothing
  std::int64_t base_stride;
  const T* bias;  ///< one per column; null: nothing
};

/// How the tile's rows of a lie in memory: element (i, k) at i * stride + k, or at k * stride + i.
enum class TileLayout { row_major, column_major };

/// One tile of a b over `depth` products; b's rows are `b_stride` apart. Each element is one chain
/// of fused multiply-adds in the order of k, so its bits do not depend on the tile it falls into.
template <class T, int Rows, int Vectors, TileLayout Layout>
void fixed_tile(std::int64_t depth, const T* a, std::int64_t a_stride, const T* b,
                std::int64_t b_stride, const TileTarget<T>& target) {
  constexpr int kWidth = kVector<T>;
  constexpr auto kCount = static_cast<std::size_t>(Vectors);
  Vector<T> sums[static_cast<std::size_t>(Rows)][kCount];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) {
      sums[i][j] = Vector<T>{};
      __builtin_prefetch(target.c + i * target.c_stride + j * kWidth, 1);
    }
  }
  // Three rows share a pointer: x86 addresses reach base, base + stride and base + 2 stride.
  const T* rows[static_cast<std::size_t>((Rows + 2) / 3)];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; i += 3) rows[i / 3] = a + i * a_stride;

  for (std::int64_t k = 0; k < depth; ++k) {
    Vector<T> columns[kCount];
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) columns[j] = load(b + j * kWidth);
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i) {
      const T element = Layout == TileLayout::column_major ? a[i] : rows[i / 3][(i % 3) * a_stride];
      const Vector<T> factor = broadcast(element);
#pragma GCC unroll 8
      for (int j = 0; j < Vectors; ++j) sums[i][j] = fma(factor, columns[j], sums[i][j]);
    }
    b += b_stride;
    if constexpr (Layout == TileLayout::column_major) {
      a += a_stride;
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < Rows; i += 3) ++rows[i / 3];
    }
  }

  const Vector<T> alpha = broadcast(target.alpha);
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Vectors; ++j) {
      Vector<T> value = alpha * sums[i][j];
      if (target.base) value += load(target.base + i * target.base_stride + j * kWidth);
      if (target.bias) value += load(target.bias + j * kWidth);
      store(target.c + i * target.c_stride + j * kWidth, value);
    }
  }
}

template <class T>
using TileFunction = void (*)(std::int64_t depth, const T* a, std::int64_t a_stride, const T* b,
                              std::int64_t b_stride, const TileTarget<T>& target);

template <class T, int Vectors, TileLayout Layout, int... I>
constexpr std::array<TileFunction<T>, sizeof...(I)> tile_functions(
    std::integer_sequence<int, I...>) {
  return {&fixed_tile<T, I + 1, Vectors, Layout>...};
}

/// fixed_tile for 1..MaxRows rows, at index rows - 1.
template <class T, int MaxRows, int Vectors, TileLayout Layout>
inline constexpr auto kTileFunctions =
    tile_functions<T, Vectors, Layout>(std::make_integer_sequence<int, MaxRows>{});

/// The tile of a [rows, depth], one of whose strides is 1, and `columns` columns of b: one vector,
/// or else MaxVectors. All of them are written.
template <class T, int MaxRows = kTileRows, int MaxVectors = kTileVectors>
void multiply_tile(std::int64_t rows, std::int64_t columns, std::int64_t depth, const T* a,
                   std::int64_t a_row_stride, std::int64_t a_column_stride, const T* b,
                   std::int64_t b_stride, const TileTarget<T>& target) {
  const auto run = [&](const auto& functions, std::int64_t a_stride) {
    functions[static_cast<std::size_t>(rows - 1)](depth, a, a_stride, b, b_stride, target);
  };
  const bool narrow = columns <= kVector<T>;
  if (a_column_stride == 1 || depth == 1) {
    narrow ? run(kTileFunctions<T, MaxRows, 1, TileLayout::row_major>, a_row_stride)
           : run(kTileFunctions<T, MaxRows, MaxVectors, TileLayout::row_major>, a_row_stride);
  } else {
    narrow ? run(kTileFunctions<T, MaxRows, 1, TileLayout::column_major>, a_column_stride)
           : run(kTileFunctions<T, MaxRows, MaxVectors, TileLayout::column_major>, a_column_stride);
  }
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
