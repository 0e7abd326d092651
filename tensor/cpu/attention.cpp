#include <algorithm>

#include "tensor/cpu/dropout.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/product.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/vector_math.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

/// Element (b, h, 0, 0) of a [B, H, ., .] view.
template <class T, class V>
auto head_start(const V& view, std::int64_t b, std::int64_t h) {
  return view.template as<T>() + b * view.strides[0] + h * view.strides[1];
}

template <class T>
Matrix<const T> head(const View& view, std::int64_t b, std::int64_t h) {
  return {head_start<T>(view, b, h), view.shape[2], view.shape[3], view.strides[2],
          view.strides[3]};
}

template <class T>
Matrix<T> head(const MutView& view, std::int64_t b, std::int64_t h) {
  return {head_start<T>(view, b, h), view.shape[2], view.shape[3], view.strides[2],
          view.strides[3]};
}

/// What forward and backward share: shapes, scales, and the logits of a block of queries.
template <class T>
class Problem {
 public:
  Problem(const View& q, const View& k, const View& v, const View& mask, const View& bias,
          const AttentionOptions& options)
      : batch(q.shape[0]),
        heads(q.shape[1]),
        queries(q.shape[2]),
        keys(k.shape[2]),
        width(q.shape[3]),
        value_width(v.shape[3]),
        logit_scale(static_cast<T>(scale_of(options, width) / options.temperature)),
        inverse_temperature(static_cast<T>(1.0 / options.temperature)),
        dropout_scale(static_cast<T>(DropoutRule(options.dropout, options.key).scale)),
        q_(q),
        k_(k),
        mask_(mask),
        bias_(bias),
        causal_(options.causal),
        drops_(options.dropout > 0.0),
        rule_(options.dropout, options.key) {}

  const std::int64_t batch, heads, queries, keys, width, value_width;
  const T logit_scale;          ///< d logit / d (q . k)
  const T inverse_temperature;  ///< d logit / d bias
  const T dropout_scale;

  /// Calls fn(b, h) for every head, in parallel.
  template <class F>
  void for_heads(const F& fn) const {
    const std::int64_t cost = queries * keys * (width + value_width + 16) / 4;
    for_chunks(batch * heads, cost, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t job = begin; job < end; ++job) fn(job / heads, job % heads);
    });
  }

  /// Queries whose scores are held at a time: a block of scores should fit the L2 cache.
  std::int64_t block_rows() const {
    constexpr std::int64_t kScores = 64 * 1024;
    constexpr std::int64_t kLeast = 32;  // fewer rows make slow products
    return std::min(queries, std::max(kLeast, kScores / std::max<std::int64_t>(keys, 1)));
  }

  /// Keys 0..visible-1 are those that the causal rule lets query i see.
  std::int64_t visible(std::int64_t i) const {
    if (!causal_) return keys;
    return std::clamp<std::int64_t>(i + 1 + keys - queries, 0, keys);
  }

  /// scores [rows, keys] = logits of queries first.., for the keys that any of them sees. Beyond
  /// visible(i) a row is not meaningful.
  void logits(std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t rows,
              T* scores) const {
    const std::int64_t columns = visible(first + rows - 1);
    const auto key = head<T>(k_, b, h).row_block(0, columns);
    product<T>(head<T>(q_, b, h).row_block(first, rows), key.transposed(),
               {scores, rows, columns, keys, 1}, {logit_scale});
    for (std::int64_t r = 0; r < rows; ++r) {
      T* const row = scores + r * keys;
      const std::int64_t n = visible(first + r);
      if (bias_.data) add_bias(head_start<T>(bias_, b, h) + (first + r) * bias_.strides[2], n, row);
      if (mask_.data)
        hide(head_start<std::uint8_t>(mask_, b, h) + (first + r) * mask_.strides[2], n, row);
    }
  }

  bool drops() const { return drops_; }
  /// row_j = keep(b, h, i, j) ? row_j * dropout_scale : 0 for j < n.
  void drop(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t n, T* row) const {
    const auto start = static_cast<std::uint64_t>(((b * heads + h) * queries + i) * keys);
    const T scale = dropout_scale;
    const DropoutRule rule = rule_;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const T kept = row[j] * scale;
      row[j] = rule.keep(start + static_cast<std::uint64_t>(j)) ? kept : T{0};
    }
  }

 private:
  static double scale_of(const AttentionOptions& options, std::int64_t width) {
    return options.scale != 0.0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(width));
  }

  void add_bias(const T* bias, std::int64_t n, T* row) const {
    const std::int64_t step = bias_.strides[3];
    const T scale = inverse_temperature;
    if (step == 1) {
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) row[j] += bias[j] * scale;
    } else {
      for (std::int64_t j = 0; j < n; ++j) row[j] += bias[j * step] * scale;
    }
  }

  void hide(const std::uint8_t* mask, std::int64_t n, T* row) const {
    constexpr T kHidden = -std::numeric_limits<T>::infinity();
    const std::int64_t step = mask_.strides[3];
    if (step == 1) {
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) row[j] = mask[j] != 0 ? row[j] : kHidden;
    } else {
      for (std::int64_t j = 0; j < n; ++j) row[j] = mask[j * step] != 0 ? row[j] : kHidden;
    }
  }

  const View &q_, &k_, &mask_, &bias_;
  bool causal_;
  bool drops_;
  DropoutRule rule_;
};

/// row [n] = softmax(row), zeros if all are -inf; returns logsumexp(row).
template <class T>
T softmax_in_place(T* row, std::int64_t n) {
  const T shift = exp_shift(row, n);
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) row[j] = VectorMath::exp(row[j] - shift);
  const T sum = sum_of(row, n);
  const T scale = sum == T{0} ? T{0} : T{1} / sum;
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) row[j] *= scale;
  return shift + std::log(sum);
}

/// row [n] = exp(row - log_sum), zeros if log_sum is -inf.
template <class T>
void weights_in_place(T log_sum, std::int64_t n, T* row) {
  if (log_sum == -std::numeric_limits<T>::infinity()) {
    std::fill_n(row, n, T{0});
    return;
  }
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) row[j] = VectorMath::exp(row[j] - log_sum);
}

/// The gradients of one head. Per block of queries, with P the weights, F the dropout factors (0 or
/// 1/(1-p)), A = P F and dA = gout v^T:
///   gv += A^T gout,  dlogit = P (F dA - D),  D_i = sum_j P_ij F_ij dA_ij = gout_i . out_i,
///   gbias = dlogit / temperature,  gq = logit_scale dlogit k,  gk += logit_scale dlogit^T q.
template <class T>
class HeadBackward {
 public:
  HeadBackward(const Problem<T>& problem, std::int64_t b, std::int64_t h)
      : problem_(problem),
        b_(b),
        h_(h),
        weights_(problem.block_rows() * problem.keys),
        gradients_(problem.block_rows() * problem.keys) {}

  void run(const View& q, const View& k, const View& v, const View& out, const View& log_sum,
           const View& gout, const MutView& gq, const MutView& gk, const MutView& gv,
           const MutView& gbias) {
    clear(gk);
    clear(gv);
    const std::int64_t step = problem_.block_rows();
    for (std::int64_t first = 0; first < problem_.queries; first += step) {
      const std::int64_t rows = std::min(step, problem_.queries - first);
      const std::int64_t columns = problem_.visible(first + rows - 1);
      const Matrix<T> weights{weights_.data(), rows, columns, problem_.keys, 1};
      const Matrix<T> gradients{gradients_.data(), rows, columns, problem_.keys, 1};
      const auto gout_rows = head<T>(gout, b_, h_).row_block(first, rows);

      problem_.logits(b_, h_, first, rows, weights.data);
      for (std::int64_t r = 0; r < rows; ++r)
        normalise(log_sum, first + r, columns, row(weights, r));
      product<T>(gout_rows, head<T>(v, b_, h_).row_block(0, columns).transposed(), gradients);
      for (std::int64_t r = 0; r < rows; ++r) {
        logit_gradient(row_dot(gout, out, first + r), first + r, columns, row(weights, r),
                       row(gradients, r));
      }
      if (gv.data) {
        drop_weights(first, weights);
        accumulate_product<T>(weights.transposed(), gout_rows,
                              head<T>(gv, b_, h_).row_block(0, columns), T{1});
      }
      if (gq.data) {
        product<T>(gradients, head<T>(k, b_, h_).row_block(0, columns),
                   head<T>(gq, b_, h_).row_block(first, rows), {problem_.logit_scale});
      }
      if (gk.data) {
        accumulate_product<T>(gradients.transposed(), head<T>(q, b_, h_).row_block(first, rows),
                              head<T>(gk, b_, h_).row_block(0, columns), problem_.logit_scale);
      }
      if (gbias.data) store_bias_gradient(gbias, first, gradients);
    }
  }

 private:
  static T* row(const Matrix<T>& matrix, std::int64_t r) {
    return matrix.data + r * matrix.row_stride;
  }

  void clear(const MutView& gradient) const {
    if (!gradient.data) return;
    const auto matrix = head<T>(gradient, b_, h_);
    for (std::int64_t r = 0; r < matrix.rows; ++r)
      std::fill_n(row(matrix, r), matrix.columns, T{0});
  }

  T row_dot(const View& x, const View& y, std::int64_t i) const {
    const T* const a = head_start<T>(x, b_, h_) + i * x.strides[2];
    const T* const b = head_start<T>(y, b_, h_) + i * y.strides[2];
    return dot(a, b, problem_.value_width);
  }

  void normalise(const View& log_sum, std::int64_t i, std::int64_t columns, T* weights) const {
    const std::int64_t n = problem_.visible(i);
    weights_in_place(head_start<T>(log_sum, b_, h_)[i * log_sum.strides[2]], n, weights);
    std::fill(weights + n, weights + columns, T{0});
  }

  /// gradient [columns] from dA to dlogit.
  void logit_gradient(T mean, std::int64_t i, std::int64_t columns, const T* weights,
                      T* gradient) const {
    if (problem_.drops()) problem_.drop(b_, h_, i, columns, gradient);
#pragma omp simd
    for (std::int64_t j = 0; j < columns; ++j) gradient[j] = weights[j] * (gradient[j] - mean);
  }

  void drop_weights(std::int64_t first, const Matrix<T>& weights) const {
    if (!problem_.drops()) return;
    for (std::int64_t r = 0; r < weights.rows; ++r)
      problem_.drop(b_, h_, first + r, weights.columns, row(weights, r));
  }

  void store_bias_gradient(const MutView& gbias, std::int64_t first,
                           const Matrix<T>& gradients) const {
    const T scale = problem_.inverse_temperature;
    for (std::int64_t r = 0; r < gradients.rows; ++r) {
      const T* const from = row(gradients, r);
      T* const to = head_start<T>(gbias, b_, h_) + (first + r) * gbias.strides[2];
#pragma omp simd
      for (std::int64_t j = 0; j < gradients.columns; ++j) to[j] = from[j] * scale;
      std::fill(to + gradients.columns, to + problem_.keys, T{0});
    }
  }

  const Problem<T>& problem_;
  std::int64_t b_, h_;
  Scratch<T> weights_, gradients_;
};

}  // namespace

// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E], mask, bias, map [B,H,T,S], out [B,H,T,E], log_sum [B,H,T].
void attention(Context&, View q, View k, View v, View mask, View bias,
               const AttentionOptions& options, MutView out, MutView log_sum, MutView map) {
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Problem<T> problem(q, k, v, mask, bias, options);
    problem.for_heads([&](std::int64_t b, std::int64_t h) {
      const std::int64_t step = problem.block_rows();
      const Scratch<T> scores(step * problem.keys);
      for (std::int64_t first = 0; first < problem.queries; first += step) {
        const std::int64_t rows = std::min(step, problem.queries - first);
        const std::int64_t columns = problem.visible(first + rows - 1);
        problem.logits(b, h, first, rows, scores.data());
        for (std::int64_t r = 0; r < rows; ++r) {
          const std::int64_t i = first + r;
          const std::int64_t n = problem.visible(i);
          T* const row = scores.data() + r * problem.keys;
          head_start<T>(log_sum, b, h)[i * log_sum.strides[2]] = softmax_in_place(row, n);
          if (problem.drops()) problem.drop(b, h, i, n, row);
          std::fill(row + n, row + (map.data ? problem.keys : columns), T{0});
          if (map.data) {
            std::copy_n(row, problem.keys, head_start<T>(map, b, h) + i * map.strides[2]);
          }
        }
        product<T>({scores.data(), rows, columns, problem.keys, 1},
                   head<T>(v, b, h).row_block(0, columns),
                   head<T>(out, b, h).row_block(first, rows));
      }
    });
  });
}

// As attention; gq, gk, gv as q, k, v; gbias [B,H,T,S].
void attention_backward(Context&, View q, View k, View v, View mask, View bias,
                        const AttentionOptions& options, View out, View log_sum, View gout,
                        MutView gq, MutView gk, MutView gv, MutView gbias) {
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Problem<T> problem(q, k, v, mask, bias, options);
    problem.for_heads([&](std::int64_t b, std::int64_t h) {
      HeadBackward<T>(problem, b, h).run(q, k, v, out, log_sum, gout, gq, gk, gv, gbias);
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
