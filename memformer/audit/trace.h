#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memformer/audit/ledger.h"
#include "memformer/audit/mrbp_audit.h"

namespace mf {

/// The entries of a segment's tape that one part of the model recorded.
struct TapePart {
  std::string name;              ///< "encoder", "decoder", ...; "loss" for what no layer recorded
  bool memory_path = false;      ///< the first pass ran it too: it is recomputed; the rest is new
  std::int64_t entries = 0;      ///< how many
  std::int64_t saved_bytes = 0;  ///< that they keep for the sweep
  std::string ops;               ///< "attention 4, linear 6, ..."
};

/// What is so behind one line of Algorithm 1. Bytes are above those that were live before the
/// window. Norms are Euclidean, over all rows; empty where there is nothing to take one of. An
/// absent gradient is not a gradient of zero.
struct TraceRow {
  ReplayLine line = ReplayLine::keep_entry;  ///< the line that has just run
  std::int64_t segment = 0;                  ///< of the window, counted from 0
  std::int64_t reset_rows = 0;               ///< rows that start a document with this segment
  std::int64_t kept = 0;                     ///< memories in the replay buffer: M_0 .. M_{kept - 1}
  std::int64_t live_bytes = 0;               ///< now
  std::int64_t peak_bytes = 0;               ///< the most since the moment before
  CategoryBytes by_category{};               ///< of live_bytes
  bool has_tape = false;               ///< a tape is there; else `entries` and `saved_bytes` are 0
  std::int64_t entries = 0;            ///< of the tape
  std::int64_t saved_bytes = 0;        ///< that it holds
  std::optional<double> state_in;      ///< of M_t
  std::optional<double> state_out;     ///< of M_{t+1}
  std::optional<double> loss;          ///< sum over the segment's scored targets
  bool knows_gradient = false;         ///< there is a G, absent or not
  std::optional<double> gradient_in;   ///< of G before the sweep
  std::optional<double> gradient_out;  ///< of G behind it
  /// The recomputed M_{t+1} has those of the kept one; empty in the last segment, which has none.
  std::optional<bool> same_bits;
  std::vector<TapePart> parts;  ///< when the step was recomputed
};

/// One thing that must be so, and where it was first seen not to be.
struct TraceCheck {
  std::string claim;    ///< as a sentence
  std::string failure;  ///< "" if it holds
};

/// One window of mrbp, moment by moment.
struct WindowTrace {
  std::vector<TraceRow> rows;      ///< one for each moment, in order
  std::vector<TraceCheck> checks;  ///< what was held against them
  std::int64_t before_bytes = 0;   ///< live before the window: weights, inputs, what else there is

  /// No check failed.
  bool holds() const;
};

/// Watches mrbp of `traced` over a window, and holds what it leaves against mrbp of `plain`, which
/// nobody watches; both must have the same parameters. Leaves gradients empty.
WindowTrace trace_window(const Recurrence& traced, const Recurrence& plain,
                         const AuditInputs& inputs, const WindowOptions& options = {});

/// The window that `trace_mrbp` watches.
struct TraceOptions {
  std::int64_t segments = 4;  ///< its length
  std::int64_t batch = 4;     ///< rows
  std::uint64_t seed = 1;     ///< of tokens, entry memory and dropout
  /// A mistake made on purpose: a segment is replayed with another key than in the first pass, and
  /// mrbp is told not to compare. Error for a model without dropout, which draws nothing.
  bool wrong_replay_key = false;
};
/// The trace of a random window; row 0 starts a document in its middle.
WindowTrace trace_mrbp(const Memformer& model, const TraceOptions& options);

/// A line of Algorithm 1 in words, or a line of memformer/replay/mrbp.cpp that runs it.
struct ListingLine {
  const char* text;   ///< the line, indented
  bool code = false;  ///< true: a line of mrbp.cpp; false: of Algorithm 1, in words
  ReplayLine line = ReplayLine::keep_entry;  ///< what it is a part of
  /// Set where it runs in the window's last segment only (true), or in all others (false).
  std::optional<bool> last_segment{};
};
/// Algorithm 1, each of its lines followed by the code that runs it.
std::span<const ListingLine> algorithm_listing();
/// Whether the line ran in this moment.
bool ran(const ListingLine& line, const TraceRow& row);

/// "2 write memory": the line's number and what it does.
const char* name_of(ReplayLine line);

}  // namespace mf
