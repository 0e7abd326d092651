// What the model promises beyond numbers: what may influence what, bit for bit.

#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "autograd/ops.h"
#include "tests/support.h"

namespace mf::test {
namespace {

constexpr std::int64_t kBatch = 3, kLength = 5;

ModelConfig plain_config(DType dtype = DType::f32) {
  ModelConfig c;
  c.vocabulary = 11;
  c.width = 8;
  c.heads = 2;
  c.encoder_layers = 2;
  c.decoder_layers = 2;
  c.feed_forward = 12;
  c.segment = kLength;
  c.slots = 3;
  c.dtype = dtype;
  return c;
}

Memformer model_of(const ModelConfig& config) {
  Memformer model(config, RngKey{81});
  perturb(model.parameters(), RngKey{82}, 0.3);
  return model;
}

Tensor some_tokens(std::uint64_t seed) {
  Draws draw(RngKey{83}.at(seed));
  return random_ids(draw, kBatch, kLength, 11);
}

/// Row `row`, place `place` of u8 or i32 `x` changed.
Tensor with(const Tensor& x, std::int64_t row, std::int64_t place, double value) {
  Tensor changed = x.clone();
  changed.slice(0, row, row + 1).slice(1, place, place + 1).fill_(value);
  return changed;
}

/// A forward pass of one step, in evaluation.
struct Step {
  Tensor encoded, logits, next;
};

Step run_step(const Memformer& model, const Tensor& tokens, const Tensor& decoder_inputs,
              const Tensor& memory, const Tensor& padding = {}, const Tensor& reset = {}) {
  Tape off = Tape::off();
  const Pass pass{off, RngKey{84}, Mode::eval, {}};
  const Var entered = model.read_state(pass, {{"memory", constant(memory), true, {}}}, reset);
  const Var encoded = model.encode(pass, tokens, padding, entered);
  Step step{encoded.value, {}, {}};
  if (decoder_inputs.defined())
    step.logits = model.decode(pass, decoder_inputs, encoded, padding).value;
  const LiveState next = model.write(pass, entered, encoded, padding);
  if (!next.empty()) step.next = next[0].value.value;
  return step;
}

Tensor some_memory(const ModelConfig& c, std::uint64_t seed = 1) {
  return random_tensor({kBatch, c.slots, c.width}, RngKey{85}.at(seed), c.dtype);
}

Tensor row_of(const Tensor& x, std::int64_t row) { return x.slice(0, row, row + 1); }
Tensor slot_of(const Tensor& x, std::int64_t slot) { return x.slice(1, slot, slot + 1); }

double norm_of(const Tensor& x) { return std::sqrt(sum_of_squares(x)); }

template <class Index>
Tensor reordered(const Tensor& x, int axis, const std::vector<Index>& order) {
  std::vector<Tensor> parts;
  for (const Index i : order) parts.push_back(x.slice(axis, i, i + 1));
  return concat(parts, axis);
}

const std::vector<Positions> kPositions{Positions::learned, Positions::sinusoidal,
                                        Positions::relative_bias, Positions::simplified_relative,
                                        Positions::none};

/// The writer alone, with random weights.
struct BareWriter {
  ModelConfig config;
  MemoryWriter writer;
  explicit BareWriter(const ModelConfig& c) : config(c), writer(c, RngKey{86}) {
    perturb(parameters(writer), RngKey{87}, 0.5);
  }
  Tensor operator()(const Tensor& memory, const Tensor& tokens, const Tensor& padding = {}) const {
    Tape off = Tape::off();
    const Pass pass{off, RngKey{84}, Mode::eval, {}};
    return writer(pass, constant(memory), constant(tokens), padding).value;
  }
};

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("memory: every slot has the radius after every step, at the start and after resets") {
    for (const double radius : {0.0, 1.0, 3.5})
      for (const DType dtype : {DType::f32, DType::f64}) {
        ModelConfig config = plain_config(dtype);
        config.memory_radius = radius;
        const double expected = radius > 0.0 ? radius : std::sqrt(8.0);
        const Memformer model = model_of(config);
        Tensor memory = model.initial_state(kBatch)[0].value;
        const auto check_radius = [&] {
          for (std::int64_t b = 0; b < kBatch; ++b)
            for (std::int64_t i = 0; i < config.slots; ++i)
              CHECK(norm_of(slot_of(row_of(memory, b), i)) ==
                    doctest::Approx(expected).epsilon(dtype == DType::f64 ? 1e-10 : 1e-6));
        };
        check_radius();
        for (std::uint64_t t = 0; t < 5; ++t) {
          const Tensor reset = t == 3 ? from_host<std::uint8_t>({0, 1, 0}, {kBatch}) : Tensor{};
          memory = run_step(model, some_tokens(t), {}, memory, {}, reset).next;
          check_radius();
        }
      }
    // Without normalization the radius is another one.
    ModelConfig config = plain_config();
    config.memory_norm = MemoryNorm::none;
    const Tensor next = run_step(model_of(config), some_tokens(0), {}, some_memory(config)).next;
    CHECK(std::abs(norm_of(slot_of(row_of(next, 0), 0)) - std::sqrt(8.0)) > 1e-3);
  }

  TEST_CASE("memory: with LayerNorm instead, slots have mean 0 and variance 1") {
    ModelConfig config = plain_config(DType::f64);
    config.memory_norm = MemoryNorm::layer_norm;
    const Tensor next = run_step(model_of(config), some_tokens(0), {}, some_memory(config)).next;
    const Tensor means = mean(next, std::vector{-1});
    CHECK(norm_of(means) < 1e-12);
    CHECK(sum_of_squares(next) == doctest::Approx(kBatch * 3 * 8.0).epsilon(1e-3));
  }

  TEST_CASE("writer: as the temperature falls a slot takes its best match whole") {
    ModelConfig config = plain_config(DType::f64);
    config.heads = 1;
    config.temperature = 1e-9;
    const BareWriter sharp(config);
    const Tensor memory = some_memory(config);
    const Tensor tokens = random_tensor({kBatch, kLength, 8}, RngKey{2});
    const Tensor written = sharp(memory, tokens);
    const Tensor q = linear(memory, sharp.writer.query.weight.value(), {});
    const Tensor own = linear(memory, sharp.writer.key.weight.value(), {});
    const Tensor keys = linear(tokens, sharp.writer.key.weight.value(), {});
    const Tensor values = linear(tokens, sharp.writer.value.weight.value(), {});
    int kept = 0, replaced = 0;
    for (std::int64_t b = 0; b < kBatch; ++b)
      for (std::int64_t i = 0; i < config.slots; ++i) {
        const auto score = [&](const Tensor& key) {
          return sum(mul(slot_of(row_of(q, b), i), key)).item();
        };
        double best = score(slot_of(row_of(own, b), i));
        Tensor expected = slot_of(row_of(memory, b), i);
        bool keeps = true;
        for (std::int64_t j = 0; j < kLength; ++j) {
          const double other = score(slot_of(row_of(keys, b), j));
          if (other <= best) continue;
          best = other;
          expected = slot_of(row_of(values, b), j);
          keeps = false;
        }
        CHECK(identical(slot_of(row_of(written, b), i).contiguous(), expected.contiguous()));
        (keeps ? kept : replaced) += 1;
      }
    CHECK(kept > 0);
    CHECK(replaced > 0);
    config.temperature = 1.0;
    CHECK(relative_difference(BareWriter(config)(memory, tokens), written) > 1e-2);
  }

  TEST_CASE("writer: a slot that attends only to itself is kept bit for bit") {
    ModelConfig config = plain_config();
    const BareWriter writer(config);
    const Tensor memory = some_memory(config);
    const Tensor tokens = random_tensor({kBatch, kLength, 8}, RngKey{2}, DType::f32);
    // With every token hidden nothing else is left to attend to.
    CHECK(identical(writer(memory, tokens, zeros({kBatch, kLength}, DType::u8)), memory));
    CHECK(!identical(writer(memory, tokens), memory));
    // The first paper's writer projects the slot's own value.
    config.writer_project_value = true;
    CHECK(!identical(BareWriter(config)(memory, tokens, zeros({kBatch, kLength}, DType::u8)),
                     memory));
  }

  TEST_CASE("writer: a slot's update does not depend on any other slot, bit for bit") {
    for (const bool v1 : {false, true}) {
      ModelConfig config = plain_config();
      if (v1) config.use_v1_writer();
      const BareWriter writer(config);
      const Tensor tokens = random_tensor({kBatch, kLength, 8}, RngKey{2}, DType::f32);
      const Tensor memory = some_memory(config);
      const Tensor before = writer(memory, tokens);
      for (std::int64_t changed = 0; changed < config.slots; ++changed) {
        const Tensor after = writer(with(memory, 1, changed, 0.7), tokens);
        for (std::int64_t b = 0; b < kBatch; ++b)
          for (std::int64_t i = 0; i < config.slots; ++i)
            CHECK(identical(slot_of(row_of(after, b), i), slot_of(row_of(before, b), i)) ==
                  !(b == 1 && i == changed));
      }
    }
  }

  TEST_CASE(
      "memory: permuting the slots together with their forgetting vectors permutes the result") {
    const ModelConfig config = plain_config(DType::f64);
    const std::vector<std::int64_t> order{2, 0, 1};
    const Memformer model = model_of(config), permuted = model_of(config);
    for (Parameter parameter : permuted.parameters())
      if (parameter.name() == "memory.forgetting")
        parameter.value().copy_(reordered(parameter.value(), 0, order));
    const Tensor memory = some_memory(config), tokens = some_tokens(1), inputs = some_tokens(2);
    const Step plain = run_step(model, tokens, inputs, memory);
    const Step other = run_step(permuted, tokens, inputs, reordered(memory, 1, order));
    // Sums over slots change their order, so equal but for rounding.
    CHECK(relative_difference(other.next, reordered(plain.next, 1, order)) <= 1e-13);
    CHECK(relative_difference(other.logits, plain.logits) <= 1e-13);
    const Step unmoved = run_step(model, tokens, inputs, reordered(memory, 1, order));
    CHECK(relative_difference(unmoved.next, reordered(plain.next, 1, order)) > 1e-3);
  }

  TEST_CASE(
      "decoder: a logit does not change by a bit when a later input does, for any positions") {
    for (const Positions positions : kPositions) {
      ModelConfig config = plain_config();
      config.positions = positions;
      const Memformer model = model_of(config);
      const Tensor memory = some_memory(config), tokens = some_tokens(1), inputs = some_tokens(2);
      const Tensor before = run_step(model, tokens, inputs, memory).logits;
      for (std::int64_t p = 0; p < kLength; ++p) {
        const double other = inputs.slice(0, 1, 2).slice(1, p, p + 1).item() < 5 ? 9 : 1;
        const Tensor after = run_step(model, tokens, with(inputs, 1, p, other), memory).logits;
        CHECK(identical(after.slice(1, 0, p), before.slice(1, 0, p)));
        for (std::int64_t i = p; i < kLength; ++i)
          CHECK(!identical(slot_of(row_of(after, 1), i), slot_of(row_of(before, 1), i)));
      }
    }
  }

  TEST_CASE("encoder: every output depends on every token, for any positions") {
    for (const Positions positions : kPositions) {
      ModelConfig config = plain_config();
      config.positions = positions;
      const Memformer model = model_of(config);
      const Tensor memory = some_memory(config), tokens = some_tokens(1);
      const Tensor before = run_step(model, tokens, {}, memory).encoded;
      for (std::int64_t p = 0; p < kLength; ++p) {
        const double other = tokens.slice(0, 1, 2).slice(1, p, p + 1).item() < 5 ? 9 : 1;
        const Tensor after = run_step(model, with(tokens, 1, p, other), {}, memory).encoded;
        for (std::int64_t i = 0; i < kLength; ++i)
          CHECK(!identical(slot_of(row_of(after, 1), i), slot_of(row_of(before, 1), i)));
        for (const std::int64_t row : {0, 2})
          CHECK(identical(row_of(after, row), row_of(before, row)));
      }
    }
  }

  TEST_CASE("memformer: positions matter where there are some, and not where there are none") {
    for (const Positions positions : kPositions) {
      ModelConfig config = plain_config(DType::f64);
      config.positions = positions;
      const Memformer model = model_of(config);
      const Tensor memory = some_memory(config), tokens = some_tokens(1);
      const std::vector<std::int64_t> backwards{4, 3, 2, 1, 0};
      const Tensor plain = run_step(model, tokens, {}, memory).encoded;
      const Tensor turned = run_step(model, reordered(tokens, 1, backwards), {}, memory).encoded;
      const double difference = relative_difference(reordered(turned, 1, backwards), plain);
      if (positions == Positions::none) CHECK(difference <= 1e-13);
      if (positions != Positions::none) CHECK(difference > 1e-4);
    }
  }

  TEST_CASE("decoder: sees the memory through the encoder's output only") {
    const ModelConfig config = plain_config();
    const Memformer model = model_of(config);
    const Tensor tokens = some_tokens(1), inputs = some_tokens(2);
    const Step one = run_step(model, tokens, inputs, some_memory(config, 1));
    const Step two = run_step(model, tokens, inputs, some_memory(config, 2));
    CHECK(!identical(one.logits, two.logits));
    // The decoder is a function of its inputs and E_t: given E_t, the memory is gone.
    Tape off = Tape::off();
    const Pass pass{off, RngKey{84}, Mode::eval, {}};
    CHECK(identical(model.decode(pass, inputs, constant(one.encoded), {}).value, one.logits));
    // Neither do the memory written now, nor the writer that wrote it, touch this step's
    // prediction.
    const Memformer other_writer = model_of(config);
    for (Parameter parameter : other_writer.parameters())
      if (parameter.name().starts_with("writer.") || parameter.name() == "memory.forgetting")
        parameter.value().fill_(0.5);
    const Step rewritten = run_step(other_writer, tokens, inputs, some_memory(config, 1));
    CHECK(identical(rewritten.logits, one.logits));
    CHECK(!identical(rewritten.next, one.next));
  }

  TEST_CASE("memformer: a reset row starts afresh and the other rows do not change, bit for bit") {
    for (const DType dtype : {DType::f32, DType::f64}) {
      const ModelConfig config = plain_config(dtype);
      const Memformer model = model_of(config);
      const Tensor memory = some_memory(config), tokens = some_tokens(1), inputs = some_tokens(2);
      const Tensor fresh = model.initial_state(kBatch)[0].value;
      const Tensor reset = from_host<std::uint8_t>({0, 1, 0}, {kBatch});
      const Step mixed = run_step(model, tokens, inputs, memory, {}, reset);
      const Step all_fresh = run_step(model, tokens, inputs, fresh);
      const Step carried = run_step(model, tokens, inputs, memory);
      for (std::int64_t b = 0; b < kBatch; ++b) {
        const Step& expected = b == 1 ? all_fresh : carried;
        const Step& other = b == 1 ? carried : all_fresh;
        CHECK(identical(row_of(mixed.logits, b), row_of(expected.logits, b)));
        CHECK(identical(row_of(mixed.next, b), row_of(expected.next, b)));
        CHECK(!identical(row_of(mixed.next, b), row_of(other.next, b)));
      }
    }
  }

  TEST_CASE("memformer: ids under padding do not matter by a bit, for any positions and writer") {
    for (const Positions positions : kPositions)
      for (const bool v1 : {false, true}) {
        ModelConfig config = plain_config();
        config.positions = positions;
        if (v1) config.use_v1_writer();
        const Memformer model = model_of(config);
        const Tensor memory = some_memory(config), tokens = some_tokens(1), inputs = some_tokens(2);
        Tensor padding = full({kBatch, kLength}, 1, DType::u8);
        padding = with(with(padding, 1, 3, 0), 1, 4, 0);
        const Step before = run_step(model, tokens, inputs, memory, padding);
        for (std::int64_t p = 1; p < kLength; ++p) {
          const double other = tokens.slice(0, 1, 2).slice(1, p, p + 1).item() < 5 ? 9 : 1;
          const Step after = run_step(model, with(tokens, 1, p, other), inputs, memory, padding);
          const bool hidden = p >= 3;
          CHECK(identical(after.next, before.next) == hidden);
          CHECK(identical(after.logits, before.logits) == hidden);
          CHECK(identical(after.encoded.slice(1, 0, p), before.encoded.slice(1, 0, p)) == hidden);
        }
      }
  }

  TEST_CASE("memformer: rows of a batch do not know of each other") {
    for (const Positions positions : kPositions) {
      ModelConfig config = plain_config(DType::f64);
      config.positions = positions;
      const Memformer model = model_of(config);
      const Tensor memory = some_memory(config), tokens = some_tokens(1), inputs = some_tokens(2);
      const Tensor padding = with(full({kBatch, kLength}, 1, DType::u8), 1, 4, 0);
      const Step whole = run_step(model, tokens, inputs, memory, padding);
      // Another row's tokens, memory and padding: the same bits.
      const Step other = run_step(model, with(tokens, 1, 0, 10), with(inputs, 1, 0, 10),
                                  with(memory, 1, 0, 0.5), with(padding, 1, 3, 0));
      for (std::int64_t b = 0; b < kBatch; ++b) {
        CHECK(identical(row_of(other.logits, b), row_of(whole.logits, b)) == (b != 1));
        CHECK(identical(row_of(other.next, b), row_of(whole.next, b)) == (b != 1));
      }
      // Another batch: products are cut into other panels, so equal but for rounding.
      for (const std::vector<std::int64_t>& rows :
           {std::vector<std::int64_t>{2, 0, 1}, {1}, {0, 0}}) {
        const auto pick = [&](const Tensor& x) { return reordered(x, 0, rows); };
        const Step part = run_step(model, pick(tokens), pick(inputs), pick(memory), pick(padding));
        CHECK(relative_difference(part.logits, pick(whole.logits)) <= 1e-13);
        CHECK(relative_difference(part.next, pick(whole.next)) <= 1e-13);
      }
      CHECK(relative_difference(row_of(whole.logits, 0), row_of(whole.logits, 1)) > 1e-2);
    }
  }

  TEST_CASE(
      "memformer: without slots it is the same model without memory, and nothing is carried") {
    ModelConfig config = plain_config();
    config.slots = 0;
    const Memformer without = model_of(config);
    CHECK(without.initial_state(kBatch).empty());
    for (const Parameter& parameter : without.parameters()) {
      CHECK(!parameter.name().starts_with("memory."));
      CHECK(!parameter.name().starts_with("writer."));
      CHECK(parameter.name().find("memory") == std::string::npos);
    }
    // A model with slots whose readers give nothing has the same logits.
    config.slots = 3;
    const Memformer with_slots = model_of(config);
    std::map<std::string, Parameter> same;
    for (const Parameter& parameter : without.parameters()) same[parameter.name()] = parameter;
    for (Parameter parameter : with_slots.parameters()) {
      if (same.contains(parameter.name())) parameter.value().copy_(same[parameter.name()].value());
      if (parameter.name().find("memory_attention.output") != std::string::npos)
        parameter.value().fill_(0.0);
    }
    const Tensor tokens = some_tokens(1), inputs = some_tokens(2);
    Tape off = Tape::off();
    const Pass pass{off, RngKey{84}, Mode::eval, {}};
    const Var encoded = without.encode(pass, tokens, {}, {});
    const Step step = run_step(with_slots, tokens, inputs, some_memory(config));
    CHECK(identical(without.decode(pass, inputs, encoded, {}).value, step.logits));
    CHECK(!identical(run_step(model_of(config), tokens, inputs, some_memory(config)).logits,
                     step.logits));
  }

  TEST_CASE("memformer: next_state gives the same bits as the state of a whole step") {
    for (int i = 0; i < 10; ++i) {
      Draws draw(RngKey{88}.at(static_cast<std::uint64_t>(i)));
      const Trial trial = random_trial(draw, random_config(draw, DType::f32), 1);
      Tape off = Tape::off();
      const Pass pass{off, RngKey{5}, Mode::train, {}};
      const LiveState entry = constants_of(trial.entry);
      const LiveState light = trial.model.next_state(pass, trial.segments[0], entry);
      const LiveState heavy = trial.model.step(pass, trial.segments[0], entry).next;
      REQUIRE(light.size() == heavy.size());
      if (!light.empty()) CHECK(identical(light[0].value.value, heavy[0].value.value));
    }
  }

  TEST_CASE("memformer: evaluation ignores the key, training with dropout does not") {
    ModelConfig config = plain_config();
    config.dropout = 0.2;
    const Memformer model = model_of(config);
    Segment segment;
    segment.tokens = some_tokens(1);
    const auto next = [&](Mode mode, std::uint64_t key) {
      Tape off = Tape::off();
      const LiveState entry = constants_of(model.initial_state(kBatch));
      return model.next_state(Pass{off, RngKey{key}, mode, {}}, segment, entry)[0].value.value;
    };
    CHECK(identical(next(Mode::eval, 1), next(Mode::eval, 2)));
    CHECK(identical(next(Mode::train, 1), next(Mode::train, 1)));
    CHECK(!identical(next(Mode::train, 1), next(Mode::train, 2)));
    CHECK(!identical(next(Mode::train, 1), next(Mode::eval, 1)));
  }

  TEST_CASE("memformer: one key gives f32 and f64 models of the same weights but for rounding") {
    const Memformer single(plain_config(DType::f32), RngKey{3}),
        twice(plain_config(DType::f64), RngKey{3});
    const std::vector<Parameter> a = single.parameters(), b = twice.parameters();
    REQUIRE(a.size() == b.size());
    std::set<std::string> names;
    for (std::size_t i = 0; i < a.size(); ++i) {
      CHECK(a[i].name() == b[i].name());
      CHECK(identical(a[i].value(), b[i].value().to(DType::f32)));
      CHECK(names.insert(a[i].name()).second);
    }
    // f32 gradients are those of f64 to single precision.
    Draws draw(RngKey{89});
    Trial trial = random_trial(draw, plain_config(DType::f64), 3);
    const Outcome wide = run_window(mrbp, trial);
    const Memformer narrow(plain_config(DType::f32), RngKey{3});
    const std::vector<Parameter> from = trial.model.parameters(), to = narrow.parameters();
    for (std::size_t i = 0; i < from.size(); ++i)
      Parameter(to[i]).value().copy_(from[i].value().to(DType::f32));
    State entry = trial.entry;
    entry[0].value = entry[0].value.to(DType::f32);
    const Outcome coarse = run_window(mrbp, narrow, trial.segments, entry, trial.key);
    for (std::size_t i = 0; i < wide.gradients.size(); ++i) {
      if (!wide.gradients[i].second.defined()) continue;
      // The gradient of a key bias is zero but for rounding, in either precision.
      if (wide.gradients[i].first.ends_with("key.bias")) continue;
      CAPTURE(wide.gradients[i].first);
      CHECK(relative_difference(coarse.gradients[i].second.to(DType::f64),
                                wide.gradients[i].second) <= 1e-4);
    }
  }

  TEST_CASE("memformer: ties are one parameter, untied tables are two") {
    for (const bool tie_embeddings : {true, false})
      for (const bool tie_output : {true, false}) {
        ModelConfig config = plain_config();
        config.tie_embeddings = tie_embeddings;
        config.tie_output = tie_output;
        std::set<std::string> names;
        for (const Parameter& parameter : Memformer(config, RngKey{1}).parameters())
          names.insert(parameter.name());
        CHECK(names.contains("encoder.tokens.weight"));
        CHECK(names.contains("decoder.tokens.weight") == !tie_embeddings);
        CHECK(names.contains("output.weight") == !tie_output);
      }
  }

  TEST_CASE("memformer: impossible tokens, lengths and states are errors that say what is wrong") {
    const ModelConfig config = plain_config();
    const Memformer model = model_of(config);
    const Tensor memory = some_memory(config);
    const auto step = [&](const Tensor& tokens, const Tensor& state, const Tensor& reset = {}) {
      return run_step(model, tokens, {}, state, {}, reset);
    };
    CHECK_THROWS_WITH_AS(step(zeros({kBatch, kLength + 1}, DType::i32), memory),
                         doctest::Contains("tokens must be i32[batch, 1..5]"), Error);
    CHECK_THROWS_WITH_AS(step(zeros({kBatch, 0}, DType::i32), memory),
                         doctest::Contains("tokens must be i32[batch, 1..5]"), Error);
    CHECK_THROWS_WITH_AS(step(zeros({kLength}, DType::i32), memory),
                         doctest::Contains("got i32[5]"), Error);
    CHECK_THROWS_WITH_AS(step(full({kBatch, 2}, 11, DType::i32), memory), doctest::Contains("11"),
                         Error);
    CHECK_THROWS_WITH_AS(step(full({kBatch, 2}, -1, DType::i32), memory), doctest::Contains("-1"),
                         Error);
    CHECK_THROWS_AS(step(zeros({kBatch, 2}, DType::f32), memory), Error);
    CHECK_THROWS_WITH_AS(step(some_tokens(1), zeros({kBatch, 2, 8}, DType::f32)),
                         doctest::Contains("the memory must be [batch, 3, 8]; got f32[3, 2, 8]"),
                         Error);
    CHECK_THROWS_WITH_AS(step(some_tokens(1), memory, zeros({2}, DType::u8)),
                         doctest::Contains("reset must be u8[3]; got u8[2]"), Error);
    CHECK_NOTHROW(step(some_tokens(1), memory));

    Tape off = Tape::off();
    const Pass pass{off, {}, Mode::eval, {}};
    CHECK_THROWS_WITH_AS(model.read_state(pass, {}, {}), doctest::Contains("got 0 tensors"), Error);
    ModelConfig encoder_only = config;
    encoder_only.architecture = Architecture::encoder_only;
    CHECK_THROWS_WITH_AS(
        model_of(encoder_only)
            .decode(pass, some_tokens(1), constant(zeros({3, 5, 8}, DType::f32)), {}),
        doctest::Contains("encoder_only; it has no decoder"), Error);
  }
}

}  // namespace mf::test
