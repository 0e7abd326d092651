#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memformer/train/config.h"
#include "tests/support.h"

/// One table of all models behind Recurrence, and windows of segments in next-token form: what the
/// tests that hold for every model share.
namespace mf::test {

/// What a segment leaves for later ones.
enum class Carries {
  nothing,  ///< every segment for itself
  text      ///< what was read
};

/// A small model: `settings` of its configuration ("width=8"), and what is true of it.
struct ModelRow {
  std::string title;
  std::string name;  ///< model.name
  std::vector<std::string> settings;
  Carries carries = Carries::text;
  std::int64_t unit = 1;         ///< divides the length of its segments
  bool causal = true;            ///< else its tokens see the whole segment
  bool exact = true;             ///< without stop-gradients: its gradient is its loss's derivative
  bool has_auxiliary = false;    ///< a loss made inside the step
  bool fills = true;             ///< its state grows no more after four segments of full length
  bool same_bits_afresh = true;  ///< masked rows of an older document stand for no rows at all
};

inline const std::vector<ModelRow>& model_rows() {
  static const auto rows = [] {
    using Carries::nothing, Carries::text;
    using S = std::vector<std::string>;
    const auto memformer = [](S more) {
      S all{"encoder_layers=2", "decoder_layers=1", "feed_forward=12", "heads=2"};
      all.insert(all.end(), more.begin(), more.end());
      return all;
    };
    const auto stack = [](S more) {
      S all{"layers=2", "feed_forward=12", "heads=2"};
      all.insert(all.end(), more.begin(), more.end());
      return all;
    };
    return std::vector<ModelRow>{
        {.title = "Memformer, encoder only",
         .name = "memformer",
         .settings =
             memformer({"architecture=encoder_only", "slots=3", "forgetting_initial_norm=1"}),
         .causal = false},
        {.title = "Memformer, dropout",
         .name = "memformer",
         .settings =
             memformer({"architecture=encoder_only", "slots=2", "dropout=0.2", "positions=none"}),
         .causal = false},
        {.title = "Memformer with decoder",
         .name = "memformer",
         .settings = memformer({"slots=2", "dropout=0.1", "tie_output=false"}),
         .causal = false},
        {.title = "Memformer without slots",
         .name = "memformer",
         .settings = memformer({"architecture=encoder_only", "slots=0"}),
         .carries = nothing,
         .causal = false},
        {.title = "Transformer",
         .name = "transformer",
         .settings = stack({"activation=silu"}),
         .carries = nothing},
        {.title = "Transformer, relative bias, dropout",
         .name = "transformer",
         .settings = stack({"positions=relative_bias", "dropout=0.2", "attention_dropout=0.1"}),
         .carries = nothing},
        {.title = "Transformer-XL, cache 0",
         .name = "transformer-xl",
         .settings = stack({"cache=0"}),
         .carries = nothing},
        {.title = "Transformer-XL, cache shorter than a segment",
         .name = "transformer-xl",
         .settings = stack({"cache=3", "pre_norm=false", "head_width=3", "embedding_scale=1"}),
         .same_bits_afresh = false},
        {.title = "Transformer-XL, cache of more than a segment",
         .name = "transformer-xl",
         .settings = stack({"cache=8", "dropout=0.2", "attention_dropout=0.2"}),
         .same_bits_afresh = false},
        {.title = "Transformer-XL, post-norm, a cache that never fills",
         .name = "transformer-xl",
         .settings = stack({"cache=100", "layers=3", "pre_norm=false", "dropout=0.1"}),
         .fills = false,
         .same_bits_afresh = false},
        {.title = "Compressive, convolution trained by the task",
         .name = "compressive",
         .settings = stack({"cache=4", "compressed=3", "rate=2", "reconstruction=0",
                            "task_gradient=true", "dropout=0.1"}),
         .unit = 2,
         .same_bits_afresh = false},
        {.title = "Compressive, mean pooling, post-norm",
         .name = "compressive",
         .settings = stack({"cache=2", "compressed=4", "rate=2", "mean_pooling=true",
                            "task_gradient=true", "pre_norm=false"}),
         .unit = 2,
         .same_bits_afresh = false},
        {.title = "Compressive, as published",
         .name = "compressive",
         .settings = stack({"cache=4", "compressed=4", "rate=2", "dropout=0.2"}),
         .unit = 2,
         .exact = false,
         .has_auxiliary = true,
         .same_bits_afresh = false},
        {.title = "Compressive, both losses, post-norm, rate 3",
         .name = "compressive",
         .settings = stack({"cache=3", "compressed=5", "rate=3", "reconstruction=0.5",
                            "task_gradient=true", "pre_norm=false"}),
         .unit = 3,
         .exact = false,
         .has_auxiliary = true,
         .same_bits_afresh = false},
        {.title = "Compressive, everything compressed",
         .name = "compressive",
         .settings =
             stack({"cache=0", "compressed=4", "rate=2", "reconstruction=0", "task_gradient=true"}),
         .unit = 2,
         .same_bits_afresh = false},
        {.title = "Compressive, nothing compressed",
         .name = "compressive",
         .settings = stack({"cache=4", "compressed=0", "rate=2"}),
         .same_bits_afresh = false},
        {.title = "RMT", .name = "rmt", .settings = stack({"memory=2"})},
        {.title = "RMT, post-norm, dropout",
         .name = "rmt",
         .settings = stack({"memory=3", "pre_norm=false", "dropout=0.2", "attention_dropout=0.1"})},
        {.title = "RMT that does not write",
         .name = "rmt",
         .settings = stack({"memory=2", "write=false"}),
         .carries = nothing},
        {.title = "RMT without memory",
         .name = "rmt",
         .settings = stack({"memory=0"}),
         .carries = nothing},
        {.title = "LSTM", .name = "lstm", .settings = {"layers=2", "dropout=0.2"}},
        {.title = "LSTM, replay of 2 tokens",
         .name = "lstm",
         .settings = {"layers=2", "replay_tokens=2"}},
        {.title = "LSTM of one layer, replay of 4 tokens, dropout",
         .name = "lstm",
         .settings = {"layers=1", "replay_tokens=4", "dropout=0.1"}}};
  }();
  return rows;
}

constexpr std::int64_t kTokenVocabulary = 11, kTokenSegment = 6;

/// The configuration of "name=.." and further settings of the model, each without "model.".
inline RunConfig token_config(const std::string& name, const std::vector<std::string>& settings,
                              DType dtype) {
  std::vector<std::string> all{"model.name=" + name,
                               fmt::format("model.vocabulary={}", kTokenVocabulary),
                               "model.width=8", fmt::format("model.segment={}", kTokenSegment),
                               fmt::format("model.dtype={}", name_of(dtype))};
  for (const std::string& setting : settings) all.push_back("model." + setting);
  return with_settings(RunConfig{}, all);
}

/// A model whose weights are all away from special values.
inline std::unique_ptr<Recurrence> token_model(const RunConfig& config, RngKey key) {
  std::unique_ptr<Recurrence> model = make_model(config, key);
  perturb(model->parameters(), key.at("perturb"));
  return model;
}

/// How the segments of a window are drawn.
struct TokenSegments {
  std::int64_t batch = 2, count = 4;
  std::int64_t length = kTokenSegment;  ///< of each, if `vary` is false
  bool vary = false;  ///< lengths, segments without targets, unscored places, rows that start anew
  std::int64_t unit = 1;  ///< divides every length
  bool decodes = false;   ///< with decoder inputs
  std::int64_t vocabulary = kTokenVocabulary;
};

/// Consecutive pieces of one random text, each token scored on the next.
inline std::vector<Segment> token_segments(Draws& draw, const TokenSegments& how) {
  std::vector<std::int64_t> lengths;
  std::int64_t total = 0;
  for (std::int64_t t = 0; t < how.count; ++t) {
    lengths.push_back(how.vary ? how.unit * draw.between(1, how.length / how.unit) : how.length);
    total += lengths.back();
  }
  const Tensor text = random_ids(draw, how.batch, total + 1, how.vocabulary);
  const auto part = [&](std::int64_t begin, std::int64_t length) {
    return text.slice(1, begin, begin + length).contiguous();
  };
  std::vector<Segment> segments;
  std::int64_t begin = 0;
  for (std::int64_t t = 0; t < how.count; ++t) {
    const std::int64_t length = lengths[static_cast<std::size_t>(t)];
    Segment& segment = segments.emplace_back();
    segment.tokens = part(begin, length);
    if (how.vary && t > 0 && draw.chance(0.3)) {
      std::vector<std::uint8_t> reset;
      for (std::int64_t b = 0; b < how.batch; ++b) reset.push_back(draw.chance(0.5) ? 1 : 0);
      segment.reset = from_host(reset, {how.batch});
    }
    if (!how.vary || t + 1 == how.count || draw.chance(0.7)) {
      std::vector<std::int32_t> targets = part(begin + 1, length).to_vector<std::int32_t>();
      for (std::size_t i = 0; i < targets.size(); ++i) {
        if (how.vary && i > 0 && draw.chance(0.2)) targets[i] = kIgnore;
        segment.scored += targets[i] == kIgnore ? 0 : 1;
      }
      segment.targets = from_host(targets, {how.batch, length});
      if (how.decodes) segment.decoder_inputs = segment.tokens;
    }
    begin += length;
  }
  return segments;
}

/// Whether the model of this configuration has a decoder to feed.
inline bool decodes(const RunConfig& config) {
  return !config.baseline && config.model.architecture == Architecture::encoder_decoder;
}

/// A model, a window and all else that a pass over it needs.
struct TokenTrial {
  std::unique_ptr<Recurrence> model;
  std::vector<Segment> segments;
  State entry;
  RngKey key;
};

/// Values of the state behind `segments`, one after the other from `entry`.
inline State state_after(const Recurrence& model, std::span<const Segment> segments,
                         const State& entry, RngKey key, Mode mode = Mode::train) {
  LiveState state = constants_of(entry);
  for (std::size_t t = 0; t < segments.size(); ++t) {
    Tape off = Tape::off();
    state = model.next_state(Pass{off, key.at(t), mode, {}}, segments[t], state);
  }
  return values_of(state);
}

/// A trial of a row. `continued`: its window does not begin at the start of the text.
inline TokenTrial token_trial(Draws& draw, const ModelRow& row, DType dtype, TokenSegments how,
                              bool continued = false) {
  const RunConfig config = token_config(row.name, row.settings, dtype);
  TokenTrial trial{token_model(config, draw.key()), {}, {}, draw.key()};
  how.unit = row.unit;
  how.decodes = decodes(config);
  trial.segments = token_segments(draw, how);
  trial.entry = trial.model->initial_state(how.batch);
  for (auto& part : trial.entry) part.value = part.value.clone();  // may be a view of a parameter
  if (continued) {
    how.count = 4;
    how.vary = false;
    trial.entry = state_after(*trial.model, token_segments(draw, how), trial.entry, draw.key());
  }
  return trial;
}

template <class Method>
Outcome run_window(const Method& method, const TokenTrial& trial,
                   const WindowOptions& options = {}) {
  return run_window(method, *trial.model, trial.segments, trial.entry, trial.key, options);
}

/// Logits of every segment, in evaluation mode and without a tape.
inline std::vector<Tensor> outputs_of(const Recurrence& model, std::span<const Segment> segments,
                                      const State& entry) {
  std::vector<Tensor> outputs;
  State state = entry;
  for (const Segment& segment : segments) {
    StepValues step = evaluate_step(model, segment, state);
    outputs.push_back(step.outputs);
    state = std::move(step.next);
  }
  return outputs;
}

/// Largest relative difference over all gradients; a gradient that did not arrive counts as zero.
inline double gradient_difference(const Outcome& a, const Outcome& b) {
  double worst = 0.0;
  for (std::size_t i = 0; i < b.gradients.size(); ++i) {
    const auto& [name, y] = b.gradients[i];
    const Tensor& x = a.gradients[i].second;
    check(a.gradients[i].first == name, "gradient_difference: {} beside {}", a.gradients[i].first,
          name);
    if (!x.defined() && !y.defined()) continue;
    const Tensor left = x.defined() ? x : zeros_like(y);
    worst = std::max(worst, relative_difference(left, y.defined() ? y : zeros_like(x)));
  }
  return worst;
}

/// |a - b| / |b| over all gradients together.
inline double gradient_distance(const Outcome& a, const Outcome& b) {
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < b.gradients.size(); ++i) {
    const Tensor& x = a.gradients[i].second;
    const Tensor& y = b.gradients[i].second;
    if (!x.defined() && !y.defined()) continue;
    const Tensor left = x.defined() ? x : zeros_like(y), right = y.defined() ? y : zeros_like(x);
    difference += sum_of_squares(sub(left, right));
    size += sum_of_squares(right);
  }
  return std::sqrt(difference / size);
}

}  // namespace mf::test
