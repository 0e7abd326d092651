#include "memformer/bench/profile.h"

#include <algorithm>
#include <chrono>
#include <map>

namespace mf::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Running {
  Clock::time_point begin;
  double inside = 0.0;  ///< seconds in ops that this one ran
};

struct Notes {
  std::vector<Running> stack;
  std::map<std::pair<std::string, OpPhase>, ProfileRow> rows;
};

Notes& notes() {
  static Notes all;
  return all;
}

void note(const OpEvent& event) {
  Notes& all = notes();
  const Clock::time_point now = Clock::now();
  if (event.begins) {
    all.stack.push_back({now});
    return;
  }
  if (all.stack.empty()) return;  // it began before the profile
  const Running done = all.stack.back();
  all.stack.pop_back();
  const double seconds = std::chrono::duration<double>(now - done.begin).count();
  if (!all.stack.empty()) all.stack.back().inside += seconds;
  ProfileRow& row = all.rows[{event.op, event.phase}];
  row.calls += 1;
  row.seconds += seconds - done.inside;
}

}  // namespace

OpProfile::OpProfile() : observation_("profile", note) { notes() = {}; }

std::vector<ProfileRow> OpProfile::rows() const {
  std::vector<ProfileRow> list;
  for (const auto& [key, row] : notes().rows)
    list.push_back({key.first, key.second == OpPhase::forward ? "forward" : "backward", row.calls,
                    row.seconds});
  std::ranges::sort(list, std::greater{}, &ProfileRow::seconds);
  return list;
}

}  // namespace mf::bench
