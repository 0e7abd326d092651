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
          const View& own_key, const AttentionOptions& options)
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
        own_key_(own_key),
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
    for_chunks(batch * heads, cost(queries), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t job = begin; job < end; ++job) fn(job / heads, job % heads);
    });
  }

  /// Calls fn(b, h, first, rows) for every block of queries of every head, in parallel; for
  /// forward, where no sum goes over the queries.
  template <class F>
  void for_blocks(const F& fn) const {
    const std::int64_t step = job_rows();
    const std::int64_t blocks = step > 0 ? (queries + step - 1) / step : 0;
    for_chunks(batch * heads * blocks, cost(step), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t job = begin; job < end; ++job) {
        const std::int64_t head = job / blocks, first = job % blocks * step;
        fn(head / heads, head % heads, first, std::min(step, queries - first));
      }
    });
  }

  /// Queries whose scores are held at a time: a block of scores should fit the L2 cache, and with
  /// the causal rule a small one has fewer scores that nobody sees. It follows from the shapes
  /// alone, as sums over a block depend on its borders.
  std::int64_t block_rows() const {
    constexpr std::int64_t kScores = 64 * 1024;
    constexpr std::int64_t kCausal = 64;
    const std::int64_t fitting = std::max(kLeastRows, kScores / std::max<std::int64_t>(keys, 1));
    return std::min(queries, causal_ ? std::min(kCausal, fitting) : fitting);
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

  bool has_own() const { return own_key_.data != nullptr; }
  /// The logit of query i with its own key; -inf, which weighs nothing, if it has none.
  T own_logit(std::int64_t b, std::int64_t h, std::int64_t i) const {
    if (!has_own()) return -std::numeric_limits<T>::infinity();
    return logit_scale * dot(head_start<T>(q_, b, h) + i * q_.strides[2],
                             head_start<T>(own_key_, b, h) + i * own_key_.strides[2], width);
  }

  bool drops() const { return drops_; }
  /// The dropout factor of query i's own weight, 0 or 1/(1-p).
  T own_factor(std::int64_t b, std::int64_t h, std::int64_t i) const {
    if (!drops_) return T{1};
    return rule_.keep(first_weight(b, h, i) + static_cast<std::uint64_t>(keys)) ? dropout_scale
                                                                                : T{0};
  }
  /// row_j = keep(b, h, i, j) ? row_j * dropout_scale : 0 for j < n.
  void drop(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t n, T* row) const {
    const std::uint64_t start = first_weight(b, h, i);
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

  static constexpr std::int64_t kLeastRows = 32;  // fewer make slow products

  /// Rows of a block of forward: those of a block, or fewer where heads are too few for the
  /// threads. Without the causal rule a row's result does not depend on the rows of its block, so
  /// that its bits do not depend on the threads.
  std::int64_t job_rows() const {
    if (causal_ || threads() == 1) return block_rows();
    const std::int64_t jobs = 2 * threads();
    const std::int64_t shares = jobs / std::max<std::int64_t>(1, batch * heads) + 1;
    return std::min(block_rows(), std::max(kLeastRows, (queries + shares - 1) / shares));
  }

  /// Elementary operations of forward for so many queries; backward takes about twice as many.
  std::int64_t cost(std::int64_t rows) const {
    return rows * (keys + 1) * (width + value_width + 16) / 4;
  }

  /// Dropout element of query i's first weight.
  std::uint64_t first_weight(std::int64_t b, std::int64_t h, std::int64_t i) const {
    const std::int64_t weights = keys + (has_own() ? 1 : 0);
    return static_cast<std::uint64_t>(((b * heads + h) * queries + i) * weights);
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

  const View &q_, &k_, &mask_, &bias_, &own_key_;
  bool causal_;
  bool drops_;
  DropoutRule rule_;
};

/// e^x, where x is often -inf: a mask makes it so, and the underflow inside exp costs a hundred
/// cycles.
template <class T>
[[gnu::always_inline]] inline T weight_of(T x) {
  const bool hidden = x == -std::numeric_limits<T>::infinity();
  const T weight = VectorMath::exp(hidden ? T{0} : x);
  return hidden ? T{0} : weight;
}

/// row [n] and own = softmax over all of them, zeros if all are -inf; returns their logsumexp.
template <class T>
T softmax_in_place(T* row, std::int64_t n, T& own) {
  const T largest = std::max(max_of(row, n), own);
  const T shift = std::isfinite(largest) ? largest : T{0};
  own = weight_of(own - shift);
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) row[j] = weight_of(row[j] - shift);
  const T sum = own + sum_of(row, n);
  const T scale = sum == T{0} ? T{0} : T{1} / sum;
  own *= scale;
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) row[j] *= scale;
  return shift + std::log(sum);
}

/// to [n] = factor * from.
template <class T>
void scaled_copy(T factor, const T* from, std::int64_t n, T* to) {
#pragma omp simd
  for (std::int64_t j = 0; j < n; ++j) to[j] = factor * from[j];
}

/// What backward gets and makes, besides the inputs of forward.
struct BackwardViews {
  const View &out, &log_sum, &gout;
  const MutView &gq, &gk, &gv, &gbias, &gown_key, &gown_value;
};

/// The gradients of one head. Per block of queries, with P the weights, F the dropout factors (0 or
/// 1/(1-p)), A = P F and dA = gout v^T:
///   gv += A^T gout,  dlogit = P (F dA - D),  D_i = sum_j P_ij F_ij dA_ij = gout_i . out_i,
///   gbias = dlogit / temperature,  gq = logit_scale dlogit k,  gk += logit_scale dlogit^T q.
/// A query's own key and value are one more column of P, F and dA.
template <class T>
class HeadBackward {
 public:
  HeadBackward(const Problem<T>& problem, const View& q, const View& k, const View& v,
               const View& own_key, const View& own_value, const BackwardViews& views,
               std::int64_t b, std::int64_t h)
      : problem_(problem),
        q_(q),
        k_(k),
        v_(v),
        own_key_(own_key),
        own_value_(own_value),
        views_(views),
        b_(b),
        h_(h),
        weights_(problem.block_rows() * problem.keys),
        gradients_(problem.block_rows() * problem.keys) {}

  void run() {
    clear(views_.gk);
    clear(views_.gv);
    const std::int64_t step = problem_.block_rows();
    for (std::int64_t first = 0; first < problem_.queries; first += step)
      add_block(first, std::min(step, problem_.queries - first));
  }

 private:
  void add_block(std::int64_t first, std::int64_t rows) {
    const std::int64_t columns = problem_.visible(first + rows - 1);
    const Matrix<T> weights{weights_.data(), rows, columns, problem_.keys, 1};
    const Matrix<T> gradients{gradients_.data(), rows, columns, problem_.keys, 1};
    const auto gout = head<T>(views_.gout, b_, h_).row_block(first, rows);

    problem_.logits(b_, h_, first, rows, weights.data);
    product<T>(gout, head<T>(v_, b_, h_).row_block(0, columns).transposed(), gradients);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t i = first + r;
      const T log_sum = head_start<T>(views_.log_sum, b_, h_)[i * views_.log_sum.strides[2]];
      const T mean = dot(at(views_.gout, i), at(views_.out, i), problem_.value_width);
      if (problem_.has_own()) add_own(log_sum, mean, i);
      logit_gradient(log_sum, mean, i, columns, row(weights, r), row(gradients, r));
    }
    if (views_.gv.data) {
      drop_weights(first, weights);
      accumulate_product<T>(weights.transposed(), gout,
                            head<T>(views_.gv, b_, h_).row_block(0, columns), T{1});
    }
    if (views_.gq.data) {
      const auto gq = head<T>(views_.gq, b_, h_).row_block(first, rows);
      // With own keys, their part of gq is already there.
      const T* const base = problem_.has_own() ? gq.data : nullptr;
      product<T>(gradients, head<T>(k_, b_, h_).row_block(0, columns), gq,
                 {problem_.logit_scale, base, gq.row_stride});
    }
    if (views_.gk.data) {
      accumulate_product<T>(gradients.transposed(), head<T>(q_, b_, h_).row_block(first, rows),
                            head<T>(views_.gk, b_, h_).row_block(0, columns), problem_.logit_scale);
    }
    if (views_.gbias.data) store_bias_gradient(first, gradients);
  }

  /// Row i of a [B, H, T, .] view in this head.
  const T* at(const View& view, std::int64_t i) const {
    return head_start<T>(view, b_, h_) + i * view.strides[2];
  }
  T* at(const MutView& view, std::int64_t i) const {
    return head_start<T>(view, b_, h_) + i * view.strides[2];
  }
  static T* row(const Matrix<T>& matrix, std::int64_t r) {
    return matrix.data + r * matrix.row_stride;
  }

  void clear(const MutView& gradient) const {
    if (!gradient.data) return;
    const auto matrix = head<T>(gradient, b_, h_);
    for (std::int64_t r = 0; r < matrix.rows; ++r)
      std::fill_n(row(matrix, r), matrix.columns, T{0});
  }

  /// The gradients of query i's own key and value, and their part of gq_i.
  void add_own(T log_sum, T mean, std::int64_t i) const {
    const T weight = weight_of(problem_.own_logit(b_, h_, i) - log_sum);
    const T factor = problem_.own_factor(b_, h_, i);
    const T along = dot(at(views_.gout, i), at(own_value_, i), problem_.value_width);
    const T gradient = problem_.logit_scale * weight * (factor * along - mean);
    const auto store = [&](const MutView& to, T scale, const View& from, std::int64_t n) {
      if (to.data) scaled_copy(scale, at(from, i), n, at(to, i));
    };
    store(views_.gown_value, weight * factor, views_.gout, problem_.value_width);
    store(views_.gown_key, gradient, q_, problem_.width);
    store(views_.gq, gradient, own_key_, problem_.width);
  }

  /// weights [columns] from logits to P, gradients from dA to dlogit.
  void logit_gradient(T log_sum, T mean, std::int64_t i, std::int64_t columns, T* weights,
                      T* gradients) const {
    const std::int64_t n = problem_.visible(i);
    if (problem_.drops()) problem_.drop(b_, h_, i, n, gradients);
    // Where a query sees nothing all logits are -inf, as is log_sum: their difference would be NaN.
    const T shift = log_sum == -std::numeric_limits<T>::infinity() ? T{0} : log_sum;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const T weight = weight_of(weights[j] - shift);
      weights[j] = weight;
      gradients[j] = weight * (gradients[j] - mean);
    }
    std::fill(weights + n, weights + columns, T{0});
    std::fill(gradients + n, gradients + columns, T{0});
  }

  void drop_weights(std::int64_t first, const Matrix<T>& weights) const {
    if (!problem_.drops()) return;
    for (std::int64_t r = 0; r < weights.rows; ++r)
      problem_.drop(b_, h_, first + r, weights.columns, row(weights, r));
  }

  void store_bias_gradient(std::int64_t first, const Matrix<T>& gradients) const {
    for (std::int64_t r = 0; r < gradients.rows; ++r) {
      T* const to = at(views_.gbias, first + r);
      scaled_copy(problem_.inverse_temperature, row(gradients, r), gradients.columns, to);
      std::fill(to + gradients.columns, to + problem_.keys, T{0});
    }
  }

  const Problem<T>& problem_;
  const View &q_, &k_, &v_, &own_key_, &own_value_;
  const BackwardViews& views_;
  std::int64_t b_, h_;
  Scratch<T> weights_, gradients_;
};

}  // namespace

// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E], mask, bias [B,H,T,S], own_key [B,H,T,D], own_value, out
// [B,H,T,E], log_sum [B,H,T], map [B,H,T,S or S+1].
void attention(Context&, View q, View k, View v, View mask, View bias, View own_key, View own_value,
               const AttentionOptions& options, MutView out, MutView log_sum, MutView map) {
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Problem<T> problem(q, k, v, mask, bias, own_key, options);
    problem.for_blocks([&](std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t rows) {
      const std::int64_t keys = problem.keys, columns = problem.visible(first + rows - 1);
      const auto result = head<T>(out, b, h).row_block(first, rows);
      const Scratch<T> scores(rows * keys);
      problem.logits(b, h, first, rows, scores.data());
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t i = first + r, n = problem.visible(i);
        T* const row = scores.data() + r * keys;
        T own = problem.own_logit(b, h, i);
        head_start<T>(log_sum, b, h)[i * log_sum.strides[2]] = softmax_in_place(row, n, own);
        if (problem.drops()) {
          problem.drop(b, h, i, n, row);
          own *= problem.own_factor(b, h, i);
        }
        std::fill(row + n, row + (map.data ? keys : columns), T{0});
        if (map.data) {
          T* const weights = head_start<T>(map, b, h) + i * map.strides[2];
          std::copy_n(row, keys, weights);
          if (problem.has_own()) weights[keys] = own;
        }
        if (problem.has_own()) {
          scaled_copy(own, head_start<T>(own_value, b, h) + i * own_value.strides[2],
                      problem.value_width, result.data + r * result.row_stride);
        }
      }
      // With own values, their part of out is already there.
      product<T>({scores.data(), rows, columns, keys, 1}, head<T>(v, b, h).row_block(0, columns),
                 result, {T{1}, problem.has_own() ? result.data : nullptr, result.row_stride});
    });
  });
}

// As attention; gq, gk, gv, gown_key, gown_value as q, k, v, own_key, own_value; gbias [B,H,T,S].
void attention_backward(Context&, View q, View k, View v, View mask, View bias, View own_key,
                        View own_value, const AttentionOptions& options, View out, View log_sum,
                        View gout, MutView gq, MutView gk, MutView gv, MutView gbias,
                        MutView gown_key, MutView gown_value) {
  const BackwardViews views{out, log_sum, gout, gq, gk, gv, gbias, gown_key, gown_value};
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Problem<T> problem(q, k, v, mask, bias, own_key, options);
    problem.for_heads([&](std::int64_t b, std::int64_t h) {
      HeadBackward<T>(problem, q, k, v, own_key, own_value, views, b, h).run();
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
