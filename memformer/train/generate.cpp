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
  validate(options);
  check(!logits.empty(), "sample: there are no logits; give at least one");
  for (std::size_t i = 0; i < logits.size(); ++i)
    check(logits[i] < std::numeric_limits<double>::infinity(),
          "sample: logit {} is {}; the model or its input is not finite", i, logits[i]);

  // Most likely first; equals in the order of their ids.
  std::vector<std::int32_t> tokens(logits.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto logit = [&](std::int32_t token) { return logits[static_cast<std::size_t>(token)]; };
  std::ranges::stable_sort(tokens, std::greater{}, logit);
  const double largest = logit(tokens.front());
  check(std::isfinite(largest), "sample: every logit is -infinity; nothing can be drawn");
  if (options.temperature == 0.0) return tokens.front();

  if (options.top_k > 0)
    tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(options.top_k)));
  std::vector<double> weights;
  for (const std::int32_t token : tokens)
    weights.push_back(std::exp((logit(token) - largest) / options.temperature));
  double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (options.top_p < 1.0) {
    const double enough = options.top_p * total;
    std::size_t kept = 0;
    for (total = 0.0; kept < weights.size() && total < enough; ++kept) total += weights[kept];
    weights.resize(kept);
  }

  double left = key.uniform(element) * total;
  std::size_t chosen = 0;
  while (chosen + 1 < weights.size() && left >= weights[chosen]) left -= weights[chosen++];
  // Rounding may carry the draw past the last token that has any weight.
  while (weights[chosen] == 0.0) --chosen;
  return tokens[chosen];
}

Generator::Generator(const Memformer& model, std::string_view prompt,
                     const SamplingOptions& options, RngKey key)
    : model_(model), options_(options), key_(key), memory_(model.initial_state(1)) {
  validate(options);
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
  } else {
    begun_.assign(all.begin() + static_cast<std::ptrdiff_t>(read), all.end());
  }
}

void Generator::encode(std::span<const std::int32_t> segment) {
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  const Tensor tokens = from_host(segment, {1, std::ssize(segment)});
  const Var memory = model_.read_state(pass, constants_of(memory_), {});
  const Var encoded = model_.encode(pass, tokens, {}, memory);
  memory_ = values_of(model_.write(pass, memory, encoded, {}));
  encoded_ = encoded.value;
}

char Generator::next() {
  if (std::ssize(begun_) == model_.config().segment) {
    encode(begun_);
    begun_.clear();
  }
  std::vector<std::int32_t> inputs{kBeginToken};
  inputs.insert(inputs.end(), begun_.begin(), begun_.end());
  const std::int64_t count = std::ssize(inputs);
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  const Var logits = model_.decode(pass, from_host(inputs, {1, count}), constant(encoded_), {});
  const Tensor last = logits.value.slice(1, count - 1, count).slice(2, 0, kBeginToken);
  const std::vector<double> bytes = last.contiguous().to(DType::f64).to_vector<double>();
  begun_.push_back(sample(bytes, options_, key_, drawn_++));
  return static_cast<char>(static_cast<unsigned char>(begun_.back()));
}

}  // namespace mf
