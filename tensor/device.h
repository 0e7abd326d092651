#pragma once

#include <cstdint>
#include <string>

namespace mf {

/// Where a tensor's bytes live.
struct Device {
  enum class Kind : std::uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  friend bool operator==(const Device&, const Device&) = default;
};

inline constexpr Device cpu{};
constexpr Device cuda_device(int index = 0) { return {Device::Kind::cuda, index}; }

inline std::string describe(Device device) {
  return device.kind == Device::Kind::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}
/// The device that describe() names so; "cuda" is "cuda:0". Throws Error on any other text.
Device device_named(const std::string& name);

}  // namespace mf
