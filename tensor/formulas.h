#pragma once

#include <limits>

#include "tensor/backend.h"

/// Value and derivative of each elementwise function, written once for every device. Every struct
/// has the same two static members: `value<M>(x)` is f(x), and `derivative<M>(x, y)` is f'(x),
/// which is given y = f(x) too and uses whichever is cheaper. `M` supplies exp, log, sqrt, tanh of
/// the device, and normal_cdf and normal_density, the distribution function Phi of the standard
/// normal distribution and Phi' (on the CPU: cpu/vector_math.h). NaN stays NaN. Always inline: a
/// loop around a call is not vectorised.
namespace mf::formulas {

/// f(x) = -x, f'(x) = -1.
struct Negative {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return -x;
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T, T) {
    return T{-1};
  }
};

/// f(x) = e^x, f'(x) = y.
struct Exp {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return M::exp(x);
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T, T y) {  // exp' = exp
    return y;
  }
};

/// f(x) = ln x, f'(x) = 1 / x.
struct Log {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return M::log(x);
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T x, T) {  // 1 / x
    return T{1} / x;
  }
};

/// f(x) = sqrt x, f'(x) = 1 / (2 y).
struct Sqrt {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return M::sqrt(x);
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T, T y) {  // 1 / (2 sqrt x)
    return T{0.5} / y;
  }
};

/// f(x) = x^2, f'(x) = 2 x.
struct Square {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return x * x;
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T x, T) {  // 2 x
    return T{2} * x;
  }
};

/// f(x) = 1 / x, f'(x) = -y^2.
struct Reciprocal {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return T{1} / x;
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T, T y) {  // -1 / x^2
    return -(y * y);
  }
};

/// f(x) = tanh x, f'(x) = 1 - y^2.
struct Tanh {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {
    return M::tanh(x);
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T, T y) {  // 1 - tanh^2
    return T{1} - y * y;
  }
};

/// f(x) = 1 / (1 + e^-x), f'(x) = y (1 - y).
struct Sigmoid {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {  // 1 / (1 + e^-x)
    return T{1} / (T{1} + M::exp(-x));
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T, T y) {  // s (1 - s)
    return y * (T{1} - y);
  }
};

/// f(x) = max(x, 0), f'(x) = 1 where x > 0, and 0 at 0.
struct Relu {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {  // max(x, 0); written so that NaN passes
    return x < T{0} ? T{0} : x;
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T x, T) {  // 1 where x > 0, and 0 at 0
    return x > T{0} ? T{1} : T{0};
  }
};

/// f(x) = x s with s = sigmoid(x), f'(x) = s (1 + x (1 - s)).
struct Silu {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {  // x s(x), s = sigmoid
    return x * Sigmoid::value<M>(x);
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T x, T) {  // s + x s (1 - s)
    const T s = Sigmoid::value<M>(x);
    return s * (T{1} + x * (T{1} - s));
  }
};

/// f(x) = x Phi(x), f'(x) = Phi(x) + x Phi'(x). Source: Hendrycks and Gimpel 2016.
struct Gelu {
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {  // x Phi(x)
    return x * M::normal_cdf(x);
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(T x, T) {  // Phi(x) + x Phi'(x)
    return M::normal_cdf(x) + x * M::normal_density(x);
  }
};

/// f(x) = x (1 + t) / 2 with t = tanh u, u = sqrt(2 / pi) (x + 0.044715 x^3);
/// f'(x) = (1 + t) / 2 + x (1 - t^2) u' / 2. Source: Hendrycks and Gimpel 2016.
struct GeluTanh {
  static constexpr double kSqrt2OverPi = 0.79788456080286535588;
  static constexpr double kCubic = 0.044715;

  /// t = tanh(sqrt(2 / pi) (x + 0.044715 x^3))
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T inner_tanh(T x) {
    return M::tanh(static_cast<T>(kSqrt2OverPi) * (x + static_cast<T>(kCubic) * x * x * x));
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T value(T x) {  // x (1 + t) / 2
    return T{0.5} * x * (T{1} + inner_tanh<M>(x));
  }
  template <class M, class T>
  [[gnu::always_inline]] static constexpr T derivative(
      T x, T) {  // (1 + t) / 2 + x (1 - t^2) u' / 2, u' as below
    const T t = inner_tanh<M>(x);
    const T slope = static_cast<T>(kSqrt2OverPi) * (T{1} + static_cast<T>(3 * kCubic) * x * x);
    return T{0.5} * (T{1} + t) + T{0.5} * x * (T{1} - t * t) * slope;
  }
};

/// What to subtract from logits with this log-sum: where all are -inf, as is it, the difference
/// would be NaN.
template <class T>
[[gnu::always_inline]] constexpr T log_sum_shift(T log_sum) {
  return log_sum == -std::numeric_limits<T>::infinity() ? T{0} : log_sum;
}

/// Calls `fn(Formula{})` with the struct behind `function`.
template <class F>
constexpr void visit(Unary function, F&& fn) {
  switch (function) {
    case Unary::negative:
      return fn(Negative{});
    case Unary::exp:
      return fn(Exp{});
    case Unary::log:
      return fn(Log{});
    case Unary::sqrt:
      return fn(Sqrt{});
    case Unary::square:
      return fn(Square{});
    case Unary::reciprocal:
      return fn(Reciprocal{});
    case Unary::tanh:
      return fn(Tanh{});
    case Unary::sigmoid:
      return fn(Sigmoid{});
    case Unary::relu:
      return fn(Relu{});
    case Unary::silu:
      return fn(Silu{});
    case Unary::gelu:
      return fn(Gelu{});
    case Unary::gelu_tanh:
      return fn(GeluTanh{});
  }
}

}  // namespace mf::formulas
