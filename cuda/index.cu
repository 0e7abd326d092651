#include "cuda/each.cuh"
#include "cuda/ids.cuh"
#include "cuda/kernels.h"

// Sums over repeated ids without atomics: each target has one warp that owns it, looks through the
// ids, and adds what belongs to it in the order of the ids. Looking is cheap beside adding: a warp
// compares 32 ids at a time.
namespace mf::cuda {
namespace device {

/// What stands where an id is out of range: NaN, and in integers -1 or 255.
template <class Bits>
inline constexpr Bits kAllOnes = static_cast<Bits>(-1);

/// y [n, width] = table [rows, width] at ids [n].
template <class Bits>
struct GatherRows {
  std::int64_t rows, width;
  const Bits* table;
  const std::int32_t* ids;
  Bits* y;

  __device__ void operator()(std::int64_t i) const {
    const std::int32_t id = ids[i / width];
    y[i] = in_range(id, rows) ? table[id * width + i % width] : kAllOnes<Bits>;
  }
};

/// y [rows, m] = x [rows, n] at index [rows, m].
template <class Bits>
struct Gather {
  std::int64_t n, m;
  Space<1> at;  // of index, any strides
  const Bits* x;
  const std::int32_t* index;
  Bits* y;

  __device__ void operator()(std::int64_t i) const {
    const std::int32_t id = index[at.offsets(i).of[0]];
    y[i] = in_range(id, n) ? x[i / m * n + id] : kAllOnes<Bits>;
  }
};

/// The lanes whose `flag` is set, as bits.
__device__ inline unsigned lanes_where(bool flag) { return __ballot_sync(0xffffffffu, flag); }

/// gtable [rows, width] at ids_i += gy_i in the order of i. The warp of the first i with an id owns
/// that id's row, or rather kColumns of its columns.
template <class T>
__global__ void __launch_bounds__(kBlock)
    scatter_rows(const std::int32_t* __restrict__ ids, const T* __restrict__ gy,
                 T* __restrict__ gtable, std::int64_t n, std::int64_t rows, std::int64_t width,
                 std::int64_t tiles) {
  constexpr int kPerLane = 4;
  const std::int64_t owner = warp_index() / tiles;
  if (owner >= n) return;  // whole warps
  const int lane = lane_index();
  const std::int32_t id = ids[owner];
  if (!in_range(id, rows)) return;
  for (std::int64_t j = lane; j - lane < owner; j += kWarp)
    if (lanes_where(j < owner && ids[j] == id) != 0) return;

  const std::int64_t first = warp_index() % tiles * (kPerLane * kWarp) + lane;
  T sums[kPerLane];
  for (int k = 0; k < kPerLane; ++k) {
    const std::int64_t column = first + k * kWarp;
    sums[k] = column < width ? gtable[id * width + column] : T{0};
  }
  for (std::int64_t j = owner + lane; j - lane < n; j += kWarp) {
    unsigned equal = lanes_where(j < n && ids[j] == id);
    for (; equal != 0; equal &= equal - 1) {
      const T* const row = gy + (j - lane + __ffs(static_cast<int>(equal)) - 1) * width;
      for (int k = 0; k < kPerLane; ++k) {
        const std::int64_t column = first + k * kWarp;
        if (column < width) sums[k] += row[column];
      }
    }
  }
  for (int k = 0; k < kPerLane; ++k) {
    const std::int64_t column = first + k * kWarp;
    if (column < width) gtable[id * width + column] = sums[k];
  }
}

/// gx [rows, n] at index [rows, m] += gy [rows, m], in the order of the second axis. With by_target
/// a warp for each element of gx owns it, else the warp of the first position that leads to it.
template <class T>
__global__ void __launch_bounds__(kBlock)
    scatter(const std::int32_t* __restrict__ index, const T* __restrict__ gy, T* __restrict__ gx,
            const __grid_constant__ Space<1> at, std::int64_t rows, std::int64_t n, std::int64_t m,
            bool by_target) {
  const std::int64_t owners = by_target ? n : m;
  const std::int64_t row = warp_index() / owners;
  const std::int64_t owner = warp_index() % owners;
  if (row >= rows) return;  // whole warps
  const int lane = lane_index();
  const auto target_of = [&](std::int64_t j) { return index[at.offsets(row * m + j).of[0]]; };
  const auto target = by_target ? static_cast<std::int32_t>(owner) : target_of(owner);
  if (!in_range(target, n)) return;
  const std::int64_t first = by_target ? 0 : owner;
  for (std::int64_t j = lane; j - lane < first; j += kWarp)
    if (lanes_where(j < first && target_of(j) == target) != 0) return;

  T sum = lane == 0 ? gx[row * n + target] : T{0};  // the others' sums come to nothing
  for (std::int64_t j = first + lane; j - lane < m; j += kWarp) {
    const T gradient = j < m ? gy[row * m + j] : T{0};
    unsigned equal = lanes_where(j < m && target_of(j) == target);
    for (; equal != 0; equal &= equal - 1)
      sum += __shfl_sync(0xffffffffu, gradient, __ffs(static_cast<int>(equal)) - 1);
  }
  if (lane == 0) gx[row * n + target] = sum;
}

}  // namespace device

// table [rows, width], ids [n] -> y [n, width].
void gather_rows(Context& context, View table, View ids, MutView y) {
  visit_bits(table.dtype, [&](auto zero) {
    using Bits = decltype(zero);
    const device::GatherRows<Bits> f{table.shape[0], table.shape[1], table.as<Bits>(),
                                     ids.as<std::int32_t>(), y.as<Bits>()};
    launch_each(context, "gather_rows", f, ids.shape.elements() * table.shape[1]);
  });
}

// ids [n], gy [n, width], gtable [rows, width].
void scatter_rows(Context& context, View ids, View gy, MutView gtable) {
  visit_float(gtable.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr std::int64_t kColumns = 128;
    const std::int64_t n = ids.shape.elements();
    const std::int64_t width = gtable.shape[1];
    const std::int64_t tiles = ceil_div(width, kColumns);
    launch(context, "scatter_rows", device::scatter_rows<T>, Grid::of_warps(n * tiles),
           ids.as<std::int32_t>(), gy.as<T>(), gtable.as<T>(), n, gtable.shape[0], width, tiles);
  });
}

// x [rows, n], index [rows, m] -> y [rows, m].
void gather(Context& context, View x, View index, MutView y) {
  visit_bits(x.dtype, [&](auto zero) {
    using Bits = decltype(zero);
    const device::Gather<Bits> f{
        Rows(x.shape).width, Rows(y.shape).width,      Space<1>(index.shape, {&index.strides}),
        x.as<Bits>(),        index.as<std::int32_t>(), y.as<Bits>()};
    launch_each(context, "gather", f, y.shape.elements());
  });
}

// index [rows, m], gy [rows, m], gx [rows, n].
void scatter(Context& context, View index, View gy, MutView gx) {
  visit_float(gx.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows from(gy.shape);
    const std::int64_t n = Rows(gx.shape).width;
    const bool by_target = n <= from.width;
    const std::int64_t owners = from.width == 0 ? 0 : by_target ? n : from.width;
    launch(context, "scatter", device::scatter<T>, Grid::of_warps(from.count * owners),
           index.as<std::int32_t>(), gy.as<T>(), gx.as<T>(),
           Space<1>(index.shape, {&index.strides}), from.count, n, from.width, by_target);
  });
}

}  // namespace mf::cuda
