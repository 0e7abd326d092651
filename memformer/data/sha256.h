#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace mf {

/// SHA-256 of everything given to `update`, in order. Source: FIPS 180-4.
class Sha256 {
 public:
  /// Hashes these bytes behind those before.
  void update(std::string_view bytes);
  /// 64 lower-case hexadecimal digits. More may be given afterwards.
  std::string hex() const;

 private:
  using State = std::array<std::uint32_t, 8>;
  static void absorb(State& state, const char* block);

  State state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::string pending_;  ///< less than one block
  std::uint64_t length_ = 0;
};

/// SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
std::string sha256(std::string_view bytes);

}  // namespace mf
