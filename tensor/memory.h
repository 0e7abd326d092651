#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "tensor/device.h"

namespace mf {

/// What a block is for. The ledger sums to the active bytes. `workspace` is what kernels hold while
/// they run: how much that is at once depends on how threads overlap, so it is counted apart.
enum class Category : std::uint8_t {
  activation,  ///< whatever no CategoryScope puts elsewhere
  parameter,   ///< values of Parameters
  gradient,    ///< Parameter::grad
  state,       ///< memories that are kept from segment to segment
  optimizer,   ///< moments and velocities
  workspace    ///< of a kernel while it runs; not part of the active bytes
};
inline constexpr int kCategories = 6;  ///< how many there are
/// "activation" and so on.
std::string_view name_of(Category category);

/// Figures in bytes, but for `allocations`.
struct MemoryStats {
  std::int64_t active = 0;  ///< in live tensors, as requested: no caching, rounding or workspace
  std::int64_t peak = 0;    ///< largest `active` since the start or since `reset_peak`
  std::int64_t cached = 0;  ///< held by the allocator for reuse; not part of `active`
  /// How often the system was asked for a block, since the start. Stands still once every size that
  /// a loop needs is cached.
  std::int64_t allocations = 0;
  /// Sums to `active`, workspace left out.
  std::array<std::int64_t, kCategories> by_category{};
};

/// The figures of a device's allocator now.
MemoryStats memory_stats(Device device = cpu);
/// Makes the active bytes of now the peak.
void reset_peak(Device device = cpu);
/// Gives every cached block back to the system.
void release_cached(Device device = cpu);

/// For programs that train: asks the C library to keep what small objects free (a tape's entries,
/// say), rather than give it back to the system after each step and get it again page fault by page
/// fault. Of the whole process; nothing where the library is not glibc.
void keep_freed_memory();

/// What the system does with the allocator's wish for huge pages in blocks of 2 MiB and more:
/// "always", "madvise" (both: it follows), "never", or "" where it does not say.
std::string huge_page_policy();

/// What happened to one block.
struct BlockEvent {
  /// The kinds of events.
  enum class Kind : std::uint8_t {
    allocate,  ///< the block was handed out
    free,      ///< the block was given back
    move,      ///< the block is booked under another category
  };
  Kind kind;                 ///< what happened
  Device device;             ///< the block is on
  const void* data;          ///< its address, which a later block may get again
  std::int64_t bytes;        ///< as requested
  Category category;         ///< it is booked under; of a move, from now on
  Category former;           ///< of a move, until now; else `category`
  const MemoryStats& stats;  ///< of the device, with this event
};
/// Called inside the allocator of the block's device, on the thread that the event is of: one call
/// at a time for each device, in the order of its events. It must not touch tensors nor ask for
/// `memory_stats`, which is in the event.
using BlockObserver = void (*)(const BlockEvent&) noexcept;
/// Installs an observer of all blocks of the process, for ledgers; null for none. Returns the
/// former. Without one an event costs a load.
BlockObserver observe_blocks(BlockObserver observer);

/// New blocks of this thread belong to `category` while the scope lives.
class CategoryScope {
 public:
  /// From here on; scopes nest.
  explicit CategoryScope(Category category);
  /// Back to the category before.
  ~CategoryScope();
  CategoryScope(const CategoryScope&) = delete;
  CategoryScope& operator=(const CategoryScope&) = delete;

 private:
  Category previous_;
};

/// Peak of active bytes inside a block of code; scopes nest and do not disturb
/// `memory_stats().peak`.
class PeakScope {
 public:
  /// Begins to watch the allocator of `device`, for all threads.
  explicit PeakScope(Device device = cpu);
  /// Gives the allocator's peak back to whoever watches outside.
  ~PeakScope();
  PeakScope(const PeakScope&) = delete;
  PeakScope& operator=(const PeakScope&) = delete;

  /// Largest active bytes since the scope began.
  std::int64_t peak() const;
  /// The same above what was active when the scope began.
  std::int64_t growth() const { return peak() - start_; }

 private:
  Device device_;
  std::int64_t start_ = 0;
  std::int64_t outer_peak_ = 0;
};

namespace detail {

/// A block from the caching allocator. Throws Error when the device has no memory left, naming the
/// requested, active, peak and cached bytes, and what is free where the backend can tell. `bytes`
/// may be 0.
void* allocate(Device device, std::int64_t bytes, Category category);
void deallocate(Device device, void* data, std::int64_t bytes, Category category) noexcept;
/// Books the `bytes` of a live block under another category.
void move_category(Device device, const void* data, std::int64_t bytes, Category from, Category to);
/// Category of the innermost CategoryScope of this thread.
Category current_category();

}  // namespace detail

}  // namespace mf
