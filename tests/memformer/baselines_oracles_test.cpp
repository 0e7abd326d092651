// The baselines against the same equations written down a second time, without segments, caches or
// replay: outputs, loss and every gradient.

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "autograd/observer.h"
#include "tests/memformer/plain_models.h"

namespace mf::test {
namespace {

constexpr double kSame = 1e-12;
constexpr std::int64_t kBatch = 2, kCount = 5;

/// The sum of all losses, so that gradients are large beside the rounding that comparisons allow.
Outcome summed(WindowMethod method, const TokenTrial& trial) {
  WindowOptions options;
  options.scale = LossScale::sum;
  return run_window(method, trial, options);
}

/// How far a window is from an oracle's outputs, loss and gradients.
struct Distance {
  double outputs = 0.0, loss = 0.0, gradients = 0.0;
};

Distance distance_from(const Outcome& oracle, const Tensor& logits, const Outcome& window,
                       const TokenTrial& trial) {
  Distance distance;
  distance.outputs =
      relative_difference(concat(outputs_of(*trial.model, trial.segments, trial.entry), 1), logits);
  distance.loss = std::abs(window.result.loss_sum / oracle.result.loss_sum - 1.0);
  distance.gradients = gradient_difference(window, oracle);
  return distance;
}

bool all_within(const Distance& distance, double bound) {
  return distance.outputs <= bound && distance.loss <= bound && distance.gradients <= bound;
}

template <class Config>
double factor_of(const Config& config) {
  return std::sqrt(static_cast<double>(config.width));
}

/// The whole text under one causal Transformer with the weights of a model on a relative stack.
Outcome whole_transformer(const RelativeStackConfig& config, const TokenTrial& trial,
                          Tensor& logits, std::int64_t first = 0, std::int64_t error = 0) {
  PlainModel plain(*trial.model, config);
  const Var x = plain.embedded(whole_text(trial.segments, &Segment::tokens), factor_of(config));
  const Var y = plain.logits(plain.relative_stack(x, causal_pair, first, error));
  logits = y.value;
  const Var loss = PlainModel::loss_of(y, whole_text(trial.segments, &Segment::targets));
  return plain.swept(loss);
}

/// RMT: the rows [memory; tokens; memory] of each segment under one plain stack, the memory of the
/// first learned, all segments on one tape.
Outcome plain_rmt(const RmtConfig& config, const TokenTrial& trial, Tensor& logits,
                  bool tokens_see_written = false) {
  PlainModel plain(*trial.model, config);
  const std::int64_t m = config.memory;
  Var memory =
      expand(reshape(plain["initial_memory"], {1, m, config.width}), {kBatch, m, config.width});
  std::vector<Tensor> outputs;
  Var loss;
  for (const Segment& segment : trial.segments) {
    const std::int64_t length = segment.tokens.size(1);
    const Var x = plain.embedded(segment.tokens, factor_of(config));
    const auto sees = [&](std::int64_t i, std::int64_t j) {
      if (i < m) return j < m;
      if (i < m + length) return j <= i || (tokens_see_written && j >= m + length);
      return true;
    };
    const Var z = plain.relative_stack(concat({memory, x, memory}, 1), sees);
    const Var y = plain.logits(slice(z, 1, m, m + length));
    outputs.push_back(y.value);
    const Var part = PlainModel::loss_of(y, segment.targets);
    loss = loss.value.defined() ? add(loss, part) : part;
    memory = slice(z, 1, m + length, z.size(1));
  }
  logits = concat(outputs, 1);
  return plain.swept(loss);
}

/// The LSTM over the whole text, token by token, each gate by itself.
Outcome plain_lstm(const LstmConfig& config, const TokenTrial& trial, Tensor& logits,
                   bool forget_gate_wrong = false) {
  PlainModel plain(*trial.model);
  const std::int64_t d = config.width;
  Var x = plain.embedded(whole_text(trial.segments, &Segment::tokens), factor_of(config));
  const std::int64_t tokens = x.size(1);
  for (std::int64_t l = 0; l < config.layers; ++l) {
    const std::string at = fmt::format("layers.{}.", l);
    Var hidden = constant(zeros({kBatch, d}, DType::f64)), cell = hidden;
    std::vector<Var> rows;
    for (std::int64_t t = 0; t < tokens; ++t) {
      const Var now = reshape(slice(x, 1, t, t + 1), {kBatch, d});
      const auto gate = [&](std::int64_t index) {
        const auto columns = [&](const std::string& name, int axis) {
          return slice(plain[at + name], axis, index * d, (index + 1) * d);
        };
        return add(add(matmul(now, columns("input.weight", 1)),
                       matmul(hidden, columns("hidden.weight", 1))),
                   columns("input.bias", 0));
      };
      const Var input = sigmoid(gate(0)), forget = sigmoid(gate(forget_gate_wrong ? 0 : 1)),
                candidate = tanh(gate(2)), output = sigmoid(gate(3));
      cell = add(mul(forget, cell), mul(input, candidate));
      hidden = mul(output, tanh(cell));
      rows.push_back(reshape(hidden, {kBatch, 1, d}));
    }
    x = concat(rows, 1);
  }
  const Var y = plain.logits(x);
  logits = y.value;
  const Var loss = PlainModel::loss_of(y, whole_text(trial.segments, &Segment::targets));
  return plain.swept(loss);
}

/// The Transformer over the whole text, with absolute positions.
Outcome plain_transformer(const TransformerConfig& config, const TokenTrial& trial, Tensor& logits,
                          bool causal = true) {
  PlainModel plain(*trial.model);
  const Tensor tokens = whole_text(trial.segments, &Segment::tokens);
  const std::int64_t rows = tokens.size(1);
  Var x =
      add(plain.embedded(tokens, factor_of(config)), slice(plain["positions.weight"], 0, 0, rows));
  const Tensor hidden = causal ? PlainModel::hidden_pairs(rows, causal_pair) : Tensor{};
  for (std::int64_t l = 0; l < config.layers; ++l) {
    const std::string at = fmt::format("layers.{}.", l);
    const Var own = plain.normed(x, at + "self_norm");
    const auto projected = [&](const char* name) {
      return PlainModel::heads_of(plain.affine_map(own, at + "self_attention." + name),
                                  config.heads);
    };
    const Var q = projected("query"), k = projected("key"), v = projected("value");
    const Var scores =
        scale(matmul(q, transpose(k)), 1.0 / std::sqrt(static_cast<double>(q.size(3))));
    x = add(x,
            plain.affine_map(PlainModel::mixed(scores, v, hidden), at + "self_attention.output"));
    x = add(x, plain.feed(plain.normed(x, at + "feed_forward_norm"), at + "feed_forward"));
  }
  const Var y = plain.logits(plain.normed(x, "norm"));
  logits = y.value;
  const Var loss = PlainModel::loss_of(y, whole_text(trial.segments, &Segment::targets));
  return plain.swept(loss);
}

std::int64_t forward_ops = 0;

/// Ops that a pass over the window computes forward.
std::int64_t forward_work(WindowMethod method, const TokenTrial& trial) {
  forward_ops = 0;
  const OpObservation observation("baselines test", [](const OpEvent& event) {
    forward_ops += event.begins && event.phase == OpPhase::forward ? 1 : 0;
  });
  run_window(method, trial);
  return forward_ops;
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE(
      "transformer-xl: with the cache as long as the text and its gradient kept it is one causal "
      "Transformer over the whole text, in values and gradients, under MRBP and BPTT") {
    for (const bool pre_norm : {true, false}) {
      CAPTURE(pre_norm);
      auto config = small_stack<TransformerXlConfig>(pre_norm);
      config.cache = kCount * kTokenSegment;
      const TokenTrial trial = trial_of(config, RngKey{91}, {.batch = kBatch, .count = kCount});
      Tensor logits;
      const Outcome whole = whole_transformer(config, trial, logits);
      REQUIRE(whole.gradients.size() == 3U * 13 + (pre_norm ? 6 : 4));
      for (const auto& [name, gradient] : whole.gradients) CHECK_MESSAGE(gradient.defined(), name);
      const Outcome replayed = summed(mrbp, trial);
      const Distance under_mrbp = distance_from(whole, logits, replayed, trial);
      CHECK(all_within(under_mrbp, kSame));
      CHECK(all_within(distance_from(whole, logits, summed(bptt, trial), trial), kSame));

      // As published: no gradient through the cache.
      WindowOptions sum;
      sum.scale = LossScale::sum;
      const Outcome cut = run_window(mrbp, *trial.model, trial.segments,
                                     with_boundary(trial.entry, Boundary{1}), trial.key, sum);
      CHECK(gradient_distance(cut, whole) > 0.05);
      fmt::print(
          "transformer-xl against the whole-text Transformer, {}-norm: outputs {:.1e}, loss "
          "{:.1e}, gradients {:.1e}; detached {:.3f}\n",
          pre_norm ? "pre" : "post", under_mrbp.outputs, under_mrbp.loss, under_mrbp.gradients,
          gradient_distance(cut, whole));

      // Only distances count, not positions.
      CHECK(all_within(
          distance_from(whole_transformer(config, trial, logits, 1000), logits, replayed, trial),
          kSame));
      // Negative control: every distance one too long.
      const Outcome wrong = whole_transformer(config, trial, logits, 0, 1);
      const Distance seen = distance_from(wrong, logits, replayed, trial);
      CHECK(std::min({seen.outputs, seen.loss, seen.gradients}) > 1e-6);
    }
  }

  TEST_CASE("transformer-xl: without a cache each segment is a plain Transformer of its own") {
    auto config = small_stack<TransformerXlConfig>(true);
    config.cache = 0;
    TokenTrial trial = trial_of(config, RngKey{92}, {.batch = kBatch, .count = kCount});
    const std::vector<Tensor> outputs = outputs_of(*trial.model, trial.segments, trial.entry);
    for (std::size_t t = 0; t < trial.segments.size(); ++t) {
      const std::vector<Segment> one{trial.segments[t]};
      CHECK(identical(outputs_of(*trial.model, one, trial.entry)[0], outputs[t]));
      trial.segments = one;
      Tensor logits;
      const Outcome plain = whole_transformer(config, trial, logits);
      CHECK(all_within(distance_from(plain, logits, summed(mrbp, trial), trial), kSame));
      trial = trial_of(config, RngKey{92}, {.batch = kBatch, .count = kCount});
    }
  }

  TEST_CASE("rmt: a window is the plain Transformer on memory, tokens and memory, carried on") {
    for (const bool pre_norm : {true, false})
      for (const std::int64_t count : {1, 4}) {  // 1: the Transformer on the concatenated input
        CAPTURE(pre_norm);
        CAPTURE(count);
        auto config = small_stack<RmtConfig>(pre_norm);
        config.memory = 3;
        TokenTrial trial = trial_of(config, RngKey{93}, {.batch = kBatch, .count = count});
        // M_0 is read inside the window, so that its parameter gets the gradient.
        trial.segments.front().reset = full({kBatch}, 1, DType::u8);
        Tensor logits;
        const Outcome plain = plain_rmt(config, trial, logits);
        for (const auto& [name, gradient] : plain.gradients)
          CHECK_MESSAGE(gradient.defined(), name);
        for (const WindowMethod method : {mrbp, bptt}) {
          const Distance distance = distance_from(plain, logits, summed(method, trial), trial);
          CHECK(all_within(distance, kSame));
          if (method == WindowMethod{mrbp})
            fmt::print("rmt against plain ops, {} segments: outputs {:.1e}, gradients {:.1e}\n",
                       count, distance.outputs, distance.gradients);
        }
        // Negative control: tokens that look into the rows behind them.
        const Outcome wrong = plain_rmt(config, trial, logits, true);
        CHECK(distance_from(wrong, logits, summed(mrbp, trial), trial).gradients > 1e-6);
      }
  }

  TEST_CASE("lstm: a window is the recurrence over the whole text, gate by gate") {
    for (const std::int64_t replay_tokens : {0, 2, 4}) {
      CAPTURE(replay_tokens);
      LstmConfig config;
      config.vocabulary = kTokenVocabulary;
      config.width = 8;
      config.layers = 2;
      config.segment = kTokenSegment;
      config.replay_tokens = replay_tokens;
      config.dtype = DType::f64;
      const TokenTrial trial = trial_of(config, RngKey{94}, {.batch = kBatch, .count = kCount});
      Tensor logits;
      const Outcome plain = plain_lstm(config, trial, logits);
      for (const WindowMethod method : {mrbp, bptt}) {
        const Distance distance = distance_from(plain, logits, summed(method, trial), trial);
        CHECK(all_within(distance, kSame));
        if (method == WindowMethod{mrbp})
          fmt::print("lstm against plain ops, replay of {}: outputs {:.1e}, gradients {:.1e}\n",
                     replay_tokens, distance.outputs, distance.gradients);
      }
      const Outcome wrong = plain_lstm(config, trial, logits, true);
      CHECK(distance_from(wrong, logits, summed(mrbp, trial), trial).gradients > 1e-6);
    }
  }

  TEST_CASE("lstm: replay within a segment gives the same gradients in fewer bytes") {
    LstmConfig config;
    config.vocabulary = kTokenVocabulary;
    config.width = 16;
    config.layers = 2;
    config.segment = 32;
    config.dropout = 0.2;
    config.dtype = DType::f64;
    const TokenSegments how{.batch = 4, .count = 3, .length = 32};
    const TokenTrial kept = trial_of(config, RngKey{95}, how);
    config.replay_tokens = 4;
    const TokenTrial replayed = trial_of(config, RngKey{95}, how);
    const Outcome a = run_window(mrbp, kept), b = run_window(mrbp, replayed);
    CHECK(a.result.loss_sum == b.result.loss_sum);
    CHECK(gradient_difference(b, a) <= kSame);
    const auto peak = [](const TokenTrial& trial) {
      return peak_of(mrbp, *trial.model, trial.segments, trial.entry, trial.key);
    };
    fmt::print(
        "lstm: peak {} bytes, {} with replay of 4 of 32 tokens; gradients differ by {:.1e}\n",
        peak(kept), peak(replayed), gradient_difference(b, a));
    // Of each token stays its row; of 4 tokens their inside, more than 11 rows each.
    CHECK(3 * peak(replayed) < peak(kept));
  }

  TEST_CASE(
      "transformer: a text in one segment is the causal Transformer, and nothing is carried") {
    TransformerConfig config;
    config.vocabulary = kTokenVocabulary;
    config.width = 8;
    config.layers = 2;
    config.heads = 2;
    config.feed_forward = 12;
    config.segment = 20;
    config.dtype = DType::f64;
    const TokenSegments how{.batch = kBatch, .count = 1, .length = 20};
    const TokenTrial trial = trial_of(config, RngKey{96}, how);
    CHECK(trial.entry.empty());
    Tensor logits;
    const Outcome plain = plain_transformer(config, trial, logits);
    const Distance distance = distance_from(plain, logits, summed(mrbp, trial), trial);
    fmt::print("transformer against plain ops: outputs {:.1e}, gradients {:.1e}\n",
               distance.outputs, distance.gradients);
    CHECK(all_within(distance, kSame));
    const Outcome wrong = plain_transformer(config, trial, logits, false);
    CHECK(distance_from(wrong, logits, summed(mrbp, trial), trial).gradients > 1e-6);
  }

  TEST_CASE("models: mrbp runs again what the state needs, and for a Transformer nothing") {
    for (const ModelRow& row : model_rows()) {
      CAPTURE(row.title);
      Draws draw(RngKey{97});
      const TokenTrial trial = token_trial(draw, row, DType::f64, {.batch = 2, .count = 4});
      const std::int64_t once = forward_work(bptt, trial), again = forward_work(mrbp, trial);
      if (row.name == "transformer") CHECK(again == once);
      if (row.carries == Carries::text) CHECK(again > once);
      CHECK(again < 2 * once);
    }
  }
}

}  // namespace mf::test
