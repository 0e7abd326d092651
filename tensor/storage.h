#pragma once

#include <cstdint>

#include "tensor/memory.h"

namespace mf::detail {

/// A counted block of memory. `version` grows with every write in place, so that the tape can tell
/// that a tensor it saved has changed since.
struct Storage {
  Storage(Device where, std::int64_t size)
      : device(where),
        bytes(size),
        category(current_category()),
        data(allocate(where, size, category)) {}
  ~Storage() { deallocate(device, data, bytes, category); }
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  const Device device;
  const std::int64_t bytes;
  Category category;
  void* const data;
  std::uint64_t version = 0;
};

}  // namespace mf::detail
