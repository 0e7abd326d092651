#include "tensor/crc32c.h"

#include <array>
#include <bit>
#include <cstring>

namespace mf::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "crc32c reads words as little-endian");

constexpr std::size_t kSlices = 8;
using Table = std::array<std::uint32_t, 256>;

/// tables[s][b]: what byte b contributes when s bytes follow it in the word.
constexpr std::array<Table, kSlices> make_tables() {
  constexpr std::uint32_t kPolynomial = 0x82f63b78;  // bits reversed
  std::array<Table, kSlices> tables{};
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t s = 1; s < kSlices; ++s)
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint32_t shorter = tables[s - 1][byte];
      tables[s][byte] = (shorter >> 8) ^ tables[0][shorter & 255];
    }
  return tables;
}

constexpr std::array<Table, kSlices> kTables = make_tables();

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before) {
  std::uint32_t crc = ~before;
  for (; bytes.size() >= kSlices; bytes = bytes.subspan(kSlices)) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), kSlices);
    word ^= crc;
    crc = 0;
    for (std::size_t i = 0; i < kSlices; ++i)
      crc ^= kTables[kSlices - 1 - i][(word >> (8 * i)) & 255];
  }
  for (const std::byte byte : bytes)
    crc = (crc >> 8) ^ kTables[0][(crc ^ std::to_integer<std::uint32_t>(byte)) & 255];
  return ~crc;
}

}  // namespace mf::detail
