#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/model/memformer.h"
#include "memformer/replay/window.h"

namespace mf {

/// A mistake made on purpose, to see that the audit finds it.
enum class PlantedFault {
  none,
  drop_state_seed,  ///< MRBP forgets G, the gradient that the segment after hands back
};

struct AuditOptions {
  std::vector<std::int64_t> segments{1, 2, 4, 8, 16};  ///< windows T to audit
  std::int64_t batch = 4;
  std::uint64_t seed = 1;    ///< of tokens, entry memory and dropout
  std::int64_t repeats = 3;  ///< of each pass; `seconds` is the shortest
  PlantedFault fault = PlantedFault::none;
};

/// One way to go back through a window, held against full unrolling with the same weights, tokens,
/// entry memory and dropout.
struct AuditedPass {
  std::int64_t peak_bytes = 0;  ///< active bytes at the peak, above those of weights and inputs
  double seconds = 0.0;
  /// What differs from BPTT in any bit: losses, memories, the gradient of the entry memory and of
  /// each parameter, by name. "No gradient" differs from a gradient of zero.
  std::vector<std::string> differing;
  /// Over the parameters and the entry memory: max |g - g_bptt| / max |g_bptt|, the worst of them.
  double largest_relative_error = 0.0;
  double cosine = 1.0;  ///< between all parameter gradients taken as one vector
};

struct TruncatedPass {
  std::int64_t length = 0;  ///< segments in a chunk
  AuditedPass pass;
};

struct AuditedWindow {
  std::int64_t segments = 0;
  AuditedPass bptt, mrbp;
  std::vector<TruncatedPass>
      truncated;  ///< chunks of 1 and of half the window, where shorter than it
};

struct AuditReport {
  std::vector<AuditedWindow> windows;
  std::int64_t state_bytes = 0;  ///< of one memory for all rows

  /// MRBP gave BPTT's bits in every window.
  bool identical() const;
  /// Bytes that each segment more adds to MRBP's peak, between windows i - 1 and i (i > 0). From
  /// three segments on it is state_bytes; before, the first gradients of the writer come to it.
  double mrbp_growth(std::size_t i) const;
};

/// A window of `count` segments of random tokens; row 0 starts a document in its middle.
std::vector<Segment> random_window(const ModelConfig& config, std::int64_t count,
                                   std::int64_t batch, RngKey key);

/// Runs BPTT, MRBP and truncated BPTT over random windows, in training mode. The claims: MRBP's
/// gradients are BPTT's bit for bit, and its peak grows by one memory a segment (Memformer v2,
/// section 4). Leaves weights as they were and gradients empty.
AuditReport audit_mrbp(const Memformer& model, const AuditOptions& options);

/// Small enough to audit in seconds, with dropout so that replayed draws are part of the audit.
ModelConfig audit_model();

}  // namespace mf
