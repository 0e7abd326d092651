#include "tensor/backend.h"

#include <cstdlib>
#include <cstring>

#include "tensor/cpu/tables.h"

namespace mf::cpu_kernels {
namespace {

constexpr std::int64_t kAlignment = 64;  // a cache line, and the widest vector

void* allocate(Device, std::int64_t bytes) {
  const std::int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
  return std::aligned_alloc(static_cast<std::size_t>(kAlignment),
                            static_cast<std::size_t>(rounded));
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
