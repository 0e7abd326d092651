#include <doctest/doctest.h>

#include "memformer/audit/determinism.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/audit/slots.h"
#include "tests/support.h"

using namespace mf;
using doctest::Contains;

namespace {

/// Segments of one row.
std::vector<Segment> one_row(const ModelConfig& config, std::int64_t count) {
  return random_window(config, count, 1, RngKey{7});
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("audit slots: the weights shown reproduce the model's memory, for every switch") {
  test::Draws draw(RngKey{31});
  for (int i = 0; i < 25; ++i) {
    ModelConfig config = test::random_config(draw, DType::f64);
    if (config.slots == 0) continue;
    CAPTURE(to_json(config));
    const Memformer model(config, RngKey{static_cast<std::uint64_t>(i)});
    test::perturb(model.parameters(), RngKey{9});
    const SlotsReport report = audit_slots(model, one_row(config, 3));
    REQUIRE(report.segments.size() == 3);
    CHECK(report.reproduced());
    for (const SlotsAtSegment& segment : report.segments) {
      const SlotKinds kinds = kinds_of(segment);
      CHECK(kinds.keepers + kinds.mixers + kinds.writers == config.slots);
      const Tensor ones = sum(segment.write, {1});
      for (const double one : ones.to_vector<double>()) CHECK(one == doctest::Approx(1.0));
      for (const double one : sum(segment.read, {1}).to_vector<double>())
        CHECK(one == doctest::Approx(1.0));
    }
  }
}

TEST_CASE("audit slots: weights of another temperature do not reproduce it") {
  ModelConfig config = audit_model();
  config.dtype = DType::f64;
  for (const double temperature : {1.0, 0.25}) {
    config.temperature = temperature;
    const Memformer model(config, RngKey{1});
    CHECK(audit_slots(model, one_row(config, 2)).reproduced());
    const SlotsReport faulty = audit_slots(model, one_row(config, 2), SlotsFault::no_temperature);
    CHECK_FALSE(faulty.reproduced());
    CHECK(faulty.segments[0].write_error > 1e-6);
    CHECK(faulty.segments[0].read_error <= faulty.tolerance);
  }
}

TEST_CASE("audit slots: a slot that attends to itself alone is a keeper and does not turn") {
  ModelConfig config = audit_model();
  config.dtype = DType::f64;
  config.forgetting_initial_norm = 1e-3;
  config.writer_shared_key = false;
  const Memformer model(config, RngKey{2});
  // Tokens score 0, and a slot scores 900 |m_i|^2 with itself.
  for (Parameter& parameter : model.parameters()) {
    const std::string& name = parameter.name();
    if (name == "writer.key.weight") parameter.value().fill_(0.0);
    if (name != "writer.query.weight" && name != "writer.slot_key.weight") continue;
    parameter.value().fill_(0.0);
    for (std::int64_t i = 0; i < config.width; ++i)
      parameter.value().slice(0, i, i + 1).slice(1, i, i + 1).fill_(30.0);
  }
  const SlotsReport report = audit_slots(model, one_row(config, 2));
  CHECK(report.reproduced());
  CHECK(kinds_of(report.segments[1]).keepers == config.slots);
  for (const double degrees : report.segments[1].turned) CHECK(degrees < 0.1);  // forgetting alone
}

TEST_CASE("audit slots: the cosine between slots is 1 where all begin alike") {
  ModelConfig config = audit_model();
  const Memformer model(config, RngKey{4});
  CHECK(audit_slots(model, one_row(config, 1)).segments[0].between_slots < 0.999);
  for (Parameter& parameter : model.parameters())
    if (parameter.name() == "memory.forgetting") parameter.value().fill_(0.1);
  CHECK(audit_slots(model, one_row(config, 3)).segments[2].between_slots ==
        doctest::Approx(1.0).epsilon(1e-5));
}

TEST_CASE("audit slots: what cannot be shown is refused") {
  ModelConfig config = audit_model();
  const Memformer model(config, RngKey{3});
  CHECK_THROWS_WITH_AS(audit_slots(model, {}), Contains("no segment"), Error);
  CHECK_THROWS_WITH_AS(audit_slots(model, random_window(config, 1, 2, RngKey{1})),
                       Contains("must be one row"), Error);
  config.slots = 0;
  const Memformer forgetful(config, RngKey{3});
  CHECK_THROWS_WITH_AS(audit_slots(forgetful, one_row(config, 1)), Contains("no memory"), Error);
}

TEST_CASE("audit determinism: all runs have the same bits, and other draws are seen") {
  RunConfig config = determinism_run();
  config.model.width = 16;
  config.data.batch = 8;
  const DeterminismReport report = audit_determinism(config, 4);
  CHECK(report.identical());
  CHECK(report.rows.size() == 5);
  CHECK(report.losses.size() == 4);
  CHECK(report.losses[0] != report.losses[3]);

  const DeterminismReport faulty = audit_determinism(config, 2, cpu, DeterminismFault::other_draws);
  CHECK_FALSE(faulty.identical());
  CHECK_FALSE(faulty.rows[0].same());
  CHECK(faulty.rows[0].first_difference == "loss of step 1");
  for (std::size_t i = 1; i < faulty.rows.size(); ++i) CHECK(faulty.rows[i].same());
  CHECK_THROWS_WITH_AS(audit_determinism(config, 1), Contains("two or more"), Error);
}

TEST_SUITE_END();
