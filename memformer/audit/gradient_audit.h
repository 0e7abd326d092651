#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/grad_check.h"
#include "memformer/audit/report.h"

namespace mf {

struct GradientAuditOptions {
  std::string only = "all";  ///< an op, a layer or a pass over a window, by name
  /// Name of a planted fault that is audited as if it were an op of the library; empty: none.
  std::string plant{};
  GradCheckOptions gate{};
  /// Sees what is checked next.
  std::function<void(const std::string&)> progress{};
};

/// The checks of one op, layer or pass.
struct AuditedGradient {
  std::string kind;  ///< "op", "layer", "window"
  std::string name;  ///< with its variant if it alone was asked for
  std::int64_t cases = 0, coordinates = 0, skipped = 0;
  double worst = 0.0;                ///< largest error, in units of the gate
  std::vector<GradReport> failed{};  ///< the cases that did not pass
};

/// A fault that the checks must find.
struct PlantedGradientCheck {
  std::string name, fault;
  bool accepted = false;  ///< the same without the fault passes
  GradReport found;       ///< not ok if the fault was found
};

struct GradientAudit {
  std::vector<AuditedGradient> rows;
  std::vector<PlantedGradientCheck> planted;
  GradCheckOptions gate;
  double seconds = 0.0;

  /// Every gradient passes, every planted fault is found, and what is beside it is accepted.
  bool holds() const;
};

/// What `only` can name, and what `plant` can.
std::vector<std::string> audited_names();
std::vector<std::string> planted_names();

/// Holds every op, every layer and whole windows against central differences in f64, and then looks
/// for faults planted in backward functions. Throws Error if a name is unknown.
GradientAudit audit_gradients(const GradientAuditOptions& options);

/// |analytic - numeric| in units of the gate.
double error_of(const GradReport::Failure& failure, const GradCheckOptions& gate);

Report report_of(const GradientAudit& audit);

}  // namespace mf
