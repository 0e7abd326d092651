// The audit of a tape: its claims, what breaks them, and what it shows.

#include <doctest/doctest.h>

#include <algorithm>

#include "autograd/ops.h"
#include "memformer/audit/graphviz.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/audit/tape_audit.h"
#include "tests/memformer/small_audit_model.h"
#include "tests/support.h"

using namespace mf;
using doctest::Contains;

namespace {

TapeAudit audit_of(const ModelConfig& config, PlantedTapeFault fault = PlantedTapeFault::none) {
  const Memformer model(config, RngKey{1});
  return audit_tape(model, {.batch = 2, .seed = 5, .fault = fault});
}

std::string all_violations(const std::vector<TapeClaim>& claims) {
  std::string text;
  for (const TapeClaim& claim : claims)
    for (const std::string& violation : claim.violations) text += violation + "\n";
  return text;
}

/// A swept tape with a value that is used twice and an op with two results.
struct Recorded {
  Recorded() {
    const Var x = tape.input(full({2, 3}, 0.5, DType::f64), "x");
    const Var w = tape.input(full({3, 3}, 0.25, DType::f64), "w");
    const std::vector<Var> y = projections(x, std::vector{w, w});
    const Var z = sum(mul(y[0], y[1]));
    seeds = {{"loss", z.id}};
    before = tape.report();
    bytes = tape.saved_bytes();
    tape.backward(z);
    after = tape.report();
  }
  std::string violations() const { return all_violations(claims_of(before, after, bytes, seeds)); }

  Tape tape;
  std::vector<std::pair<std::string, std::int32_t>> seeds;
  TapeReport before, after;
  std::int64_t bytes = 0;
};

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("audit: the claims about a tape hold of random models") {
  test::Draws draw(RngKey{90});
  test::Coverage coverage;
  for (int i = 0; i < 40; ++i) {
    const ModelConfig config = test::random_config(draw, i % 2 == 0 ? DType::f32 : DType::f64);
    coverage.add(config);
    const TapeAudit audit = audit_of(config);
    CHECK_MESSAGE(audit.holds(), all_violations(audit.claims) << to_json(config));
    CHECK(audit.claims.size() == 6);
    CHECK(audit.recorded.saved_bytes > 0);
    CHECK(audit.swept.saved_bytes == 0);
    CHECK(audit.seeds.size() == (config.slots > 0 ? 2 : 1));
  }
  auto switches = test::all_switches();
  for (const char* of_windows : {"padding", "unscored segment", "reset inside"})
    switches.erase(of_windows);
  CHECK(coverage.missing(switches) == "");
}

TEST_CASE("audit: a tape on which an op forgets an input is refused, and the entry is named") {
  const TapeAudit audit = audit_of(test::small_audit_model(), PlantedTapeFault::forgotten_input);
  CHECK_FALSE(audit.holds());
  const std::size_t last = audit.swept.rows.size() - 1;
  CHECK(audit.swept.rows[last].op == "forgetful_add");
  const std::string text = all_violations(audit.claims);
  CHECK_MESSAGE(
      text == fmt::format("entry {} (forgetful_add) gave its input 1, value {}, nothing\n", last,
                          audit.swept.rows[last].inputs[1]),
      text);
  CHECK(audit.swept.rows[last - 1].op == "sum");
  CHECK(audit.swept.rows[last - 1].visit == -1);
  CHECK(report_of(audit, "", 1).text().find("NOT") != std::string::npos);
}

TEST_CASE("audit: without G the writer's parameters have no gradient yet, which is not 0") {
  const TapeAudit audit = audit_of(test::small_audit_model(), PlantedTapeFault::drop_state_seed);
  CHECK_FALSE(audit.holds());
  const std::string text = all_violations(audit.claims);
  CHECK(text.find("writer.query.weight: none yet before, none yet after") != text.npos);
  CHECK(text.find("decoder.") == text.npos);

  // With no forgetting and no document that starts, the vectors get a gradient, and it is 0.
  ModelConfig config = test::small_audit_model();
  config.forgetting = false;
  const TapeAudit zero = audit_of(config);
  CHECK(zero.holds());
  const auto vectors =
      std::ranges::find(zero.parameters, "memory.forgetting", &SweptParameter::name);
  REQUIRE(vectors != zero.parameters.end());
  CHECK_FALSE(vectors->before.has_value());
  CHECK(vectors->after == 0.0);
  CHECK(describe_gradient(vectors->before) == "none yet");
  CHECK(describe_gradient(vectors->after) == "0");
}

TEST_CASE("audit: each claim about a tape sees what breaks it") {
  CHECK(Recorded{}.violations() == "");
  Recorded order;
  order.after.rows[1].inputs[0] = order.after.rows[1].output;
  CHECK(order.violations().find("entry 1 (mul) uses value") != std::string::npos);
  Recorded visit;
  std::swap(visit.after.rows[0].visit, visit.after.rows[1].visit);
  CHECK(visit.violations().find("entry 0 (projections) was visited as number 1; 2 is expected") !=
        std::string::npos);
  Recorded given;
  given.after.rows[2].given[0] = 0;
  CHECK(given.violations().find("entry 2 (sum) gave its input 0") != std::string::npos);
  CHECK(given.violations().find("of entry 1 (mul), received 1 contributions of 0") !=
        std::string::npos);
  Recorded leaf;
  ++leaf.after.leaves[1].received;
  CHECK(leaf.violations() == "value 1, leaf w, received 3 contributions of 2\n");
  Recorded held;
  held.after.rows[1].saved_bytes = 8;
  CHECK(held.violations() == "entry 1 (mul) still holds 8 bytes after the sweep\n");
  Recorded bytes;
  bytes.bytes += 8;
  CHECK(bytes.violations().find("the tape counts") != std::string::npos);
}

TEST_CASE("audit: the tape's table folds by module, with sums") {
  const TapeAudit audit = audit_of(test::small_audit_model());
  const std::string folded = report_of(audit, "a model", 1).text();
  const std::string all = report_of(audit, "a model", 9).text();
  CHECK(folded.find("\nencoder ") != folded.npos);
  CHECK(folded.find("self_attention") == folded.npos);
  CHECK(all.find("\n    self_attention ") != all.npos);
  CHECK(std::ranges::count(all, '\n') >
        static_cast<std::ptrdiff_t>(audit.swept.rows.size() + audit.parameters.size()));
  const std::string page = report_of(audit, "a model", 1).html();
  CHECK(page.find("<details><summary>encoder<span>entries ") != page.npos);
  CHECK(page.find("none yet") != page.npos);
  for (const char* outside : {"src=", "href=\"http", "url("})
    CHECK(page.find(outside) == page.npos);
}

TEST_CASE("audit: the tape's graph draws modules as boxes down to a depth") {
  const TapeAudit audit = audit_of(test::small_audit_model());
  const std::string shallow = dot_of(audit, 1), deep = dot_of(audit, 9);
  CHECK(shallow.find("\"m/encoder\" [label=\"encoder\\n") != shallow.npos);
  CHECK(shallow.find("cluster") == shallow.npos);
  CHECK(shallow.find("\"m/encoder\" -> \"m/decoder\" [label=\"[2, 6, 16]\"]") != shallow.npos);
  CHECK(shallow.find("memory (input)") != shallow.npos);
  CHECK(shallow.find("next memory (seed)") != shallow.npos);
  CHECK(deep.find("subgraph \"cluster_m/encoder/layers.0\"") != deep.npos);
  CHECK(deep.find("[label=\"0 ") != deep.npos);
  CHECK(deep.find("unvisited") == deep.npos);
  const std::string faulty =
      dot_of(audit_of(test::small_audit_model(), PlantedTapeFault::forgotten_input), 1);
  CHECK(faulty.find("class=unvisited") != faulty.npos);
  const int depth = readable_depth(audit);
  CHECK(depth >= 1);
  CHECK(std::ranges::count(dot_of(audit, readable_depth(audit, 5)), '\n') <=
        std::ranges::count(dot_of(audit, depth), '\n'));
}

TEST_CASE(
    "audit: Graphviz's drawing is taken without its document, and a failure says what it was") {
  const std::string shell = program_on_path("sh");
  REQUIRE(!shell.empty());
  CHECK(program_on_path("no-such-program-anywhere").empty());
  // A shell knows no option -T: exit code not 0, nothing drawn.
  CHECK_THROWS_WITH_AS(graphviz(shell, "digraph {}", "t", "c"), Contains("graphviz: "), Error);
  CHECK_THROWS_WITH_AS(graphviz("/no/such/dot", "digraph {}", "t", "c"),
                       Contains("/no/such/dot drew nothing"), Error);
}

TEST_CASE("audit: a batch without rows is refused") {
  const Memformer model(test::small_audit_model(), RngKey{1});
  CHECK_THROWS_WITH_AS(audit_tape(model, {.batch = 0}), Contains("batch is 0"), Error);
}

TEST_SUITE_END();
