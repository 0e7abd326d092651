#pragma once

#include <cstdint>
#include <string>

namespace mf {

/// Where a tensor's bytes live.
struct Device {
  /// Each kind has one Backend.
  enum class Kind : std::uint8_t {
    cpu,  ///< the host's memory
    cuda  ///< a GPU's, once cuda::install() was called
  };
  Kind kind = Kind::cpu;  ///< whose kernels run
  int index = 0;          ///< which GPU, as CUDA counts them; 0 for the cpu

  /// Equal in kind and index.
  friend bool operator==(const Device&, const Device&) = default;
};

/// The host, where tensors are unless said otherwise.
inline constexpr Device cpu{};
/// The GPU of this number; it need not exist until a tensor is made there.
constexpr Device cuda_device(int index = 0) { return {Device::Kind::cuda, index}; }

/// "cpu" or "cuda:0".
inline std::string describe(Device device) {
  return device.kind == Device::Kind::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}
/// The device that describe() names so; "cuda" is "cuda:0". Throws Error on any other text.
Device device_named(const std::string& name);

}  // namespace mf
