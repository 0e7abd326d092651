#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace mf {

/// The one exception of this library. The text reads `operation: fact; values; what to do`.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

namespace detail {

/// What a message prints for `x`: its `describe(x)` where one exists, else `x` itself.
template <class T>
decltype(auto) printable(const T& x) {
  if constexpr (requires { describe(x); }) {
    return describe(x);
  } else {
    return (x);
  }
}

}  // namespace detail

/// Throws Error with `text` formatted by fmt; tensors, shapes and dtypes may be given as they are.
template <class... Parts>
[[noreturn]] void fail(std::string_view text, const Parts&... parts) {
  const auto format = [&](const auto&... printed) {
    return fmt::vformat(text, fmt::make_format_args(printed...));
  };
  throw Error(format(detail::printable(parts)...));
}

/// Throws Error unless `ok`. The parts are formatted only on failure, so a check costs a branch.
template <class... Parts>
void check(bool ok, std::string_view text, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail(text, parts...);
}

}  // namespace mf
