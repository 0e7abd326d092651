#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace mf {

/// Hash table from 64-bit keys to small values, open addressing with linear probing. Entries are
/// only ever added. Several times faster than std::unordered_map, which allocates each entry.
template <class Value>
class GramTable {
 public:
  GramTable() : slots_(1024) {}

  /// The value of `key`, default-constructed if it was not there.
  Value& operator[](std::uint64_t key) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[position(key)];
    if (!slot.used) {
      slot = {key, Value{}, true};
      ++used_;
    }
    return slot.value;
  }

  /// The value of `key`, or null.
  const Value* find(std::uint64_t key) const {
    const Slot& slot = slots_[position(key)];
    return slot.used ? &slot.value : nullptr;
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Value value{};
    bool used = false;
  };

  /// Where `key` is, or the empty slot where it belongs. The size is a power of two.
  std::size_t position(std::uint64_t key) const {
    // Fibonacci hashing: the high bits of the product depend on all bits of the key.
    const int bits = std::countr_zero(slots_.size());
    std::size_t at = static_cast<std::size_t>(key * 0x9e3779b97f4a7c15ULL >> (64 - bits));
    while (slots_[at].used && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  void grow() {
    std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(2 * slots_.size()));
    for (const Slot& slot : old)
      if (slot.used) slots_[position(slot.key)] = slot;
  }

  std::vector<Slot> slots_;
  std::size_t used_ = 0;
};

}  // namespace mf
