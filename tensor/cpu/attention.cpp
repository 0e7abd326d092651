#include <algorithm>

#include "tensor/attention_sizes.h"
#include "tensor/cpu/kernels.h"
#include "tensor/cpu/panels.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/vector_math.h"
#include "tensor/dropout.h"
#include "tensor/formulas.h"

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

// A head is computed a few queries at a time, as many as a tile has rows: their logits and weights
// stay in the L1 cache, between products with keys and values that are packed once per head. Rows
// of weights are padded to whole vectors with zeros, which change no sum: so the bits of a query's
// result do not depend on the queries beside it.

/// What forward and backward share: shapes, scales, and what is done to a row of logits.
template <class T>
class Problem : public AttentionSizes {
 public:
  Problem(const View& q, const View& k, const View& v, const View& mask, const View& bias,
          const View& own_key, const AttentionOptions& options)
      : AttentionSizes(q, k, own_key, options),
        width(q.shape[3]),
        value_width(v.shape[3]),
        logit_scale(static_cast<T>(mf::logit_scale(q, options))),
        inverse_temperature(static_cast<T>(1.0 / options.temperature)),
        dropout_scale(static_cast<T>(DropoutRule(options.dropout, options.key).scale)),
        q_(q),
        k_(k),
        mask_(mask),
        bias_(bias),
        own_key_(own_key),
        drops_(options.dropout > 0.0),
        rule_(options.dropout, options.key) {}

  const std::int64_t width, value_width;
  const T logit_scale;          ///< d logit / d (q . k)
  const T inverse_temperature;  ///< d logit / d bias
  const T dropout_scale;

  /// Elements between rows of logits: whole vectors, and one more to keep off multiples of a page,
  /// whose elements would share a set of the L1 cache.
  std::int64_t row_stride() const { return Panels<T>::padded(keys) + kVector<T>; }

  /// Calls fn(begin, end) for ranges of heads b * heads + h, in parallel.
  template <class F>
  void for_heads(const F& fn) const {
    for_chunks(batch * heads, cost(queries), fn);
  }

  /// In how many parts forward takes the queries of a head: one, or more where heads are too few
  /// for the threads.
  std::int64_t parts() const {
    constexpr std::int64_t kLeastRows = 32;  // for which packing keys and values again is worth it
    if (threads() == 1 || batch * heads == 0) return 1;
    return std::clamp<std::int64_t>(queries / kLeastRows, 1,
                                    ceil_div(2 * threads(), batch * heads));
  }
  /// Calls fn(begin, end) for ranges of jobs head * parts() + part, in parallel.
  template <class F>
  void for_parts(const F& fn) const {
    for_chunks(batch * heads * parts(), cost(ceil_div(queries, parts())), fn);
  }

  /// row [n] from logit_scale q . k of query i to its logits; -inf, which weighs nothing, for keys
  /// that it does not see. n is a multiple of a vector.
  void finish_logits(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t n, T* row) const {
    const std::int64_t seen = visible(i);
    if (bias_.data) add_bias(head_start<T>(bias_, b, h) + i * bias_.strides[2], seen, row);
    if (mask_.data) hide(head_start<std::uint8_t>(mask_, b, h) + i * mask_.strides[2], seen, row);
    if (seen < n) std::fill(row + seen, row + n, -std::numeric_limits<T>::infinity());
  }

  /// The logit of query i with its own key; -inf, which weighs nothing, if it has none.
  T own_logit(std::int64_t b, std::int64_t h, std::int64_t i) const {
    if (!has_own) return -std::numeric_limits<T>::infinity();
    return logit_scale * dot(head_start<T>(q_, b, h) + i * q_.strides[2],
                             head_start<T>(own_key_, b, h) + i * own_key_.strides[2], width);
  }

  bool drops() const { return drops_; }
  /// The dropout factor of query i's own weight, 0 or 1/(1-p).
  T own_factor(std::int64_t b, std::int64_t h, std::int64_t i) const {
    if (!drops_) return T{1};
    return rule_.keep(weight(b, h, i, keys)) ? dropout_scale : T{0};
  }
  /// row_j = keep(b, h, i, j) ? row_j * dropout_scale : 0 for j < n.
  void drop(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t n, T* row) const {
    const std::uint64_t start = weight(b, h, i, 0);
    const T scale = dropout_scale;
    const DropoutRule rule = rule_;
#pragma omp simd
    for (std::int64_t j = 0; j < n; ++j) {
      const T kept = row[j] * scale;
      row[j] = rule.keep(start + static_cast<std::uint64_t>(j)) ? kept : T{0};
    }
  }

 private:
  /// Elementary operations of forward for so many queries; backward takes about twice as many.
  std::int64_t cost(std::int64_t rows) const {
    return rows * (keys + 1) * (width + value_width + 16) / 4;
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
  bool drops_;
  DropoutRule rule_;
};

/// row [n], whole vectors, and own from logits to e^(logit - shift), the weights but for a common
/// factor; shift is the largest logit, 0 if all are -inf.
template <class T>
void exponentiate(T* row, std::int64_t n, T& own, T& shift, T& sum) {
  const T largest = std::max(max_of(row, n), own);
  shift = std::isfinite(largest) ? largest : T{0};
  Vector<T> sums{};
  for (std::int64_t j = 0; j < n; j += kVector<T>) {
    T* const weights = row + j;
#pragma omp simd
    for (int l = 0; l < kVector<T>; ++l) weights[l] = VectorMath::exp(weights[l] - shift);
    sums += load(weights);
  }
  own = VectorMath::exp(own - shift);
  sum = fold<T>(sums) + own;
}

/// to [n] = factor * from.
template <class T>
void scaled_copy(T factor, const T* from, std::int64_t n, T* to) {
  std::int64_t j = 0;
  for (; j + kVector<T> <= n; j += kVector<T>) store(to + j, factor * load(from + j));
  if (j < n) store_first(to + j, factor * load_first(from + j, n - j), n - j);
}

/// to [n] += factor * from.
template <class T>
void add_scaled(T factor, const T* from, std::int64_t n, T* to) {
  std::int64_t j = 0;
  for (; j + kVector<T> <= n; j += kVector<T>)
    store(to + j, load(to + j) + factor * load(from + j));
  if (j < n) {
    const Vector<T> rest = load_first(to + j, n - j) + factor * load_first(from + j, n - j);
    store_first(to + j, rest, n - j);
  }
}

/// Forward, for some queries of a head after another.
template <class T>
class Forward {
 public:
  Forward(const Problem<T>& problem, const View& q, const View& k, const View& v,
          const View& own_value, const MutView& out, const MutView& log_sum, const MutView& map)
      : problem_(problem),
        q_(q),
        k_(k),
        v_(v),
        own_value_(own_value),
        out_(out),
        log_sum_(log_sum),
        map_(map),
        transposed_key_(problem.width, problem.keys),
        value_(problem.keys, problem.value_width),
        stride_(problem.row_stride()),
        weights_(kTileRows * stride_),
        result_stride_(Panels<T>::padded(problem.value_width)),
        result_(kTileRows * result_stride_) {}

  void run(std::int64_t b, std::int64_t h, const Part& rows) {
    transposed_key_.pack(head<T>(k_, b, h).transposed());
    value_.pack(head<T>(v_, b, h));
    const std::int64_t panels = ceil_div(rows.size, kTileRows);
    for (std::int64_t i = 0; i < panels; ++i) {
      const Part within = part(rows.size, panels, i);
      run_rows(b, h, rows.begin + within.begin, within.size);
    }
  }

 private:
  void run_rows(std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t rows) {
    const std::int64_t columns = problem_.visible(first + rows - 1);
    T* const weights = weights_.data();
    transposed_key_.multiply(head<T>(q_, b, h).row_block(first, rows), 0, columns,
                             problem_.logit_scale, weights, stride_);
    for (std::int64_t r = 0; r < rows; ++r) {
      T* const row = weights + r * stride_;
      problem_.finish_logits(b, h, first + r, Panels<T>::padded(columns), row);
      own_[r] = problem_.own_logit(b, h, first + r);
      exponentiate(row, Panels<T>::padded(columns), own_[r], shifts_[r], sums_[r]);
    }
    divide_by_sums(b, h, first, rows);
    if (problem_.drops() || map_.data)
      for (std::int64_t r = 0; r < rows; ++r) {
        T* const row = weights + r * stride_;
        if (problem_.drops()) {
          problem_.drop(b, h, first + r, columns, row);
          own_[r] *= problem_.own_factor(b, h, first + r);
        }
        if (map_.data) store_map(b, h, first + r, columns, scales_[r], row, own_[r]);
      }
    value_.multiply({weights, rows, columns, stride_, 1}, 0, problem_.value_width, T{1},
                    result_.data(), result_stride_);
    for (std::int64_t r = 0; r < rows; ++r) {
      T* const to = head_start<T>(out_, b, h) + (first + r) * out_.strides[2];
      scaled_copy(scales_[r], result_.data() + r * result_stride_, problem_.value_width, to);
      if (problem_.has_own)
        add_scaled(own_[r], head_start<T>(own_value_, b, h) + (first + r) * own_value_.strides[2],
                   problem_.value_width, to);
    }
  }

  /// The factors 1 / sum that make weights of the exponentials, own weights, and log_sum; for all
  /// rows at once, as a logarithm takes long to come.
  void divide_by_sums(std::int64_t b, std::int64_t h, std::int64_t first, std::int64_t rows) {
    T logs[kTileRows];
#pragma omp simd
    for (int r = 0; r < kTileRows; ++r) {
      scales_[r] = sums_[r] == T{0} ? T{0} : T{1} / sums_[r];
      own_[r] *= scales_[r];
      logs[r] = shifts_[r] + VectorMath::log(sums_[r]);
    }
    T* const to = head_start<T>(log_sum_, b, h) + first * log_sum_.strides[2];
    for (std::int64_t r = 0; r < rows; ++r) to[r * log_sum_.strides[2]] = logs[r];
  }

  /// The weights of query i; zeros for keys that it does not see.
  void store_map(std::int64_t b, std::int64_t h, std::int64_t i, std::int64_t columns, T scale,
                 const T* row, T own) const {
    T* const to = head_start<T>(map_, b, h) + i * map_.strides[2];
    scaled_copy(scale, row, columns, to);
    std::fill(to + columns, to + problem_.keys, T{0});
    if (problem_.has_own) to[problem_.keys] = own;
  }

  const Problem<T>& problem_;
  const View &q_, &k_, &v_, &own_value_;
  const MutView &out_, &log_sum_, &map_;
  Panels<T> transposed_key_, value_;
  const std::int64_t stride_;
  const Scratch<T> weights_;
  const std::int64_t result_stride_;
  const Scratch<T> result_;
  // Of the rows in work: own weights, largest logits, sums of exponentials, and their reciprocals.
  T own_[kTileRows] = {}, shifts_[kTileRows] = {}, sums_[kTileRows] = {}, scales_[kTileRows] = {};
};

/// What backward gets and makes, besides the inputs of forward.
struct BackwardViews {
  const View &out, &log_sum, &gout;
  const MutView &gq, &gk, &gv, &gbias, &gown_key, &gown_value;
};

/// The gradients of heads, one after another. With P the weights, F the dropout factors (0 or
/// 1/(1-p)), A = P F and dA = gout v^T:
///   gv = A^T gout,  dlogit = P (F dA - D),  D_i = sum_j P_ij F_ij dA_ij = gout_i . out_i,
///   gbias = dlogit / temperature,  gq = logit_scale dlogit k,  gk = logit_scale dlogit^T q.
/// A query's own key and value are one more column of P, F and dA. The sums over queries, gv and
/// gk, are added up over blocks of queries whose A and dlogit fit the L2 cache.
template <class T>
class Backward {
 public:
  Backward(const Problem<T>& problem, const View& q, const View& k, const View& v,
           const View& own_key, const View& own_value, const BackwardViews& views)
      : problem_(problem),
        q_(q),
        k_(k),
        v_(v),
        own_key_(own_key),
        own_value_(own_value),
        views_(views),
        query_(problem.queries, problem.width),
        key_(problem.keys, problem.width),
        gout_(problem.queries, problem.value_width),
        transposed_key_(problem.width, problem.keys),
        transposed_value_(problem.value_width, problem.keys),
        stride_(problem.row_stride()),
        blocks_(blocks_of(problem)),
        weights_(most_rows() * stride_),
        gradients_(most_rows() * stride_),
        gq_(kTileRows * Panels<T>::padded(problem.width)),
        gk_(problem.keys * Panels<T>::padded(problem.width)),
        gv_(problem.keys * Panels<T>::padded(problem.value_width)) {}

  void run(std::int64_t b, std::int64_t h) {
    b_ = b;
    h_ = h;
    transposed_key_.pack(head<T>(k_, b, h).transposed());
    transposed_value_.pack(head<T>(v_, b, h).transposed());
    if (views_.gq.data) key_.pack(head<T>(k_, b, h));
    if (views_.gk.data) query_.pack(head<T>(q_, b, h));
    if (views_.gv.data) gout_.pack(head<T>(views_.gout, b, h));
    for (std::int64_t i = 0; i < blocks_; ++i) {
      const Part rows = part(problem_.queries, blocks_, i);
      add_block(rows.begin, rows.size);
    }
    store_sum(gk_, views_.gk);
    store_sum(gv_, views_.gv);
  }

 private:
  /// In how many blocks the queries are taken; one even if there are none, so that the sums are
  /// set. It follows from the shapes alone, as sums depend on a block's borders.
  static std::int64_t blocks_of(const Problem<T>& problem) {
    constexpr std::int64_t kWeights = 64 * 1024;
    constexpr std::int64_t kLeastRows = 4 * kTileRows;
    const std::int64_t fitting = std::max(kLeastRows, kWeights / problem.row_stride());
    return std::max<std::int64_t>(1, ceil_div(problem.queries, fitting));
  }
  std::int64_t most_rows() const { return ceil_div(problem_.queries, blocks_); }

  void add_block(std::int64_t first, std::int64_t rows) {
    const std::int64_t panels = ceil_div(rows, kTileRows);
    for (std::int64_t i = 0; i < panels; ++i) {
      const Part within = part(rows, panels, i);
      prefetch_next_head(first + within.begin, within.size);
      add_rows(first + within.begin, within.size, weights_.data() + within.begin * stride_,
               gradients_.data() + within.begin * stride_);
    }
    if (views_.gv.data) add_sum(weights_, gout_, problem_.value_width, T{1}, first, rows, gv_);
    if (views_.gk.data)
      add_sum(gradients_, query_, problem_.width, problem_.logit_scale, first, rows, gk_);
  }

  /// Asks for the next head, a share of it with every few queries: its rows lie too far apart for
  /// the processor's own prefetching.
  void prefetch_next_head(std::int64_t first, std::int64_t rows) const {
    if (h_ + 1 == problem_.heads) return;
    const auto ask = [&](const View& view, std::int64_t begin, std::int64_t end) {
      const auto next = head<T>(view, b_, h_ + 1);
      for (std::int64_t r = begin; r < end; ++r)
        prefetch(next.data + r * next.row_stride, next.columns);
    };
    for (const View* view : {&q_, &views_.out, &views_.gout}) ask(*view, first, first + rows);
    const std::int64_t begin = first * problem_.keys / problem_.queries;
    const std::int64_t end = (first + rows) * problem_.keys / problem_.queries;
    for (const View* view : {&k_, &v_}) ask(*view, begin, end);
  }

  /// A few rows of A and dlogit, and what follows from them alone.
  void add_rows(std::int64_t first, std::int64_t rows, T* weights, T* gradients) {
    const std::int64_t columns = problem_.visible(first + rows - 1);
    transposed_key_.multiply(head<T>(q_, b_, h_).row_block(first, rows), 0, columns,
                             problem_.logit_scale, weights, stride_);
    transposed_value_.multiply(head<T>(views_.gout, b_, h_).row_block(first, rows), 0, columns,
                               T{1}, gradients, stride_);
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t i = first + r;
      T* const row = weights + r * stride_;
      T* const gradient = gradients + r * stride_;
      const std::int64_t padded = Panels<T>::padded(columns);
      problem_.finish_logits(b_, h_, i, padded, row);
      const T log_sum = head_start<T>(views_.log_sum, b_, h_)[i * views_.log_sum.strides[2]];
      const T mean = dot(at(views_.gout, i), at(views_.out, i), problem_.value_width);
      if (problem_.has_own) add_own(log_sum, mean, i);
      if (problem_.drops()) problem_.drop(b_, h_, i, columns, gradient);
      logit_gradient(log_sum, mean, padded, row, gradient);
      if (columns < problem_.keys) {
        std::fill(row + columns, row + problem_.keys, T{0});
        std::fill(gradient + columns, gradient + problem_.keys, T{0});
      }
      if (problem_.drops()) problem_.drop(b_, h_, i, columns, row);
      if (views_.gbias.data)
        scaled_copy(problem_.inverse_temperature, gradient, problem_.keys, at(views_.gbias, i));
    }
    if (!views_.gq.data) return;
    const std::int64_t width = Panels<T>::padded(problem_.width);
    key_.multiply({gradients, rows, columns, stride_, 1}, 0, problem_.width, problem_.logit_scale,
                  gq_.data(), width);
    for (std::int64_t r = 0; r < rows; ++r) {
      // With own keys, their part of gq is already there.
      const auto write = problem_.has_own ? &add_scaled<T> : &scaled_copy<T>;
      write(T{1}, gq_.data() + r * width, problem_.width, at(views_.gq, first + r));
    }
  }

  /// sum [keys, width] += alpha rows^T b over this block's queries; the first block sets it.
  void add_sum(const Scratch<T>& rows, const Panels<T>& b, std::int64_t width, T alpha,
               std::int64_t first, std::int64_t count, const Scratch<T>& sum) const {
    const std::int64_t panels = ceil_div(problem_.keys, kTileRows);
    const std::int64_t stride = Panels<T>::padded(width);
    for (std::int64_t p = 0; p < panels; ++p) {
      const Part keys = part(problem_.keys, panels, p);
      // Queries before these see none of the keys.
      const std::int64_t skipped =
          std::clamp<std::int64_t>(problem_.first_query(keys.begin) - first, 0, count);
      b.multiply(
          {rows.data() + skipped * stride_ + keys.begin, keys.size, count - skipped, 1, stride_},
          first + skipped, width, alpha, sum.data() + keys.begin * stride, stride, first > 0);
    }
  }

  void store_sum(const Scratch<T>& sum, const MutView& to) const {
    if (!to.data) return;
    const std::int64_t stride = Panels<T>::padded(to.shape[3]);
    for (std::int64_t j = 0; j < problem_.keys; ++j)
      scaled_copy(T{1}, sum.data() + j * stride, to.shape[3], at(to, j));
  }

  /// Row i of a [B, H, T, .] view in this head.
  const T* at(const View& view, std::int64_t i) const {
    return head_start<T>(view, b_, h_) + i * view.strides[2];
  }
  T* at(const MutView& view, std::int64_t i) const {
    return head_start<T>(view, b_, h_) + i * view.strides[2];
  }

  /// The gradients of query i's own key and value, and their part of gq_i.
  void add_own(T log_sum, T mean, std::int64_t i) const {
    const T weight = VectorMath::exp(problem_.own_logit(b_, h_, i) - log_sum);
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

  /// weights [n] from logits to P, gradients from dA to dlogit, 0 where the weight is; n is whole
  /// vectors.
  static void logit_gradient(T log_sum, T mean, std::int64_t n, T* weights, T* gradients) {
    const T shift = formulas::log_sum_shift(log_sum);
    for (std::int64_t j = 0; j < n; j += kVector<T>) {
      T* const weight = weights + j;
      T* const gradient = gradients + j;
#pragma omp simd
      for (int l = 0; l < kVector<T>; ++l) {
        const T value = VectorMath::exp(weight[l] - shift);
        weight[l] = value;
        gradient[l] = value == T{0} ? T{0} : value * (gradient[l] - mean);
      }
    }
  }

  const Problem<T>& problem_;
  const View &q_, &k_, &v_, &own_key_, &own_value_;
  const BackwardViews& views_;
  std::int64_t b_ = 0, h_ = 0;
  Panels<T> query_, key_, gout_, transposed_key_, transposed_value_;
  const std::int64_t stride_, blocks_;
  const Scratch<T> weights_, gradients_, gq_, gk_, gv_;
};

}  // namespace

// q [B,H,T,D], k [B,H,S,D], v [B,H,S,E], mask, bias [B,H,T,S], own_key [B,H,T,D], own_value, out
// [B,H,T,E], log_sum [B,H,T], map [B,H,T,S or S+1].
void attention(Context&, View q, View k, View v, View mask, View bias, View own_key, View own_value,
               const AttentionOptions& options, MutView out, MutView log_sum, MutView map) {
  visit_float(q.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Problem<T> problem(q, k, v, mask, bias, own_key, options);
    const std::int64_t parts = problem.parts();
    problem.for_parts([&](std::int64_t begin, std::int64_t end) {
      Forward<T> forward(problem, q, k, v, own_value, out, log_sum, map);
      for (std::int64_t job = begin; job < end; ++job) {
        const std::int64_t head = job / parts;
        forward.run(head / problem.heads, head % problem.heads,
                    part(problem.queries, parts, job % parts));
      }
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
    problem.for_heads([&](std::int64_t begin, std::int64_t end) {
      Backward<T> backward(problem, q, k, v, own_key, own_value, views);
      for (std::int64_t head = begin; head < end; ++head)
        backward.run(head / problem.heads, head % problem.heads);
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
