#include "cuda/each.cuh"
#include "cuda/kernels.h"
#include "cuda/reduce.cuh"

namespace mf::cuda {
namespace device {

/// x [outer, n, inner] -> y [outer, chunks, inner]: a thread sums one column of a chunk.
template <class T>
struct ColumnSums {
  static constexpr std::int64_t kChunk = 64;
  std::int64_t n, inner, chunks;
  const T* x;
  T* y;

  __device__ void operator()(std::int64_t i) const {
    const std::int64_t column = i % inner;
    const std::int64_t chunk = i / inner % chunks;
    const std::int64_t outer = i / inner / chunks;
    const std::int64_t first = chunk * kChunk;
    const std::int64_t last = first + kChunk < n ? first + kChunk : n;
    T sum = 0;
    for (std::int64_t j = first; j < last; ++j) sum += x[(outer * n + j) * inner + column];
    y[i] = sum;
  }
};

/// An element and its position. Which of two comes out does not depend on their order: NaN before
/// numbers, then the larger, then the first.
template <class T>
struct Candidate {
  T value;
  std::int32_t index;

  __device__ bool beats(const Candidate& other) const {
    const bool is_nan = value != value;
    const bool other_is_nan = other.value != other.value;
    if (is_nan != other_is_nan) return is_nan;
    if (is_nan || value == other.value) return index < other.index;
    return value > other.value;
  }
};

/// x [outer, n, inner] -> y, index [outer, inner], either of which may be null: a warp for each.
template <class T>
struct Max {
  std::int64_t n, inner;
  const T* x;
  T* y;
  std::int32_t* index;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const column = x + row / inner * n * inner + row % inner;
    Candidate<T> best{-kInfinity<T>, std::numeric_limits<std::int32_t>::max()};
    Team::each(n, [&](std::int64_t i) {
      const Candidate<T> candidate{column[i * inner], static_cast<std::int32_t>(i)};
      if (candidate.beats(best)) best = candidate;
    });
    for (int distance = kWarp / 2; distance > 0; distance /= 2) {
      const Candidate<T> other{__shfl_xor_sync(0xffffffffu, best.value, distance),
                               __shfl_xor_sync(0xffffffffu, best.index, distance)};
      if (other.beats(best)) best = other;
    }
    if (Team::rank() != 0) return;
    if (y != nullptr) y[row] = best.value;
    if (index != nullptr) index[row] = best.index;
  }
};

template <class T>
struct Square {
  const T* x;
  __device__ double operator()(std::int64_t i) const {
    const auto value = static_cast<double>(x[i]);
    return value * value;
  }
};

template <class T>
struct IsNonfinite {
  const T* x;
  __device__ double operator()(std::int64_t i) const { return isfinite(x[i]) ? 0.0 : 1.0; }
};

}  // namespace device

namespace {

template <class T>
void sum_columns(Context& context, std::int64_t outer, std::int64_t n, std::int64_t inner,
                 const T* x, T* y) {
  using Sums = device::ColumnSums<T>;
  const std::int64_t chunks = ceil_div(n, Sums::kChunk);
  if (chunks <= 1) return launch_each(context, "sum", Sums{n, inner, 1, x, y}, outer * inner);
  const Workspace<T> parts(context, outer * chunks * inner);
  launch_each(context, "sum", Sums{n, inner, chunks, x, parts.data()}, outer * chunks * inner);
  sum_columns<T>(context, outer, chunks, inner, parts.data(), y);
}

}  // namespace

// x [outer, n, inner] -> y [outer, inner].
void sum(Context& context, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t outer = x.shape[0], n = x.shape[1], inner = x.shape[2];
    if (inner == 1) {
      sum_rows<T>(context, "sum", device::Element<T>{x.as<T>()}, outer, n, y.as<T>());
    } else {
      sum_columns<T>(context, outer, n, inner, x.as<T>(), y.as<T>());
    }
  });
}

// x [outer, n, inner] -> y, index [outer, inner].
void max(Context& context, View x, MutView y, MutView index) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const std::int64_t results = x.shape[0] * x.shape[2];
    using Max = device::Max<T>;
    const Max f{x.shape[1], x.shape[2], x.as<T>(), y.as<T>(), index.as<std::int32_t>()};
    launch(context, "max", device::each_row<kWarp, Max>, Grid::of_warps(results), f, results);
  });
}

// x: contiguous -> y: one f64.
void sum_of_squares(Context& context, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    sum_rows<double>(context, "sum_of_squares", device::Square<T>{x.as<T>()}, 1, x.shape.elements(),
                     y.as<double>());
  });
}

// x: contiguous -> y: one f64.
void count_nonfinite(Context& context, View x, MutView y) {
  visit_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    sum_rows<double>(context, "count_nonfinite", device::IsNonfinite<T>{x.as<T>()}, 1,
                     x.shape.elements(), y.as<double>());
  });
}

}  // namespace mf::cuda
