#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "autograd/observer.h"

namespace mf::bench {

/// Time spent in one op, without the ops that it ran.
struct ProfileRow {
  std::string op;
  std::string phase;  ///< "forward" or "backward"
  std::int64_t calls = 0;
  double seconds = 0.0;
};

/// Notes the time of every op while it lives; what no op accounts for is the optimizer, the
/// bookkeeping of the tape, and the window itself. One at a time; ops must run on one thread.
class OpProfile {
 public:
  OpProfile();

  /// Longest first.
  std::vector<ProfileRow> rows() const;

 private:
  const OpObservation observation_;
};

}  // namespace mf::bench
