#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "autograd/tape.h"
#include "memformer/audit/report.h"
#include "memformer/model/memformer.h"

namespace mf {

/// A mistake made on purpose, to see that the audit finds it.
enum class PlantedTapeFault {
  none,             ///< the audit proper
  forgotten_input,  ///< an op whose backward gives its second input nothing
  drop_state_seed,  ///< the sweep starts without G, the gradient at the next memory
};

/// The step that `audit_tape` records.
struct TapeAuditOptions {
  std::int64_t batch = 4;                           ///< rows
  std::uint64_t seed = 1;                           ///< of tokens, entry memory, G and dropout
  PlantedTapeFault fault = PlantedTapeFault::none;  ///< the negative control
};

/// Something that must hold of a tape, and where it does not.
struct TapeClaim {
  std::string text;                     ///< the claim, as a sentence
  std::vector<std::string> violations;  ///< one for each place; empty: it holds
};

/// A parameter of the model before and after the sweep. It is no leaf where layers are replayed:
/// those take its gradient past this tape.
struct SweptParameter {
  std::string name;                ///< its path in the model
  Shape shape;                     ///< of its value
  std::optional<double> before{};  ///< norm of the gradient before the sweep; empty: none yet
  std::optional<double> after{};   ///< the same behind the sweep
  std::int32_t received = 0;       ///< contributions through this tape
  bool leaf = false;  ///< of this tape; false: nothing on it uses the parameter directly
};

/// The tape of one segment in the middle of a window: its loss and G are the seeds.
struct TapeAudit {
  TapeReport recorded;  ///< before the sweep
  TapeReport swept;     ///< after it
  /// Values that the sweep starts from, in this order, by id.
  std::vector<std::pair<std::string, std::int32_t>> seeds;
  std::vector<SweptParameter> parameters;  ///< in the model's order
  std::vector<TapeClaim> claims;           ///< those of `claims_of`, and one about the parameters

  /// No claim is violated.
  bool holds() const;
};

/// Records one training step of `model` on a random segment and sweeps it. Leaves gradients empty.
TapeAudit audit_tape(const Memformer& model, const TapeAuditOptions& options);

/// What must hold of a tape before and after its sweep from these seeds:
///   entries are in topological order; the sweep visits what got a gradient, newest first; each
///   visited entry gives each of its inputs on the tape a gradient; each value received what was
///   given; the entries' saved bytes are the tape's, and none are left.
std::vector<TapeClaim> claims_of(const TapeReport& recorded, const TapeReport& swept,
                                 std::int64_t saved_bytes,
                                 std::span<const std::pair<std::string, std::int32_t>> seeds);

/// `depth`: levels of modules to show and to open; more than there are: every entry.
Report report_of(const TapeAudit& audit, const std::string& model, int depth);

/// The tape as a graph for Graphviz: modules nested deeper than `depth` are one node each, those
/// above them frames; edges bear shapes. Parameters are left out.
std::string dot_of(const TapeAudit& audit, int depth);
/// The largest depth at which the graph has at most `most` nodes.
int readable_depth(const TapeAudit& audit, std::size_t most = 60);

}  // namespace mf
