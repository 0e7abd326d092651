#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tensor/backend.h"

namespace mf::test {

/// A backend's table whose entries count their calls, so that a test can tell which were never
/// called. New entries need no word here.
class CountingTable {
 public:
  explicit CountingTable(const Backend& backend) : table_(backend) {
    std::size_t entry = 0;
    table_.each([&](const auto& kernel) {
      check(entry < kMost, "CountingTable: more than {} entries; raise kMost", kMost);
      count(const_cast<std::remove_cvref_t<decltype(kernel)>&>(kernel), entry++);
    });
  }

  const Backend& table() const { return table_; }
  /// Names of the entries that are empty, and of those that were not called.
  static std::vector<std::string> empty() {
    return names_where([](auto c) { return c < 0; });
  }
  static std::vector<std::string> unused() {
    return names_where([](auto c) { return c == 0; });
  }

 private:
  static constexpr std::size_t kMost = 48;

  /// Function pointers carry no state, so that each entry has a function of its own: the one of its
  /// number among all those of its signature.
  template <class... Args>
  struct Signature {
    using Function = void (*)(Context&, Args...);
    static inline std::array<Function, kMost> inner{};

    template <std::size_t Entry>
    static void call(Context& context, Args... args) {
      ++calls_[Entry];
      inner[Entry](context, args...);
    }
    template <std::size_t... Entry>
    static constexpr std::array<Function, kMost> functions(std::index_sequence<Entry...>) {
      return {call<Entry>...};
    }
  };

  template <class... Args>
  void count(Kernel<void(Args...)>& kernel, std::size_t entry) {
    names_.push_back(kernel.name);
    calls_[entry] = kernel.function == nullptr ? -1 : 0;
    if (kernel.function == nullptr) return;
    Signature<Args...>::inner[entry] = kernel.function;
    constexpr auto kFunctions = Signature<Args...>::functions(std::make_index_sequence<kMost>{});
    kernel.function = kFunctions[entry];
  }

  template <class Condition>
  static std::vector<std::string> names_where(const Condition& condition) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < names_.size(); ++i)
      if (condition(calls_[i])) names.push_back(names_[i]);
    return names;
  }

  Backend table_;
  static inline std::array<std::int64_t, kMost> calls_{};  ///< -1: the entry is empty
  static inline std::vector<std::string> names_;
};

}  // namespace mf::test
