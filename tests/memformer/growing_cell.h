#pragma once

#include "autograd/ops.h"
#include "memformer/replay/recurrence.h"
#include "nn/dropout.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/parameters.h"

namespace mf::test {

/// A recurrence with everything that Memformer's own state lacks: three tensors, one of them
/// integers that are carried only, one that grows from empty over the first segments; an auxiliary
/// loss; a weight used twice in a step; a learned initial state.
///   x = dropout(mean over tokens of E),   h' = tanh(x W + b + h W + b + mean of the cache),
///   cache' = the last kLongest of [cache; h'],   count' = count + 1,
///   loss = cross entropy of h' E^T,   auxiliary = mean of h'^2 / count'
class GrowingCell final : public Recurrence {
 public:
  static constexpr std::int64_t kLongest = 3;

  GrowingCell(std::int64_t vocabulary, std::int64_t width, RngKey key, DType dtype)
      : table_(vocabulary, width, 1.0, key.at("table"), dtype),
        mix_(width, width, true, key.at("mix"), dtype),
        start_(normal_parameter({width}, 0.5, key.at("start"), dtype)) {
    mf::parameters(*this);
  }

  std::int64_t width() const { return start_.value().size(0); }

  State initial_state(std::int64_t batch) const override {
    const DType dtype = start_.value().dtype();
    return {{"hidden", start_.value().expand({batch, width()}).clone(), true, {}},
            {"cache", zeros({batch, 0, width()}, dtype), true, {}},
            {"count", zeros({batch}, DType::i32), false, {}}};
  }

  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    const std::int64_t batch = segment.batch();
    Var hidden = state[0].value;
    if (segment.reset.defined())
      hidden = where(segment.reset.reshape({batch, 1}),
                     expand(pass.tape.param(start_), {batch, width()}), hidden);
    const Var x =
        dropout(pass.at("dropout"), mean(table_(pass.at("table"), segment.tokens), {1}), 0.3);
    Var sum_of_terms = add(mix_(pass.at("mix"), x), mix_(pass.at("mix"), hidden));
    const Var& cache = state[1].value;
    if (cache.size(1) > 0) sum_of_terms = add(sum_of_terms, mean(cache, {1}));
    const Var next = tanh(sum_of_terms);
    Var grown = concat({cache, reshape(next, {batch, 1, width()})}, 1);
    if (grown.size(1) > kLongest) grown = slice(grown, 1, grown.size(1) - kLongest, grown.size(1));
    std::vector<std::int32_t> count = state[2].value.value.to_vector<std::int32_t>();
    for (std::int32_t& n : count) ++n;
    LiveState result = state;  // keeps names and boundary rules
    result[0].value = next;
    result[1].value = grown;
    result[2].value = constant(from_host(count, {batch}));
    return result;
  }

  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    StepResult result;
    result.next = next_state(pass, segment, state);
    const Var& hidden = result.next[0].value;
    const double count = result.next[2].value.value.slice(0, 0, 1).to(DType::f64).item();
    result.auxiliary = scale(mean(square(hidden)), 1.0 / count);
    if (!segment.targets.defined()) return result;
    result.outputs = matmul(hidden, transpose(pass.tape.param(table_.weight)));
    CrossEntropyOptions options;
    options.reduction = CrossEntropyOptions::Reduction::sum;
    result.loss = cross_entropy(result.outputs, segment.targets, options);
    return result;
  }

  std::vector<Parameter> parameters() const override { return mf::parameters(*this); }

  template <class F>
  void each(F&& fn) const {
    fn("table", table_);
    fn("mix", mix_);
    fn("start", start_);
  }

 private:
  Embedding table_;
  Linear mix_;
  Parameter start_;
};

}  // namespace mf::test
