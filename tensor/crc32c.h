#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mf::detail {

/// CRC32C (Castagnoli; RFC 3720, B.4) of `bytes`. `before` is the checksum of what precedes them,
/// so that crc32c(b, crc32c(a)) is the checksum of a followed by b.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace mf::detail
