#include "memformer/audit/memory_audit.h"

#include <fmt/format.h>

#include <set>

#include "memformer/audit/mrbp_audit.h"
#include "nn/optimizer.h"
#include "nn/parameters.h"

namespace mf {
namespace {

/// Tells the ledger which part of the pass runs.
class Staged final : public WrappedRecurrence {
 public:
  Staged(const Recurrence& model, std::span<const Segment> segments, Ledger& ledger)
      : WrappedRecurrence(model), segments_(segments), ledger_(ledger) {}

  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override {
    ledger_.stage(fmt::format("memory path of segment {}", number_of(segment)));
    return inner_.next_state(pass, segment, state);
  }
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override {
    const std::ptrdiff_t t = number_of(segment);
    const bool again = !run_.insert(t).second;
    ledger_.stage(fmt::format("step of segment {}{}", t, again ? ", again" : ""));
    StepResult result = inner_.step(pass, segment, state);
    ledger_.stage(fmt::format("behind the step of segment {}{}", t, again ? ", again" : ""));
    return result;
  }

 private:
  std::ptrdiff_t number_of(const Segment& segment) const { return &segment - segments_.data(); }

  std::span<const Segment> segments_;
  Ledger& ledger_;
  mutable std::set<std::ptrdiff_t> run_;
};

}  // namespace

bool MemoryAudit::holds() const {
  return !gap && left == expected_left && sum_of(ledger.sums()[ledger.peak()]) == allocator_peak;
}

MemoryAudit audit_memory(const Memformer& model, const MemoryAuditOptions& options) {
  std::vector<Parameter> parameters = model.parameters();
  zero_grad(parameters);
  AuditInputs inputs = audit_inputs(model, options.segments, options.batch, options.seed);

  MemoryAudit audit;
  {
    const PeakScope peak(model.device());
    Ledger ledger(model.device(), options.missed_event);
    ledger.stage("making of Adam");
    Adam adam(parameters, {});
    {
      const Staged staged(model, inputs.segments, ledger);
      const WindowResult result =
          options.pass(staged, inputs.segments, inputs.entry, inputs.draws, {});
      ledger.stage("Adam's step");
      adam.step(0.0, clip_factor(global_gradient_norm(parameters), 1.0));
      ledger.stage("end of the step");
      inputs.entry = result.states.back();
    }
    for (const Parameter& parameter : parameters)
      if (parameter.grad().defined())
        in_category(audit.expected_left, Category::gradient) += parameter.grad().storage_bytes();
    for (const auto& [name, moment] : adam.state())
      in_category(audit.expected_left, Category::optimizer) += moment.storage_bytes();
    audit.ledger = ledger.close();
    audit.allocator_peak = peak.peak();
  }
  zero_grad(parameters);

  audit.gap = audit.ledger.first_gap();
  const std::vector<CategoryBytes> sums = audit.ledger.sums();
  for (std::size_t c = 0; c < audit.left.size(); ++c)
    audit.left[c] = sums.back()[c] - sums.front()[c];
  return audit;
}

}  // namespace mf
