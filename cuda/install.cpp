#include "cuda/check.h"
#include "cuda/cuda.h"
#include "cuda/table.h"

namespace mf::cuda {
namespace {

struct Devices {
  int count = 0;  // cudaGetDeviceCount leaves it alone where it fails
  cudaError_t status;

  Devices() : status(cudaGetDeviceCount(&count)) {
    if (status != cudaSuccess) cudaGetLastError();  // as in require_ok
  }
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
