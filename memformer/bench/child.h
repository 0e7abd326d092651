#pragma once

#include <functional>
#include <string>
#include <type_traits>

namespace mf::bench {

namespace detail {

/// Runs `work` in a fork of this process and returns the bytes that it gives.
std::string bytes_from_child(const std::function<std::string()>& work);

}  // namespace detail

/// work() in a process of its own, so that what it takes from the system is its alone. This process
/// must not have run a kernel on several threads before: a fork has one thread, and would wait for
/// the others. An Error in the child is thrown here; so is one that says how the child ended if it
/// gave nothing.
template <class T>
T in_child(const std::function<T()>& work) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::string bytes = detail::bytes_from_child([&] {
    const T result = work();
    return std::string(reinterpret_cast<const char*>(&result), sizeof result);
  });
  T result;
  bytes.copy(reinterpret_cast<char*>(&result), sizeof result);
  return result;
}

}  // namespace mf::bench
