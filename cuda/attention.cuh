#pragma once

#include "cuda/device_math.cuh"
#include "cuda/launch.h"
#include "cuda/team.cuh"
#include "tensor/attention_sizes.h"
#include "tensor/dropout.h"

/// What forward and backward of attention share. A block takes a tile of queries (or of keys) of
/// one head and walks over tiles of keys (or of queries); scores live in registers and shared
/// memory only. A thread has 4 rows x 2 columns of a tile of scores, and 4 rows x 4 columns of a
/// panel of results. Any width works: the scores' depth is walked through in chunks of a tile, and
/// results wider than a panel are shared out among blocks, each of which makes the scores anew.
namespace mf::cuda {
namespace device {

inline constexpr int kTile = 32;  // queries and keys of a tile, and the depth of a chunk
inline constexpr int kPanel = 64;
inline constexpr int kTileThreads = 128;
inline constexpr int kAcross = 16;                    // threads side by side
inline constexpr int kDown = kTileThreads / kAcross;  // 8
inline constexpr int kMyRows = kTile / kDown;         // 4
inline constexpr int kMyColumns = kTile / kAcross;    // 2
inline constexpr int kMyPanel = kPanel / kAcross;     // 4

/// Row and column, inside a tile, of this thread's elements.
__device__ inline int tile_row(int a) {
  return static_cast<int>(threadIdx.x) / kAcross + a * kDown;
}
__device__ inline int tile_column(int b) {
  return static_cast<int>(threadIdx.x) % kAcross + b * kAcross;
}

// The padding keeps threads that read one column of different rows on different banks.
template <class T>
using Tile = T[kTile][kTile + 1];
template <class T>
using Panel = T[kTile][kPanel];
template <class T>
using Scores = T[kMyRows][kMyColumns];
template <class T>
using Results = T[kMyRows][kMyPanel];

/// Rows of one head, with stride 1 inside a row.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t stride;
  std::int64_t count, width;

  __device__ T* row(std::int64_t i) const { return data + i * stride; }
  /// The same without the first rows.
  __device__ HeadRows from(std::int64_t first) const {
    return {row(first), stride, count - first, width};
  }
};

/// A [B, H, T, .] operand with last stride 1; may be absent.
template <class T>
struct HeadsOperand {
  T* data;
  std::int64_t batch_stride, head_stride, row_stride;
  std::int64_t rows, width;

  __device__ HeadRows<T> head(std::int64_t b, std::int64_t h) const {
    return {data + b * batch_stride + h * head_stride, row_stride, rows, width};
  }
  __device__ explicit operator bool() const { return data != nullptr; }
};

/// A [B, H, T] operand with any strides.
template <class T>
struct QueriesOperand {
  T* data;
  std::int64_t strides[3];

  __device__ T& at(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return data[b * strides[0] + h * strides[1] + i * strides[2]];
  }
};

/// A [B, H, T, S] operand with any strides; may be absent.
template <class T>
struct ScoresOperand {
  const T* data;
  std::int64_t strides[4];

  __device__ T at(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    return data[b * strides[0] + h * strides[1] + i * strides[2] + j * strides[3]];
  }
  __device__ explicit operator bool() const { return data != nullptr; }
};

/// What a block works on: rows first.. of one head, and columns first_column.. of its results.
struct Job {
  std::int64_t b, h;
  std::int64_t first;  ///< row of the tile
  std::int64_t first_column;
};

/// The inputs and what follows from the options.
template <class T>
struct AttentionProblem : AttentionSizes {
  HeadsOperand<const T> q, k, v, own_key, own_value;
  ScoresOperand<std::uint8_t> mask;
  ScoresOperand<T> bias;
  T logit_scale;          ///< d logit / d (q . k)
  T inverse_temperature;  ///< d logit / d bias
  bool drops;
  DropoutRule rule;

  __device__ bool sees(std::int64_t i, std::int64_t j) const {
    return i < queries && j < visible(i);
  }

  /// The logit behind `product` = q_i . k_j; for i and j with sees(i, j).
  __device__ T logit(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j,
                     T product) const {
    T result = logit_scale * product;
    if (bias) result += bias.at(b, h, i, j) * inverse_temperature;
    if (mask && mask.at(b, h, i, j) == 0) result = -kInfinity<T>;
    return result;
  }

  /// The dropout factor of query i's weight j, 0 or 1/(1-p); j = keys is the own weight.
  __device__ T factor(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t j) const {
    if (!drops) return T{1};
    return rule.keep(weight(b, h, i, j)) ? static_cast<T>(rule.scale) : T{0};
  }

  /// The logit of query i with its own key; all lanes of the warp take part.
  __device__ T own_logit(std::int64_t b, std::int64_t h, std::int64_t i) const {
    const T* const x = q.head(b, h).row(i);
    const T* const y = own_key.head(b, h).row(i);
    return logit_scale * Team<kWarp>::sum<T>(q.width, [&](std::int64_t d) { return x[d] * y[d]; });
  }
};

/// tile = rows 0.. and columns first_column.. of `rows`; zeros beyond its borders.
template <class T, int kColumns, int kStride>
__device__ void load_tile(T (&tile)[kTile][kStride], const HeadRows<const T>& rows,
                          std::int64_t first_column) {
  static_assert(kTileThreads % kColumns == 0);
  const int column = static_cast<int>(threadIdx.x) % kColumns;
  const bool inside = first_column + column < rows.width;
  for (int r = static_cast<int>(threadIdx.x) / kColumns; r < kTile; r += kTileThreads / kColumns)
    tile[r][column] = inside && r < rows.count ? rows.row(r)[first_column + column] : T{0};
}

/// scores += x y^T for the first 32 rows of x and of y. The whole block takes part.
template <class T>
__device__ void add_products(const HeadRows<const T>& x, const HeadRows<const T>& y,
                             Tile<T>& x_tile, Tile<T>& y_tile, Scores<T>& scores) {
  for (std::int64_t first = 0; first < x.width; first += kTile) {
    __syncthreads();  // the tiles may still be read
    load_tile<T, kTile>(x_tile, x, first);
    load_tile<T, kTile>(y_tile, y, first);
    __syncthreads();
    const int depth = x.width - first < kTile ? static_cast<int>(x.width - first) : kTile;
    for (int d = 0; d < depth; ++d) {
      T right[kMyColumns];
      for (int b = 0; b < kMyColumns; ++b) right[b] = y_tile[tile_column(b)][d];
      for (int a = 0; a < kMyRows; ++a) {
        const T left = x_tile[tile_row(a)][d];
        for (int b = 0; b < kMyColumns; ++b) scores[a][b] = ::fma(left, right[b], scores[a][b]);
      }
    }
  }
}

/// results += weights x columns first_column.. of the first 32 rows of y. The whole block takes
/// part, and `weights` were written before.
template <class T>
__device__ void add_weighted(const Tile<T>& weights, const HeadRows<const T>& y,
                             std::int64_t first_column, Panel<T>& panel, Results<T>& results) {
  __syncthreads();  // the panel may still be read
  load_tile<T, kPanel>(panel, y, first_column);
  __syncthreads();
  for (int j = 0; j < kTile; ++j) {
    T right[kMyPanel];
    for (int c = 0; c < kMyPanel; ++c) right[c] = panel[j][tile_column(c)];
    for (int a = 0; a < kMyRows; ++a) {
      const T weight = weights[tile_row(a)][j];
      for (int c = 0; c < kMyPanel; ++c) results[a][c] = ::fma(weight, right[c], results[a][c]);
    }
  }
}

/// What this block works on, where every head has `tiles` tiles and every tile `panels` panels.
template <class T>
__device__ Job job_of(const AttentionProblem<T>& problem, std::int64_t tiles, std::int64_t panels) {
  std::int64_t rest = blockIdx.x;
  const std::int64_t panel = rest % panels;
  rest /= panels;
  const std::int64_t tile = rest % tiles;
  rest /= tiles;
  return {rest / problem.heads, rest % problem.heads, tile * kTile, panel * kPanel};
}

}  // namespace device

inline std::int64_t tiles_of(std::int64_t rows) { return ceil_div(rows, device::kTile); }
inline std::int64_t panels_of(std::int64_t width) {
  return width <= device::kPanel ? 1 : ceil_div(width, device::kPanel);
}

template <class T, class V>
device::HeadsOperand<T> heads_operand(const V& view) {
  if (view.data == nullptr) return {};
  return {static_cast<T*>(view.data),
          view.strides[0],
          view.strides[1],
          view.strides[2],
          view.shape[2],
          view.shape[3]};
}

template <class T, class V>
device::QueriesOperand<T> queries_operand(const V& view) {
  return {static_cast<T*>(view.data), {view.strides[0], view.strides[1], view.strides[2]}};
}

template <class T>
device::ScoresOperand<T> scores_operand(const View& view) {
  if (view.data == nullptr) return {};
  return {view.as<T>(), {view.strides[0], view.strides[1], view.strides[2], view.strides[3]}};
}

template <class T>
device::AttentionProblem<T> attention_problem(const View& q, const View& k, const View& v,
                                              const View& mask, const View& bias,
                                              const View& own_key, const View& own_value,
                                              const AttentionOptions& options) {
  return {{q, k, own_key, options},
          heads_operand<const T>(q),
          heads_operand<const T>(k),
          heads_operand<const T>(v),
          heads_operand<const T>(own_key),
          heads_operand<const T>(own_value),
          scores_operand<std::uint8_t>(mask),
          scores_operand<T>(bias),
          static_cast<T>(logit_scale(q, options)),
          static_cast<T>(1.0 / options.temperature),
          options.dropout > 0.0,
          DropoutRule(options.dropout, options.key)};
}

}  // namespace mf::cuda
