#include "tensor/backend.h"

#include <array>
#include <map>

namespace mf {
namespace {

std::array<const Backend*, 2>& table() {
  static std::array<const Backend*, 2> backends{&cpu_backend(), nullptr};
  return backends;
}

}  // namespace

void register_backend(Device::Kind kind, const Backend* backend) {
  table()[static_cast<std::size_t>(kind)] = backend;
}

const Backend& backend_for(Device device) {
  const Backend* backend = table()[static_cast<std::size_t>(device.kind)];
  check(backend != nullptr,
        "backend: no backend is installed for {}; build with CUDA and call cuda::install()",
        device);
  return *backend;
}

Context& context_for(Device device) {
  static constinit Context cpu_context{cpu};
  if (device == cpu) return cpu_context;
  static std::map<std::pair<Device::Kind, int>, Context> contexts;
  return contexts.try_emplace({device.kind, device.index}, Context{device}).first->second;
}

}  // namespace mf
