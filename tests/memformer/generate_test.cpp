#include "memformer/train/generate.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "memformer/data/bytes.h"
#include "tensor/memory.h"
#include "tests/support.h"

using namespace mf;
using doctest::Contains;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// How often each token is drawn.
std::map<std::int32_t, int> draw(const std::vector<double>& logits, const SamplingOptions& options,
                                 int times) {
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < times; ++i)
    ++counts[sample(logits, options, RngKey{7}, static_cast<std::uint64_t>(i))];
  return counts;
}

ModelConfig byte_config() {
  ModelConfig config;
  config.width = 16;
  config.heads = 2;
  config.encoder_layers = 1;
  config.decoder_layers = 1;
  config.feed_forward = 16;
  config.segment = 8;
  config.slots = 3;
  config.dropout = 0.3;  // must have no effect
  config.embedding_deviation = 1.0;
  return config;
}

std::string text_of(std::int64_t bytes) {
  std::string text;
  for (std::int64_t i = 0; i < bytes; ++i)
    text += static_cast<char>(RngKey{3}.below(256, static_cast<std::uint64_t>(i)));
  return text;
}

std::string continued(const Memformer& model, const std::string& prompt,
                      const SamplingOptions& options, RngKey key, std::int64_t bytes) {
  Generator generator(model, prompt, options, key);
  std::string text;
  for (std::int64_t i = 0; i < bytes; ++i) text += generator.next();
  return text;
}

Tensor row(const std::vector<std::int32_t>& tokens) {
  return from_host(tokens, {1, std::ssize(tokens)});
}

/// The logits of the byte after `text`, from the recurrence alone and from the very beginning.
std::vector<double> logits_after(const Memformer& model, const std::string& text,
                                 std::int64_t prompt_bytes) {
  const std::vector<std::int32_t> tokens = encode_bytes(text);
  const std::int64_t length = model.config().segment;
  std::vector<std::vector<std::int32_t>> segments;  // the last one is being predicted
  std::int64_t begin = 0;
  for (std::int64_t end = std::min(length, prompt_bytes); end <= std::ssize(tokens);
       begin = end, end += length)
    segments.emplace_back(tokens.begin() + begin, tokens.begin() + end);
  segments.emplace_back(tokens.begin() + begin, tokens.end());

  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  LiveState state = constants_of(model.initial_state(1));
  for (std::size_t t = 0; t + 2 < segments.size(); ++t) {
    Segment segment;
    segment.tokens = row(segments[t]);
    state = model.next_state(pass, segment, state);
  }
  Segment segment;
  segment.tokens = row(segments[segments.size() - 2]);
  std::vector<std::int32_t> inputs = segments.back();
  inputs.insert(inputs.begin(), kBeginToken);
  segment.decoder_inputs = row(inputs);
  segment.targets = row(std::vector<std::int32_t>(inputs.size(), 0));
  const Tensor logits = model.step(pass, segment, state).outputs.value;
  const std::vector<double> all = logits.to(DType::f64).to_vector<double>();
  return {all.end() - kByteVocabulary, all.end() - 1};  // of the last position, no begin token
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("sample: temperature 0 takes the most likely, the first of equals") {
  const SamplingOptions greedy{.temperature = 0.0, .top_k = 0, .top_p = 1.0};
  CHECK(sample(std::vector{1.0, 3.0, 3.0, 2.0}, greedy, RngKey{1}, 0) == 1);
  CHECK(sample(std::vector{-kInfinity, -5.0}, greedy, RngKey{1}, 0) == 1);
}

TEST_CASE("sample: tokens come as often as the softmax says") {
  const std::vector<double> logits{0.5, -1.0, 2.0, -kInfinity, 1.0};
  for (const double temperature : {0.5, 1.0, 3.0}) {
    const int draws = 20000;
    const auto counts = draw(logits, {.temperature = temperature, .top_k = 0, .top_p = 1.0}, draws);
    double total = 0.0;
    for (const double logit : logits) total += std::exp(logit / temperature);
    for (const auto& [token, count] : counts) {
      const double p = std::exp(logits[static_cast<std::size_t>(token)] / temperature) / total;
      CHECK(std::abs(count - p * draws) < 4.0 * std::sqrt(p * (1.0 - p) * draws));
    }
    CHECK_FALSE(counts.contains(3));
  }
}

TEST_CASE("sample: top_k keeps the k most likely, top_p the fewest that reach it") {
  // Probabilities 0.1, 0.4, 0.2, 0.3.
  const std::vector<double> logits{std::log(0.1), std::log(0.4), std::log(0.2), std::log(0.3)};
  const auto drawn = [&](std::int64_t top_k, double top_p) {
    std::string tokens;
    for (const auto& [token, count] :
         draw(logits, {.temperature = 1.0, .top_k = top_k, .top_p = top_p}, 500))
      tokens += std::to_string(token);
    return tokens;
  };
  CHECK(drawn(0, 1.0) == "0123");
  CHECK(drawn(1, 1.0) == "1");
  CHECK(drawn(2, 1.0) == "13");
  CHECK(drawn(3, 1.0) == "123");
  CHECK(drawn(100, 1.0) == "0123");
  CHECK(drawn(0, 1e-9) == "1");
  CHECK(drawn(0, 0.39) == "1");
  CHECK(drawn(0, 0.41) == "13");
  CHECK(drawn(0, 0.71) == "123");
  CHECK(drawn(0, 0.91) == "0123");
  CHECK(drawn(2, 0.5) == "1");  // of what top_k left, 0.4 / 0.7 is enough
}

TEST_CASE("sample: key and element decide, and only they") {
  const std::vector<double> flat(200, 0.0);
  const SamplingOptions options;
  const auto at = [&](std::uint64_t key, std::uint64_t element) {
    return sample(flat, options, RngKey{key}, element);
  };
  CHECK(at(1, 5) == at(1, 5));
  int same = 0;
  for (std::uint64_t i = 0; i < 100; ++i) same += at(1, i) == at(1, i + 1) || at(1, i) == at(2, i);
  CHECK(same < 10);
}

TEST_CASE("sample: extreme logits and temperatures stay in range") {
  const std::vector<double> logits{-1e300, 1e300, 0.0};
  for (const double temperature : {1e-300, 1e-3, 1.0, 1e300})
    for (std::uint64_t i = 0; i < 50; ++i) {
      const auto token =
          sample(logits, {.temperature = temperature, .top_k = 0, .top_p = 0.99}, RngKey{2}, i);
      CHECK((token >= 0 && token < 3));
      if (temperature <= 1.0) CHECK(token == 1);
    }
}

TEST_CASE("sample: impossible values are errors that name themselves") {
  const std::vector<double> logits{0.0, 1.0};
  const auto with = [&](double temperature, std::int64_t top_k, double top_p) {
    return sample(logits, {.temperature = temperature, .top_k = top_k, .top_p = top_p}, RngKey{1},
                  0);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(with(-1, 0, 1), Contains("temperature is -1"), Error);
  CHECK_THROWS_WITH_AS(with(nan, 0, 1), Contains("temperature is nan"), Error);
  CHECK_THROWS_WITH_AS(with(kInfinity, 0, 1), Contains("temperature is inf"), Error);
  CHECK_THROWS_WITH_AS(with(1, -2, 1), Contains("top_k is -2"), Error);
  CHECK_THROWS_WITH_AS(with(1, 0, 0), Contains("top_p is 0"), Error);
  CHECK_THROWS_WITH_AS(with(1, 0, 1.5), Contains("top_p is 1.5"), Error);
  CHECK_THROWS_WITH_AS(with(1, 0, nan), Contains("top_p is nan"), Error);
  CHECK_THROWS_WITH_AS(sample({}, {}, RngKey{1}, 0), Contains("no logits"), Error);
  CHECK_THROWS_WITH_AS(sample(std::vector{0.0, nan}, {}, RngKey{1}, 0), Contains("logit 1 is nan"),
                       Error);
  CHECK_THROWS_WITH_AS(sample(std::vector{kInfinity, 0.0}, {}, RngKey{1}, 0),
                       Contains("logit 0 is inf"), Error);
  CHECK_THROWS_WITH_AS(sample(std::vector{-kInfinity}, {}, RngKey{1}, 0), Contains("-infinity"),
                       Error);
}

/// What a Sampler did before it kept its arrays: everything sorted, then cut.
std::int32_t sorted_sample(const std::vector<double>& logits, const SamplingOptions& options,
                           RngKey key, std::uint64_t element) {
  std::vector<std::size_t> tokens(logits.size());
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = i;
  std::ranges::stable_sort(tokens, std::greater{}, [&](std::size_t t) { return logits[t]; });
  if (options.temperature == 0.0) return static_cast<std::int32_t>(tokens[0]);
  if (options.top_k > 0)
    tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(options.top_k)));
  std::vector<double> weights;
  double total = 0.0;
  for (const std::size_t token : tokens) {
    weights.push_back(std::exp((logits[token] - logits[tokens[0]]) / options.temperature));
    total += weights.back();
  }
  if (options.top_p < 1.0) {
    double reached = 0.0;
    std::size_t kept = 0;
    while (kept < weights.size() && reached < options.top_p * total) reached += weights[kept++];
    weights.resize(kept);
    total = reached;
  }
  double left = key.uniform(element) * total;
  std::size_t chosen = 0;
  while (chosen + 1 < weights.size() && left >= weights[chosen]) left -= weights[chosen++];
  while (weights[chosen] == 0.0) --chosen;
  return static_cast<std::int32_t>(tokens[chosen]);
}

TEST_CASE("sample: a sampler that is used again draws what sorting everything draws") {
  for (const double temperature : {0.0, 0.3, 1.0})
    for (const std::int64_t top_k : {0, 1, 7, 256, 300})
      for (const double top_p : {1.0, 0.9, 0.2}) {
        const SamplingOptions options{.temperature = temperature, .top_k = top_k, .top_p = top_p};
        Sampler sampler(options);
        for (std::uint64_t i = 0; i < 60; ++i) {
          // Few different values, so that equals stand at every cut; both zeros; -infinity.
          std::vector<double> logits(i % 3 == 0 ? 256 : 10 + i);
          for (std::size_t j = 0; j < logits.size(); ++j) {
            const auto drawn = static_cast<double>(RngKey{i}.below(9, j)) - 4.0;
            logits[j] = i % 2 == 0 ? drawn / 2 : RngKey{i}.uniform(j) * 9.0;
            if (j > 0 && drawn == 4.0) logits[j] = -kInfinity;
            if (drawn == 3.0) logits[j] = -0.0;
          }
          REQUIRE(sampler(logits, RngKey{17}, i) == sorted_sample(logits, options, RngKey{17}, i));
        }
      }
}

TEST_CASE("generate: greedy bytes are those of full decoding, for every kind of positions") {
  const SamplingOptions greedy{.temperature = 0.0, .top_k = 0, .top_p = 1.0};
  for (const Positions positions :
       {Positions::learned, Positions::sinusoidal, Positions::relative_bias,
        Positions::simplified_relative, Positions::none}) {
    ModelConfig config = byte_config();
    config.positions = positions;
    config.decoder_layers = 2;
    config.dtype = DType::f64;  // nearly equal logits must not decide
    const Memformer model(config, RngKey{17});
    test::perturb(model.parameters(), RngKey{18}, 0.3);
    const std::string prompt = text_of(11);
    std::string text = prompt;
    for (const char byte : continued(model, prompt, greedy, RngKey{1}, 40)) {
      REQUIRE(byte_token(byte) == sample(logits_after(model, text, 11), greedy, RngKey{1}, 0));
      text += byte;
    }
  }
}

TEST_CASE("generate: every byte is drawn from what the recurrence predicts for the text so far") {
  for (const std::int64_t slots : {0, 3}) {
    ModelConfig config = byte_config();
    config.slots = slots;
    const Memformer model(config, RngKey{11});
    const SamplingOptions options;
    for (const std::int64_t prompt_bytes : {1, 5, 8, 9, 16, 27}) {
      CAPTURE(prompt_bytes);
      const std::string prompt = text_of(prompt_bytes);
      std::string text = prompt;
      for (const char byte : continued(model, prompt, options, RngKey{5}, 30)) {
        const auto element = static_cast<std::uint64_t>(std::ssize(text) - prompt_bytes);
        const auto logits = logits_after(model, text, prompt_bytes);
        REQUIRE(byte_token(byte) == sample(logits, options, RngKey{5}, element));
        text += byte;
      }
    }
  }
}

TEST_CASE("generate: a segment that was prompted or generated gives the same continuation") {
  const Memformer model(byte_config(), RngKey{12});
  const SamplingOptions greedy{.temperature = 0.0, .top_k = 0, .top_p = 1.0};
  const std::string prompt = text_of(16);
  const std::string whole = continued(model, prompt, greedy, RngKey{1}, 40);
  for (const std::size_t taken : {1u, 8u, 13u, 24u})
    CHECK(continued(model, prompt + whole.substr(0, taken), greedy, RngKey{1},
                    40 - static_cast<std::int64_t>(taken)) == whole.substr(taken));
}

TEST_CASE("generate: same key, same bytes; another key, other bytes") {
  const Memformer model(byte_config(), RngKey{13});
  const auto text = [&](std::uint64_t key) {
    return continued(model, "prompt", {}, RngKey{key}, 40);
  };
  CHECK(text(1) == text(1));
  CHECK(text(1) != text(2));
}

TEST_CASE("generate: the memory before the prompt's end matters") {
  const Memformer model(byte_config(), RngKey{14});
  Generator one(model, text_of(8) + text_of(16), {}, RngKey{1});
  Generator other(model, std::string(8, 'x') + text_of(16), {}, RngKey{1});
  CHECK(first_difference(one.memory().front().value, other.memory().front().value) >= 0);
}

TEST_CASE("generate: the begin token is never drawn") {
  ModelConfig config = byte_config();
  config.tie_output = false;
  const Memformer model(config, RngKey{15});
  const std::string before = continued(model, "abc", {}, RngKey{1}, 30);
  for (Parameter parameter : model.parameters())
    if (parameter.name() == "output.bias") parameter.value().slice(0, 256, 257).fill_(1e3);
  CHECK(continued(model, "abc", {}, RngKey{1}, 30) == before);
}

TEST_CASE("generate: text of any length takes the memory of one segment") {
  const Memformer model(byte_config(), RngKey{16});
  Generator generator(model, text_of(20), {}, RngKey{1});
  const auto peak_of = [&](int bytes) {
    const PeakScope peak;
    for (int i = 0; i < bytes; ++i) generator.next();
    return peak.peak();
  };
  peak_of(24);
  const std::int64_t short_peak = peak_of(24);
  const std::int64_t active = memory_stats().active;
  CHECK(peak_of(240) == short_peak);
  CHECK(memory_stats().active == active);
}

TEST_CASE("generate: models that cannot write text are refused") {
  const auto generator = [](const ModelConfig& config, std::string_view prompt) {
    const Memformer model(config, RngKey{1});
    Generator(model, prompt, {}, RngKey{1});
  };
  ModelConfig encoder_only = byte_config();
  encoder_only.architecture = Architecture::encoder_only;
  ModelConfig task = byte_config();
  task.vocabulary = 34;
  CHECK_THROWS_WITH_AS(generator(encoder_only, "a"), Contains("encoder_only"), Error);
  CHECK_THROWS_WITH_AS(generator(task, "a"), Contains("has 34 tokens, bytes need 257"), Error);
  CHECK_THROWS_WITH_AS(generator(byte_config(), ""), Contains("prompt is empty"), Error);
}

TEST_SUITE_END();
