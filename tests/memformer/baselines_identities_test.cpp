// Identities between the baselines, and what each of them must and must not pass on.

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "tests/memformer/plain_models.h"

namespace mf::test {
namespace {

constexpr double kSame = 1e-12;

template <class Config>
std::int64_t parameter_count(const Config& config) {
  return count_elements(typename Config::Model(config, RngKey{1}).parameters());
}

CompressiveConfig compressive(bool pre_norm = true) {
  auto config = small_stack<CompressiveConfig>(pre_norm);
  config.layers = 2;
  config.cache = 4;
  config.compressed = 3;
  config.rate = 2;
  config.reconstruction = 0.0;
  config.task_gradient = true;
  return config;
}

/// The Transformer-XL with the sizes of a Compressive Transformer.
TransformerXlConfig without_compression(const CompressiveConfig& from, std::int64_t cache) {
  TransformerXlConfig config;
  static_cast<RelativeStackConfig&>(config) = from;
  config.cache = cache;
  return config;
}

const std::string kCompressor = "compressors.";

/// Each compressor's kernel made the one that adds up its rows times `factor`, without bias. With a
/// `mistake` each feature goes to its neighbour's place.
void make_kernels_even(const Recurrence& model, std::int64_t width, double factor,
                       std::int64_t mistake = 0) {
  for (Parameter parameter : model.parameters()) {
    if (!parameter.name().starts_with(kCompressor)) continue;
    Tensor& value = parameter.value();
    value.fill_(0.0);
    if (value.rank() == 1) continue;
    auto* w = value.mutable_data<double>();
    for (std::int64_t row = 0; row < value.size(0); ++row)
      w[row * width + (row + mistake) % width] = factor;
  }
}

struct Difference {
  double outputs = 0.0, loss = 0.0, gradients = 0.0;
};

/// Of two models on the same window, over the gradients that both have by name.
Difference difference_of(const TokenTrial& a, const TokenTrial& b) {
  Difference difference;
  difference.outputs = output_difference(outputs_of(*a.model, a.segments, a.entry),
                                         outputs_of(*b.model, b.segments, b.entry));
  WindowOptions sum;
  sum.scale = LossScale::sum;
  Outcome x = run_window(mrbp, a, sum), y = run_window(mrbp, b, sum);
  difference.loss = std::abs(x.result.loss_sum / y.result.loss_sum - 1.0);
  const auto drop_compressors = [](Outcome& outcome) {
    std::erase_if(outcome.gradients,
                  [](const auto& gradient) { return gradient.first.starts_with(kCompressor); });
  };
  drop_compressors(x);
  drop_compressors(y);
  difference.gradients = gradient_difference(x, y);
  return difference;
}

/// The same window under another model, with the weights of the same name.
template <class Config>
TokenTrial in_place_of(const TokenTrial& trial, const Config& config) {
  TokenTrial other{
      std::make_unique<typename Config::Model>(config, RngKey{5}), trial.segments, {}, trial.key};
  copy_parameters(*trial.model, *other.model);
  other.entry = other.model->initial_state(trial.segments.front().batch());
  return other;
}

/// A step in training mode behind two others, with the state as leaves: the auxiliary loss alone
/// is swept, and what it leaves is looked at.
struct AuxiliaryStep {
  double value = 0.0;
  double compressors = 0.0, others = 0.0;  ///< sums of squares of gradients
  bool reaches_state = false;
};

AuxiliaryStep auxiliary_step(const TokenTrial& trial) {
  const State before =
      state_after(*trial.model, std::span(trial.segments).first(2), trial.entry, trial.key);
  std::vector<Parameter> parameters = trial.model->parameters();
  zero_grad(parameters);
  Tape tape;
  const LiveState state = leaves_of(tape, before);
  const StepResult step =
      trial.model->step(Pass{tape, trial.key.at(2), Mode::train, {}}, trial.segments[2], state);
  AuxiliaryStep result;
  REQUIRE(step.auxiliary.on_tape());
  result.value = step.auxiliary.value.item();
  tape.backward(step.auxiliary);
  for (Parameter& parameter : parameters) {
    if (!parameter.grad().defined()) continue;
    double& sum = parameter.name().starts_with(kCompressor) ? result.compressors : result.others;
    sum += sum_of_squares(parameter.grad());
    parameter.zero_grad();
  }
  for (const auto& part : state)
    result.reaches_state |= part.value.on_tape() && tape.reached(part.value);
  return result;
}

/// How much the outputs from segment 1 on move when the first segment's tokens change.
double effect_of_the_first_segment(const TokenTrial& trial) {
  std::vector<Segment> changed = trial.segments;
  Draws draw(RngKey{7});
  changed[0].tokens =
      random_ids(draw, changed[0].batch(), changed[0].tokens.size(1), kTokenVocabulary);
  REQUIRE(!identical(changed[0].tokens, trial.segments[0].tokens));
  const std::vector<Tensor> before = outputs_of(*trial.model, trial.segments, trial.entry);
  const std::vector<Tensor> after = outputs_of(*trial.model, changed, trial.entry);
  return output_difference(std::span(after).subspan(1), std::span(before).subspan(1));
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("models: the published tiny setting has 923,148 parameters, 924,684 with 12 tokens") {
    const auto tiny = [](auto config) {
      config.vocabulary = 12;
      config.width = 128;
      config.layers = 4;
      config.heads = 4;
      config.head_width = 64;
      config.feed_forward = 256;
      config.pre_norm = false;
      return config;
    };
    RmtConfig rmt = tiny(RmtConfig{});
    rmt.memory = 12;
    CHECK(parameter_count(tiny(TransformerXlConfig{})) == 923148);
    CHECK(parameter_count(rmt) == 924684);
    rmt.memory = 0;
    CHECK(parameter_count(rmt) == 923148);
  }

  TEST_CASE("models: pieces with carried state are one call on the whole, where there is one") {
    constexpr std::int64_t kPieces = 4, kPiece = 3;
    const std::vector<std::pair<std::string, std::vector<std::string>>> models{
        {"transformer-xl", {"cache=12", "heads=2", "layers=3"}},
        {"transformer-xl", {"cache=12", "heads=2", "pre_norm=false"}},
        {"compressive", {"cache=12", "compressed=4", "rate=3", "heads=2"}},
        {"lstm", {"layers=2"}},
        {"lstm", {"layers=2", "replay_tokens=2"}}};
    for (const auto& [name, settings] : models) {
      CAPTURE(name);
      RunConfig config = token_config(name, settings, DType::f64);
      config = with_settings(config, {"model.segment=12"});
      Draws draw(RngKey{101});
      TokenTrial pieces{token_model(config, RngKey{102}), {}, {}, RngKey{103}};
      pieces.segments = token_segments(draw, {.batch = 2, .count = kPieces, .length = kPiece});
      pieces.entry = pieces.model->initial_state(2);
      TokenTrial whole{token_model(config, RngKey{102}), {}, pieces.entry, RngKey{103}};
      Segment& all = whole.segments.emplace_back();
      all.tokens = whole_text(pieces.segments, &Segment::tokens);
      all.targets = whole_text(pieces.segments, &Segment::targets);
      all.scored = all.targets.elements();
      const Tensor joined = concat(outputs_of(*pieces.model, pieces.segments, pieces.entry), 1);
      CHECK(relative_difference(joined, outputs_of(*whole.model, whole.segments, whole.entry)[0]) <=
            kSame);
      WindowOptions sum;
      sum.scale = LossScale::sum;
      const Outcome a = run_window(mrbp, pieces, sum), b = run_window(mrbp, whole, sum);
      CHECK(gradient_difference(a, b) <= kSame);
      // Negative control: pieces that do not continue each other.
      for (Segment& segment : pieces.segments) segment.reset = full({2}, 1, DType::u8);
      CHECK(gradient_difference(run_window(mrbp, pieces, sum), b) > 1e-3);
    }
  }

  TEST_CASE(
      "compressive: at rate 1 with an identity kernel it is the Transformer-XL with a cache of "
      "both lengths, exactly") {
    for (const bool pre_norm : {true, false}) {
      CAPTURE(pre_norm);
      CompressiveConfig config = compressive(pre_norm);
      config.rate = 1;
      TokenTrial trial = trial_of(config, RngKey{104}, {.count = 6});
      make_kernels_even(*trial.model, config.width, 1.0);
      const Difference same =
          difference_of(trial, in_place_of(trial, without_compression(config, 7)));
      fmt::print("compressive as transformer-xl: outputs {:.1e}, loss {:.1e}, gradients {:.1e}\n",
                 same.outputs, same.loss, same.gradients);
      CHECK(same.outputs == 0.0);
      CHECK(same.loss == 0.0);
      CHECK(same.gradients <= kSame);
      // Negative controls: a shorter cache, a kernel that is not the identity.
      CHECK(difference_of(trial, in_place_of(trial, without_compression(config, 4))).outputs >
            1e-6);
      make_kernels_even(*trial.model, config.width, 1.0, 1);
      CHECK(difference_of(trial, in_place_of(trial, without_compression(config, 7))).outputs >
            1e-6);
    }
  }

  TEST_CASE("compressive: without compressed rows it is the Transformer-XL, bit for bit") {
    CompressiveConfig config = compressive();
    config.compressed = 0;
    config.reconstruction = 1.0;
    const TokenTrial trial = trial_of(config, RngKey{105}, {.count = 6});
    const TokenTrial other = in_place_of(trial, without_compression(config, config.cache));
    const Outcome a = run_window(mrbp, trial), b = run_window(mrbp, other);
    REQUIRE(a.gradients.size() == b.gradients.size());
    CHECK(a.result.segment_losses == b.result.segment_losses);
    CHECK(a.result.auxiliary == 0.0);
    for (std::size_t i = 0; i < a.gradients.size(); ++i)
      CHECK_MESSAGE(identical(a.gradients[i].second, b.gradients[i].second), a.gradients[i].first);
  }

  TEST_CASE("compressive: a kernel of I / c is mean pooling") {
    for (const std::int64_t rate : {2, 3}) {
      CAPTURE(rate);
      CompressiveConfig config = compressive();
      config.rate = rate;
      config.cache = 2 * rate;
      const TokenTrial trial = trial_of(config, RngKey{106}, {.count = 6});
      make_kernels_even(*trial.model, config.width, 1.0 / static_cast<double>(rate));
      CompressiveConfig pooling = config;
      pooling.mean_pooling = true;
      const TokenTrial pooled = in_place_of(trial, pooling);
      const Difference same = difference_of(trial, pooled);
      CHECK(same.outputs <= kSame);
      CHECK(same.gradients <= kSame);
      make_kernels_even(*trial.model, config.width, 1.0 / static_cast<double>(rate), 1);
      CHECK(difference_of(trial, pooled).outputs > 1e-6);
    }
  }

  TEST_CASE("compressive: the auxiliary loss trains the compressors and nothing else") {
    for (const bool task_gradient : {false, true})
      for (const bool pre_norm : {false, true}) {
        CAPTURE(task_gradient);
        CompressiveConfig config = compressive(pre_norm);
        config.reconstruction = 2.0;
        config.task_gradient = task_gradient;
        const TokenTrial trial = trial_of(config, RngKey{107}, {.count = 3});
        const AuxiliaryStep step = auxiliary_step(trial);
        CHECK(step.value > 0.0);
        CHECK(step.compressors > 0.0);
        CHECK(step.others == 0.0);
        CHECK(!step.reaches_state);
        // Its derivative, along each compressor at once: the memory that it reads is held still.
        const State before =
            state_after(*trial.model, std::span(trial.segments).first(2), trial.entry, trial.key);
        const auto auxiliary = [&] {
          Tape off = Tape::off();
          return trial.model
              ->step(Pass{off, trial.key.at(2), Mode::train, {}}, trial.segments[2],
                     constants_of(before))
              .auxiliary.value.item();
        };
        std::vector<Parameter> parameters = trial.model->parameters();
        Tape tape;
        const StepResult once = trial.model->step(Pass{tape, trial.key.at(2), Mode::train, {}},
                                                  trial.segments[2], constants_of(before));
        tape.backward(once.auxiliary);
        for (Parameter& parameter : parameters) {
          if (!parameter.name().starts_with(kCompressor)) continue;
          const Tensor gradient = parameter.grad(), origin = parameter.value().clone();
          const double length = std::sqrt(sum_of_squares(gradient));
          add_(parameter.value(), gradient, 1e-6 / length);
          const double above = auxiliary();
          parameter.value().copy_(origin);
          add_(parameter.value(), gradient, -1e-6 / length);
          const double below = auxiliary();
          parameter.value().copy_(origin);
          CHECK(std::abs((above - below) / 2e-6 - length) <= 1e-8 + 1e-7 * length);
        }
        zero_grad(parameters);

        // Where compressing loses nothing there is nothing to learn.
        config.rate = 1;
        const TokenTrial lossless = trial_of(config, RngKey{107}, {.count = 3});
        CHECK(auxiliary_step(lossless).value > 0.0);
        make_kernels_even(*lossless.model, config.width, 1.0);
        const AuxiliaryStep still = auxiliary_step(lossless);
        CHECK(still.value == 0.0);
        CHECK(still.compressors == 0.0);
        CHECK(still.others == 0.0);
      }
  }

  TEST_CASE("compressive: the auxiliary loss is the mean squared error of content attention") {
    // One layer that keeps nothing uncompressed: the rows that leave are the embeddings.
    CompressiveConfig config = compressive(false);
    config.layers = 1;
    config.cache = 0;
    config.reconstruction = 0.5;
    const TokenTrial trial = trial_of(config, RngKey{108}, {.count = 1});
    PlainModel plain(*trial.model, config);
    const Var x = plain.embedded(trial.segments[0].tokens, std::sqrt(8.0));
    const Var groups = reshape(x, {2, kTokenSegment / 2, 16});
    const Var z = plain.affine_map(groups, "compressors.0");
    const auto attended = [&](const Var& rows) {
      const auto projected = [&](const Var& y, const char* name) {
        return PlainModel::heads_of(matmul(y, plain[fmt::format("layers.0.{}.weight", name)]), 2);
      };
      const Var scores = scale(matmul(projected(x, "query"), transpose(projected(rows, "key"))),
                               1.0 / std::sqrt(5.0));
      return PlainModel::mixed(scores, projected(rows, "value"), {});
    };
    const Var error = sub(attended(x), attended(z));
    const double expected = 0.5 * mean(square(error)).value.item();
    const Outcome outcome = run_window(mrbp, trial);
    CHECK(std::abs(outcome.result.auxiliary / expected - 1.0) <= kSame);
    CHECK(std::abs(outcome.result.auxiliary / (2.0 * expected) - 1.0) > 0.1);
  }

  TEST_CASE("compressive: the task trains the compressors through the memory if it is let") {
    CompressiveConfig config = compressive();
    const auto squares = [](const TokenTrial& trial) {
      double sum = 0.0;
      for (const auto& [name, gradient] : run_window(mrbp, trial).gradients)
        if (name.starts_with(kCompressor) && gradient.defined()) sum += sum_of_squares(gradient);
      return sum;
    };
    CHECK(squares(trial_of(config, RngKey{109}, {.count = 6})) > 0.0);
    // Nothing reads what the last segment compresses.
    CHECK(squares(trial_of(config, RngKey{109}, {.count = 1})) == 0.0);
    config.task_gradient = false;
    const TokenTrial published = trial_of(config, RngKey{109}, {.count = 6});
    CHECK(squares(published) == 0.0);
    // The forward pass is the same.
    config.task_gradient = true;
    const TokenTrial trained = trial_of(config, RngKey{109}, {.count = 6});
    CHECK(difference_of(trained, published).outputs == 0.0);
  }

  TEST_CASE("compressive: lengths that the rate does not divide are refused by name") {
    CompressiveConfig config = compressive();
    config.segment = 7;
    CHECK_THROWS_WITH_AS(validate(config), doctest::Contains("model.rate is 2"), Error);
    config.segment = 6;
    config.cache = 3;
    CHECK_THROWS_WITH_AS(validate(config), doctest::Contains("model.cache 3"), Error);
    config.cache = 4;
    CHECK_NOTHROW(validate(config));
    const TokenTrial odd = trial_of(config, RngKey{110}, {.count = 3, .length = 5});
    CHECK_THROWS_WITH_AS(run_window(mrbp, odd), doctest::Contains("model.rate 2 does not divide"),
                         Error);
    CHECK_NOTHROW(run_window(mrbp, trial_of(config, RngKey{110}, {.count = 3, .length = 4})));
  }

  TEST_CASE("compressive: a group of rows that begins in an older document is hidden whole") {
    // Two segments of 3 tokens: the second group that leaves holds a row of each.
    TokenTrial trial = trial_of(compressive(), RngKey{113}, {.count = 5, .length = 4});
    for (std::size_t t = 0; t < 2; ++t) {
      Segment& segment = trial.segments[t];
      segment.tokens = segment.tokens.slice(1, 0, 3).contiguous();
      segment.targets = segment.targets.slice(1, 0, 3).contiguous();
      segment.scored = segment.targets.elements();
    }
    CHECK(effect_of_the_first_segment(trial) > 1e-6);
    trial.segments[1].reset = full({2}, 1, DType::u8);
    CHECK(effect_of_the_first_segment(trial) == 0.0);
    const Outcome unrolled = run_window(bptt, trial);
    CHECK(join(differences(run_window(mrbp, trial), unrolled)) == "");
  }

  TEST_CASE("rmt: only what is written reaches later segments") {
    auto config = small_stack<RmtConfig>(true);
    config.memory = 3;
    const double written = effect_of_the_first_segment(trial_of(config, RngKey{111}, {}));
    config.write = false;
    const TokenTrial reading = trial_of(config, RngKey{111}, {});
    const double only_read = effect_of_the_first_segment(reading);
    config.memory = 0;
    const double without = effect_of_the_first_segment(trial_of(config, RngKey{111}, {}));
    fmt::print(
        "rmt: effect of the first segment on later ones {:.3f}, without write rows {}, "
        "without memory {}\n",
        written, only_read, without);
    CHECK(written > 1e-3);
    CHECK(only_read == 0.0);
    CHECK(without == 0.0);
    CHECK(reading.entry.empty());
    // In every segment the tokens that are read are trained, not only where a document begins.
    const std::span<const Segment> second(reading.segments.data() + 1, 1);
    for (const auto& [name, gradient] :
         run_window(bptt, *reading.model, second, reading.entry, reading.key).gradients)
      if (name == "initial_memory") CHECK(sum_of_squares(gradient) > 0.0);
  }

  TEST_CASE("rmt: MRBP = BPTT bit for bit through 32 segments") {
    for (const DType dtype : {DType::f32, DType::f64}) {
      auto config = small_stack<RmtConfig>(dtype == DType::f64);
      config.memory = 3;
      config.dropout = 0.1;
      config.dtype = dtype;
      const TokenTrial trial = trial_of(config, RngKey{112}, {.count = 32});
      const Outcome unrolled = run_window(bptt, trial);
      CHECK(join(differences(run_window(mrbp, trial), unrolled)) == "");
      CHECK(sum_of_squares(unrolled.result.entry_gradient[0].value) > 0.0);
      CHECK(differences(
                run_window(mrbp, WithoutSeed(*trial.model), trial.segments, trial.entry, trial.key),
                unrolled)
                .size() > 20);
    }
  }
}

}  // namespace mf::test
