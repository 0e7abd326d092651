#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memformer/bench/measure.h"
#include "tensor/dtype.h"

namespace mf::bench {

struct KernelOptions {
  DType dtype = DType::f32;
  std::string filter;     ///< only cases with this in "family: name"; empty: all
  double seconds = 20.0;  ///< rounds are begun until it has passed; one is always run
};

/// What a repetition is counted in.
enum class Rate { gflops, gbytes, nanoseconds };
const char* unit_of(Rate rate);

/// Medians and spreads over the repetitions that had the processor to themselves.
struct KernelResult {
  std::string family, name;
  Rate rate = Rate::gflops;
  Spread value;                ///< GFLOP/s, GB/s, or nanoseconds per op
  Spread percent;              ///< of the FMA peak, or of the triad, beside each repetition; or NaN
  std::int64_t kept = 0;       ///< repetitions
  std::int64_t disturbed = 0;  ///< repetitions that were thrown away
};

struct KernelFamily {
  std::string name;
  Rate rate = Rate::gflops;
  double mean = 0.0;  ///< geometric, of the medians of `percent`, or of nanoseconds
  double worst = 0.0, best = 0.0;
  std::string worst_name;
};

struct KernelReport {
  DType dtype = DType::f32;
  int threads = 1;
  std::string isa;  ///< instruction set of the kernels and of the FMA loop
  std::int64_t rounds = 0;
  Spread peak_one, peak_all;  ///< GFLOP/s, on one thread and on all
  Spread copy, triad;         ///< GB/s
  std::vector<KernelResult> cases;
  std::vector<KernelFamily> families;
};

/// Every kernel that a training step spends its time in, through the functions of tensor/math.h:
/// repetitions of some milliseconds, one of each case in turn, each right behind a measurement of
/// what it is compared with. Throws Error if no case passes the filter.
KernelReport bench_kernels(const KernelOptions& options);
/// One JSON object; null where no repetition was kept.
std::string to_json(const KernelReport& report);

}  // namespace mf::bench
