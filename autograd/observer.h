#pragma once

#include <atomic>
#include <cstdint>

namespace mf {

/// What an op is doing when an OpObserver is called.
enum class OpPhase : std::uint8_t {
  forward,  ///< computing its result
  backward  ///< making its inputs' gradients, in a sweep
};
/// Called as each op begins and ends, in every tape and outside of all, on the thread that runs it.
/// Calls nest (an op's backward may run others).
using OpObserver = void (*)(const char* op, OpPhase phase, bool begins);

namespace detail {

inline std::atomic<OpObserver> op_observer{nullptr};

/// Tells the observer, if there is one; costs one load otherwise.
class OpScope {
 public:
  OpScope(const char* op, OpPhase phase)
      : observer_(op_observer.load(std::memory_order_relaxed)), op_(op), phase_(phase) {
    if (observer_) [[unlikely]]
      observer_(op_, phase_, true);
  }
  ~OpScope() {
    if (observer_) [[unlikely]]
      observer_(op_, phase_, false);
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  const OpObserver observer_;
  const char* const op_;
  const OpPhase phase_;
};

}  // namespace detail

/// Installs an observer of all ops of the process, for profiles; null for none. Returns the former.
inline OpObserver observe_ops(OpObserver observer) {
  return detail::op_observer.exchange(observer);
}

}  // namespace mf
