#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "races.h"

namespace standin {

struct Allocation {
  std::uint64_t begin = 0;
  std::size_t size = 0;
  bool live = true;
  bool variable = false;  ///< of a module, not from cudaMalloc
  bool contains(std::uint64_t address, std::size_t bytes) const {
    return address >= begin && bytes <= size && address - begin <= size - bytes;
  }
};

/// Device memory. Programs see addresses that the host may not touch (a dereference faults with a
/// message); the interpreter reaches the same bytes through a second mapping. Addresses are never
/// used twice, so a stale pointer is always recognised.
class DeviceMemory {
 public:
  DeviceMemory();

  /// Fresh memory: NaN bits, counted as never written. 0 if the address space is used up.
  std::uint64_t allocate(std::size_t bytes, bool variable = false);
  /// False if `address` is not the start of live memory.
  bool release(std::uint64_t address);

  /// The allocation, live or freed, at or closest below `address`; nullptr if there is none.
  const Allocation* find(std::uint64_t address) const;
  bool in_range(std::uint64_t address) const { return address - begin_ < kBytes; }
  std::byte* view(std::uint64_t address) const { return view_ + (address - begin_); }

  /// One aligned access of 1, 2, 4 or 8 bytes: were all of them written?
  bool element_written(std::uint64_t address, std::size_t bytes) const {
    const std::uint64_t at = address - begin_;
    const unsigned mask = (1u << bytes) - 1;
    return (written_[at / 8] >> (at % 8) & mask) == mask;
  }
  void set_element_written(std::uint64_t address, std::size_t bytes) {
    const std::uint64_t at = address - begin_;
    written_[at / 8] =
        static_cast<std::uint8_t>(written_[at / 8] | ((1u << bytes) - 1) << (at % 8));
  }
  bool written(std::uint64_t address, std::size_t bytes) const;
  void set_written(std::uint64_t address, std::size_t bytes, bool value = true);
  void copy_written(std::uint64_t to, std::uint64_t from, std::size_t bytes);
  /// Makes memory as fresh as allocate() does.
  void forget(std::uint64_t address, std::size_t bytes);

  /// Accesses to the 4-byte word of `address`.
  AccessHistory& history(std::uint64_t address) const { return histories_[(address - begin_) / 4]; }
  /// The last operation (see streams.h) that wrote the 256 bytes around `address`, and the last two
  /// that read them.
  struct Granule {
    std::uint32_t writer, reader, reader_before;
  };
  Granule& granule(std::uint64_t address) const { return granules_[(address - begin_) / 256]; }

  /// Bytes and blocks that cudaMalloc gave and nobody freed.
  std::size_t live_bytes() const { return live_bytes_; }
  std::size_t live_count() const { return live_count_; }

 private:
  static constexpr std::size_t kBytes = std::size_t{1} << 36;

  std::uint64_t begin_ = 0, next_ = 0;
  std::byte* view_ = nullptr;
  std::uint8_t* written_ = nullptr;  // a bit for each byte
  AccessHistory* histories_ = nullptr;
  Granule* granules_ = nullptr;
  int file_ = -1;
  std::map<std::uint64_t, Allocation> allocations_;
  std::size_t live_bytes_ = 0, live_count_ = 0;
};

DeviceMemory& device_memory();

}  // namespace standin
