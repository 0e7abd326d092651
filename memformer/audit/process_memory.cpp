#include "memformer/audit/process_memory.h"

#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <fstream>
#include <string>

namespace mf {
namespace {

/// A line such as "VmHWM:     1234 kB" of this process's status.
std::optional<std::int64_t> status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (std::int64_t kilobytes = 0; word == name + ":" && status >> kilobytes)
      return kilobytes * 1024;
  return std::nullopt;
}

}  // namespace

ProcessPeak::ProcessPeak() {
#if defined(__GLIBC__)
  malloc_trim(0);  // what is free goes back, or it would hide what is taken anew
#endif
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;  // sets the peak to what is resident now (man 5 proc)
  if (reset.good()) start_ = status_bytes("VmRSS");
}

std::optional<std::int64_t> ProcessPeak::peak() const {
  return start_ ? status_bytes("VmHWM") : std::nullopt;
}

std::optional<std::int64_t> ProcessPeak::growth() const {
  const std::optional<std::int64_t> highest = peak();
  if (!highest) return std::nullopt;
  return *highest - *start_;
}

}  // namespace mf
