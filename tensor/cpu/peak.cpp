#include <array>

#include "tensor/cpu/simd.h"
#include "tensor/cpu/tables.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

/// Vectors in flight: latency times throughput of any processor so far, and fewer than registers.
constexpr std::size_t kChains = 12;

template <class T>
double fma_rounds(std::int64_t rounds) {
  // x = x * factor + term stays near 1 however often it is done.
  const Vector<T> factor = broadcast(static_cast<T>(0.999));
  const Vector<T> term = broadcast(static_cast<T>(0.001));
  std::array<T, static_cast<std::size_t>(kVector<T>)> lanes;
  Vector<T> chains[kChains];
  for (std::size_t i = 0; i < kChains; ++i) {
    // Each starts elsewhere, or a compiler may do the work of one for all.
    for (std::size_t j = 0; j < lanes.size(); ++j)
      lanes[j] = static_cast<T>(1.0 + 0.01 * static_cast<double>(i * lanes.size() + j));
    chains[i] = load(lanes.data());
  }
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kChains; ++i) chains[i] = fma(chains[i], factor, term);
  }
  double sum = 0.0;
  for (std::size_t i = 0; i < kChains; ++i) {
    store(lanes.data(), chains[i]);
    for (const T lane : lanes) sum += static_cast<double>(lane);
  }
  return sum;
}

template <class T>
FmaLoop fma_loop() {
  return {fma_rounds<T>, 2 * static_cast<int>(kChains) * kVector<T>};
}

}  // namespace

FmaLoop fma_loop(DType dtype) {
  return visit_float(dtype, [](auto zero) { return fma_loop<decltype(zero)>(); });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
