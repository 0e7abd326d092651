#include <algorithm>

#include "cuda/attention.cuh"
#include "cuda/kernels.h"
#include "tensor/formulas.h"

// With P the weights, F the dropout factors (0 or 1/(1-p)), A = P F and dA = gout v^T:
//   gv = A^T gout,  dlogit = P (F dA - D),  D_i = sum_j P_ij F_ij dA_ij = gout_i . out_i,
//   gbias = dlogit / temperature,  gq = logit_scale dlogit k,  gk = logit_scale dlogit^T q.
// A query's own key and value are one more column of P, F and dA. One kernel makes what belongs to
// a query alone, one gq and gbias (a block has queries, and walks over keys), one gk and gv (a
// block has keys, and walks over queries); P is recomputed from log_sum in each.
//
// Loops over a thread's own elements are unrolled by request: arrays that are indexed by a variable
// would go from registers to local memory.
namespace mf::cuda {
namespace device {

/// What backward gets besides the inputs of forward.
template <class T>
struct BackwardInputs {
  HeadsOperand<const T> out, gout;
  QueriesOperand<const T> log_sum;
  const T* mean;      ///< [B, H, T]: D
  const T* own_part;  ///< [B, H, T]: logit_scale dlogit of the own key
};

/// P_ij and dlogit_ij; zeros where query i does not see key j.
template <class T>
struct ScoreGradient {
  T weight = 0;  ///< A_ij, after dropout
  T dlogit = 0;

  __device__ ScoreGradient(const AttentionProblem<T>& problem, const BackwardInputs<T>& inputs,
                           const Job& job, std::int64_t i, std::int64_t j, T product, T along) {
    if (!problem.sees(i, j) || j >= problem.keys) return;
    const std::int64_t row = problem.row(job.b, job.h, i);
    const T shift = formulas::log_sum_shift(inputs.log_sum.at(job.b, job.h, i));
    const T p = DeviceMath::exp(problem.logit(job.b, job.h, i, j, product) - shift);
    const T factor = problem.factor(job.b, job.h, i, j);
    weight = factor == T{0} ? T{0} : p * factor;
    dlogit = p * ((factor == T{0} ? T{0} : along * factor) - inputs.mean[row]);
  }
};

/// mean and own_part for each query, a warp for each; the gradients of own keys and values.
template <class T>
__global__ void __launch_bounds__(kBlock, 1)
    attention_backward_rows(const __grid_constant__ AttentionProblem<T> problem,
                            const HeadsOperand<const T> out, const HeadsOperand<const T> gout,
                            const QueriesOperand<const T> log_sum, T* __restrict__ mean,
                            T* __restrict__ own_part, const HeadsOperand<T> gown_key,
                            const HeadsOperand<T> gown_value) {
  const std::int64_t row = warp_index();
  if (row >= problem.batch * problem.heads * problem.queries) return;  // whole warps
  using Lanes = Team<kWarp>;
  const std::int64_t i = row % problem.queries;
  const std::int64_t h = row / problem.queries % problem.heads;
  const std::int64_t b = row / problem.queries / problem.heads;
  const std::int64_t n = problem.v.width;
  const T* const g = gout.head(b, h).row(i);
  const T* const y = out.head(b, h).row(i);
  const T dot = Lanes::sum<T>(n, [&](std::int64_t e) { return g[e] * y[e]; });
  if (lane_index() == 0) mean[row] = dot;
  if (!problem.has_own) return;

  const T weight = DeviceMath::exp(problem.own_logit(b, h, i) - log_sum.at(b, h, i));
  const T factor = problem.factor(b, h, i, problem.keys);
  const T* const value = problem.own_value.head(b, h).row(i);
  const T along = Lanes::sum<T>(n, [&](std::int64_t e) { return g[e] * value[e]; });
  const T gradient = problem.logit_scale * weight * (factor * along - dot);
  if (lane_index() == 0) own_part[row] = gradient;
  const auto store = [&](const HeadsOperand<T>& to, T scale, const T* from) {
    if (!to) return;
    T* const target = to.head(b, h).row(i);
    Lanes::each(to.width, [&](std::int64_t d) { target[d] = scale * from[d]; });
  };
  store(gown_value, weight * factor, g);
  store(gown_key, gradient, problem.q.head(b, h).row(i));
}

/// gq and gbias, either of which may be absent.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_backward_queries(const __grid_constant__ AttentionProblem<T> problem,
                               const __grid_constant__ BackwardInputs<T> inputs,
                               const HeadsOperand<T> gq, const HeadsOperand<T> gbias,
                               std::int64_t tiles, std::int64_t panels) {
  __shared__ Tile<T> x_tile, y_tile, dlogits;
  __shared__ Panel<T> panel;
  const Job job = job_of(problem, tiles, panels);
  const HeadRows<const T> q = problem.q.head(job.b, job.h).from(job.first);
  const HeadRows<const T> k = problem.k.head(job.b, job.h);
  const HeadRows<const T> v = problem.v.head(job.b, job.h);
  const HeadRows<const T> gout = inputs.gout.head(job.b, job.h).from(job.first);
  const std::int64_t last = q.count < kTile ? problem.queries : job.first + kTile;
  // gbias has zeros where nothing is seen, so that all keys are gone through.
  const std::int64_t end = gbias ? problem.keys : problem.visible(last - 1);

  Results<T> results = {};
  for (std::int64_t first_key = 0; first_key < end; first_key += kTile) {
    Scores<T> products = {}, along = {};
    add_products(q, k.from(first_key), x_tile, y_tile, products);
    add_products(gout, v.from(first_key), x_tile, y_tile, along);
#pragma unroll
    for (int a = 0; a < kMyRows; ++a) {
      const std::int64_t i = job.first + tile_row(a);
#pragma unroll
      for (int b = 0; b < kMyColumns; ++b) {
        const std::int64_t j = first_key + tile_column(b);
        const ScoreGradient<T> score(problem, inputs, job, i, j, products[a][b], along[a][b]);
        dlogits[tile_row(a)][tile_column(b)] = score.dlogit;
        if (gbias && job.first_column == 0 && i < problem.queries && j < problem.keys)
          gbias.head(job.b, job.h).row(i)[j] = problem.inverse_temperature * score.dlogit;
      }
    }
    if (gq) add_weighted(dlogits, k.from(first_key), job.first_column, panel, results);
  }

  if (!gq) return;
#pragma unroll
  for (int a = 0; a < kMyRows; ++a) {
    if (tile_row(a) >= q.count) continue;
    const std::int64_t i = job.first + tile_row(a);
#pragma unroll
    for (int c = 0; c < kMyPanel; ++c) {
      const std::int64_t column = job.first_column + tile_column(c);
      if (column >= gq.width) continue;
      T gradient = problem.logit_scale * results[a][c];
      if (problem.has_own) {
        gradient += inputs.own_part[problem.row(job.b, job.h, i)] *
                    problem.own_key.head(job.b, job.h).row(i)[column];
      }
      gq.head(job.b, job.h).row(i)[column] = gradient;
    }
  }
}

/// gk and gv, either of which may be absent.
template <class T>
__global__ void __launch_bounds__(kTileThreads, 1)
    attention_backward_keys(const __grid_constant__ AttentionProblem<T> problem,
                            const __grid_constant__ BackwardInputs<T> inputs,
                            const HeadsOperand<T> gk, const HeadsOperand<T> gv, std::int64_t tiles,
                            std::int64_t panels) {
  __shared__ Tile<T> weights, dlogits;  // before that, the operands' tiles
  __shared__ Panel<T> panel;
  const Job job = job_of(problem, tiles, panels);
  const HeadRows<const T> q = problem.q.head(job.b, job.h);
  const HeadRows<const T> k = problem.k.head(job.b, job.h).from(job.first);
  const HeadRows<const T> v = problem.v.head(job.b, job.h).from(job.first);
  const HeadRows<const T> gout = inputs.gout.head(job.b, job.h);

  Results<T> key_results = {}, value_results = {};
  // From the first query that sees the first key of the tile, down to a whole tile.
  for (std::int64_t first_query = problem.first_query(job.first) / kTile * kTile;
       first_query < problem.queries; first_query += kTile) {
    Scores<T> products = {}, along = {};
    add_products(k, q.from(first_query), weights, dlogits, products);
    add_products(v, gout.from(first_query), weights, dlogits, along);
    __syncthreads();  // the operands' tiles become those of weights and gradients
#pragma unroll
    for (int a = 0; a < kMyRows; ++a) {
      const std::int64_t j = job.first + tile_row(a);
#pragma unroll
      for (int b = 0; b < kMyColumns; ++b) {
        const std::int64_t i = first_query + tile_column(b);
        const ScoreGradient<T> score(problem, inputs, job, i, j, products[a][b], along[a][b]);
        weights[tile_row(a)][tile_column(b)] = score.weight;
        dlogits[tile_row(a)][tile_column(b)] = score.dlogit;
      }
    }
    if (gv) add_weighted(weights, gout.from(first_query), job.first_column, panel, value_results);
    if (gk) add_weighted(dlogits, q.from(first_query), job.first_column, panel, key_results);
  }

  const auto store = [&](const HeadsOperand<T>& to, T scale, const Results<T>& results) {
    if (!to) return;
    const HeadRows<T> target = to.head(job.b, job.h).from(job.first);
#pragma unroll
    for (int a = 0; a < kMyRows; ++a) {
      if (tile_row(a) >= target.count) continue;
#pragma unroll
      for (int c = 0; c < kMyPanel; ++c) {
        const std::int64_t column = job.first_column + tile_column(c);
        if (column < target.width) target.row(tile_row(a))[column] = scale * results[a][c];
      }
    }
  };
  store(gv, T{1}, value_results);
  store(gk, problem.logit_scale, key_results);
}

}  // namespace device

// As attention; gq, gk, gv, gown_key, gown_value as q, k, v, own_key, own_value; gbias [B,H,T,S].
void attention_backward(Context& context, View q, View k, View v, View mask, View bias,
                        View own_key, View own_value, const AttentionOptions& options, View out,
                        View log_sum, View gout, MutView gq, MutView gk, MutView gv, MutView gbias,
                        MutView gown_key, MutView gown_value) {
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto problem = attention_problem<T>(q, k, v, mask, bias, own_key, own_value, options);
    const std::int64_t heads = problem.batch * problem.heads;
    const std::int64_t rows = heads * problem.queries;
    const Workspace<T> row_terms(context, 2 * rows);
    const device::BackwardInputs<T> inputs{
        heads_operand<const T>(out), heads_operand<const T>(gout),
        queries_operand<const T>(log_sum), row_terms.data(), row_terms.data() + rows};
    launch(context, "attention_backward_rows", device::attention_backward_rows<T>,
           Grid::of_warps(rows), problem, inputs.out, inputs.gout, inputs.log_sum, row_terms.data(),
           row_terms.data() + rows, heads_operand<T>(gown_key), heads_operand<T>(gown_value));
    if (gq.data || gbias.data) {
      const std::int64_t tiles = tiles_of(problem.queries);
      const std::int64_t panels = gq.data ? panels_of(problem.q.width) : 1;
      launch(context, "attention_backward_queries", device::attention_backward_queries<T>,
             Grid{heads * tiles * panels, device::kTileThreads}, problem, inputs,
             heads_operand<T>(gq), heads_operand<T>(gbias), tiles, panels);
    }
    if (gk.data || gv.data) {
      const std::int64_t tiles = tiles_of(problem.keys);
      const std::int64_t panels = std::max(gk.data ? panels_of(problem.k.width) : 1,
                                           gv.data ? panels_of(problem.v.width) : 1);
      launch(context, "attention_backward_keys", device::attention_backward_keys<T>,
             Grid{heads * tiles * panels, device::kTileThreads}, problem, inputs,
             heads_operand<T>(gk), heads_operand<T>(gv), tiles, panels);
    }
  });
}

}  // namespace mf::cuda
