#pragma once

#include "cuda/launch.h"
#include "cuda/space.h"

namespace mf::cuda {
namespace device {

template <class T>
inline constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
inline constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();

struct Plus {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
/// The larger one; NaN only if both are.
struct Larger {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return b > a || a != a ? b : a;
  }
};

/// What to subtract before exp so that it cannot overflow: the largest logit, or 0 where that is
/// infinite and the difference would be NaN.
template <class T>
__device__ T exp_shift(T largest) {
  return isfinite(largest) ? largest : T{0};
}

/// The values of `kLanes` neighbouring lanes, combined in a fixed tree; every lane gets the result.
/// All lanes of the warp take part.
template <int kLanes = kWarp, class T, class F>
__device__ T combine_lanes(T value, const F& f) {
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = f(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

/// The threads that work on one row: a warp for short rows, a block for long ones. Each takes
/// elements rank, rank + kThreads, ..., so that neighbours read neighbours.
template <int kThreads>
class Team {
 public:
  static_assert(kThreads % kWarp == 0 && kThreads <= kBlock);

  /// Row of this thread's team, if the blocks are full of teams.
  __device__ static std::int64_t row() { return thread_index() / kThreads; }
  __device__ static int rank() { return static_cast<int>(threadIdx.x) % kThreads; }

  /// f over the values of all threads, in a fixed order; every thread gets the result. All threads
  /// of the team take part.
  template <class T, class F>
  __device__ static T combine(T value, const F& f) {
    value = combine_lanes(value, f);
    if constexpr (kThreads == kWarp) {
      return value;
    } else {
      constexpr int kWarps = kThreads / kWarp;
      __shared__ T parts[kWarps];
      __syncthreads();  // the parts of the call before may still be read
      if (lane_index() == 0) parts[rank() / kWarp] = value;
      __syncthreads();
      value = parts[0];
      for (int i = 1; i < kWarps; ++i) value = f(value, parts[i]);
      return value;
    }
  }

  /// f over term(0), .., term(n - 1), starting from `none`.
  template <class T, class F, class Term>
  __device__ static T combine(std::int64_t n, T none, const F& f, const Term& term) {
    T value = none;
    for (std::int64_t i = rank(); i < n; i += kThreads) value = f(value, term(i));
    return combine(value, f);
  }
  template <class T, class Term>
  __device__ static T sum(std::int64_t n, const Term& term) {
    return combine(n, T{0}, Plus{}, term);
  }

  /// fn(i) for i < n, shared out.
  template <class Fn>
  __device__ static void each(std::int64_t n, const Fn& fn) {
    for (std::int64_t i = rank(); i < n; i += kThreads) fn(i);
  }
};

/// Calls f.run<Team>(row) for each row; the team depends on the row's width alone, and with it the
/// order of sums. (One block at a time is enough: for the sake of more, registers would be
/// spilled.)
template <int kThreads, class F>
__global__ void __launch_bounds__(kBlock, 1)
    each_row(const __grid_constant__ F f, std::int64_t rows) {
  const std::int64_t row = Team<kThreads>::row();
  if (row < rows) f.template run<Team<kThreads>>(row);
}

}  // namespace device

/// Queues f.run<Team>(row) for each of `rows`.
template <class F>
void launch_rows(Context& context, const char* name, const F& f, const Rows& rows) {
  constexpr std::int64_t kLongestOfWarp = 1024;
  if (rows.width <= kLongestOfWarp) {
    launch(context, name, device::each_row<kWarp, F>, Grid::of_warps(rows.count), f, rows.count);
  } else {
    launch(context, name, device::each_row<kBlock, F>, Grid{rows.count, kBlock}, f, rows.count);
  }
}

/// The same for the rows of `first`: an F of the dtype, made of their width and the operands'
/// elements.
template <template <class> class F, class First, class... Rest>
void launch_rows(Context& context, const char* name, const First& first, const Rest&... rest) {
  visit_float(first.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(first.shape);
    const F<T> f{rows.width, first.template as<T>(), rest.template as<T>()...};
    launch_rows(context, name, f, rows);
  });
}

}  // namespace mf::cuda
