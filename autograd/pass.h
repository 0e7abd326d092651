#pragma once

#include <string>
#include <string_view>

#include "autograd/tape.h"
#include "tensor/random.h"

namespace mf {

/// "No recording" and "evaluation" are different things: MRBP's first pass records nothing, yet
/// drops out exactly as the replay will.
enum class Mode : std::uint8_t {
  train,  ///< dropout drops
  eval    ///< it does not
};

/// What one run through a model needs: where to record, which random draws, and the path of the
/// layer that runs. `at` extends key and path alike, so a mask depends on where it is drawn, not on
/// when.
struct Pass {
  Tape& tape;               ///< where ops are recorded; must outlive the pass
  RngKey key;               ///< of all that is drawn in this part of the model
  Mode mode = Mode::train;  ///< whether dropout drops
  std::string module;       ///< "encoder/layers.0"; only kept when the tape records

  /// The pass of a part: key.at(name), and "module/name".
  Pass at(std::string_view name) const { return {tape, key.at(name), mode, extend(name)}; }
  /// The pass of part `index` of several: key.at(name).at(index), and "module/name.index".
  Pass at(std::string_view name, std::int64_t index) const {
    return {tape, key.at(name).at(static_cast<std::uint64_t>(index)), mode,
            tape.records() ? extend(std::string(name) + "." + std::to_string(index)) : module};
  }

 private:
  std::string extend(std::string_view name) const {
    if (!tape.records()) return module;
    return module.empty() ? std::string(name) : module + "/" + std::string(name);
  }
};

/// While it lives, what is recorded belongs to the pass's module. First line of a layer's
/// operator().
class ModuleScope {
 public:
  /// Tells pass.tape, if it records.
  explicit ModuleScope(const Pass& pass)
      : tape_(pass.tape), outer_(tape_.records() ? tape_.enter_module(pass.module) : 0) {}
  /// Back to the module before.
  ~ModuleScope() {
    if (tape_.records()) tape_.leave_module(outer_);
  }
  ModuleScope(const ModuleScope&) = delete;
  ModuleScope& operator=(const ModuleScope&) = delete;

 private:
  Tape& tape_;
  const std::int32_t outer_;
};

}  // namespace mf
