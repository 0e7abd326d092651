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
  double step = 1e-6;      ///< of the central difference, times max(1, |x|)
  double absolute = 1e-7;  ///< error that is always allowed
  double relative = 1e-6;  ///< error that is allowed besides, as a share of |numeric|
  /// Tensors with at most so many elements are checked at every coordinate, larger ones along
  /// `directions` random directions.
  std::int64_t full_limit = 4096;
  int directions = 32;  ///< of unit length, for each large tensor
  /// True for coordinates to leave out and count (kinks of relu and max): input, index, value.
  std::function<bool(int input, std::int64_t index, double value)> skip;
  RngKey key{0x6772616463686bULL};  ///< of the weights of the contraction and of the directions
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

/// What `grad_check` found.
struct GradReport {
  /// A place where the gradient is wrong.
  struct Failure {
    std::string input;  ///< "input 0", or the parameter's name
    /// Row-major coordinate; -1 for a random direction or a whole-tensor fact.
    std::int64_t index = -1;
    double analytic = 0.0;  ///< the tape's derivative there
    double numeric = 0.0;   ///< the central difference
    std::string reason;     ///< in words
  };
  std::string name;          ///< as given to `grad_check`
  bool ok = true;            ///< no failure
  std::int64_t checked = 0;  ///< coordinates and directions compared
  std::int64_t skipped = 0;  ///< coordinates that `skip` left out
  double worst_error = 0.0;  ///< largest |analytic - numeric| / (absolute + relative * |numeric|)
  std::vector<Failure> failures;  ///< as they were found
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
