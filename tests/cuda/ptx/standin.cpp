#include "standin.h"

#include <cxxabi.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "memory.h"
#include "runtime.h"

namespace standin {

namespace {

struct Injection {
  std::uint64_t countdown;
  int code;
};

struct State {
  Settings settings;
  Statistics statistics;
  std::vector<Report> reports;
  std::set<std::tuple<const void*, std::uint32_t, std::uint32_t>> seen;
  std::map<std::string, Injection> injections;
  std::size_t objects[4] = {};
  cudaError_t sticky = cudaSuccess;
  bool print_statistics = false;
};

thread_local cudaError_t last_error = cudaSuccess;

void read_environment(State& s) {
  const auto value = [](const char* name) {
    const char* text = std::getenv(name);
    return std::string_view(text == nullptr ? "" : text);
  };
  const auto order = value("STANDIN_ORDER");
  if (order == "reverse") s.settings.order = Order::reverse;
  if (order.starts_with("random")) {
    s.settings.order = Order::random;
    const auto colon = order.find(':');
    if (colon != order.npos) s.settings.seed = std::strtoull(order.data() + colon + 1, nullptr, 10);
  }
  if (!value("STANDIN_ARCH").empty()) s.settings.arch = std::atoi(value("STANDIN_ARCH").data());
  if (value("STANDIN_CHECKS") == "0") s.settings.races = s.settings.uninitialised = false;
  s.print_statistics = value("STANDIN_STATISTICS") == "1";
}

/// Runs what nobody waited for, looks for leaks, and turns reports that nobody took into a failure
/// of the program.
void at_exit();

State& state() {
  static State* s = [] {
    auto* fresh = new State;  // used by whatever runs at exit
    read_environment(*fresh);
    std::atexit(at_exit);
    return fresh;
  }();
  return *s;
}

void at_exit() {
  State& s = state();
  wait_for_all();
  const Live left = live();
  if (s.settings.leaks) {
    const auto leak = [](std::size_t count, const std::string& what) {
      if (count != 0) report(Kind::leak, std::to_string(count) + " " + what + " left at exit");
    };
    leak(left.allocations, "device allocations (" + std::to_string(left.bytes) + " bytes)");
    leak(left.host_allocations, "pinned host allocations");
    leak(left.streams, "streams");
    leak(left.events, "events");
    leak(left.handles, "cuBLAS handles");
  }
  if (s.print_statistics) {
    std::fprintf(stderr, "stand-in: %llu launches, %llu PTX instructions\n",
                 static_cast<unsigned long long>(s.statistics.total.launches),
                 static_cast<unsigned long long>(s.statistics.total.instructions));
  }
  if (s.reports.empty()) return;
  std::fprintf(stderr, "stand-in: %zu reports\n", s.reports.size());
  std::fflush(nullptr);
  _exit(1);
}

}  // namespace

const char* name_of(Kind kind) {
  static constexpr const char* kNames[] = {
      "race",           "stream order",    "uninitialised", "unset register", "out of bounds",
      "use after free", "unknown address", "misaligned",    "barrier",        "warp mask",
      "launch",         "argument",        "trap",          "unsupported",    "leak"};
  return kNames[static_cast<int>(kind)];
}

Settings& settings() { return state().settings; }

std::vector<Report> take_reports() {
  const std::lock_guard lock(mutex());
  state().seen.clear();
  return std::exchange(state().reports, {});
}

void fail(const std::string& call, std::uint64_t nth, int code) {
  const std::lock_guard lock(mutex());
  if (nth == 0) {
    state().injections.erase(call);
  } else {
    state().injections[call] = {nth, code};
  }
}

const Statistics& statistics() { return state().statistics; }
void reset_statistics() { state().statistics = {}; }

Live live() {
  const DeviceMemory& memory = device_memory();
  const auto& objects = state().objects;
  return {memory.live_count(), memory.live_bytes(), objects[0], objects[1], objects[2], objects[3]};
}

void clear_error() { state().sticky = last_error = cudaSuccess; }

void forget(void* data, std::size_t bytes) {
  const std::lock_guard lock(mutex());
  wait_for_all();
  device_memory().forget(reinterpret_cast<std::uint64_t>(data), bytes);
}

void report(Kind kind, const std::string& text) {
  if (settings().print) std::fprintf(stderr, "stand-in: %s: %s\n", name_of(kind), text.c_str());
  state().reports.push_back({kind, text});
}

bool first_of_pair(const void* module, std::uint32_t a, std::uint32_t b) {
  return state().seen.insert({module, a, b}).second;
}

std::string demangle(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  const std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

std::string hex(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

std::recursive_mutex& mutex() {
  static auto* m = new std::recursive_mutex;
  return *m;
}

int injected_failure(const char* call) {
  State& s = state();
  ++s.statistics.calls[call];
  const auto found = s.injections.find(call);
  if (found == s.injections.end() || --found->second.countdown != 0) return 0;
  const int code = found->second.code;
  s.injections.erase(found);
  return code;
}

cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}
cudaError_t take_last_error(bool clear) {
  return clear ? std::exchange(last_error, cudaSuccess) : last_error;
}
cudaError_t sticky_error() { return state().sticky; }
void set_sticky_error(cudaError_t error) { state().sticky = error; }

bool touch_range(const std::string& what, std::uint32_t operation, std::uint64_t address,
                 std::size_t bytes, bool write) {
  if (bytes == 0) return true;
  DeviceMemory& memory = device_memory();
  const Allocation* a = memory.in_range(address) ? memory.find(address) : nullptr;
  const std::string range = what + (write ? ": writes " : ": reads ") + std::to_string(bytes) +
                            " bytes at " + hex(address);
  if (a == nullptr)
    return report(Kind::unknown_address, range + ", which is no device memory"), false;
  if (!a->contains(address, bytes)) {
    report(Kind::out_of_bounds,
           range + "; there are " + std::to_string(a->size) + " bytes at " + hex(a->begin));
    return false;
  }
  if (!a->live) return report(Kind::use_after_free, range + ", which was freed"), false;
  if (settings().races) {
    std::uint32_t other = 0;
    for (std::uint64_t at = address / 256 * 256; at < address + bytes; at += 256) {
      if (const auto found = touch_granule(memory.granule(at), operation, write)) other = found;
    }
    if (other != 0) report(Kind::stream_order, range + " unordered with " + describe(other));
  }
  if (write) {
    memory.set_written(address, bytes);
  } else if (settings().uninitialised && !memory.written(address, bytes)) {
    report(Kind::uninitialised, range + ", not all of which was written");
  }
  return true;
}

void count_object(Object object, int change) {
  state().objects[static_cast<int>(object)] += static_cast<std::size_t>(change);
}

void count_launch(const std::string& kernel, std::uint64_t instructions) {
  for (Counters* c : {&state().statistics.total, &state().statistics.kernels[kernel]}) {
    ++c->launches;
    c->instructions += instructions;
  }
}

}  // namespace standin
