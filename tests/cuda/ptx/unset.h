#pragma once

#include <vector>

#include "program.h"

namespace standin::ptx {

/// Control flow of a function: for each instruction, where it may jump.
struct Flow {
  explicit Flow(std::size_t instructions) : targets(instructions) {}
  std::vector<std::vector<std::size_t>> targets;
};

/// Where instructions have gone: `self` is the instruction, `first` what was put before it.
struct Moved {
  std::vector<std::size_t> first, self;
};

/// Finds the registers that some path reads before it writes them and puts a check in front of each
/// such read, so that reads which are safe on every path cost nothing. Moves and selections pass an
/// unset value on, as compilers rely on, and are not checked.
Moved add_unset_checks(Module& module, Function& function, const Flow& flow);

}  // namespace standin::ptx
