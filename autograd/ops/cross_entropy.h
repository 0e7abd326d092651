#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

/// How `cross_entropy` scores.
struct CrossEntropyOptions {
  /// How the losses of the rows become one number.
  enum class Reduction : std::uint8_t {
    sum,  ///< of the weighted losses of scored rows
    mean  ///< that divided by the total weight of these rows
  };

  std::int32_t ignore_index = -1;         ///< rows with this target are not scored
  Tensor label_weights{};                 ///< [V], one weight per label; all 1 if undefined
  Reduction reduction = Reduction::mean;  ///< over all scored rows
};

namespace ops {

/// loss = sum_i w_i (log sum_j exp(x_ij) - x_i,target_i) over scored rows, w_i the label's weight;
/// for `mean` divided by sum_i w_i.
/// logits x: f32|f64 [.., V], targets: i32 [..]. Result: 0-d.
/// Saves: logits, targets, log-sums (one per row), label weights.
/// Gradient: gx_i = gloss w_i (softmax(x_i) - onehot(target_i)), 0 in rows that are not scored.
/// Throws Error on a target outside 0..V-1 (on a device the loss is NaN instead), and for `mean` if
/// the scored rows have no weight.
struct CrossEntropy {
  static constexpr const char* kName = "cross_entropy";
  CrossEntropyOptions::Reduction reduction;
  std::int32_t ignore_index;
  Saved targets, weights;
  Saved logits{}, log_sum{};
  double factor = 1.0;  // what the sum over rows is multiplied by

  Tensor forward(Wants, const Tensor& x) {
    CrossEntropyResult result = mf::cross_entropy(x, targets, weights, ignore_index);
    logits = x;
    log_sum = std::move(result.log_sum);
    if (reduction == CrossEntropyOptions::Reduction::sum) return result.loss;
    const double total = scored_weight();
    check(total > 0.0,
          "cross_entropy: no row of {} is scored, so there is no mean; targets {} all equal {} or "
          "have weight 0; give a target, or ask for the sum",
          x, targets.get(), ignore_index);
    factor = 1.0 / total;
    return affine(result.loss, factor);
  }
  void backward(const Tensor& gloss, Grads& g) const {
    g.add(0, cross_entropy_backward(logits, targets, weights, ignore_index, log_sum,
                                    affine(gloss, factor)));
  }
  auto saved() { return std::tie(logits, targets, weights, log_sum); }

 private:
  double scored_weight() const {
    std::vector<double> table;
    if (weights.defined()) table = weights.get().to(DType::f64).to_vector<double>();
    double total = 0.0;
    for (const std::int32_t target : targets.get().to_vector<std::int32_t>()) {
      if (target == ignore_index) continue;
      // On a device a target may be out of range; the loss is NaN then, whatever it weighs.
      const auto label = static_cast<std::size_t>(target);
      total += label < table.size() ? table[label] : 1.0;
    }
    return total;
  }
};

}  // namespace ops

/// The loss of logits [.., V] at targets i32 [..], in nats, 0-d. See ops::CrossEntropy.
inline Var cross_entropy(const Var& logits, const Tensor& targets,
                         const CrossEntropyOptions& options = {}) {
  return record(
      ops::CrossEntropy{options.reduction, options.ignore_index, targets, options.label_weights},
      logits);
}

}  // namespace mf
