#pragma once

#include <cstdint>
#include <vector>

/// What all benchmarks share: clocks, counters of the system, statistics of repetitions.
namespace mf::bench {

/// Seconds of one piece of work.
struct Times {
  double wall = 0.0;
  double cpu = 0.0;     ///< of all threads of the process
  double thread = 0.0;  ///< of the calling thread
};

/// Runs from its construction on.
class Stopwatch {
 public:
  Stopwatch();
  Times elapsed() const;

 private:
  Times start_;
};

/// False if the calling thread did not get the processor for the time that it asked for it, so that
/// the work was longer than it is: below 97 % of the wall time on one thread, 90 % on several, of
/// which the caller may wait for the others.
bool undisturbed(const Times& times);

/// Page faults of the process so far that needed no disk: fresh memory from the system.
std::int64_t minor_page_faults();
/// Resident memory now, and its peak, in units of 2^20 bytes.
double resident_mb();
double peak_resident_mb();

/// Linear interpolation between the sorted values; q = 0 is the smallest, 1 the largest. NaN if
/// there are none.
double quantile(std::vector<double> values, double q);
double median(std::vector<double> values);
/// NaN if there are none, or one is not positive.
double geometric_mean(const std::vector<double>& values);

/// Median and the middle 80 % of repetitions.
struct Spread {
  double median = 0.0, low = 0.0, high = 0.0;
};
Spread spread_of(const std::vector<double>& values);

}  // namespace mf::bench
