#include "memformer/bench/measure.h"

#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "tensor/cpu/parallel.h"

namespace mf::bench {
namespace {

double seconds_of(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

rusage usage() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}

constexpr double kMegabyte = 1024.0 * 1024.0;

}  // namespace

Stopwatch::Stopwatch()
    : start_{seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID),
             seconds_of(CLOCK_THREAD_CPUTIME_ID)} {}

Times Stopwatch::elapsed() const {
  return {seconds_of(CLOCK_MONOTONIC) - start_.wall,
          seconds_of(CLOCK_PROCESS_CPUTIME_ID) - start_.cpu,
          seconds_of(CLOCK_THREAD_CPUTIME_ID) - start_.thread};
}

bool undisturbed(const Times& times) {
  return times.thread >= (threads() == 1 ? 0.97 : 0.90) * times.wall;
}

std::int64_t minor_page_faults() { return usage().ru_minflt; }

double resident_mb() {
  // The second number of statm, in pages. Where there is no such file: 0.
  std::ifstream file("/proc/self/statm");
  double total = 0.0, resident = 0.0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE)) / kMegabyte;
}

double peak_resident_mb() { return static_cast<double>(usage().ru_maxrss) / 1024.0; }

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::ranges::sort(values);
  const double place = q * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return std::lerp(values[below], values[above], place - static_cast<double>(below));
}

double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

double geometric_mean(const std::vector<double>& values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  double logs = 0.0;
  for (const double value : values) {
    if (!(value > 0.0)) return std::numeric_limits<double>::quiet_NaN();
    logs += std::log(value);
  }
  return std::exp(logs / static_cast<double>(values.size()));
}

Spread spread_of(const std::vector<double>& values) {
  return {median(values), quantile(values, 0.1), quantile(values, 0.9)};
}

}  // namespace mf::bench
