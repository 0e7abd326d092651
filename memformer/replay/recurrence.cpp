#include "memformer/replay/recurrence.h"

#include "autograd/ops/cross_entropy.h"

namespace mf {

Var summed_loss(const Var& logits, const Tensor& targets) {
  CrossEntropyOptions options;
  options.ignore_index = kIgnore;
  options.reduction = CrossEntropyOptions::Reduction::sum;
  return cross_entropy(logits, targets, options);
}

}  // namespace mf
