#pragma once

#include <cstdint>
#include <limits>

#include "cuda/check.h"
#include "cuda/context.h"

namespace mf::cuda {

/// Threads of a block, where a kernel has no reason for another number.
inline constexpr int kBlock = 256;
inline constexpr int kWarp = 32;

struct Grid {
  std::int64_t blocks;
  int threads;

  /// One thread for each of n items.
  static Grid of_threads(std::int64_t n) { return {ceil_div(n, kBlock), kBlock}; }
  /// One warp for each of n items.
  static Grid of_warps(std::int64_t n) { return of_threads(n * kWarp); }
};

#if defined(__CUDACC__)

/// Queues kernel(args...) on the context's stream; a grid without blocks is no work. `name` is what
/// errors call it.
template <class... Parameters, class... Args>
void launch(Context& context, const char* name, void (*kernel)(Parameters...), Grid grid,
            const Args&... args) {
  if (grid.blocks == 0) return;
  check(grid.blocks <= std::numeric_limits<std::int32_t>::max(),
        "{}: {} blocks are more than a launch takes; use a smaller tensor", name, grid.blocks);
  const cudaStream_t stream = engine_of(context).stream();
  kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), 0, stream>>>(
      static_cast<Parameters>(args)...);
  require_ok(cudaGetLastError(), name);
}

/// Number of this thread in the whole grid.
__device__ inline std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
/// Number of this warp in the whole grid, and of this thread in the warp.
__device__ inline std::int64_t warp_index() { return thread_index() / kWarp; }
__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % kWarp; }

#endif

}  // namespace mf::cuda
