#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/parameter.h"
#include "autograd/tape.h"
#include "tensor/random.h"

namespace mf {

/// Builds a result from leaves. It must be repeatable: same leaves, same bits.
using GradFunction = std::function<Var(Tape&, std::span<const Var>)>;

/// The gate: |analytic - numeric| <= absolute + relative * |numeric|, in f64.
struct GradCheckOptions {
  double step = 1e-6;  ///< of the central difference, times max(1, |x|)
  double absolute = 1e-7;
  double relative = 1e-6;
  std::int64_t full_limit =
      4096;  ///< every coordinate up to here, beyond it `directions` random ones
  int directions = 32;
  /// True for coordinates to leave out and count (kinks of relu and max): input, index, value.
  std::function<bool(int input, std::int64_t index, double value)> skip;
  RngKey key{0x6772616463686bULL};
  /// f32 is refused: finite differences of f32 are noise. Only a test of that fact sets this.
  bool allow_f32 = false;

  /// PyTorch's gradcheck tolerances, for comparison.
  static GradCheckOptions pytorch() {
    GradCheckOptions options;
    options.absolute = 1e-5;
    options.relative = 1e-3;
    return options;
  }
};

struct GradReport {
  struct Failure {
    std::string input;  ///< "input 0", or the parameter's name
    std::int64_t index =
        -1;  ///< row-major coordinate; -1 for a random direction or a whole-tensor fact
    double analytic = 0.0;
    double numeric = 0.0;
    std::string reason;
  };
  std::string name;
  bool ok = true;
  std::int64_t checked = 0;
  std::int64_t skipped = 0;
  double worst_error = 0.0;  ///< largest |analytic - numeric| / (absolute + relative * |numeric|)
  std::vector<Failure> failures;
};
/// Verdict with reasons, for people.
std::string describe(const GradReport& report);

/// Compares the tape's gradients of `fn` with central differences at every coordinate of `inputs`
/// and of `parameters` (whose values are moved in place and put back). The output is contracted
/// with fixed irregular weights: a plain sum sends the same gradient to every element and hides
/// bugs of symmetry. NaN fails. The analytic gradient is computed twice and must have the same
/// bits.
GradReport grad_check(std::string name, const GradFunction& fn, std::span<const Tensor> inputs,
                      const GradCheckOptions& options = {},
                      std::span<const Parameter> parameters = {});

}  // namespace mf
