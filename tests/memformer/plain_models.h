#pragma once

#include <cmath>
#include <functional>
#include <map>

#include "autograd/ops.h"
#include "tests/memformer/token_models.h"

/// The baselines written down a second time, from their equations and plain ops alone: no segments,
/// no caches, scores as full matrices, distances pair by pair. Parameters are found by name.
namespace mf::test {

class PlainModel {
 public:
  /// On a tape of its own, with the sizes of `config`, a configuration of a relative stack.
  PlainModel(const Recurrence& model, const RelativeStackConfig& config)
      : config_(config), parameters_(model.parameters()) {
    zero_grad(parameters_);
  }
  explicit PlainModel(const Recurrence& model) : PlainModel(model, RelativeStackConfig{}) {}

  Var operator[](const std::string& name) {
    for (const Parameter& parameter : parameters_)
      if (parameter.name() == name) return tape.param(parameter);
    fail("plain model: no parameter '{}'", name);
  }

  /// Token embeddings times `factor`: [B, N, d].
  Var embedded(const Tensor& tokens, double factor) {
    const Var rows = embedding((*this)["tokens.weight"], tokens);
    return scale(rows, factor);
  }

  /// (x - mean) / sqrt(var + epsilon) gain + bias.
  Var normed(const Var& x, const std::string& name, double epsilon = 1e-5) {
    const Var centred = sub(x, mean(x, {-1}, true));
    const Var deviation = sqrt(affine(mean(square(centred), {-1}, true), 1.0, epsilon));
    return add(mul(div(centred, deviation), (*this)[name + ".gain"]), (*this)[name + ".bias"]);
  }

  Var affine_map(const Var& x, const std::string& name) {
    return add(matmul(x, (*this)[name + ".weight"]), (*this)[name + ".bias"]);
  }

  Var feed(const Var& x, const std::string& name, Activation function = Activation::gelu) {
    return affine_map(activate(function, affine_map(x, name + ".up")), name + ".down");
  }

  /// [B, N, H dh] as [B, H, N, dh].
  static Var heads_of(const Var& x, std::int64_t heads) {
    return permute(reshape(x, {x.size(0), x.size(1), heads, x.size(2) / heads}), {0, 2, 1, 3});
  }

  /// softmax over the keys that each query sees, times the values: [B, N, H dh].
  static Var mixed(const Var& scores, const Var& values, const Tensor& hidden) {
    const Var seen = hidden.defined()
                         ? masked_fill(scores, hidden, -std::numeric_limits<double>::infinity())
                         : scores;
    const Var out = permute(matmul(softmax(seen), values), {0, 2, 1, 3});
    return reshape(contiguous(out), {out.size(0), out.size(1), out.size(2) * out.size(3)});
  }

  /// u8 [N, N]: 1 where a query does not see a key.
  static Tensor hidden_pairs(std::int64_t rows,
                             const std::function<bool(std::int64_t, std::int64_t)>& sees) {
    std::vector<std::uint8_t> hidden;
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < rows; ++j) hidden.push_back(sees(i, j) ? 0 : 1);
    return from_host(hidden, {rows, rows});
  }

  /// The relative stack over all rows x [B, N, d] at once. Query i sees key j if `sees`, at
  /// distance max(0, p_i - p_j), with the positions p counted from `first`. `error` is a mistake in
  /// the distances that a test plants.
  Var relative_stack(Var x, const std::function<bool(std::int64_t, std::int64_t)>& sees,
                     std::int64_t first = 0, std::int64_t error = 0) {
    const std::int64_t rows = x.size(1), width = x.size(2), heads = config_.heads;
    std::vector<double> sinusoids;  // a row for each pair
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < rows; ++j) {
        const std::int64_t p = first + i, q = first + j;
        const double distance = static_cast<double>(std::max<std::int64_t>(p - q, 0) + error);
        for (const bool sine : {true, false})
          for (std::int64_t k = 0; k < width / 2; ++k) {
            const double angle = distance * std::pow(10000.0, -2.0 * static_cast<double>(k) /
                                                                  static_cast<double>(width));
            sinusoids.push_back(sine ? std::sin(angle) : std::cos(angle));
          }
      }
    const Var pairs = constant(from_host(sinusoids, {rows * rows, width}));
    const Tensor hidden = hidden_pairs(rows, sees);
    const auto bias = [&](const std::string& name) {
      const Var u = (*this)[name];
      return reshape(u, {1, u.size(0), 1, u.size(1)});
    };
    for (std::int64_t l = 0; l < config_.layers; ++l) {
      const std::string at = fmt::format("layers.{}.", l);
      const auto norm = [&](const Var& y, const char* name) { return normed(y, at + name); };
      const Var own = config_.pre_norm ? norm(x, "attention_norm") : x;
      const auto projected = [&](const char* name) {
        return heads_of(matmul(own, (*this)[at + name + ".weight"]), heads);
      };
      const Var q = projected("query"), k = projected("key"), v = projected("value");
      const std::int64_t per_head = q.size(3);
      const Var by_content = matmul(add(q, bias("content_bias")), transpose(k));
      const Var r = permute(
          reshape(matmul(pairs, (*this)[at + "position.weight"]), {rows, rows, heads, per_head}),
          {2, 0, 1, 3});  // [H, N, N, dh]
      const Var qw = reshape(add(q, bias("position_bias")), {q.size(0), heads, rows, 1, per_head});
      const Var by_distance = sum(mul(qw, r), {-1});
      const Var scores =
          scale(add(by_content, by_distance), 1.0 / std::sqrt(static_cast<double>(per_head)));
      const Var attended = add(x, matmul(mixed(scores, v, hidden), (*this)[at + "output.weight"]));
      const Var y = config_.pre_norm ? attended : norm(attended, "attention_norm");
      const Var fed = add(y, feed(config_.pre_norm ? norm(y, "feed_forward_norm") : y,
                                  at + "feed_forward", config_.activation));
      x = config_.pre_norm ? fed : norm(fed, "feed_forward_norm");
    }
    return config_.pre_norm ? normed(x, "norm") : x;
  }

  /// Logits [B, N, V] with the tied table.
  Var logits(const Var& x) {
    return add(matmul(x, transpose((*this)["tokens.weight"])), (*this)["output_bias"]);
  }

  /// Sum of -log softmax at the targets, i32 [B, N].
  static Var loss_of(const Var& logits, const Tensor& targets) {
    const Var logs = log_softmax(logits);
    const std::vector<std::int32_t> wanted = targets.to_vector<std::int32_t>();
    std::vector<double> chosen(static_cast<std::size_t>(logits.value.elements()), 0.0);
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (wanted[i] != kIgnore)
        chosen[i * static_cast<std::size_t>(logits.size(2)) + static_cast<std::size_t>(wanted[i])] =
            -1.0;
    return sum(mul(logs, constant(from_host(chosen, logits.shape()))));
  }

  /// Sweeps from the loss; leaves loss and parameter gradients.
  Outcome swept(const Var& loss) {
    Outcome outcome;
    outcome.result.loss_sum = loss.value.item();
    tape.backward(loss);
    for (Parameter& parameter : parameters_) {
      outcome.gradients.emplace_back(parameter.name(), parameter.grad());
      parameter.zero_grad();
    }
    return outcome;
  }

  Tape tape;

 private:
  RelativeStackConfig config_;
  std::vector<Parameter> parameters_;
};

/// Query i sees what is not behind it.
inline bool causal_pair(std::int64_t i, std::int64_t j) { return j <= i; }

/// Tokens or targets of all segments, as one text.
inline Tensor whole_text(std::span<const Segment> segments, Tensor Segment::*part) {
  std::vector<Tensor> pieces;
  for (const Segment& segment : segments) pieces.push_back(segment.*part);
  return concat(pieces, 1);
}

/// A small relative stack in f64.
template <class Config>
Config small_stack(bool pre_norm) {
  Config config;
  config.vocabulary = kTokenVocabulary;
  config.width = 8;
  config.layers = 3;
  config.segment = kTokenSegment;
  config.heads = 2;
  config.head_width = 5;
  config.feed_forward = 12;
  config.pre_norm = pre_norm;
  config.activation = pre_norm ? Activation::gelu : Activation::silu;
  config.dtype = DType::f64;
  return config;
}

/// A trial of a baseline, fully scored, from the start of a text.
template <class Config>
TokenTrial trial_of(const Config& config, RngKey key, const TokenSegments& how) {
  Draws draw(key);
  TokenTrial trial{std::make_unique<typename Config::Model>(config, draw.key()), {}, {}, {}};
  perturb(trial.model->parameters(), draw.key());
  trial.segments = token_segments(draw, how);
  trial.entry = trial.model->initial_state(how.batch);
  for (auto& part : trial.entry) part.value = part.value.clone();
  trial.key = draw.key();
  return trial;
}

/// Gives the parameters of `to` the values of those of the same name.
inline void copy_parameters(const Recurrence& from, const Recurrence& to) {
  for (const Parameter& source : from.parameters())
    for (Parameter target : to.parameters())
      if (target.name() == source.name()) target.value().copy_(source.value());
}

/// Largest relative difference between two lists of outputs.
inline double output_difference(std::span<const Tensor> a, std::span<const Tensor> b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < b.size(); ++i)
    worst = std::max(worst, relative_difference(a[i], b[i]));
  return worst;
}

}  // namespace mf::test
