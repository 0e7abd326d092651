#pragma once

#include <cmath>
#include <cstdint>

#include "tensor/backend.h"

/// What an optimizer does to one element, written once for every device, as formulas.h is: `M`
/// supplies sqrt. Always inline: a loop around a call is not vectorised.
namespace mf::updates {

/// m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2,
/// p = (1 - lr decay) p - lr m' / (sqrt(v') + epsilon), with m' = m / (1 - beta1^step), v' alike.
template <class T>
struct Adam {
  T gradient_scale,  ///< what the gradient is multiplied by as it is read
      beta1,         ///< AdamOptions::beta1
      beta2,         ///< AdamOptions::beta2
      rest1,         ///< 1 - beta1
      rest2,         ///< 1 - beta2
      rate,          ///< lr / (1 - beta1^step)
      correction2,   ///< 1 / (1 - beta2^step)
      epsilon,       ///< AdamOptions::epsilon
      decay;         ///< 1 - lr * weight_decay

  /// What all elements of a step share, computed in f64 and rounded; `step` counts from 1.
  [[gnu::always_inline]] Adam(const AdamOptions& options, double scale, std::int64_t step)
      : gradient_scale(static_cast<T>(scale)),
        beta1(static_cast<T>(options.beta1)),
        beta2(static_cast<T>(options.beta2)),
        rest1(static_cast<T>(1.0 - options.beta1)),
        rest2(static_cast<T>(1.0 - options.beta2)),
        rate(static_cast<T>(options.learning_rate /
                            (1.0 - std::pow(options.beta1, static_cast<double>(step))))),
        correction2(
            static_cast<T>(1.0 / (1.0 - std::pow(options.beta2, static_cast<double>(step))))),
        epsilon(static_cast<T>(options.epsilon)),
        decay(static_cast<T>(1.0 - options.learning_rate * options.weight_decay)) {}

  /// Updates one element: parameter p, first moment m and second moment v.
  template <class M>
  [[gnu::always_inline]] constexpr void apply(T gradient, T& p, T& m, T& v) const {
    const T g = gradient * gradient_scale;
    const T first = beta1 * m + rest1 * g;
    const T second = beta2 * v + rest2 * (g * g);
    m = first;
    v = second;
    p = decay * p - rate * first / (M::sqrt(second * correction2) + epsilon);
  }
};

/// u = momentum u + g, p -= lr u; without momentum p -= lr g. Weight decay is added to the
/// gradient, as in the classic form: g = scale gradient + decay p.
template <class T>
struct Sgd {
  T gradient_scale,  ///< what the gradient is multiplied by as it is read
      rate,          ///< lr
      momentum,      ///< share of the velocity that stays
      decay;         ///< weight decay

  /// The hyperparameters, rounded to T.
  [[gnu::always_inline]] Sgd(double scale, double learning_rate, double momentum_, double decay_)
      : gradient_scale(static_cast<T>(scale)),
        rate(static_cast<T>(learning_rate)),
        momentum(static_cast<T>(momentum_)),
        decay(static_cast<T>(decay_)) {}

  /// g = scale gradient + decay p: what `apply` is given.
  [[gnu::always_inline]] constexpr T regularised(T gradient, T p) const {
    return gradient * gradient_scale + decay * p;
  }
  /// Without momentum: p -= lr g.
  [[gnu::always_inline]] constexpr void apply(T g, T& p) const { p -= rate * g; }
  /// With momentum: u is kept in `velocity`.
  [[gnu::always_inline]] constexpr void apply(T g, T& p, T& velocity) const {
    const T u = momentum * velocity + g;
    velocity = u;
    p -= rate * u;
  }
};

}  // namespace mf::updates
