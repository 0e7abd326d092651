#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/var.h"

/// Faults planted in backward functions, one each. A gradient check that lets one of them pass is
/// worth nothing; a gradient check that refuses the right op beside it is worth nothing either.
namespace mf {

/// A wrong backward, beside the op that has it right.
struct PlantedGradient {
  std::string name;                                ///< "sub-sign"
  std::string fault;                               ///< "sub: wrong sign for the second input"
  std::vector<Tensor> inputs;                      ///< of both functions, f64
  std::function<Var(std::span<const Var>)> right;  ///< the op as it is
  std::function<Var(std::span<const Var>)> wrong;  ///< the same forward, the wrong backward
};

/// Sign, factor, missing term, wrong axis, missing accumulation, mask off by one, transposed
/// weight, stale value and so on.
std::vector<PlantedGradient> planted_gradients();

}  // namespace mf
