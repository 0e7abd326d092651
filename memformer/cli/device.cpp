#include "memformer/cli/device.h"

#include "cuda/cuda.h"

namespace mf::cli {
namespace {

Device chosen;

}  // namespace

void add_device(CLI::App& command, Device& device) {
  command.add_option_function<std::string>(
      "--device",
      [&device](const std::string& name) {
        device = chosen = device_named(name);
        if (device.kind == Device::Kind::cuda) cuda::install();
      },
      "cpu (default), cuda or cuda:N: where weights, memory and all work are");
  command.add_flag_callback(
      "--tf32",
      [&device] {
        check(device.kind == Device::Kind::cuda,
              "--tf32: {} has no TF32; give --device cuda, or leave it out", device);
        cuda::allow_tf32(true);
      },
      "on cuda, round the operands of f32 products to TF32: faster, less exact");
}

void release_device() {
  if (chosen.kind == Device::Kind::cuda) cuda::release(chosen.index);
}

}  // namespace mf::cli
