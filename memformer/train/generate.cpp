#include "memformer/train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "memformer/data/bytes.h"

namespace mf {

void validate(const SamplingOptions& options) {
  check(std::isfinite(options.temperature) && options.temperature >= 0.0,
        "sample: temperature is {}; give 0 for the most likely token, or a positive number",
        options.temperature);
  check(options.top_k >= 0, "sample: top_k is {}; give 0 for all tokens, or a positive number",
        options.top_k);
  check(options.top_p > 0.0 && options.top_p <= 1.0, "sample: top_p is {}; it must lie in (0, 1]",
        options.top_p);
}

std::int32_t sample(std::span<const double> logits, const SamplingOptions& options, RngKey key,
                    std::uint64_t element) {
  return Sampler(options)(logits, key, element);
}

std::int32_t Sampler::operator()(std::span<const double> logits, RngKey key,
                                 std::uint64_t element) {
  check(!logits.empty(), "sample: there are no logits; give at least one");
  for (std::size_t i = 0; i < logits.size(); ++i)
    check(logits[i] < std::numeric_limits<double>::infinity(),
          "sample: logit {} is {}; the model or its input is not finite", i, logits[i]);
  const auto first = std::ranges::max_element(logits);  // of equals, the first
  const double largest = *first;
  check(std::isfinite(largest), "sample: every logit is -infinity; nothing can be drawn");
  if (options_.temperature == 0.0) return static_cast<std::int32_t>(first - logits.begin());

  // Most likely first; equals in the order of their ids. Only as far as top_k needs it.
  candidates_.clear();
  for (const double logit : logits)
    candidates_.push_back({logit, static_cast<std::int32_t>(candidates_.size())});
  const std::int64_t all = std::ssize(candidates_);
  const std::int64_t kept = options_.top_k > 0 ? std::min(options_.top_k, all) : all;
  const auto before = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  if (kept < all) {
    std::ranges::nth_element(candidates_, candidates_.begin() + kept, before);
    candidates_.resize(static_cast<std::size_t>(kept));
  }
  std::ranges::sort(candidates_, before);

  weights_.clear();
  for (const Candidate& candidate : candidates_)
    weights_.push_back(std::exp((candidate.logit - largest) / options_.temperature));
  double total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  if (options_.top_p < 1.0) {
    const double enough = options_.top_p * total;
    std::size_t reaching = 0;
    for (total = 0.0; reaching < weights_.size() && total < enough; ++reaching)
      total += weights_[reaching];
    weights_.resize(reaching);
  }

  double left = key.uniform(element) * total;
  std::size_t chosen = 0;
  while (chosen + 1 < weights_.size() && left >= weights_[chosen]) left -= weights_[chosen++];
  // Rounding may carry the draw past the last token that has any weight.
  while (weights_[chosen] == 0.0) --chosen;
  return candidates_[chosen].token;
}

Generator::Generator(const Memformer& model, std::string_view prompt,
                     const SamplingOptions& options, RngKey key)
    : model_(model),
      sampler_(options),
      key_(key),
      device_(model.device()),
      memory_(model.initial_state(1)) {
  const ModelConfig& config = model.config();
  check(config.architecture == Architecture::encoder_decoder,
        "generate: the model is encoder_only; only a model with a decoder writes text");
  check(config.vocabulary == kByteVocabulary,
        "generate: the model has {} tokens, bytes need {}; give a run that was trained on text",
        config.vocabulary, kByteVocabulary);
  check(!prompt.empty(), "generate: the prompt is empty; give at least one byte");
  const std::vector<std::int32_t> tokens = encode_bytes(prompt);
  const std::span all(tokens);
  const auto length = static_cast<std::size_t>(config.segment);
  std::size_t read = 0;
  for (; read + length <= all.size(); read += length) encode(all.subspan(read, length));
  if (read == 0) {
    encode(all);
    return;
  }
  for (; read < all.size(); ++read) {
    read_newest();
    begun_.push_back(all[read]);
  }
}

void Generator::encode(std::span<const std::int32_t> segment) {
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  const Tensor tokens = from_host(segment, {1, std::ssize(segment)}, device_);
  const Var memory = model_.read_state(pass, constants_of(memory_), {});
  const Var encoded = model_.encode(pass, tokens, {}, memory);
  memory_ = values_of(model_.write(pass, memory, encoded, {}));
  model_.start_decoding(cache_, encoded.value);
  begun_.clear();
}

Tensor Generator::read_newest() {
  const std::int32_t newest = begun_.empty() ? kBeginToken : begun_.back();
  return model_.decode_next(cache_, from_host({newest}, {1}, device_));
}

char Generator::next() {
  if (std::ssize(begun_) == model_.config().segment) encode(begun_);
  const Tensor logits = read_newest().slice(1, 0, kBeginToken).to(cpu).to(DType::f64).contiguous();
  const std::span bytes(logits.data<double>(), static_cast<std::size_t>(logits.elements()));
  begun_.push_back(sampler_(bytes, key_, drawn_++));
  return static_cast<char>(static_cast<unsigned char>(begun_.back()));
}

}  // namespace mf
