// The whole path against an independent engine: tests/golden/memformer_golden.py (PyTorch, f64).

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "memformer/model/memformer.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/mrbp.h"
#include "tensor/math.h"

namespace {

using mf::Tensor;
using Json = nlohmann::json;

Json read_golden(const std::string& name) {
  std::ifstream file(std::string(MEMFORMER_SOURCE_DIR) + "/tests/golden/" + name + ".json");
  REQUIRE(file.good());
  return Json::parse(file);
}

Tensor ids(const Json& flat, std::int64_t batch) {
  const auto values = flat.get<std::vector<std::int32_t>>();
  return mf::from_host(values, {batch, static_cast<std::int64_t>(values.size()) / batch});
}

Tensor flags(const Json& flat, const mf::Shape& shape) {
  std::vector<std::uint8_t> values;
  for (const int flag : flat.get<std::vector<int>>())
    values.push_back(static_cast<std::uint8_t>(flag));
  return mf::from_host(values, shape);
}

Tensor doubles(const Json& flat, const mf::Shape& shape) {
  return mf::from_host(flat.get<std::vector<double>>(), shape);
}

/// Entry j of parameter p, counted in byte order of names: 0.1 sin(0.7 j + p), plus 1 for gains.
void set_weights_by_formula(const mf::Memformer& model) {
  std::map<std::string, mf::Parameter> sorted;
  for (const mf::Parameter& parameter : model.parameters()) sorted[parameter.name()] = parameter;
  int p = 0;
  for (auto& [name, parameter] : sorted) {
    std::vector<double> values(static_cast<std::size_t>(parameter.value().elements()));
    for (std::size_t j = 0; j < values.size(); ++j)
      values[j] =
          0.1 * std::sin(0.7 * static_cast<double>(j) + p) + (name.ends_with(".gain") ? 1 : 0);
    parameter.value().copy_(mf::from_host(values, parameter.value().shape()));
    ++p;
  }
}

std::vector<mf::Segment> segments_of(const Json& golden) {
  const auto batch = golden["batch"].get<std::int64_t>();
  std::vector<mf::Segment> segments;
  for (const Json& given : golden["segments"]) {
    mf::Segment segment;
    segment.tokens = ids(given["tokens"], batch);
    if (given.contains("decoder_inputs"))
      segment.decoder_inputs = ids(given["decoder_inputs"], batch);
    segment.targets = ids(given["targets"], batch);
    if (given.contains("padding"))
      segment.padding = flags(given["padding"], segment.tokens.shape());
    segment.reset = flags(given["reset"], {batch});
    segment.scored = given["scored"].get<std::int64_t>();
    segments.push_back(std::move(segment));
  }
  return segments;
}

/// Largest |a - b| over the largest |b|, with a floor for tensors that are zero but for rounding.
double relative_error(const Tensor& a, const Tensor& b) {
  REQUIRE(a.shape() == b.shape());
  const auto x = a.to_vector<double>();
  const auto y = b.to_vector<double>();
  double difference = 0.0, size = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::isfinite(x[i]));
    difference = std::max(difference, std::abs(x[i] - y[i]));
    size = std::max(size, std::abs(y[i]));
  }
  return difference < 1e-15 ? 0.0 : difference / size;
}

using Window = mf::WindowResult (*)(const mf::Recurrence&, std::span<const mf::Segment>,
                                    const mf::State&, mf::RngKey, const mf::WindowOptions&);

void check_case(const std::string& name, Window window) {
  CAPTURE(name);
  const Json golden = read_golden(name);
  Json config_json = golden["model"];
  config_json["dtype"] = "f64";
  const mf::ModelConfig config = mf::model_config_from_json(config_json.dump());
  const mf::Memformer model(config, mf::RngKey{1});
  set_weights_by_formula(model);

  std::vector<std::string> expected_names;
  for (const auto& [parameter, gradient] : golden["gradients"].items())
    expected_names.push_back(parameter);
  std::vector<std::string> names;
  for (const mf::Parameter& parameter : model.parameters()) names.push_back(parameter.name());
  std::sort(names.begin(), names.end());
  std::sort(expected_names.begin(), expected_names.end());
  REQUIRE(names == expected_names);

  const auto batch = golden["batch"].get<std::int64_t>();
  const std::vector<mf::Segment> segments = segments_of(golden);
  mf::State entry = model.initial_state(batch);
  if (config.slots > 0)
    entry[0].value = doubles(golden["initial_memory"], {batch, config.slots, config.width});

  Tensor last_logits;
  mf::WindowOptions options;
  options.observe = [&](std::int64_t t, const mf::Segment&, const Tensor& outputs) {
    if (t + 1 == static_cast<std::int64_t>(segments.size())) last_logits = outputs;
  };
  const mf::WindowResult result = window(model, segments, entry, mf::RngKey{2}, options);

  constexpr double kTolerance = 1e-10;
  for (std::size_t t = 0; t < segments.size(); ++t) {
    CAPTURE(t);
    const Json& given = golden["segments"][t];
    CHECK(result.segment_losses[t] ==
          doctest::Approx(given["loss_sum"].get<double>()).epsilon(kTolerance));
    if (config.slots > 0)
      CHECK(relative_error(result.states[t + 1][0].value,
                           doubles(given["memory"], {batch, config.slots, config.width})) <=
            kTolerance);
  }
  CHECK(result.mean_loss() ==
        doctest::Approx(golden["mean_loss"].get<double>()).epsilon(kTolerance));
  CHECK(relative_error(last_logits, doubles(golden["last_logits"], last_logits.shape())) <=
        kTolerance);
  if (config.slots > 0 && result.entry_gradient[0].value.defined())
    CHECK(relative_error(result.entry_gradient[0].value,
                         doubles(golden["initial_memory_gradient"],
                                 {batch, config.slots, config.width})) <= kTolerance);
  for (const mf::Parameter& parameter : model.parameters()) {
    CAPTURE(parameter.name());
    const Tensor expected =
        doubles(golden["gradients"][parameter.name()], parameter.value().shape());
    const Tensor actual =
        parameter.grad().defined() ? parameter.grad() : mf::zeros_like(parameter.value());
    CHECK(relative_error(actual, expected) <= kTolerance);
  }
}

const std::vector<std::string> kCases{"default",      "resets",      "unit_radius",
                                      "v1_writer",    "own_norm_t5", "sinusoidal_scale",
                                      "encoder_only", "no_memory"};

TEST_CASE("golden: bptt equals the PyTorch script in losses, states, logits and all gradients") {
  for (const std::string& name : kCases) check_case(name, mf::bptt);
}

TEST_CASE("golden: mrbp equals the PyTorch script in losses, states, logits and all gradients") {
  for (const std::string& name : kCases) check_case(name, mf::mrbp);
}

}  // namespace
