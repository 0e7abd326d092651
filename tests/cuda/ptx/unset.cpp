#include "unset.h"

#include <algorithm>
#include <set>

#include "interpreter.h"

namespace standin::ptx {

namespace {

using Bits = std::vector<bool>;  // by cell: is it set on every path?

/// The instruction before which checks stand reads what they test.
void check_set(Lane& l, const Instruction& i) {
  for (const Slot s : i.src) {
    if (s == 0 || l.registers[s] != kUnset) continue;
    l.block->report(Kind::unset_register, l, i, "an operand was never written");
    l.registers[s] = 0;  // one report for each register
  }
}

class Analysis {
 public:
  Analysis(const Module& module, const Function& function, const Flow& flow)
      : code_(module.code.data() + function.first),
        count_(flow.targets.size()),
        before_(count_, Bits(function.slots, true)),
        reached_(count_, false) {
    Bits entry(function.slots, false);
    entry[0] = true;
    for (const Preset& p : function.presets) entry[p.slot] = true;
    std::set<std::size_t> work;
    const auto flow_into = [&](std::size_t n, const Bits& state) {
      Bits& known = before_[n];
      bool changed = !reached_[n];
      reached_[n] = true;
      for (std::size_t s = 0; s < state.size(); ++s) {
        if (known[s] && !state[s]) known[s] = false, changed = true;
      }
      if (changed) work.insert(n);
    };
    flow_into(0, entry);
    while (!work.empty()) {
      const std::size_t n = *work.begin();
      work.erase(work.begin());
      const Bits after = after_instruction(n);
      const bool ends = code_[n].role == Role::jump && code_[n].guard == Guard::none;
      if (!ends && n + 1 < count_) flow_into(n + 1, after);
      for (const std::size_t t : flow.targets[n]) flow_into(t, after);
    }
  }

  /// Cells that instruction `n` reads though they may be unset.
  std::vector<Slot> unset_reads(std::size_t n) const {
    const Instruction& i = code_[n];
    std::vector<Slot> reads;
    const auto read = [&](Slot s) {
      if (!before_[n][s] && std::find(reads.begin(), reads.end(), s) == reads.end()) {
        reads.push_back(s);
      }
    };
    read(i.predicate);
    read(i.base);
    for (const Slot s : i.src) read(s);
    return reads;
  }

 private:
  Bits after_instruction(std::size_t n) const {
    const Instruction& i = code_[n];
    const Bits& before = before_[n];
    Bits after = before;
    bool value = true;
    if (i.role == Role::move) value = before[i.src[0]];
    if (i.role == Role::selection) value = before[i.src[0]] && before[i.src[1]];
    for (const Slot d : i.dst) {
      if (d == 0) continue;
      after[d] = i.guard == Guard::none ? value : value && before[d];
    }
    return after;
  }

  const Instruction* code_;
  std::size_t count_;
  std::vector<Bits> before_;
  std::vector<bool> reached_;
};

}  // namespace

Moved add_unset_checks(Module& module, Function& function, const Flow& flow) {
  const Analysis analysis(module, function, flow);
  std::vector<Instruction> code;
  std::vector<Origin> origins;
  std::set<Slot> suspects;
  Moved moved;
  for (std::size_t n = 0; n < flow.targets.size(); ++n) {
    const Instruction& i = module.code[function.first + n];
    const Origin& origin = module.origins[function.first + n];
    moved.first.push_back(code.size());
    const auto reads = analysis.unset_reads(n);
    suspects.insert(reads.begin(), reads.end());
    if (i.role == Role::ordinary || i.role == Role::jump) {
      for (const Slot s : reads) {
        Instruction check;
        check.execute = check_set;
        check.src[0] = s;
        if (s != i.predicate) check.guard = i.guard, check.predicate = i.predicate;
        code.push_back(check);
        origins.push_back(origin);
      }
    }
    moved.self.push_back(code.size());
    code.push_back(i);
    origins.push_back(origin);
  }
  module.code.resize(function.first);
  module.origins.resize(function.first);
  module.code.insert(module.code.end(), code.begin(), code.end());
  module.origins.insert(module.origins.end(), origins.begin(), origins.end());
  function.suspects.assign(suspects.begin(), suspects.end());
  return moved;
}

}  // namespace standin::ptx
