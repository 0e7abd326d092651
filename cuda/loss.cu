#include "cuda/device_math.cuh"
#include "cuda/ids.cuh"
#include "cuda/kernels.h"
#include "cuda/reduce.cuh"

namespace mf::cuda {
namespace device {

/// w_i (log_sum_i - logits_i,target_i); 0 for an ignored row, NaN for a target out of range.
template <class T>
struct RowLoss {
  std::int64_t classes;
  std::int32_t ignore;
  const std::int32_t* targets;
  const T *logits, *weights, *log_sum;  // weights may be null

  __device__ double operator()(std::int64_t row) const {
    const std::int32_t target = targets[row];
    if (target == ignore) return 0.0;
    if (!in_range(target, classes)) return kNaN<double>;
    const auto weight = weights == nullptr ? 1.0 : static_cast<double>(weights[target]);
    return weight * (static_cast<double>(log_sum[row]) -
                     static_cast<double>(logits[row * classes + target]));
  }
};

template <class T>
struct CrossEntropyBackward {
  std::int64_t classes;
  std::int32_t ignore;
  const std::int32_t* targets;
  const T *logits, *weights, *log_sum, *gloss;  // weights may be null
  T* glogits;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const in = logits + row * classes;
    T* const out = glogits + row * classes;
    const std::int32_t target = targets[row];
    if (target == ignore || !in_range(target, classes)) {
      const T none = target == ignore ? T{0} : kNaN<T>;
      Team::each(classes, [&](std::int64_t j) { out[j] = none; });
      return;
    }
    const T scale = *gloss * (weights == nullptr ? T{1} : weights[target]);
    const T log_normaliser = log_sum[row];
    Team::each(classes, [&](std::int64_t j) {
      const T gradient = scale * DeviceMath::exp(in[j] - log_normaliser);
      out[j] = j == target ? gradient - scale : gradient;
    });
  }
};

}  // namespace device

// logits [rows, classes], targets [rows], weights [classes] -> loss: one element, log_sum [rows].
void cross_entropy(Context& context, View logits, View targets, View weights, std::int32_t ignore,
                   MutView loss, MutView log_sum) {
  logsumexp(context, logits, log_sum);
  visit_float(logits.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(logits.shape);
    const device::RowLoss<T> f{rows.width,     ignore,          targets.as<std::int32_t>(),
                               logits.as<T>(), weights.as<T>(), log_sum.as<T>()};
    sum_rows<double>(context, "cross_entropy", f, 1, rows.count, loss.as<T>());
  });
}

// logits, glogits [rows, classes], targets, log_sum [rows], weights [classes], gloss: one element.
void cross_entropy_backward(Context& context, View logits, View targets, View weights,
                            std::int32_t ignore, View log_sum, View gloss, MutView glogits) {
  visit_float(logits.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows(logits.shape);
    const device::CrossEntropyBackward<T> f{
        rows.width,     ignore,          targets.as<std::int32_t>(),
        logits.as<T>(), weights.as<T>(), log_sum.as<T>(),
        gloss.as<T>(),  glogits.as<T>()};
    launch_rows(context, "cross_entropy_backward", f, rows);
  });
}

}  // namespace mf::cuda
