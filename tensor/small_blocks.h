#pragma once

#include <cstddef>

namespace mf::detail {

/// Memory for the small objects that each recorded op makes and frees (a tensor's control block, an
/// entry of the tape): free lists by size, one set for each thread, so that a training step finds
/// again what the step before has freed. The general allocator gives memory at the end of the heap
/// back to the system after each step, and gets it back page fault by page fault.
void* allocate_small(std::size_t bytes);
/// `bytes` as it was asked for; by any thread.
void free_small(void* data, std::size_t bytes) noexcept;

/// The same for the standard library.
template <class T>
struct SmallAllocator {
  using value_type = T;
  SmallAllocator() = default;
  template <class U>
  SmallAllocator(const SmallAllocator<U>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(allocate_small(count * sizeof(T))); }
  void deallocate(T* data, std::size_t count) noexcept { free_small(data, count * sizeof(T)); }
  friend bool operator==(SmallAllocator, SmallAllocator) { return true; }
};

}  // namespace mf::detail
