#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "tensor/error.h"

namespace mf {

/// What an op is doing when an OpObserver is called.
enum class OpPhase : std::uint8_t {
  forward,  ///< computing its result
  backward  ///< making its inputs' gradients, in a sweep
};

/// An op begins or ends.
struct OpEvent {
  const char* op;  ///< its kName
  OpPhase phase;   ///< forward or backward
  bool begins;     ///< else it ends
  /// Path of the layer that recorded it, "encoder/layers.0/..."; "" for what no tape records. Holds
  /// during the call.
  std::string_view module;
};
/// Called as each op begins and ends, in every tape and outside of all, on the thread that runs it.
/// Calls nest (an op's backward may run others).
using OpObserver = void (*)(const OpEvent&);

namespace detail {

inline std::atomic<OpObserver> op_observer{nullptr};

/// Tells the observer, if there is one; costs one load otherwise.
class OpScope {
 public:
  /// `module()` says where the op was recorded; it is asked only if there is an observer.
  template <class Module>
  OpScope(const char* op, OpPhase phase, const Module& module)
      : observer_(op_observer.load(std::memory_order_relaxed)), event_{op, phase, true, {}} {
    if (observer_) [[unlikely]] {
      event_.module = module();
      observer_(event_);
    }
  }
  ~OpScope() {
    if (observer_) [[unlikely]] {
      event_.begins = false;
      observer_(event_);
    }
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  const OpObserver observer_;
  OpEvent event_;
};

}  // namespace detail

/// Installs an observer of all ops of the process, for profiles and ledgers; null for none. Returns
/// the former.
inline OpObserver observe_ops(OpObserver observer) {
  return detail::op_observer.exchange(observer);
}

/// Observes all ops while it lives. Throws Error, which names `who`, if somebody does already.
class OpObservation {
 public:
  /// From now on `observer` is told.
  OpObservation(const char* who, OpObserver observer) {
    OpObserver nobody = nullptr;
    check(detail::op_observer.compare_exchange_strong(nobody, observer),
          "{}: ops are observed already, by a profile, a ledger or a trace; end it first", who);
  }
  ~OpObservation() { observe_ops(nullptr); }
  OpObservation(const OpObservation&) = delete;
  OpObservation& operator=(const OpObservation&) = delete;
};

}  // namespace mf
