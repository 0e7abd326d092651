#include "tensor/memory.h"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tensor/backend.h"

namespace mf {
namespace {

/// Free lists of one device, by size class. Blocks are never split, so a loop over same-shaped
/// segments finds each of its blocks again. A class is a power of two in eight steps: at most 12.5
/// % of a block is unused.
class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  void* allocate(std::int64_t bytes, Category category) {
    const std::int64_t block = block_size(bytes);
    const std::lock_guard lock(mutex_);
    void* data = nullptr;
    if (auto& list = free_[block]; !list.empty()) {
      data = list.back();
      list.pop_back();
      stats_.cached -= block;
    } else {
      data = backend_for(device_).allocate(device_, block);
      if (data == nullptr) {
        release();
        data = backend_for(device_).allocate(device_, block);
      }
      check(
          data != nullptr,
          "allocate: {} has no memory left; requested {} bytes, active {}, peak {}; use a smaller "
          "batch, a shorter segment or replay",
          device_, bytes, stats_.active, stats_.peak);
    }
    count(bytes, category);
    stats_.peak = std::max(stats_.peak, stats_.active);
    return data;
  }

  void deallocate(void* data, std::int64_t bytes, Category category) {
    const std::int64_t block = block_size(bytes);
    const std::lock_guard lock(mutex_);
    free_[block].push_back(data);
    stats_.cached += block;
    count(-bytes, category);
  }

  void move_category(std::int64_t bytes, Category from, Category to) {
    const std::lock_guard lock(mutex_);
    count(-bytes, from);
    count(bytes, to);
  }

  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  /// Makes `peak` the largest value from now on; returns the former one.
  std::int64_t exchange_peak(std::int64_t peak) {
    const std::lock_guard lock(mutex_);
    return std::exchange(stats_.peak, std::max(peak, stats_.active));
  }

  void release_cached() {
    const std::lock_guard lock(mutex_);
    release();
  }

  ~CachingAllocator() { release(); }

 private:
  static std::int64_t block_size(std::int64_t bytes) {
    constexpr std::int64_t kSmallest = 64;
    if (bytes <= kSmallest) return kSmallest;
    const std::int64_t step =
        static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(bytes - 1))) / 8;
    const std::int64_t unit = std::max(step, kSmallest);
    return (bytes + unit - 1) / unit * unit;
  }

  void count(std::int64_t bytes, Category category) {
    if (category != Category::workspace) stats_.active += bytes;
    stats_.by_category[static_cast<std::size_t>(category)] += bytes;
  }

  void release() {
    for (auto& [block, list] : free_)
      for (void* data : list) backend_for(device_).free(device_, data);
    free_.clear();
    stats_.cached = 0;
  }

  Device device_;
  std::mutex mutex_;
  std::unordered_map<std::int64_t, std::vector<void*>> free_;
  MemoryStats stats_;
};

CachingAllocator& allocator_of(Device device) {
  if (device == cpu) {
    // Outlives every static tensor: leaked on purpose, but reachable, so leak checkers see it.
    static CachingAllocator* const allocator = new CachingAllocator(cpu);
    return *allocator;
  }
  static std::map<int, CachingAllocator> others;
  return others.try_emplace(device.index, device).first->second;
}

thread_local Category category_now = Category::activation;

}  // namespace

std::string_view name_of(Category category) {
  constexpr std::array<std::string_view, kCategories> names{"activation", "parameter", "gradient",
                                                            "state",      "optimizer", "workspace"};
  return names[static_cast<std::size_t>(category)];
}

MemoryStats memory_stats(Device device) { return allocator_of(device).stats(); }
void reset_peak(Device device) { allocator_of(device).exchange_peak(0); }
void release_cached(Device device) { allocator_of(device).release_cached(); }

CategoryScope::CategoryScope(Category category) : previous_(category_now) {
  category_now = category;
}
CategoryScope::~CategoryScope() { category_now = previous_; }

PeakScope::PeakScope(Device device)
    : device_(device),
      start_(memory_stats(device).active),
      outer_peak_(allocator_of(device).exchange_peak(0)) {}
PeakScope::~PeakScope() {
  allocator_of(device_).exchange_peak(std::max(outer_peak_, memory_stats(device_).peak));
}
std::int64_t PeakScope::peak() const { return memory_stats(device_).peak; }

namespace detail {

void* allocate(Device device, std::int64_t bytes, Category category) {
  return allocator_of(device).allocate(bytes, category);
}
void deallocate(Device device, void* data, std::int64_t bytes, Category category) noexcept {
  allocator_of(device).deallocate(data, bytes, category);
}
void move_category(Device device, std::int64_t bytes, Category from, Category to) {
  allocator_of(device).move_category(bytes, from, to);
}
Category current_category() { return category_now; }

}  // namespace detail
}  // namespace mf
