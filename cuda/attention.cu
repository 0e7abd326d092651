#include <algorithm>

#include "cuda/attention.cuh"
#include "cuda/kernels.h"
#include "tensor/formulas.h"

namespace mf::cuda {
namespace device {

/// The softmax of a row of logits as far as they have been seen: their largest, and the sum of
/// exp(logit - shift), of which each of the row's threads has a part.
template <class T>
struct RunningSoftmax {
  T largest = -kInfinity<T>;
  T sum = 0;

  __device__ T shift() const { return exp_shift(largest); }

  /// Takes in a larger or equal maximum; returns by what earlier weights are multiplied.
  __device__ T raise(T maximum) {
    const bool empty = largest == -kInfinity<T>;
    const T before = shift();
    largest = Larger{}(largest, maximum);
    const T factor = empty ? T{0} : DeviceMath::exp(before - shift());
    sum *= factor;
    return factor;
  }
};

/// out and log_sum, in one walk over the keys: weights are summed with the largest logit so far as
/// shift, and what has been summed is rescaled when a larger one comes.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention(const __grid_constant__ AttentionProblem<T> problem, const HeadsOperand<T> out,
              const QueriesOperand<T> log_sum, std::int64_t tiles, std::int64_t panels) {
  __shared__ Tile<T> q_tile, k_tile, weights;
  __shared__ Panel<T> panel;
  __shared__ T own_logits[kTile];
  const Job job = job_of(problem, tiles, panels);
  const HeadRows<const T> q = problem.q.head(job.b, job.h).from(job.first);
  const HeadRows<const T> k = problem.k.head(job.b, job.h);
  const HeadRows<const T> v = problem.v.head(job.b, job.h);

  RunningSoftmax<T> softmax[kMyRows];
  Results<T> results = {};
  if (problem.has_own) {
    for (std::int64_t r = threadIdx.x / kWarp; r < kTile && r < q.count;
         r += kTileThreads / kWarp) {
      const T logit = problem.own_logit(job.b, job.h, job.first + r);
      if (lane_index() == 0) own_logits[r] = logit;
    }
    __syncthreads();
    for (int a = 0; a < kMyRows; ++a) {
      if (tile_row(a) >= q.count) continue;
      const std::int64_t i = job.first + tile_row(a);
      softmax[a].raise(own_logits[tile_row(a)]);
      const T weight = DeviceMath::exp(own_logits[tile_row(a)] - softmax[a].shift());
      if (tile_column(0) == 0) softmax[a].sum = weight;
      const T kept = weight * problem.factor(job.b, job.h, i, problem.keys);
      const T* const own_value = problem.own_value.head(job.b, job.h).row(i);
      for (int c = 0; c < kMyPanel; ++c) {
        const std::int64_t column = job.first_column + tile_column(c);
        if (column < v.width) results[a][c] = kept * own_value[column];
      }
    }
  }

  const std::int64_t last = q.count < kTile ? problem.queries : job.first + kTile;
  const std::int64_t visible = problem.visible(last - 1);
  for (std::int64_t first_key = 0; first_key < visible; first_key += kTile) {
    Scores<T> scores = {};
    add_products(q, k.from(first_key), q_tile, k_tile, scores);
    for (int a = 0; a < kMyRows; ++a) {
      const std::int64_t i = job.first + tile_row(a);
      T largest = -kInfinity<T>;
      for (int b = 0; b < kMyColumns; ++b) {
        const std::int64_t j = first_key + tile_column(b);
        scores[a][b] =
            problem.sees(i, j) ? problem.logit(job.b, job.h, i, j, scores[a][b]) : -kInfinity<T>;
        largest = Larger{}(largest, scores[a][b]);
      }
      largest = combine_lanes<kAcross>(largest, Larger{});
      const T factor = softmax[a].raise(largest);
      for (int c = 0; c < kMyPanel; ++c) results[a][c] *= factor;
      for (int b = 0; b < kMyColumns; ++b) {
        const std::int64_t j = first_key + tile_column(b);
        const T weight = DeviceMath::exp(scores[a][b] - softmax[a].shift());
        softmax[a].sum += weight;
        const T kept = problem.sees(i, j) ? problem.factor(job.b, job.h, i, j) : T{0};
        weights[tile_row(a)][tile_column(b)] = kept == T{0} ? T{0} : weight * kept;
      }
    }
    add_weighted(weights, v.from(first_key), job.first_column, panel, results);
  }

  const HeadRows<T> target = out.head(job.b, job.h).from(job.first);
  for (int a = 0; a < kMyRows; ++a) {
    const T sum = combine_lanes<kAcross>(softmax[a].sum, Plus{});
    if (tile_row(a) >= q.count) continue;
    const T scale = sum == T{0} ? T{0} : T{1} / sum;
    for (int c = 0; c < kMyPanel; ++c) {
      const std::int64_t column = job.first_column + tile_column(c);
      if (column < v.width) target.row(tile_row(a))[column] = results[a][c] * scale;
    }
    if (job.first_column == 0 && tile_column(0) == 0)
      log_sum.at(job.b, job.h, job.first + tile_row(a)) = softmax[a].shift() + DeviceMath::log(sum);
  }
}

/// The weights after dropout, a tile for each block, from log_sum; the own ones too.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_map(const __grid_constant__ AttentionProblem<T> problem,
                  const QueriesOperand<T> log_sum, const HeadsOperand<T> map, std::int64_t tiles,
                  std::int64_t key_tiles) {
  __shared__ Tile<T> q_tile, k_tile;
  const Job job = job_of(problem, tiles, key_tiles);
  const std::int64_t first_key = job.first_column / kPanel * kTile;
  const HeadRows<const T> q = problem.q.head(job.b, job.h).from(job.first);
  const HeadRows<const T> k = problem.k.head(job.b, job.h).from(first_key);
  const HeadRows<T> target = map.head(job.b, job.h).from(job.first);
  const auto shift = [&](std::int64_t r) {
    return formulas::log_sum_shift(log_sum.at(job.b, job.h, job.first + r));
  };

  if (first_key < problem.keys) {
    Scores<T> scores = {};
    add_products(q, k, q_tile, k_tile, scores);
    for (int a = 0; a < kMyRows; ++a) {
      if (tile_row(a) >= q.count) continue;
      const std::int64_t i = job.first + tile_row(a);
      for (int b = 0; b < kMyColumns; ++b) {
        const std::int64_t j = first_key + tile_column(b);
        if (j >= problem.keys) continue;
        T weight = 0;
        if (problem.sees(i, j)) {
          const T logit = problem.logit(job.b, job.h, i, j, scores[a][b]);
          const T factor = problem.factor(job.b, job.h, i, j);
          if (factor != T{0}) weight = DeviceMath::exp(logit - shift(tile_row(a))) * factor;
        }
        target.row(tile_row(a))[j] = weight;
      }
    }
  }
  if (problem.has_own && first_key == 0) {
    for (std::int64_t r = threadIdx.x / kWarp; r < kTile && r < q.count;
         r += kTileThreads / kWarp) {
      const std::int64_t i = job.first + r;
      const T weight = DeviceMath::exp(problem.own_logit(job.b, job.h, i) - shift(r));
      const T kept = weight * problem.factor(job.b, job.h, i, problem.keys);
      if (lane_index() == 0) target.row(r)[problem.keys] = kept;
    }
  }
}

}  // namespace device

// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E], mask, bias [B,H,T,S], own_key [B,H,T,D], own_value, out
// [B,H,T,E], log_sum [B,H,T], map [B,H,T,S or S+1].
void attention(Context& context, View q, View k, View v, View mask, View bias, View own_key,
               View own_value, const AttentionOptions& options, MutView out, MutView log_sum,
               MutView map) {
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto problem = attention_problem<T>(q, k, v, mask, bias, own_key, own_value, options);
    const std::int64_t heads = problem.batch * problem.heads;
    const std::int64_t tiles = tiles_of(problem.queries);
    const std::int64_t panels = panels_of(problem.v.width);
    launch(context, "attention", device::attention<T>,
           Grid{heads * tiles * panels, device::kTileThreads}, problem, heads_operand<T>(out),
           queries_operand<T>(log_sum), tiles, panels);
    if (map.data == nullptr) return;
    const std::int64_t key_tiles = std::max<std::int64_t>(1, tiles_of(problem.keys));
    launch(context, "attention_map", device::attention_map<T>,
           Grid{heads * tiles * key_tiles, device::kTileThreads}, problem,
           queries_operand<T>(log_sum), heads_operand<T>(map), tiles, key_tiles);
  });
}

}  // namespace mf::cuda
