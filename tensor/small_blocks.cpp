#include "tensor/small_blocks.h"

#include <array>
#include <new>
#include <utility>

namespace mf::detail {
namespace {

constexpr std::size_t kUnit = 64;
constexpr std::size_t kClasses = 16;  // blocks up to 1,024 bytes
constexpr int kMostFree = 1 << 14;    // in a list; blocks may be freed by another thread than asks

struct FreeBlock {
  FreeBlock* next;
};

struct FreeList {
  FreeBlock* head = nullptr;
  int count = 0;
};

// Without destructors, as tensors may be freed after a thread's other variables are gone.
thread_local constinit std::array<FreeList, kClasses> lists{};
thread_local constinit bool ended = false;

/// Frees the lists at the end of the thread; what comes later goes to the general allocator.
struct Cleaner {
  ~Cleaner() {
    ended = true;
    for (FreeList& list : lists)
      while (list.head != nullptr) ::operator delete(std::exchange(list.head, list.head->next));
  }
};

std::size_t class_of(std::size_t bytes) { return (bytes + kUnit - 1) / kUnit; }

}  // namespace

void* allocate_small(std::size_t bytes) {
  const std::size_t size = class_of(bytes);
  if (size >= kClasses) return ::operator new(bytes);
  FreeList& list = lists[size];
  if (list.head == nullptr) return ::operator new(size* kUnit);
  --list.count;
  return std::exchange(list.head, list.head->next);
}

void free_small(void* data, std::size_t bytes) noexcept {
  const std::size_t size = class_of(bytes);
  FreeList& list = lists[size < kClasses ? size : 0];
  if (size >= kClasses || list.count == kMostFree || ended) return ::operator delete(data);
  if (list.head == nullptr) {
    thread_local Cleaner cleaner;  // made with the first block of a list
    (void)cleaner;
  }
  ++list.count;
  list.head = new (data) FreeBlock{list.head};
}

}  // namespace mf::detail
