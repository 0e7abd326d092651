#pragma once

#include "cuda/team.cuh"

/// Sums of long ranges in one fixed order: a warp sums a chunk of fixed length, then the chunks'
/// sums are summed in the same way until one is left. Borders follow from the lengths alone.
namespace mf::cuda {
namespace device {

/// y [rows, chunks] = the sums of Acc(term(row * n + i)) over the chunks of each row of n.
template <class Acc, class Out, class Term>
struct ChunkSums {
  static constexpr std::int64_t kChunk = 1024;
  Term term;
  std::int64_t n, chunks;
  Out* y;

  template <class Team>
  __device__ void run(std::int64_t job) const {
    const std::int64_t row = job / chunks;
    const std::int64_t first = job % chunks * kChunk;
    const std::int64_t length = n - first < kChunk ? n - first : kChunk;
    const Acc sum = Team::template sum<Acc>(
        length, [&](std::int64_t i) { return static_cast<Acc>(term(row * n + first + i)); });
    if (Team::rank() == 0) y[job] = static_cast<Out>(sum);
  }
};

template <class T>
struct Element {
  const T* x;
  __device__ T operator()(std::int64_t i) const { return x[i]; }
};

}  // namespace device

/// y [rows] = the sums of term(row * n), .., term(row * n + n - 1), accumulated in Acc.
template <class Acc, class Out, class Term>
void sum_rows(Context& context, const char* name, const Term& term, std::int64_t rows,
              std::int64_t n, Out* y) {
  constexpr std::int64_t kChunk = device::ChunkSums<Acc, Out, Term>::kChunk;
  const std::int64_t chunks = ceil_div(n, kChunk);
  const auto run = [&](const auto& f, std::int64_t jobs) {
    using F = std::decay_t<decltype(f)>;
    launch(context, name, device::each_row<kWarp, F>, Grid::of_warps(jobs), f, jobs);
  };
  if (chunks <= 1) return run(device::ChunkSums<Acc, Out, Term>{term, n, 1, y}, rows);
  const Workspace<Acc> parts(context, rows * chunks);
  run(device::ChunkSums<Acc, Acc, Term>{term, n, chunks, parts.data()}, rows * chunks);
  sum_rows<Acc>(context, name, device::Element<Acc>{parts.data()}, rows, chunks, y);
}

}  // namespace mf::cuda
