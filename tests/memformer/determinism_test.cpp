// D1 and R1: the same run gives the same bits, and the losses that were written down.

#include <doctest/doctest.h>

#include <fmt/format.h>

#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "tests/support.h"

namespace mf::test {
namespace {

ModelConfig tiny_config(DType dtype) {
  ModelConfig c;
  c.vocabulary = 29;
  c.width = 16;
  c.heads = 2;
  c.encoder_layers = 2;
  c.decoder_layers = 1;
  c.feed_forward = 32;
  c.segment = 8;
  c.slots = 4;
  c.dropout = 0.1;
  c.attention_dropout = 0.1;
  c.dtype = dtype;
  return c;
}

/// The text that every run reads: a fixed irregular sequence, another one for each row.
std::vector<Segment> window_of(const ModelConfig& c, std::int64_t step, std::int64_t batch,
                               std::int64_t count) {
  const std::int64_t L = c.segment;
  const auto text = [&](std::int64_t row, std::int64_t place) {
    const std::int64_t at = place + 31 * step;
    return static_cast<std::int32_t>((at * at / 7 + 5 * row + (row + 2) * at) % c.vocabulary);
  };
  std::vector<Segment> segments;
  for (std::int64_t t = 0; t < count; ++t) {
    std::vector<std::int32_t> tokens, inputs, targets;
    for (std::int64_t b = 0; b < batch; ++b)
      for (std::int64_t i = 0; i < L; ++i) {
        const bool decodes = c.architecture == Architecture::encoder_decoder;
        tokens.push_back(text(b, t * L + i));
        inputs.push_back(text(b, (t + 1) * L + i - 1));
        targets.push_back(text(b, decodes ? (t + 1) * L + i : t * L + i + 1));
      }
    Segment& segment = segments.emplace_back();
    segment.tokens = from_host(tokens, {batch, L});
    segment.decoder_inputs = from_host(inputs, {batch, L});
    segment.targets = from_host(targets, {batch, L});
    segment.scored = batch * L;
  }
  segments.front().reset = full({batch}, 1, DType::u8);
  return segments;
}

struct Run {
  std::vector<double> losses;
  std::vector<Tensor> weights;
};

struct RunOptions {
  int steps = 50;
  int threads = 1;
  std::int64_t batch = 4;
  std::int64_t horizon = 3;
  bool adam = true;
  std::uint64_t seed = 91;
};

/// Trains with mrbp, clipping and dropout.
Run train(const ModelConfig& config, const RunOptions& options) {
  const ThreadScope scope(options.threads);
  const RngKey key{options.seed};
  const Memformer model(config, key.at("weights"));
  std::vector<Parameter> parameters = model.parameters();
  Adam adam(parameters, {.weight_decay = 0.01});
  Sgd sgd(parameters, 0.9, 0.0);
  Optimizer& optimizer = options.adam ? static_cast<Optimizer&>(adam) : sgd;
  const Schedule schedule{.peak = options.adam ? 3e-3 : 0.1, .warmup = 5, .total = 60};
  Run run;
  for (int step = 0; step < options.steps; ++step) {
    zero_grad(parameters);
    const std::vector<Segment> segments = window_of(config, step, options.batch, options.horizon);
    const WindowResult result = mrbp(model, segments, model.initial_state(options.batch),
                                     key.at("steps").at(static_cast<std::uint64_t>(step)));
    run.losses.push_back(result.mean_loss());
    optimizer.step(schedule.at(step), clip_factor(global_gradient_norm(parameters), 0.5));
  }
  for (const Parameter& parameter : parameters) run.weights.push_back(parameter.value());
  return run;
}

/// Number of losses and weights that differ in any bit.
int differing(const Run& a, const Run& b) {
  int count = 0;
  for (std::size_t i = 0; i < a.losses.size(); ++i)
    count += identical(a.losses[i], b.losses[i]) ? 0 : 1;
  for (std::size_t i = 0; i < a.weights.size(); ++i)
    count += identical(a.weights[i], b.weights[i]) ? 0 : 1;
  return count;
}

/// Three models that share little: the default, the first paper's, an encoder alone under SGD.
struct Recorded {
  std::string name;
  ModelConfig config;
  bool adam;
  std::vector<double> losses;
};

std::vector<Recorded> recorded() {
  ModelConfig plain = tiny_config(DType::f64);
  ModelConfig v1 = plain;
  v1.use_v1_writer();
  v1.positions = Positions::simplified_relative;
  v1.activation = Activation::silu;
  v1.writer_shared_key = false;
  v1.memory_read_norm = ReadNorm::own;
  ModelConfig encoder = plain;
  encoder.architecture = Architecture::encoder_only;
  encoder.positions = Positions::relative_bias;
  encoder.relative_buckets = 8;
  encoder.relative_max_distance = 16;
  encoder.memory_norm = MemoryNorm::layer_norm;
  encoder.tie_output = false;
  return {{"default",
           plain,
           true,
           {4.1653663914736434, 4.0543600296078486, 3.8578127350793552, 3.8295877637341782,
            3.9153248051820149, 3.7034521335950714, 3.6942656523315205, 3.7800540832659006,
            3.644902295581042, 3.4458056788018627}},
          {"v1",
           v1,
           true,
           {4.1836792616335776, 4.0298299441962255, 3.8430624373338294, 3.8403067023038808,
            3.8939180625564433, 3.782626898735169, 3.7098788696034588, 3.6664627575269186,
            3.6285626628555931, 3.4269432195786522}},
          {"encoder_only",
           encoder,
           false,
           {3.4922786056908488, 3.4714045670495826, 3.4936473174496996, 3.473501467570872,
            3.3970326860782443, 3.5096038570339729, 3.4257552454528883, 3.3788630827604078,
            3.4020563088311238, 3.4434323600587384}}};
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("training: 50 steps give the same losses and weights on 1, 2 and 4 threads and again") {
    ModelConfig config = tiny_config(DType::f32);
    config.width = 32;  // large enough for threads to share the work
    config.feed_forward = 128;
    RunOptions options;
    const Run once = train(config, options);
    for (const int count : {1, 2, 4}) {
      CAPTURE(count);
      options.threads = count;
      CHECK(differing(train(config, options), once) == 0);
    }
    CHECK(once.losses.back() < 0.9 * once.losses.front());  // it did train
    // Another seed is another run.
    options.seed = 92;
    CHECK(differing(train(config, options), once) > 50);
  }

  TEST_CASE("training: ten steps of three models give the recorded losses in f64 and f32") {
    for (const Recorded& model : recorded()) {
      CAPTURE(model.name);
      RunOptions options;
      options.steps = 10;
      options.adam = model.adam;
      const std::vector<double> wide = train(model.config, options).losses;
      std::string printed;
      for (const double loss : wide) printed += fmt::format("{:.17g}, ", loss);
      CAPTURE(printed);
      ModelConfig narrow = model.config;
      narrow.dtype = DType::f32;
      const std::vector<double> coarse = train(narrow, options).losses;
      REQUIRE(model.losses.size() == wide.size());
      for (std::size_t i = 0; i < wide.size(); ++i) {
        CHECK(std::abs(wide[i] / model.losses[i] - 1.0) <= 1e-10);
        CHECK(std::abs(coarse[i] / model.losses[i] - 1.0) <= 1e-5);
      }
      CHECK(std::abs(wide[1] / wide[0] - 1.0) > 1e-5);  // the tolerance tells steps apart
    }
  }
}

}  // namespace mf::test
