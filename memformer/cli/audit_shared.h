#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "memformer/audit/report.h"
#include "memformer/model/memformer.h"

/// What the subcommands of `memformer audit` share: which model they look at, and where their
/// report goes.
namespace mf::cli {

using Json = nlohmann::ordered_json;

/// The model to audit: a run's with its weights, a configuration's or a small one.
struct AuditedModel {
  std::string run, config, dtype;
  std::uint64_t seed = 1;  ///< of the weights if no run is given, and of what the audit draws
  Device device = cpu;
};
/// --run, --config, --dtype, --seed and --device.
void add_audited_model(CLI::App& command, AuditedModel& source);
/// The model of the run or configuration; `audit_model()` if neither is named.
std::unique_ptr<Memformer> load(const AuditedModel& source);
/// "width 64, 2 + 2 layers, ...": one line about the model for the report.
std::string describe(const Memformer& model);

/// Where a report goes, and which mistake is made on purpose.
struct AuditOutput {
  bool json = false;
  std::string html;
  std::string plant;
};
/// --json, --html and --plant with these faults; with none, the audit says which it knows.
void add_audit_output(CLI::App& command, AuditOutput& output,
                      const std::vector<std::string>& faults);
/// Prints the report as text, or `json` with the verdict in it; writes the page if one is asked
/// for. The program then ends with exit code 1 unless the report's claim holds.
void deliver(const AuditOutput& output, const Report& report, Json json);

/// null for what is not there.
inline Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

// One file each: audit_NAME.cpp.
void add_audit_gradients(CLI::App& audit);
void add_audit_mrbp(CLI::App& audit);
void add_audit_trace(CLI::App& audit);
void add_audit_tape(CLI::App& audit);
void add_audit_memory(CLI::App& audit);
void add_audit_slots(CLI::App& audit);
void add_audit_determinism(CLI::App& audit);

}  // namespace mf::cli
