#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "memformer/audit/summary.h"
#include "memformer/model/memformer.h"
#include "memformer/replay/window.h"

namespace mf {

/// A mistake made on purpose, to see that the audit finds it.
enum class PlantedFault {
  none,             ///< the audit proper
  drop_state_seed,  ///< MRBP forgets G, the gradient that the segment after hands back
};

/// What `audit_mrbp` runs.
struct AuditOptions {
  std::vector<std::int64_t> segments{1, 2, 4, 8, 16, 32, 64};  ///< windows T to audit
  std::int64_t batch = 4;                                      ///< rows
  std::uint64_t seed = 1;                   ///< of tokens, entry memory and dropout
  std::int64_t repeats = 3;                 ///< of each pass; `seconds` is the shortest
  PlantedFault fault = PlantedFault::none;  ///< the negative control
};

/// What one parameter's gradient is beside that of full unrolling.
struct AuditedParameter {
  std::string name;             ///< its path in the model
  bool identical = true;        ///< in every bit
  double absolute_error = 0.0;  ///< max |g - g_bptt|
  double relative_error = 0.0;  ///< max |g - g_bptt| / max |g_bptt|
  double cosine = 1.0;          ///< 1 where both are zero or absent
};

/// Forward runs of a pass, counted as the model is called.
struct ForwardRuns {
  std::int64_t memory_path = 0;  ///< encoder and writer
  std::int64_t prediction = 0;   ///< decoder and head

  /// Multiply-adds of the pass, a sweep over a segment costing twice its forward run.
  std::int64_t work(const MultiplyAdds& counts, std::int64_t segments) const {
    return memory_path * counts.memory_path + prediction * counts.prediction +
           2 * segments * counts.total();
  }
};

/// One way to go back through a window, held against full unrolling with the same weights, tokens,
/// entry memory and dropout.
struct AuditedPass {
  std::int64_t peak_bytes = 0;  ///< active bytes at the peak, above those of weights and inputs
  /// The same as the system sees it, in a run of its own with nothing cached; on the cpu.
  std::optional<std::int64_t> process_peak_bytes;
  double seconds = 0.0;                      ///< of the fastest repeat
  ForwardRuns runs;                          ///< of one repeat
  std::vector<AuditedParameter> parameters;  ///< in the model's order
  /// What differs from BPTT in any bit: losses, memories, the gradient of the entry memory and of
  /// each parameter, by name. "No gradient" differs from a gradient of zero.
  std::vector<std::string> differing;
  /// Over the parameters and the entry memory: max |g - g_bptt| / max |g_bptt|, the worst of them.
  double largest_relative_error = 0.0;
  double cosine = 1.0;  ///< between all parameter gradients taken as one vector
};

/// Truncated BPTT, which differs: the control of the comparison.
struct TruncatedPass {
  std::int64_t length = 0;  ///< segments in a chunk
  AuditedPass pass;         ///< beside BPTT
};

/// All ways through one window.
struct AuditedWindow {
  std::int64_t segments = 0;  ///< T
  AuditedPass bptt,           ///< the oracle itself: its peak and seconds
      mrbp,                   ///< nothing may differ
      checkpointed;           ///< nothing may differ
  /// Chunks of 1 and of half the window, where shorter than it.
  std::vector<TruncatedPass> truncated;
};

/// What `audit_mrbp` found.
struct AuditReport {
  std::vector<AuditedWindow> windows;  ///< one for each of AuditOptions::segments
  std::int64_t state_bytes = 0;        ///< of one memory for all rows
  std::int64_t parameter_bytes = 0;    ///< of all parameters, and so of all their gradients
  MultiplyAdds multiply_adds;          ///< of one row and one segment, forward

  /// MRBP and checkpointing gave BPTT's bits in every window.
  bool identical() const;
  /// Bytes that each segment more adds to MRBP's peak, between windows i - 1 and i (i > 0). From
  /// three segments on it is state_bytes; before, the first gradients of the writer come to it.
  double mrbp_growth(std::size_t i) const;
};

/// The cost model (eq. C1 to C4): peak bytes above weights and inputs, and work over BPTT's, of a
/// window of H segments, where a segment's activations take A bytes, a state m, the gradients P,
/// and the memory path is the part f of the forward work.
///   BPTT: P + H A, 1;   MRBP: P + H m + A, 1 + f (H - 1) / (3 H);   checkpointed: P + H m + A, 4/3
struct CostModel {
  std::int64_t gradients = 0;    ///< P
  std::int64_t activations = 0;  ///< A
  std::int64_t state = 0;        ///< m
  double memory_share = 0.0;     ///< f

  /// P + H A.
  std::int64_t bptt_bytes(std::int64_t segments) const {
    return gradients + segments * activations;
  }
  /// P + H m + A, of MRBP and of checkpointing.
  std::int64_t replay_bytes(std::int64_t segments) const {
    return gradients + segments * state + activations;
  }
  /// 1 + f (H - 1) / (3 H).
  double mrbp_work(std::int64_t segments) const {
    return 1.0 +
           memory_share * static_cast<double>(segments - 1) / static_cast<double>(3 * segments);
  }
};
/// A is what BPTT's peak grows by for each segment between the two longest windows audited. Needs
/// two windows.
CostModel cost_model(const AuditReport& report);

/// A window of `count` segments of random tokens; row 0 starts a document in its middle.
std::vector<Segment> random_window(const ModelConfig& config, std::int64_t count,
                                   std::int64_t batch, RngKey key);

/// What an audited pass reads, on the model's device: a random window, an entry memory and the key
/// of its dropout.
struct AuditInputs {
  std::vector<Segment> segments;  ///< the window, see `random_window`
  State entry;                    ///< M_0: standard normal values in the model's dtype
  RngKey draws;                   ///< key of the pass, for dropout
};
/// Inputs that follow from `seed`. Throws Error unless `segments` and `batch` are positive.
AuditInputs audit_inputs(const Memformer& model, std::int64_t segments, std::int64_t batch,
                         std::uint64_t seed);

/// Tensors by name, in a fixed order; undefined where there is none.
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;
/// The gradients as they are, undefined where none arrived.
NamedTensors gradients_of(const std::vector<Parameter>& parameters);
/// All that a pass leaves: losses, memories, the gradient of the entry memory, and these gradients.
NamedTensors everything_left(const WindowResult& result, const NamedTensors& gradients);
/// Names of the tensors that differ in any bit; "no gradient" differs from a gradient of zero.
std::vector<std::string> differing(const NamedTensors& ours, const NamedTensors& oracle);

/// Runs BPTT, MRBP, checkpointed and truncated BPTT over random windows, in training mode. The
/// claims: MRBP's gradients are BPTT's bit for bit, and its peak grows by one memory a segment
/// (eq. C2). Leaves weights as they were and gradients empty.
AuditReport audit_mrbp(const Memformer& model, const AuditOptions& options);

/// Small enough to audit in seconds, with dropout so that replayed draws are part of the audit.
ModelConfig audit_model();

}  // namespace mf
