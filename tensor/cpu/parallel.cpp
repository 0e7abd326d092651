#include "tensor/cpu/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "tensor/shape.h"

namespace mf {
namespace {

#ifdef _OPENMP
int default_threads() { return std::max(1, omp_get_max_threads()); }
bool inside_parallel() { return omp_in_parallel() != 0; }
#else
int default_threads() { return 1; }
bool inside_parallel() { return true; }
#endif

std::atomic<int>& thread_count() {
  static std::atomic<int> count{default_threads()};
  return count;
}

/// The first exception of any thread, thrown again in the caller: none may leave a parallel region.
class FirstException {
 public:
  template <class F>
  void guard(F&& fn) noexcept {
    try {
      fn();
    } catch (...) {
      if (!taken_.test_and_set()) exception_ = std::current_exception();
    }
  }
  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic_flag taken_;
  std::exception_ptr exception_;
};

// A chunk is worth handing to a thread; less than two chunks are not worth waking one.
constexpr std::int64_t kChunkWork = detail::kParallelWork / 2;

std::int64_t items_per_chunk(std::int64_t n, std::int64_t cost_per_item) {
  const std::int64_t per_chunk = kChunkWork / cost_per_item;
  const bool small = n <= detail::kParallelWork / cost_per_item;
  return small ? n : std::max<std::int64_t>(1, per_chunk);
}

}  // namespace

int threads() { return thread_count().load(std::memory_order_relaxed); }
void set_threads(int count) { thread_count().store(std::max(1, count), std::memory_order_relaxed); }

namespace detail {

void parallel_chunks(std::int64_t n, std::int64_t cost_per_item,
                     const std::function<void(std::int64_t begin, std::int64_t end)>& fn) {
  if (n <= 0) return;
  const std::int64_t step = items_per_chunk(n, std::max<std::int64_t>(1, cost_per_item));
  const std::int64_t chunks = ceil_div(n, step);
  const auto run = [&](std::int64_t chunk) { fn(chunk * step, std::min(n, (chunk + 1) * step)); };
  const auto team = static_cast<int>(std::min<std::int64_t>(threads(), chunks));

  if (team == 1 || inside_parallel()) {
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) run(chunk);
    return;
  }
  FirstException failure;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(team)
#endif
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    failure.guard([&] { run(chunk); });
  }
  failure.rethrow();
}

}  // namespace detail
}  // namespace mf
