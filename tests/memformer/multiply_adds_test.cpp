// What the products count while a model runs, held against the closed forms.

#include <doctest/doctest.h>

#include <set>

#include "memformer/train/config.h"
#include "tensor/math.h"
#include "tensor/work.h"
#include "tests/support.h"

namespace mf::test {
namespace {

/// A full segment of one row, in the form that the model reads.
Segment full_segment(const RunConfig& config, Draws& draw) {
  Segment segment;
  const std::int64_t length = segment_of(config);
  segment.tokens = random_ids(draw, 1, length, vocabulary_of(config));
  segment.targets = random_ids(draw, 1, length, vocabulary_of(config));
  segment.scored = length;
  if (!config.baseline && config.model.architecture == Architecture::encoder_decoder)
    segment.decoder_inputs = random_ids(draw, 1, length, vocabulary_of(config));
  return segment;
}

/// What next_state and step count, behind so many segments that caches and memories are full.
MultiplyAdds counted(const RunConfig& config, std::int64_t segments_before = 12) {
  Draws draw(RngKey{3});
  const std::unique_ptr<Recurrence> model = make_model(config, RngKey{1});
  Tape off = Tape::off();
  const Pass pass{off, RngKey{2}, Mode::eval, {}};
  State state = model->initial_state(1);
  for (std::int64_t i = 0; i < segments_before; ++i)
    state = values_of(model->next_state(pass, full_segment(config, draw), constants_of(state)));
  const Segment segment = full_segment(config, draw);
  MultiplyAdds counts;
  {
    const MultiplyAddCount count;
    model->next_state(pass, segment, constants_of(state));
    counts.memory_path = count.count();
  }
  const MultiplyAddCount count;
  model->step(pass, segment, constants_of(state));
  counts.prediction = count.count() - counts.memory_path;
  return counts;
}

Tensor ones(const Shape& shape) { return full(shape, 1.0, DType::f32); }

RunConfig described(const std::string& name, const std::vector<std::string>& settings) {
  RunConfig config;
  choose_model(config, name);
  return with_settings(config, settings);
}

/// A baseline and what of it is set besides the sizes below.
struct Row {
  const char* name;
  std::vector<std::string> settings;
};

const std::vector<Row> kRows{
    {"transformer", {"model.heads=2", "model.feed_forward=20"}},
    {"transformer", {"model.heads=1", "model.feed_forward=20", "model.positions=sinusoidal"}},
    {"transformer-xl", {"model.heads=2", "model.feed_forward=20", "model.cache=9"}},
    {"transformer-xl", {"model.heads=2", "model.feed_forward=20", "model.cache=0"}},
    {"transformer-xl",
     {"model.heads=3", "model.head_width=5", "model.feed_forward=20", "model.cache=2",
      "model.pre_norm=false"}},
    {"compressive",
     {"model.heads=2", "model.feed_forward=20", "model.cache=4", "model.compressed=6",
      "model.rate=2"}},
    {"compressive",
     {"model.heads=2", "model.feed_forward=20", "model.cache=8", "model.compressed=3",
      "model.rate=4", "model.mean_pooling=true"}},
    {"compressive",
     {"model.heads=2", "model.feed_forward=20", "model.cache=8", "model.compressed=0",
      "model.rate=4"}},
    {"rmt", {"model.heads=2", "model.feed_forward=20", "model.memory=3"}},
    {"rmt", {"model.heads=2", "model.feed_forward=20", "model.memory=3", "model.layers=1"}},
    {"rmt", {"model.heads=2", "model.feed_forward=20", "model.memory=3", "model.write=false"}},
    {"rmt", {"model.heads=2", "model.feed_forward=20", "model.memory=0"}},
    {"lstm", {}},
    {"lstm", {"model.layers=1", "model.replay_tokens=2"}}};

RunConfig small(const Row& row) {
  std::vector<std::string> settings{"model.vocabulary=11", "model.width=10", "model.layers=3",
                                    "model.segment=8"};
  settings.insert(settings.end(), row.settings.begin(), row.settings.end());
  return described(row.name, settings);
}

}  // namespace

TEST_SUITE("multiply_adds") {
  TEST_CASE("multiply_adds: the closed form of every baseline is what its products count") {
    std::set<std::string> seen;
    for (const Row& row : kRows) {
      const RunConfig config = small(row);
      CAPTURE(to_json(config));
      const MultiplyAdds closed_form = multiply_adds(config), counts = counted(config);
      CHECK(counts.memory_path == closed_form.memory_path);
      CHECK(counts.prediction == closed_form.prediction);
      seen.insert(row.name);
    }
    for (const std::string& name : baseline_names()) CHECK_MESSAGE(seen.contains(name), name);
  }

  TEST_CASE("multiply_adds: the closed form of the Memformer is what its products count") {
    Draws draw(RngKey{21});
    for (int i = 0; i < 40; ++i) {
      RunConfig config;
      config.model = random_config(draw, DType::f32);
      CAPTURE(to_json(config.model));
      const MultiplyAdds closed_form = multiply_adds(config), counts = counted(config, 1);
      CHECK(counts.memory_path == closed_form.memory_path);
      CHECK(counts.prediction == closed_form.prediction);
    }
  }

  TEST_CASE("multiply_adds: a closed form of another size, or a cache not yet full, is found") {
    const RunConfig config = small(kRows[2]);
    const MultiplyAdds closed_form = multiply_adds(config);
    CHECK(counted(config, 1).memory_path < closed_form.memory_path);
    for (const char* setting :
         {"model.cache=8", "model.segment=7", "model.feed_forward=21", "model.layers=4"}) {
      CAPTURE(setting);
      CHECK(counted(config).memory_path !=
            multiply_adds(with_settings(config, {setting})).memory_path);
    }
  }

  TEST_CASE("multiply_adds: products are counted while somebody counts, and scopes nest") {
    const Tensor a = ones({2, 3, 4}), b = ones({4, 5});
    const auto of = [](const auto& work) {
      const MultiplyAddCount count;
      work();
      return count.count();
    };
    CHECK(of([&] { matmul(a, b); }) == 2 * 3 * 4 * 5);
    CHECK(of([&] { linear(a, b, {}); }) == 2 * 3 * 4 * 5);
    CHECK(of([&] { linear_map(a, b, {}, Unary::relu, true); }) == 2 * 3 * 4 * 5);
    CHECK(of([&] {
            linear_map_backward(ones({6, 5}), b, Unary::relu, ones({6, 4}));
          }) == 6 * 4 * 5);
    Tensor c = ones({2, 3, 5});
    CHECK(of([&] { matmul_add_(c, a, b); }) == 2 * 3 * 4 * 5);

    const Tensor q = ones({2, 1, 3, 4}), k = ones({2, 1, 5, 4}), v = ones({2, 1, 5, 6});
    AttentionOptions options;
    for (const bool causal : {false, true}) {
      options.causal = causal;
      CHECK(of([&] { attention(q, k, v, {}, {}, options); }) == 2 * 3 * 5 * (4 + 6));
    }
    options.causal = false;
    const OwnKeyValue own{q, ones({2, 1, 3, 6})};
    CHECK(of([&] { attention(q, k, v, {}, {}, options, false, own); }) == 2 * 3 * 6 * (4 + 6));
    const AttentionResult result = attention(q, k, v, {}, {}, options);
    const auto backward = [&](AttentionWants wants) {
      return of([&] {
        attention_backward(q, k, v, {}, {}, options, result.out, result.log_sum, result.out, wants);
      });
    };
    CHECK(backward({}) == 2 * 3 * 5 * (3 * 4 + 2 * 6));
    CHECK(backward({.q = false, .k = false}) == 2 * 3 * 5 * (4 + 6));

    const MultiplyAddCount outer;
    CHECK(of([&] { matmul(a, b); }) == of([&] { matmul(a, b); }));
    CHECK(outer.count() == 2 * 2 * 3 * 4 * 5);
    CHECK(of([] {}) == 0);
  }
}

}  // namespace mf::test
