#include "memformer/bench/peak.h"

#include <atomic>
#include <cstring>
#include <functional>
#include <limits>

#include "memformer/bench/measure.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"

namespace mf::bench {
namespace {

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
  const FmaLoop fma = fma_loop(dtype_);
  const int team = all_threads_ ? threads() : 1;
  const auto work = [&](std::int64_t rounds) {
    if (team == 1) {
      sink.store(fma.run(rounds), std::memory_order_relaxed);
      return;
    }
    // More pieces than threads, so that a thread that starts late does fewer.
    const std::int64_t pieces = 8 * team;
    detail::parallel_chunks(
        pieces, std::int64_t{1} << 30, [&](std::int64_t begin, std::int64_t end) {
          for (; begin < end; ++begin)
            sink.store(fma.run(rounds * team / pieces), std::memory_order_relaxed);
        });
  };
  return rate_of(work, rounds_, seconds) * fma.flops_per_round * team;
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

CopySpeed::CopySpeed(DType dtype, std::int64_t elements, Device device)
    : x_(full({elements}, 1.0, dtype, device)), y_(full({elements}, 1.0, dtype, device)) {}

double CopySpeed::measure(double seconds) {
  synchronize(x_.device());
  for (;; times_ *= 2) {
    const Stopwatch stopwatch;
    for (std::int64_t i = 0; i < times_; ++i) y_.copy_(x_);
    synchronize(x_.device());
    const double wall = stopwatch.elapsed().wall;
    if (wall >= 0.5 * seconds)
      return static_cast<double>(times_ * (x_.bytes() + y_.bytes())) / wall;
  }
}

}  // namespace mf::bench
