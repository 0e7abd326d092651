#include "memformer/bench/peak.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "memformer/bench/measure.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mf::bench {
namespace {

/// Runs `rounds` rounds and returns a number that depends on all of them, so that none is left out.
using FmaLoop = double (*)(std::int64_t rounds);

struct FmaKernel {
  FmaLoop loop;
  double flops_per_round;
};

// x = x * kFactor + kTerm stays near 1 however often it is done.
constexpr double kFactor = 0.999, kTerm = 0.001;

/// Where chain or lane i starts: each elsewhere, or a compiler may do the work of one for all.
template <class T>
T start(std::size_t i) {
  return static_cast<T>(1.0 + 0.01 * static_cast<double>(i));
}

/// Vectors in flight: latency times throughput of any processor so far, and fewer than registers.
constexpr std::size_t kChains = 12;

/// Without instructions of its own. It is a fused multiply-add only where that is the compiler's
/// way to spell it; elsewhere a product and a sum, which are as many operations.
template <class T>
double portable_loop(std::int64_t rounds) {
  constexpr std::size_t kLanes = 16 / sizeof(T);  // the narrowest vectors that are common
  T x[kChains][kLanes];
  for (std::size_t i = 0; i < kChains; ++i)
    for (std::size_t j = 0; j < kLanes; ++j) x[i][j] = start<T>(i * kLanes + j);
  for (std::int64_t round = 0; round < rounds; ++round)
    for (auto& chain : x)
      for (T& lane : chain) {
#if defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)
        lane = std::fma(lane, static_cast<T>(kFactor), static_cast<T>(kTerm));
#else
        lane = lane * static_cast<T>(kFactor) + static_cast<T>(kTerm);
#endif
      }
  double sum = 0.0;
  for (const auto& chain : x)
    for (const T lane : chain) sum += static_cast<double>(lane);
  return sum;
}

template <class T>
FmaKernel portable() {
  return {portable_loop<T>, 2.0 * kChains * (16 / sizeof(T))};
}

#if defined(__x86_64__)

// One function for each width: intrinsics need the attribute on the function that holds them.

[[gnu::target("avx512f")]] double avx512_f32(std::int64_t rounds) {
  const __m512 factor = _mm512_set1_ps(static_cast<float>(kFactor));
  const __m512 term = _mm512_set1_ps(static_cast<float>(kTerm));
  __m512 x[kChains];
  for (std::size_t i = 0; i < kChains; ++i) x[i] = _mm512_set1_ps(start<float>(i));
  for (std::int64_t round = 0; round < rounds; ++round)
    for (auto& chain : x) chain = _mm512_fmadd_ps(chain, factor, term);
  float lanes[16];
  double sum = 0.0;
  for (const auto& chain : x) {
    _mm512_storeu_ps(lanes, chain);
    for (const float lane : lanes) sum += static_cast<double>(lane);
  }
  return sum;
}

[[gnu::target("avx512f")]] double avx512_f64(std::int64_t rounds) {
  const __m512d factor = _mm512_set1_pd(kFactor), term = _mm512_set1_pd(kTerm);
  __m512d x[kChains];
  for (std::size_t i = 0; i < kChains; ++i) x[i] = _mm512_set1_pd(start<double>(i));
  for (std::int64_t round = 0; round < rounds; ++round)
    for (auto& chain : x) chain = _mm512_fmadd_pd(chain, factor, term);
  double lanes[8];
  double sum = 0.0;
  for (const auto& chain : x) {
    _mm512_storeu_pd(lanes, chain);
    for (const double lane : lanes) sum += lane;
  }
  return sum;
}

[[gnu::target("avx2,fma")]] double avx2_f32(std::int64_t rounds) {
  const __m256 factor = _mm256_set1_ps(static_cast<float>(kFactor));
  const __m256 term = _mm256_set1_ps(static_cast<float>(kTerm));
  __m256 x[kChains];
  for (std::size_t i = 0; i < kChains; ++i) x[i] = _mm256_set1_ps(start<float>(i));
  for (std::int64_t round = 0; round < rounds; ++round)
    for (auto& chain : x) chain = _mm256_fmadd_ps(chain, factor, term);
  float lanes[8];
  double sum = 0.0;
  for (const auto& chain : x) {
    _mm256_storeu_ps(lanes, chain);
    for (const float lane : lanes) sum += static_cast<double>(lane);
  }
  return sum;
}

[[gnu::target("avx2,fma")]] double avx2_f64(std::int64_t rounds) {
  const __m256d factor = _mm256_set1_pd(kFactor), term = _mm256_set1_pd(kTerm);
  __m256d x[kChains];
  for (std::size_t i = 0; i < kChains; ++i) x[i] = _mm256_set1_pd(start<double>(i));
  for (std::int64_t round = 0; round < rounds; ++round)
    for (auto& chain : x) chain = _mm256_fmadd_pd(chain, factor, term);
  double lanes[4];
  double sum = 0.0;
  for (const auto& chain : x) {
    _mm256_storeu_pd(lanes, chain);
    for (const double lane : lanes) sum += lane;
  }
  return sum;
}

#endif

FmaKernel fma_kernel(DType dtype) {
  const bool f32 = dtype == DType::f32;
  switch (current_isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return {f32 ? avx512_f32 : avx512_f64, 2.0 * kChains * (f32 ? 16 : 8)};
    case Isa::avx2:
      return {f32 ? avx2_f32 : avx2_f64, 2.0 * kChains * (f32 ? 8 : 4)};
#endif
    default:
      return f32 ? portable<float>() : portable<double>();
  }
}

/// y = x + 0.5 z over elements begin..end-1.
template <class T>
using TriadLoop = void (*)(T* y, const T* x, const T* z, std::int64_t begin, std::int64_t end);

template <class T>
[[gnu::always_inline]] inline void triad(T* y, const T* x, const T* z, std::int64_t begin,
                                         std::int64_t end) {
  for (; begin < end; ++begin) y[begin] = x[begin] + T(0.5) * z[begin];
}

template <class T>
void portable_triad(T* y, const T* x, const T* z, std::int64_t begin, std::int64_t end) {
  triad(y, x, z, begin, end);
}

#if defined(__x86_64__)
// Wider vectors than these move no more bytes beyond the first cache.
template <class T>
[[gnu::target("avx2")]] void avx2_triad(T* y, const T* x, const T* z, std::int64_t begin,
                                        std::int64_t end) {
  triad(y, x, z, begin, end);
}
#endif

template <class T>
TriadLoop<T> triad_loop() {
#if defined(__x86_64__)
  if (current_isa() != Isa::portable) return avx2_triad<T>;
#endif
  return portable_triad<T>;
}

/// Where results go that nobody reads, so that the work for them is not left out.
std::atomic<double> sink{0.0};

constexpr int kTrials = 8;

/// Units of work per second: `work(n)` does n of them, and n is grown until it takes `seconds`.
double rate_of(const std::function<void(std::int64_t)>& work, std::int64_t& n, double seconds) {
  for (int trial = 0; trial < kTrials;) {
    const Stopwatch stopwatch;
    work(n);
    const Times times = stopwatch.elapsed();
    if (times.wall < 0.5 * seconds && n < (std::int64_t{1} << 40)) {
      n *= 2;
      continue;
    }
    if (undisturbed(times)) return static_cast<double>(n) / times.wall;
    ++trial;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace

double FmaPeak::measure(double seconds) {
  const FmaKernel kernel = fma_kernel(dtype_);
  const int team = all_threads_ ? threads() : 1;
  const auto work = [&](std::int64_t rounds) {
    if (team == 1) {
      sink.store(kernel.loop(rounds), std::memory_order_relaxed);
      return;
    }
    // More pieces than threads, so that a thread that starts late does fewer.
    const std::int64_t pieces = 8 * team;
    detail::parallel_chunks(
        pieces, std::int64_t{1} << 30, [&](std::int64_t begin, std::int64_t end) {
          for (; begin < end; ++begin)
            sink.store(kernel.loop(rounds * team / pieces), std::memory_order_relaxed);
        });
  };
  return rate_of(work, rounds_, seconds) * kernel.flops_per_round * team;
}

Bandwidth::Bandwidth(DType dtype, std::int64_t elements)
    : x_(full({elements}, 1.0, dtype)),
      y_(full({elements}, 1.0, dtype)),
      z_(full({elements}, 1.0, dtype)) {}

template <class Loop>
double Bandwidth::measure(const Loop& loop, std::int64_t arrays, double seconds) {
  std::int64_t times = 1;
  const double passes = visit_float(x_.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T* y = y_.mutable_data<T>();
    const T *x = x_.data<T>(), *z = z_.data<T>();
    return rate_of(
        [&](std::int64_t n) {
          for (; n > 0; --n)
            detail::parallel_chunks(x_.elements(), 1, [&](std::int64_t begin, std::int64_t end) {
              loop(y, x, z, begin, end);
            });
        },
        times, seconds);
  });
  return passes * static_cast<double>(arrays * x_.bytes());
}

double Bandwidth::copy(double seconds) {
  return measure(
      []<class T>(T* y, const T* x, const T*, std::int64_t begin, std::int64_t end) {
        std::memcpy(y + begin, x + begin, static_cast<std::size_t>(end - begin) * sizeof(T));
      },
      2, seconds);
}

double Bandwidth::triad(double seconds) {
  return measure([]<class T>(T* y, const T* x, const T* z, std::int64_t begin,
                             std::int64_t end) { triad_loop<T>()(y, x, z, begin, end); },
                 3, seconds);
}

}  // namespace mf::bench
