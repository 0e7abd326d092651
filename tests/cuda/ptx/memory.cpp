#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace standin {

namespace {

constexpr std::size_t kAlignment = 256, kGap = 256;

template <class T>
T* reserve(std::size_t count, int protection, int flags, int file = -1) {
  void* p = mmap(nullptr, count * sizeof(T), protection, flags | MAP_NORESERVE, file, 0);
  if (p == MAP_FAILED) {
    std::perror("stand-in: cannot reserve address space for device memory");
    std::abort();
  }
  return static_cast<T*>(p);
}

/// Names the mistake before the signal does its work.
void on_fault(int signal, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
  if (device_memory().in_range(address)) {
    static constexpr char kText[] = "stand-in: host code dereferences device memory\n";
    [[maybe_unused]] const auto written = write(STDERR_FILENO, kText, sizeof kText - 1);
  }
  std::signal(signal, SIG_DFL);
}

}  // namespace

DeviceMemory::DeviceMemory() {
  file_ = memfd_create("device memory", MFD_CLOEXEC);
  if (file_ < 0 || ftruncate(file_, static_cast<off_t>(kBytes)) != 0) {
    std::perror("stand-in: cannot create device memory");
    std::abort();
  }
  constexpr int kReadWrite = PROT_READ | PROT_WRITE, kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;
  begin_ = reinterpret_cast<std::uint64_t>(reserve<std::byte>(kBytes, PROT_NONE, kPrivate));
  view_ = reserve<std::byte>(kBytes, kReadWrite, MAP_SHARED, file_);
  written_ = reserve<std::uint8_t>(kBytes / 8, kReadWrite, kPrivate);
  histories_ = reserve<AccessHistory>(kBytes / 4, kReadWrite, kPrivate);
  granules_ = reserve<Granule>(kBytes / 256, kReadWrite, kPrivate);
  next_ = begin_ + kGap;

  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
}

std::uint64_t DeviceMemory::allocate(std::size_t bytes, bool variable) {
  if (bytes > begin_ + kBytes - next_ - kGap - kAlignment) return 0;
  const std::uint64_t address = next_;
  next_ = (next_ + bytes + kGap + kAlignment - 1) / kAlignment * kAlignment;
  allocations_[address] = {address, bytes, true, variable};
  if (!variable) live_bytes_ += bytes, ++live_count_;
  std::memset(view(address), 0xff, bytes);
  return address;
}

bool DeviceMemory::release(std::uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end() || !found->second.live) return false;
  Allocation& a = found->second;
  a.live = false;
  if (!a.variable) live_bytes_ -= a.size, --live_count_;
  // Addresses do not come back: give the pages behind them to the system.
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  const std::uint64_t first = (a.begin + page - 1) / page * page;
  const std::uint64_t last = (a.begin + a.size) / page * page;
  if (first < last) {
    madvise(view(first), last - first, MADV_REMOVE);
    madvise(&history(first), (last - first) / 4 * sizeof(AccessHistory), MADV_DONTNEED);
  }
  return true;
}

const Allocation* DeviceMemory::find(std::uint64_t address) const {
  auto next = allocations_.upper_bound(address);
  return next == allocations_.begin() ? nullptr : &std::prev(next)->second;
}

bool DeviceMemory::written(std::uint64_t address, std::size_t bytes) const {
  const std::uint64_t first = address - begin_;
  for (std::uint64_t at = first; at < first + bytes;) {
    if (at % 8 == 0 && at + 8 <= first + bytes) {
      if (written_[at / 8] != 0xff) return false;
      at += 8;
    } else {
      if ((written_[at / 8] >> (at % 8) & 1) == 0) return false;
      ++at;
    }
  }
  return true;
}

void DeviceMemory::set_written(std::uint64_t address, std::size_t bytes, bool value) {
  const std::uint64_t first = address - begin_, last = first + bytes;
  for (std::uint64_t at = first; at < last;) {
    if (at % 8 == 0 && at + 8 <= last) {
      const std::uint64_t whole = (last - at) / 8;
      std::memset(&written_[at / 8], value ? 0xff : 0, whole);
      at += 8 * whole;
    } else {
      const auto bit = static_cast<std::uint8_t>(1u << (at % 8));
      auto& byte = written_[at / 8];
      byte = static_cast<std::uint8_t>(value ? byte | bit : byte & ~bit);
      ++at;
    }
  }
}

void DeviceMemory::copy_written(std::uint64_t to, std::uint64_t from, std::size_t bytes) {
  if (written(from, bytes)) return set_written(to, bytes);
  for (std::size_t i = 0; i < bytes; ++i) set_written(to + i, 1, written(from + i, 1));
}

void DeviceMemory::forget(std::uint64_t address, std::size_t bytes) {
  std::memset(view(address), 0xff, bytes);
  set_written(address, bytes, false);
}

DeviceMemory& device_memory() {
  static DeviceMemory* memory = new DeviceMemory;  // kernels may run while statics are destroyed
  return *memory;
}

}  // namespace standin
