#pragma once

#include <cstdint>
#include <optional>

namespace mf {

/// The largest resident size of this process while the scope lives, and how far it lies above what
/// was resident when it began: what the system sees, allocator, small objects and all. Linux only.
/// Blocks that our allocator had cached before do not count as new: `release_cached()` first.
class ProcessPeak {
 public:
  ProcessPeak();
  /// Bytes; nothing where the system does not allow the counter to be reset.
  std::optional<std::int64_t> growth() const;
  /// The largest resident size itself, in bytes; nothing where `growth` gives nothing.
  std::optional<std::int64_t> peak() const;

 private:
  std::optional<std::int64_t> start_;
};

}  // namespace mf
