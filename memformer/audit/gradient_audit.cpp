#include "memformer/audit/gradient_audit.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>

#include "memformer/audit/layer_cases.h"
#include "memformer/audit/op_cases.h"
#include "memformer/audit/planted_gradients.h"
#include "memformer/replay/truncated.h"

namespace mf {
namespace {

/// A fault that the checks must find, beside what they must accept.
struct Plant {
  std::string name, fault;
  LayerCase right, wrong;
};

/// exp, whose gradient differs from run to run in its last digits.
struct UnsteadyExp {
  static constexpr const char* kName = "unsteady_exp";
  std::shared_ptr<int> runs;
  Saved y{};

  Tensor forward(Wants, const Tensor& x) { return (y = exp(x)).get(); }
  void backward(const Tensor& gy, Grads& g) const {
    g.add(0, affine(mul(gy, y), 1.0 + 1e-14 * ++*runs));
  }
  auto saved() { return std::tie(y); }
};

std::vector<Plant> plants() {
  std::vector<Plant> list;
  const auto function = [](const auto& op) {
    return [op](Tape&, std::span<const Var> x) { return op(x); };
  };
  for (const PlantedGradient& planted : planted_gradients())
    list.push_back({planted.name,
                    planted.fault,
                    {"", "", function(planted.right), planted.inputs, {}},
                    {"", "", function(planted.wrong), planted.inputs, {}}});
  const std::vector<Tensor> inputs{uniform({2, 3}, RngKey{22}, -1.5, 1.5, DType::f64)};
  const auto steady = [](std::span<const Var> x) { return exp(x[0]); };
  const auto unsteady = [runs = std::make_shared<int>(0)](std::span<const Var> x) {
    return record(UnsteadyExp{runs}, x[0]);
  };
  list.push_back({"exp-unsteady",
                  "exp: another run of backward gives other bits",
                  {"", "", function(steady), inputs, {}},
                  {"", "", function(unsteady), inputs, {}}});
  const auto window = [](std::int64_t length) {
    return window_case("window", "", window_model(),
                       [length](const Recurrence& model, std::span<const Segment> segments,
                                const State& entry, RngKey key, const WindowOptions&) {
                         return truncated_bptt(model, segments, entry, key, length);
                       });
  };
  list.push_back({"window-cut", "window: a segment hands no gradient to the one before", window(3),
                  window(1)});
  return list;
}

std::string full_title(const LayerCase& one) {
  return one.variant.empty() ? one.layer : one.layer + " (" + one.variant + ")";
}

GradReport checked(const std::string& name, const LayerCase& one, const GradCheckOptions& gate) {
  return grad_check(name, one.function, one.inputs, gate, one.parameters);
}

class Auditor {
 public:
  explicit Auditor(const GradientAuditOptions& options) : options_(options) {
    audit_.gate = options.gate;
  }

  GradientAudit run() {
    const auto begin = std::chrono::steady_clock::now();
    for (const OpRow& row : op_table()) {
      if (!wanted(row.name)) continue;
      const std::string name = row_name(row.name, title(row));
      for (const OpCase& one : cases(row))
        check("op", name, title(row) + ", " + one.label, {"", "", one.function, one.inputs, {}},
              row.kink);
    }
    add("layer", layer_cases());
    add("window", window_cases());
    const std::vector<Plant> faults = plants();
    for (const Plant& plant : faults)
      if (plant.name == options_.plant) check("planted", plant.name, plant.fault, plant.wrong);
    for (const Plant& plant : faults) {
      show("planted " + plant.name);
      audit_.planted.push_back({plant.name, plant.fault,
                                checked(plant.name, plant.right, options_.gate).ok,
                                checked(plant.name, plant.wrong, options_.gate)});
    }
    audit_.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return std::move(audit_);
  }

 private:
  bool wanted(const std::string& name) const {
    return options_.only == "all" || options_.only == name;
  }
  /// All cases of a name in one row, or a row for each variant of the one asked for.
  std::string row_name(const std::string& name, const std::string& variant) const {
    return options_.only == "all" ? name : variant;
  }
  void show(const std::string& what) const {
    if (options_.progress) options_.progress(what);
  }

  void add(const std::string& kind, const std::vector<LayerCase>& list) {
    for (const LayerCase& one : list)
      if (wanted(one.layer))
        check(kind, row_name(one.layer, full_title(one)), full_title(one), one);
  }

  void check(const std::string& kind, const std::string& row, const std::string& label,
             const LayerCase& one, const std::function<bool(double)>& kink = {}) {
    const auto same = [&](const AuditedGradient& r) { return r.kind == kind && r.name == row; };
    auto found = std::ranges::find_if(audit_.rows, same);
    if (found == audit_.rows.end()) {
      show(row);
      audit_.rows.push_back({kind, row});
      found = audit_.rows.end() - 1;
    }
    GradCheckOptions gate = options_.gate;
    if (kink) gate.skip = [&](int, std::int64_t, double x) { return kink(x); };
    GradReport report = checked(label, one, gate);
    ++found->cases;
    found->coordinates += report.checked;
    found->skipped += report.skipped;
    found->worst = std::max(found->worst, report.worst_error);
    if (!report.ok) found->failed.push_back(std::move(report));
  }

  const GradientAuditOptions& options_;
  GradientAudit audit_;
};

void add_once(std::vector<std::string>& names, const std::string& name) {
  if (std::ranges::find(names, name) == names.end()) names.push_back(name);
}

void require_known(const char* option, const std::string& name,
                   const std::vector<std::string>& known) {
  if (std::ranges::find(known, name) != known.end()) return;
  std::string list;
  for (const std::string& one : known) list += (list.empty() ? "" : ", ") + one;
  fail("audit gradients: there is no {} '{}'; known are {}", option, name, list);
}

std::string coordinate(const GradReport::Failure& failure) {
  return failure.index < 0 ? "-" : std::to_string(failure.index);
}

std::string digits(double value) { return fmt::format("{:.9g}", value); }

std::string gate_text(const GradCheckOptions& gate) {
  return fmt::format("|analytic - numeric| <= {:g} + {:g} |numeric|, step {:g} max(1, |x|), f64",
                     gate.absolute, gate.relative, gate.step);
}

Table failures_table(const GradientAudit& audit) {
  constexpr std::size_t kShown = 5;
  Table table{{{"case", false},
               {"input", false},
               {"index"},
               {"analytic"},
               {"numeric"},
               {"error"},
               {"reason", false}},
              {}};
  for (const AuditedGradient& row : audit.rows)
    for (const GradReport& report : row.failed) {
      for (std::size_t i = 0; i < std::min(kShown, report.failures.size()); ++i) {
        const GradReport::Failure& failure = report.failures[i];
        table.rows.push_back({report.name, failure.input, coordinate(failure),
                              digits(failure.analytic), digits(failure.numeric),
                              fmt::format("{:.3g}", error_of(failure, audit.gate)),
                              failure.reason});
      }
      if (report.failures.size() > kShown)
        table.rows.push_back(
            {fmt::format("{}: {} more", report.name, report.failures.size() - kShown), "", "", "",
             "", "", ""});
    }
  return table;
}

/// log10 of the worst errors, as bars from a common left end: the gate is at 0.
Figure error_bars(const GradientAudit& audit) {
  constexpr double kLow = -12.0, kHigh = 12.0;
  Lifetimes chart{"Worst error, in units of the gate",
                  "log10 of the worst error; 0 is the gate",
                  kLow,
                  1.0,
                  {"passed", "failed", "planted fault"},
                  {}};
  const auto bar = [&](const std::string& name, int group, double error) {
    const double end = error > 0.0 ? std::clamp(std::log10(error), kLow, kHigh) : kLow;
    chart.last = std::max(chart.last, std::ceil(end));
    chart.bars.push_back({name, group, kLow, end});
  };
  for (const AuditedGradient& row : audit.rows)
    bar(row.name, row.failed.empty() ? 0 : 1, row.worst);
  for (const PlantedGradientCheck& planted : audit.planted)
    bar(planted.name, 2, planted.found.worst_error);
  return lifetimes(chart,
                   "Errors end left of 0 where gradients agree, right of it where they do not. A "
                   "fault can also show as NaN or as a difference between two runs: exp-nan and "
                   "exp-unsteady do.");
}

}  // namespace

double error_of(const GradReport::Failure& failure, const GradCheckOptions& gate) {
  return std::abs(failure.analytic - failure.numeric) /
         (gate.absolute + gate.relative * std::abs(failure.numeric));
}

bool GradientAudit::holds() const {
  return std::ranges::all_of(rows, [](const AuditedGradient& row) { return row.failed.empty(); }) &&
         std::ranges::all_of(planted, [](const PlantedGradientCheck& check) {
           return check.accepted && !check.found.ok;
         });
}

std::vector<std::string> audited_names() {
  std::vector<std::string> names;
  for (const OpRow& row : op_table()) add_once(names, row.name);
  for (const LayerCase& one : layer_cases()) add_once(names, one.layer);
  for (const LayerCase& one : window_cases()) add_once(names, one.layer);
  return names;
}

std::vector<std::string> planted_names() {
  std::vector<std::string> names;
  for (const Plant& plant : plants()) names.push_back(plant.name);
  return names;
}

GradientAudit audit_gradients(const GradientAuditOptions& options) {
  if (options.only != "all") require_known("op or layer", options.only, audited_names());
  if (!options.plant.empty()) require_known("planted fault", options.plant, planted_names());
  return Auditor(options).run();
}

Report report_of(const GradientAudit& audit) {
  Report report("Gradients",
                "Every op, every layer and whole windows have the gradients that finite "
                "differences have, and faults planted in backward functions are found.");
  report.paragraph("gate: " + gate_text(audit.gate) +
                   "; analytic gradients are computed twice and must have the same bits");

  std::size_t failing = 0;
  std::int64_t coordinates = 0;
  Table table{{{"kind", false},
               {"name", false},
               {"cases"},
               {"coordinates"},
               {"skipped"},
               {"worst error"},
               {"verdict", false}},
              {}};
  for (const AuditedGradient& row : audit.rows) {
    if (!row.failed.empty()) ++failing;
    coordinates += row.coordinates;
    table.rows.push_back({row.kind, row.name, std::to_string(row.cases),
                          std::to_string(row.coordinates), std::to_string(row.skipped),
                          fmt::format("{:.2g}", row.worst),
                          row.failed.empty() ? "agree" : "DIFFER"});
  }
  report.table(std::move(table),
               "Worst errors are in units of the gate; skipped are kinks of relu.");
  if (failing > 0) {
    report.heading("Failures");
    report.table(failures_table(audit));
  }

  std::size_t found = 0;
  report.heading("Planted faults");
  Table controls{{{"name", false},
                  {"fault", false},
                  {"found", false},
                  {"input", false},
                  {"index"},
                  {"analytic"},
                  {"numeric"},
                  {"reason", false}},
                 {}};
  for (const PlantedGradientCheck& planted : audit.planted) {
    const bool caught = planted.accepted && !planted.found.ok;
    if (caught) ++found;
    std::vector<std::string> row{planted.name, planted.fault, caught ? "caught" : "NOT CAUGHT"};
    if (planted.found.failures.empty()) {
      row.insert(row.end(), {"", "", "", "", ""});
    } else {
      const GradReport::Failure& failure = planted.found.failures.front();
      row.insert(row.end(), {failure.input, coordinate(failure), digits(failure.analytic),
                             digits(failure.numeric), failure.reason});
    }
    if (!planted.accepted) row.back() = "the same without the fault is not accepted";
    controls.rows.push_back(std::move(row));
  }
  report.table(std::move(controls),
               "Each is a wrong backward beside a right one; the first failure is shown.");
  report.figure(error_bars(audit));
  report.verdict(audit.holds(),
                 fmt::format("{} of {} agree with finite differences at {} coordinates; {} of {} "
                             "planted faults are caught; {:.1f} s",
                             audit.rows.size() - failing, audit.rows.size(), coordinates, found,
                             audit.planted.size(), audit.seconds));
  return report;
}

}  // namespace mf
