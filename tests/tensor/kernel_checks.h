#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/math.h"
#include "tensor/random.h"

/// What the kernel tests share: random inputs, awkward layouts and comparison with f64 oracles.
namespace mf::test {

inline Tensor random_tensor(const Shape& shape, DType dtype, std::uint64_t seed) {
  return normal(shape, RngKey{seed}, 0.0, 1.0, dtype);
}

inline std::vector<double> values(const Tensor& x) { return x.to(DType::f64).to_vector<double>(); }

/// The same values behind other strides: axes stored in reverse order, inside a larger block.
inline Tensor awkward(const Tensor& x) {
  std::vector<int> reversed(static_cast<std::size_t>(x.rank()));
  for (std::size_t i = 0; i < reversed.size(); ++i)
    reversed[i] = x.rank() - 1 - static_cast<int>(i);
  const Tensor stored = x.permute(reversed).contiguous();
  if (stored.rank() == 0) return stored;
  const Tensor parts[] = {stored, stored};
  return concat(parts, -1).slice(-1, 0, stored.size(-1)).permute(reversed);
}

inline double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-11 : 2e-5; }

/// Every element within `limit` of the expected one, relative to max(1, |expected|). NaN is never
/// close.
inline bool close(const Tensor& actual, const std::vector<double>& expected, double limit) {
  const std::vector<double> got = values(actual);
  if (got.size() != expected.size()) return false;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]);
    if (got[i] != expected[i] && !(error <= limit * std::max(1.0, std::abs(expected[i]))))
      return false;
  }
  return true;
}
inline bool close(const Tensor& actual, const std::vector<double>& expected) {
  return close(actual, expected, tolerance(actual.dtype()));
}

inline bool same_bits(const Tensor& a, const Tensor& b) { return first_difference(a, b) == -1; }

/// Whether fn() gives the same bits on 1, 2, 3 and 4 threads.
template <class F>
bool same_on_any_threads(const F& fn) {
  const int before = threads();
  set_threads(1);
  const Tensor expected = fn();
  bool same = true;
  for (int count = 2; count <= 4; ++count) {
    set_threads(count);
    same = same && same_bits(fn(), expected);
  }
  set_threads(before);
  return same;
}

/// Calls fn() for every instruction set that this processor can run; then the former one is back.
template <class F>
void on_each_isa(const F& fn) {
  struct Restore {
    Isa before = current_isa();
    ~Restore() { set_isa(before); }
  } restore;
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    fn();
  }
}

inline constexpr DType kFloats[] = {DType::f32, DType::f64};

}  // namespace mf::test
