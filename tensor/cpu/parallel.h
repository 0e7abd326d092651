#pragma once

#include <cstdint>
#include <functional>

namespace mf {

/// Threads that kernels may use; at least 1. Starts at OpenMP's default (OMP_NUM_THREADS).
int threads();
/// For the whole process; less than 1 counts as 1. A build without OpenMP uses one whatever is set.
void set_threads(int count);

/// Another number of threads while the scope lives.
class ThreadScope {
 public:
  /// Until the end of the scope, `count` threads.
  explicit ThreadScope(int count) : before_(threads()) { set_threads(count); }
  ~ThreadScope() { set_threads(before_); }
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int before_;
};

namespace detail {

/// Less work than this, in elementary operations, is one chunk: it is not worth waking a thread.
inline constexpr std::int64_t kParallelWork = 64 * 1024;

/// Calls fn(begin, end) over chunks of 0..n-1, in parallel where the work is worth it. The only
/// place that starts threads. Chunk borders depend on n and on the cost of one item (in elementary
/// operations), never on the number of threads: threads only pick chunks, so results do not depend
/// on them as long as fn's result for an item does not depend on its chunk or, where it does, on
/// the chunk's borders alone.
void parallel_chunks(std::int64_t n, std::int64_t cost_per_item,
                     const std::function<void(std::int64_t begin, std::int64_t end)>& fn);

}  // namespace detail
}  // namespace mf
