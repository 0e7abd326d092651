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
void multiply_tile(std::int64_t depth, const T* a, std::int64_t a_stride, const T* b,
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
  return {&multiply_tile<T, I + 1, Vectors, Layout>...};
}

/// multiply_tile for 1..MaxRows rows, at index rows - 1.
template <class T, int MaxRows, int Vectors, TileLayout Layout>
inline constexpr auto kTileFunctions =
    tile_functions<T, Vectors, Layout>(std::make_integer_sequence<int, MaxRows>{});

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
