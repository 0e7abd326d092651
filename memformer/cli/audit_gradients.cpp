#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "memformer/audit/gradient_audit.h"
#include "memformer/cli/audit_shared.h"

namespace mf::cli {
namespace {

struct GradientArguments {
  GradientAuditOptions options;
  AuditOutput output;
  std::string dtype = "f64", tolerance = "gate";
};

/// NaN has no number in JSON.
Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json to_json(const GradReport& report, const GradCheckOptions& gate) {
  Json json{{"case", report.name}, {"failures", Json::array()}};
  for (const GradReport::Failure& failure : report.failures)
    json["failures"].push_back({{"input", failure.input},
                                {"index", failure.index},
                                {"analytic", number(failure.analytic)},
                                {"numeric", number(failure.numeric)},
                                {"error", number(error_of(failure, gate))},
                                {"reason", failure.reason}});
  return json;
}

Json to_json(const GradientAudit& audit) {
  Json json{{"gate",
             {{"step", audit.gate.step},
              {"absolute", audit.gate.absolute},
              {"relative", audit.gate.relative}}},
            {"seconds", audit.seconds},
            {"checked", Json::array()},
            {"planted", Json::array()}};
  for (const AuditedGradient& row : audit.rows) {
    Json entry{{"kind", row.kind},
               {"name", row.name},
               {"cases", row.cases},
               {"coordinates", row.coordinates},
               {"skipped", row.skipped},
               {"worst_error", row.worst},
               {"agrees", row.failed.empty()},
               {"failed", Json::array()}};
    for (const GradReport& report : row.failed)
      entry["failed"].push_back(to_json(report, audit.gate));
    json["checked"].push_back(std::move(entry));
  }
  for (const PlantedGradientCheck& planted : audit.planted) {
    Json entry = to_json(planted.found, audit.gate);
    entry["fault"] = planted.fault;
    entry["caught"] = !planted.found.ok;
    entry["right_one_accepted"] = planted.accepted;
    json["planted"].push_back(std::move(entry));
  }
  return json;
}

void audit_gradients_command(const GradientArguments& arguments) {
  check(arguments.dtype == "f64",
        "audit gradients: finite differences of f32 are noise, its rounding is as large as what a "
        "small step changes; give --dtype f64 (the tests compare f32 with f64)");
  GradientAuditOptions options = arguments.options;
  options.plant = arguments.output.plant;
  if (arguments.tolerance == "pytorch") options.gate = GradCheckOptions::pytorch();
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (terminal)
    options.progress = [](const std::string& name) {
      std::fprintf(stderr, "\r\033[Kchecking %s", name.c_str());
    };
  const GradientAudit audit = audit_gradients(options);
  if (terminal) std::fprintf(stderr, "\r\033[K");
  deliver(arguments.output, report_of(audit), to_json(audit));
}

}  // namespace

void add_audit_gradients(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand(
      "gradients",
      "every op, every layer and whole windows against finite differences; fails unless all agree "
      "and planted faults are found");
  const auto arguments = std::make_shared<GradientArguments>();
  command->add_option("--op", arguments->options.only, "an op, layer or pass by name; default: all")
      ->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "f64; f32 is refused, and why is said")
      ->check(CLI::IsMember({"f32", "f64"}))
      ->capture_default_str();
  command
      ->add_option("--tolerance", arguments->tolerance,
                   "gate: 1e-7 + 1e-6 |numeric|; pytorch: gradcheck's 1e-5 + 1e-3 |numeric|")
      ->check(CLI::IsMember({"gate", "pytorch"}))
      ->capture_default_str();
  add_audit_output(*command, arguments->output, {});
  command->callback([arguments] { audit_gradients_command(*arguments); });
}

}  // namespace mf::cli
