#pragma once

#include <cstdint>
#include <string_view>

#include "tensor/tensor.h"

namespace mf {

/// Randomness as a value. A key names a stream; element i of the stream is a pure function of key
/// and i, so nothing is stored, the order of calls is irrelevant and replay is exact.
/// The stream is SplitMix64 (Steele, Lea and Flood 2014): bits_i = mix(key + (i + 1) * golden).
struct RngKey {
  std::uint64_t value = 0;  ///< a seed, or what `at` made of one

  /// An independent key for a part: `key.at(step).at(segment).at("dropout")`.
  constexpr RngKey at(std::uint64_t index) const {
    return {mix(mix(value ^ 0x6a09e667f3bcc909ULL) + kGolden * (index + 1))};
  }
  /// The same for a part that has a name.
  constexpr RngKey at(std::string_view name) const {
    std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    return {mix(mix(value ^ 0xbb67ae8584caa73bULL) + hash)};
  }

  /// 64 random bits, element `index` of this key's stream.
  constexpr std::uint64_t bits(std::uint64_t index) const {
    return mix(value + kGolden * (index + 1));
  }
  /// Uniform in [0, 1) with 53 bits.
  constexpr double uniform(std::uint64_t index) const {
    return static_cast<double>(bits(index) >> 11) * 0x1p-53;
  }
  /// Uniform integer in [0, bound), bound < 2^32.
  constexpr std::uint64_t below(std::uint64_t bound, std::uint64_t index) const {
    return ((bits(index) >> 32) * bound) >> 32;
  }

  /// True for keys of one stream.
  friend bool operator==(const RngKey&, const RngKey&) = default;

  static constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;  ///< 2^64 / golden ratio, odd
  /// The finalizer of SplitMix64: a bijection that spreads every bit of z over all.
  static constexpr std::uint64_t mix(std::uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
};

/// Uniform in [low, high): element i in row-major order is low + (high - low) key.uniform(i), made
/// in f64 and rounded, but never up to `high`.
Tensor uniform(const Shape& shape, RngKey key, double low, double high, DType dtype,
               Device device = cpu);
/// Normal with this mean and standard deviation: Box-Muller on elements 2i and 2i + 1 of the
/// stream, made in f64 and rounded.
Tensor normal(const Shape& shape, RngKey key, double mean, double deviation, DType dtype,
              Device device = cpu);

}  // namespace mf
