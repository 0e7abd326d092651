#include "tensor/backend.h"

#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstring>

#include "tensor/cpu/tables.h"

namespace mf::cpu_kernels {
namespace {

constexpr std::size_t kAlignment = 64;  // a cache line, and the widest vector
constexpr std::size_t kHugePage = std::size_t{2} << 20;

/// A large block begins at a huge page and asks for such pages: far fewer page faults when it is
/// first written, and fewer misses of the TLB ever after.
void* allocate(Device, std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  const bool large = size >= kHugePage;
  void* data = nullptr;
  if (posix_memalign(&data, large ? kHugePage : kAlignment, size) != 0) return nullptr;
#if defined(__linux__)
  if (large) madvise(data, size, MADV_HUGEPAGE);  // a wish: what it returns changes nothing
#endif
  return data;
}

void free_block(Device, void* data) { std::free(data); }

void copy_bytes(Context&, void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

void synchronize(Context&) {}

}  // namespace

Backend memory_functions() {
  Backend b;
  b.device = "cpu";
  b.allocate = allocate;
  b.free = free_block;
  b.upload = copy_bytes;
  b.download = copy_bytes;
  b.synchronize = synchronize;

  return b;
}

}  // namespace mf::cpu_kernels
