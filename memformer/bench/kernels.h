#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/bench/measure.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace mf::bench {

struct KernelOptions {
  DType dtype = DType::f32;
  Device device = cpu;
  bool small = false;     ///< the cpu's operands on any device, though they do not fill a GPU
  std::string filter;     ///< only cases with this in "family: name"; empty: all
  double seconds = 20.0;  ///< rounds are begun until it has passed; one is always run
};

/// What a repetition is counted in.
enum class Rate { gflops, gbytes, nanoseconds };
const char* unit_of(Rate rate);

/// What repetitions in `rate` are compared with on `device`: the FMA peak and the triad on the cpu,
/// the copy speed on other devices, or nothing. For products no peak of another device is known.
bool is_compared(Rate rate, Device device);

/// Medians and spreads over the repetitions that, on the cpu, had the processor to themselves.
struct KernelResult {
  std::string family, name;
  Rate rate = Rate::gflops;
  Spread value;           ///< GFLOP/s, GB/s, or nanoseconds per op
  Spread percent;         ///< of what it is compared with, measured beside each repetition; or NaN
  std::int64_t kept = 0;  ///< repetitions
  std::int64_t disturbed = 0;  ///< repetitions that were thrown away
};

struct KernelFamily {
  std::string name;
  Rate rate = Rate::gflops;
  std::string unit;   ///< "percent", or that of the rate where nothing is compared
  double mean = 0.0;  ///< geometric, of the medians in that unit
  double worst = 0.0, best = 0.0;
  std::string worst_name;
};

struct KernelReport {
  DType dtype = DType::f32;
  Device device = cpu;
  int threads = 1;
  std::string isa;  ///< instruction set of the kernels and of the FMA loop
  std::int64_t rounds = 0;
  Spread peak_one, peak_all;  ///< GFLOP/s, on one thread and on all; NaN but on the cpu
  Spread copy, triad;         ///< GB/s; the triad NaN but on the cpu
  std::vector<KernelResult> cases;
  std::vector<KernelFamily> families;
};

/// Every kernel that a training step spends its time in, through the functions of tensor/math.h:
/// repetitions of some milliseconds, one of each case in turn, each right behind a measurement of
/// what it is compared with. On other devices than the cpu a repetition is many calls and one wait
/// for them, and operands are larger. Throws Error if no case passes the filter.
KernelReport bench_kernels(const KernelOptions& options);
/// One JSON object; null where no repetition was kept.
std::string to_json(const KernelReport& report);

}  // namespace mf::bench
