#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "memformer/audit/ledger.h"
#include "memformer/model/memformer.h"
#include "memformer/replay/mrbp.h"

namespace mf {

/// The step that `audit_memory` takes.
struct MemoryAuditOptions {
  WindowPass pass = mrbp;     ///< makes the gradients
  std::int64_t segments = 4;  ///< of the window
  std::int64_t batch = 4;     ///< rows
  std::uint64_t seed = 1;     ///< of tokens, entry memory and dropout
  /// A mistake made on purpose: the ledger writes nothing down at this event. -1: none.
  std::int64_t missed_event = -1;
};

/// One training step in a ledger's words.
struct MemoryAudit {
  LedgerRecord ledger;  ///< of the whole step
  /// The first event at which the ledger's blocks do not add up to the allocator's bytes.
  std::optional<std::size_t> gap;
  std::int64_t allocator_peak = 0;  ///< active bytes, as the allocator counted them
  CategoryBytes left{};             ///< more than before the step, behind it
  /// What should be: gradients of the parameters, moments of the optimizer, nothing else. The
  /// memory that is carried on takes the place of the one that entered.
  CategoryBytes expected_left{};

  /// No gap, the highest sum is the allocator's peak, and what is left is as expected.
  bool holds() const;
};

/// Takes one training step over a random window: makes an Adam, runs the pass, clips, updates (with
/// learning rate 0, so that weights stay as they were) and carries the last memory on. The claims:
/// the blocks of the ledger add up to the allocator's active bytes at every event, category by
/// category; their highest sum is the allocator's peak; what is left is as expected. Leaves
/// gradients empty.
MemoryAudit audit_memory(const Memformer& model, const MemoryAuditOptions& options);

}  // namespace mf
