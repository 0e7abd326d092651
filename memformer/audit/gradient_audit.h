#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "autograd/grad_check.h"
#include "memformer/audit/report.h"

namespace mf {

/// What `audit_gradients` checks, and how strictly.
struct GradientAuditOptions {
  std::string only = "all";  ///< an op, a layer or a pass over a window, by name
  /// Name of a planted fault that is audited as if it were an op of the library; empty: none.
  std::string plant{};
  GradCheckOptions gate{};  ///< step and tolerances of every check
  /// Sees what is checked next.
  std::function<void(const std::string&)> progress{};
};

/// The checks of one op, layer or pass.
struct AuditedGradient {
  std::string kind;                  ///< "op", "layer", "window", or "planted" for `plant`
  std::string name;                  ///< with its variant if it alone was asked for
  std::int64_t cases = 0;            ///< gradient checks run
  std::int64_t coordinates = 0;      ///< compared in all of them, random directions included
  std::int64_t skipped = 0;          ///< coordinates left out: kinks, which have no derivative
  double worst = 0.0;                ///< largest error, in units of the gate
  std::vector<GradReport> failed{};  ///< the cases that did not pass
};

/// A fault that the checks must find.
struct PlantedGradientCheck {
  std::string name;       ///< "sub-sign"
  std::string fault;      ///< in words: "sub: wrong sign for the second input"
  bool accepted = false;  ///< the same without the fault passes
  GradReport found;       ///< not ok if the fault was found
};

/// What `audit_gradients` found.
struct GradientAudit {
  std::vector<AuditedGradient> rows;  ///< ops, then layers, then windows, then what `plant` named
  std::vector<PlantedGradientCheck> planted;  ///< one for each fault the library knows
  GradCheckOptions gate;                      ///< as in the options
  double seconds = 0.0;                       ///< that the audit took

  /// Every gradient passes, every planted fault is found, and what is beside it is accepted.
  bool holds() const;
};

/// What `only` can name, besides "all".
std::vector<std::string> audited_names();
/// What `plant` can name.
std::vector<std::string> planted_names();

/// Holds every op, every layer and whole windows against central differences in f64, and then looks
/// for faults planted in backward functions. Throws Error if a name is unknown.
GradientAudit audit_gradients(const GradientAuditOptions& options);

/// |analytic - numeric| in units of the gate.
double error_of(const GradReport::Failure& failure, const GradCheckOptions& gate);

/// One table of what was checked, one of failures if there are any, one of the planted faults, and
/// a chart of the worst errors.
Report report_of(const GradientAudit& audit);

}  // namespace mf
