#include "tensor/backend.h"

#include <array>
#include <charconv>
#include <map>
#include <mutex>

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
  static std::mutex mutex;
  static std::map<std::pair<Device::Kind, int>, Context> contexts;
  const std::lock_guard lock(mutex);
  return contexts.try_emplace({device.kind, device.index}, Context{device}).first->second;
}

void synchronize(Device device) { backend_for(device).synchronize(context_for(device)); }

std::string full_name(Device device) {
  const auto model_name = backend_for(device).model_name;
  return model_name == nullptr ? describe(device)
                               : fmt::format("{} ({})", describe(device), model_name(device));
}

Device device_named(const std::string& name) {
  if (name == "cpu") return cpu;
  if (name == "cuda") return cuda_device();
  int index = 0;
  const char* const end = name.data() + name.size();
  const bool numbered =
      name.starts_with("cuda:") && name.size() > 5 && name[5] != '-' &&
      std::from_chars(name.data() + 5, end, index) == std::from_chars_result{end, std::errc{}};
  check(numbered, "device: '{}' is not a device; give cpu, cuda or cuda:N", name);
  return cuda_device(index);
}

}  // namespace mf
