#include <algorithm>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/rows.h"
#include "tensor/cpu/vector_math.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

template <class T>
T weight_of(const View& weights, std::int32_t target) {
  return weights.data ? weights.as<T>()[target] : T{1};
}

}  // namespace

// logits [rows, classes], targets [rows], weights [classes] -> loss: one element, log_sum [rows].
void cross_entropy(Context& context, View logits, View targets, View weights, std::int32_t ignore,
                   MutView loss, MutView log_sum) {
  logsumexp(context, logits, log_sum);
  visit_float(logits.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(logits.shape);
    const auto* const target = targets.as<std::int32_t>();
    double total = 0.0;
    for (std::int64_t row = 0; row < rows.count; ++row) {
      if (target[row] == ignore) continue;
      const auto log_normaliser = static_cast<double>(log_sum.as<T>()[row]);
      const auto logit = static_cast<double>(logits.as<T>()[row * rows.width + target[row]]);
      total += static_cast<double>(weight_of<T>(weights, target[row])) * (log_normaliser - logit);
    }
    *loss.as<T>() = static_cast<T>(total);
  });
}

// logits, glogits [rows, classes], targets, log_sum [rows], weights [classes], gloss: one element.
void cross_entropy_backward(Context&, View logits, View targets, View weights, std::int32_t ignore,
                            View log_sum, View gloss, MutView glogits) {
  visit_float(logits.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rows rows = rows_of(logits.shape);
    for_rows(rows, kExpCost, [&](std::int64_t row) {
      const std::int64_t n = rows.width;
      const std::int32_t target = targets.as<std::int32_t>()[row];
      const T* const in = logits.as<T>() + row * n;
      T* const out = glogits.as<T>() + row * n;
      if (target == ignore) {
        std::fill_n(out, n, T{0});
        return;
      }
      const T scale = *gloss.as<T>() * weight_of<T>(weights, target);
      const T log_normaliser = log_sum.as<T>()[row];
#pragma omp simd
      for (std::int64_t j = 0; j < n; ++j) out[j] = scale * VectorMath::exp(in[j] - log_normaliser);
      out[target] -= scale;
    });
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
