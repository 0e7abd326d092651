#include "cuda/check.h"
#include "cuda/cuda.h"
#include "cuda/table.h"

namespace mf::cuda {
namespace {

struct Devices {
  cudaError_t status;
  int count = 0;  // cudaGetDeviceCount leaves it alone where it fails

  Devices() { status = cudaGetDeviceCount(&count); }
  bool answer() const { return status == cudaSuccess && count > 0; }
};

}  // namespace

bool available() { return Devices().answer(); }

void install() {
  const Devices devices;
  check(devices.answer(), "cuda: no device answers; {}; install a driver, or use the cpu",
        devices.status == cudaSuccess ? "there are none" : cudaGetErrorString(devices.status));
  register_backend(Device::Kind::cuda, &table());
}

}  // namespace mf::cuda
