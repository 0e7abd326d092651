#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/train/config.h"
#include "tensor/device.h"

namespace mf {

/// A training run held against the first one, bit for bit.
struct DeterminismRow {
  std::string name;              ///< "2 threads"
  bool losses = true;            ///< same bits at every step
  bool gradient_norms = true;    ///< same bits at every step
  bool weights = true;           ///< same bits after the last step
  std::string first_difference;  ///< "loss of step 3", "weight writer.query.weight"; "" if none

  /// All three.
  bool same() const { return losses && gradient_norms && weights; }
};

/// What `audit_determinism` found.
struct DeterminismReport {
  std::int64_t steps = 0;            ///< optimizer steps of each run
  std::vector<double> losses;        ///< of the first run
  std::vector<DeterminismRow> rows;  ///< the other runs

  /// All runs have the first one's bits.
  bool identical() const;
};

/// A mistake made on purpose, to see that the audit finds it.
enum class DeterminismFault {
  none,         ///< as it is
  other_draws,  ///< the second run draws from another seed
};

/// A run to repeat: a small model, dropout and all, on the task "remember".
RunConfig determinism_run();

/// Trains `steps` steps of `config` on one thread, and again: unchanged, on 2 and 4 threads,
/// stopped in the middle and resumed from its checkpoint (in a temporary folder, removed at the
/// end), and by full unrolling instead of memory replay. All must have the same losses, gradient
/// norms and weights. In every run each replayed state is compared with the first pass's. Needs two
/// steps.
DeterminismReport audit_determinism(RunConfig config, std::int64_t steps, Device device = cpu,
                                    DeterminismFault fault = DeterminismFault::none);

}  // namespace mf
