#include "tensor/memory.h"

#include <stdlib.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <bit>
#include <fstream>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/backend.h"

namespace mf {
namespace {

/// Sizes of blocks: multiples of 64 bytes up to 1,024, then eight to each power of two, so that at
/// most 12.5 % of a block above 512 bytes is unused.
struct SizeClass {
  static constexpr std::size_t kCount = 440;  // for all that an int64 can count

  explicit SizeClass(std::int64_t bytes) {
    const auto last = static_cast<std::uint64_t>(std::max<std::int64_t>(bytes, 1) - 1);
    const int shift = std::max(static_cast<int>(std::bit_width(last)), 10) - 4;
    const std::uint64_t steps = last >> shift;
    index = static_cast<std::size_t>(steps) + 8 * static_cast<std::size_t>(shift - 6);
    block = static_cast<std::int64_t>((steps + 1) << shift);
  }

  /// Bytes of the blocks in list `index`.
  static std::int64_t block_of(std::size_t index) {
    const std::size_t doublings = std::max<std::size_t>(index / 8, 1) - 1;
    return static_cast<std::int64_t>((index + 1 - 8 * doublings) << (doublings + 6));
  }

  std::size_t index;
  std::int64_t block;  ///< bytes
};

std::atomic<BlockObserver> block_observer{nullptr};

/// Free lists of one device, by size class. Blocks are never split, so a loop over same-shaped
/// segments finds each of its blocks again.
class CachingAllocator {
 public:
  explicit CachingAllocator(Device device) : device_(device) {}

  void* allocate(std::int64_t bytes, Category category) {
    const SizeClass size(bytes);
    const std::lock_guard lock(mutex_);
    std::vector<void*>& list = free_[size.index];
    void* data = nullptr;
    if (!list.empty()) {
      data = list.back();
      list.pop_back();
      stats_.cached -= size.block;
    } else {
      data = ask_system(size.block, bytes);
    }
    count(bytes, category);
    stats_.peak = std::max(stats_.peak, stats_.active);
    tell(BlockEvent::Kind::allocate, data, bytes, category, category);
    return data;
  }

  void deallocate(void* data, std::int64_t bytes, Category category) {
    const SizeClass size(bytes);
    const std::lock_guard lock(mutex_);
    free_[size.index].push_back(data);
    stats_.cached += size.block;
    count(-bytes, category);
    tell(BlockEvent::Kind::free, data, bytes, category, category);
  }

  void move_category(const void* data, std::int64_t bytes, Category from, Category to) {
    const std::lock_guard lock(mutex_);
    count(-bytes, from);
    count(bytes, to);
    tell(BlockEvent::Kind::move, data, bytes, to, from);
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

  ~CachingAllocator() {
    try {
      release();
    } catch (const Error&) {  // what could not be given back is lost with the process
    }
  }

 private:
  void* ask_system(std::int64_t block, std::int64_t requested) {
    const Backend& backend = backend_for(device_);
    ++stats_.allocations;
    void* data = backend.allocate(device_, block);
    if (data != nullptr) return data;
    const std::int64_t cached = stats_.cached;
    release();
    data = backend.allocate(device_, block);
    if (data == nullptr) fail_out_of_memory(requested, cached);
    return data;
  }

  [[noreturn]] void fail_out_of_memory(std::int64_t requested, std::int64_t cached) const {
    const auto free_bytes = backend_for(device_).free_bytes;
    const std::string free =
        free_bytes == nullptr ? "" : ", now free " + std::to_string(free_bytes(device_));
    fail(
        "allocate: {} has no memory left; requested {} bytes, active {}, peak {}, cached {} until "
        "they were given back{}; use a smaller batch, a shorter segment or replay",
        device_, requested, stats_.active, stats_.peak, cached, free);
  }

  void count(std::int64_t bytes, Category category) {
    if (category != Category::workspace) stats_.active += bytes;
    stats_.by_category[static_cast<std::size_t>(category)] += bytes;
  }

  void tell(BlockEvent::Kind kind, const void* data, std::int64_t bytes, Category category,
            Category former) const {
    if (const BlockObserver observer = block_observer.load(std::memory_order_relaxed)) [[unlikely]]
      observer({kind, device_, data, bytes, category, former, stats_});
  }

  void release() {
    for (std::size_t index = 0; index < free_.size(); ++index) {
      std::vector<void*>& list = free_[index];
      while (!list.empty()) {
        backend_for(device_).free(device_, list.back());
        list.pop_back();  // not before: where that failed the block stays, for the next release
        stats_.cached -= SizeClass::block_of(index);
      }
    }
  }

  Device device_;
  std::mutex mutex_;
  std::array<std::vector<void*>, SizeClass::kCount> free_;
  MemoryStats stats_;
};

CachingAllocator& cpu_allocator() {
  // Outlives every static tensor: leaked on purpose, but reachable, so leak checkers see it.
  static CachingAllocator* const allocator = new CachingAllocator(cpu);
  return *allocator;
}

// Not inline: the way to the cpu's allocator is then a few instructions.
[[gnu::noinline]] CachingAllocator& other_allocator(Device device) {
  static std::mutex mutex;
  static std::map<int, CachingAllocator> others;
  const std::lock_guard lock(mutex);
  return others.try_emplace(device.index, device).first->second;
}

CachingAllocator& allocator_of(Device device) {
  return device == cpu ? cpu_allocator() : other_allocator(device);
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
BlockObserver observe_blocks(BlockObserver observer) { return block_observer.exchange(observer); }

void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_TRIM_THRESHOLD, 1 << 29);  // sizes of what is freed at the end of the heap
  mallopt(M_MMAP_THRESHOLD, 1 << 25);  // the largest it takes; beyond, each block is mapped anew
#endif
}

std::string huge_page_policy() {
  // "always [madvise] never"
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  for (std::string word; file >> word;)
    if (word.front() == '[') return word.substr(1, word.size() - 2);
  return "";
}

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
void move_category(Device device, const void* data, std::int64_t bytes, Category from,
                   Category to) {
  allocator_of(device).move_category(data, bytes, from, to);
}
Category current_category() { return category_now; }

}  // namespace detail
}  // namespace mf
