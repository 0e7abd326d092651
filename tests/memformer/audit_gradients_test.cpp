// The audit of gradients: what it covers, what it says, and that it finds what is planted.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "memformer/audit/gradient_audit.h"
#include "memformer/audit/layer_cases.h"
#include "tests/support.h"

using namespace mf;
using doctest::Contains;

namespace {

const AuditedGradient& row_named(const GradientAudit& audit, const std::string& name) {
  const auto found = std::ranges::find(audit.rows, name, &AuditedGradient::name);
  REQUIRE_MESSAGE(found != audit.rows.end(), name);
  return *found;
}

/// Structs of a folder's headers that list parameters: `struct Name {` with a member `each`.
std::set<std::string> layers_of(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".h") continue;
    std::ifstream file(entry.path());
    std::string name;
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string word;
      if (line.starts_with("struct ") || line.starts_with("class ")) words >> word >> name;
      if (line.starts_with("  void each(F&& fn) const")) names.insert(name);
    }
  }
  return names;
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE(
    "audit: gradients of every op, layer and window agree, and every planted fault is found") {
  std::vector<std::string> shown;
  GradientAuditOptions options;
  options.progress = [&](const std::string& name) { shown.push_back(name); };
  const GradientAudit audit = audit_gradients(options);
  const std::string text = report_of(audit).text();
  CHECK_MESSAGE(audit.holds(), text);
  CHECK(audit.planted.size() == 23);
  CHECK(audit.planted.size() == planted_names().size());
  CHECK(audit.rows.size() == audited_names().size() + 1);  // "dropout" is an op and a layer
  for (const AuditedGradient& row : audit.rows) {
    CHECK_MESSAGE((row.cases > 0 && row.coordinates > 0), row.name);
    CHECK_MESSAGE(row.worst <= 1.0, row.name);
    CHECK_MESSAGE(std::ranges::find(shown, row.name) != shown.end(), row.name);
  }
  CHECK(text.find("23 of 23 planted faults are caught") != text.npos);
  CHECK(text.find("two runs gave different bits") != text.npos);  // exp-unsteady
}

TEST_CASE("audit: every layer with parameters has gradient cases") {
  const std::filesystem::path sources{MEMFORMER_SOURCE_DIR};
  std::set<std::string> layers = layers_of(sources / "nn");
  layers.merge(layers_of(sources / "memformer/model"));
  CHECK(layers.size() == 15);
  CHECK(layers.erase("Memformer") == 1);  // the windows
  const std::vector<std::string> names = audited_names();
  for (const std::string& layer : layers)
    CHECK_MESSAGE(std::ranges::find(names, layer) != names.end(), layer);
}

TEST_CASE("audit: one op is audited by itself, a row for each of its variants") {
  const GradientAudit audit = audit_gradients({.only = "softmax"});
  CHECK(audit.holds());
  REQUIRE(audit.rows.size() == 2);
  CHECK(audit.rows[0].name == "softmax");
  CHECK(audit.rows[1].name == "softmax (axis 0)");
  CHECK(audit.planted.size() == 23);
  CHECK(row_named(audit_gradients({.only = "relu"}), "relu").skipped == 0);
  CHECK_THROWS_WITH_AS(audit_gradients({.only = "sofmax"}),
                       Contains("there is no op or layer 'sofmax'; known are add, sub, mul"),
                       Error);
}

TEST_CASE("audit: a planted gradient fails the audit, with input, index, both values and reason") {
  const GradientAudit audit = audit_gradients({.only = "square", .plant = "square-factor"});
  CHECK_FALSE(audit.holds());
  CHECK(row_named(audit, "square").failed.empty());
  const AuditedGradient& planted = row_named(audit, "square-factor");
  REQUIRE(planted.failed.size() == 1);
  const GradReport::Failure& failure = planted.failed[0].failures.at(0);
  CHECK(failure.input == "input 0");
  CHECK(failure.index == 0);
  CHECK(failure.analytic == doctest::Approx(0.5 * failure.numeric));
  CHECK(error_of(failure, audit.gate) > 1e4);
  for (const std::string& output : {report_of(audit).text(), report_of(audit).html()})
    for (const char* part :
         {"square: the factor 2 is missing", "input 0", "analytic and numeric differ", "DIFFER"})
      CHECK_MESSAGE(output.find(part) != output.npos, part);
  CHECK_THROWS_WITH_AS(audit_gradients({.plant = "nothing"}),
                       Contains("there is no planted fault 'nothing'; known are sub-sign"), Error);
}

TEST_CASE("audit: under PyTorch's tolerances a small error passes that the gate sees") {
  GradientAuditOptions options{.only = "exp"};
  options.gate = GradCheckOptions::pytorch();
  const GradientAudit audit = audit_gradients(options);
  CHECK(row_named(audit, "exp").worst < row_named(audit_gradients({.only = "exp"}), "exp").worst);
  CHECK(audit.holds());
}

TEST_CASE("audit: a window that loses the memory's gradient is named by parameter") {
  const GradientAudit audit = audit_gradients({.only = "mrbp", .plant = "window-cut"});
  CHECK_FALSE(audit.holds());
  CHECK(row_named(audit, "mrbp (default)").failed.empty());
  CHECK(row_named(audit, "mrbp (other switches)").failed.empty());
  std::set<std::string> spoiled;
  for (const GradReport::Failure& failure : row_named(audit, "window-cut").failed.at(0).failures)
    spoiled.insert(failure.input);
  CHECK(spoiled.contains("input 0"));
  CHECK(spoiled.contains("writer.query.weight"));
  CHECK_FALSE(spoiled.contains("decoder.layers.0.self_attention.query.weight"));
}

TEST_SUITE_END();
