#include "cuda/context.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "cuda/check.h"
#include "cuda/cuda.h"
#include "cuda/memory.h"

namespace mf::cuda {
namespace {

/// cuBLAS picks its algorithm by what fits its workspace: a fixed one gives the same bits in every
/// run. The size is the one that NVIDIA recommends for the largest devices.
constexpr std::size_t kBlasWorkspace = std::size_t{32} << 20;

std::atomic<bool> tf32{false};

}  // namespace

Engine::Engine(Device device) : device_(device) {
  select_device(device);
  try {
    require_ok(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
               "cudaStreamCreateWithFlags");
    require_ok(cublasCreate(&blas_), "cublasCreate");
    // In this order, as setting the stream takes the workspace away.
    require_ok(cublasSetStream(blas_, stream_), "cublasSetStream");
    blas_workspace_ = mf::detail::allocate(device, kBlasWorkspace, Category::workspace);
    require_ok(cublasSetWorkspace(blas_, blas_workspace_, kBlasWorkspace), "cublasSetWorkspace");
    require_ok(cublasSetAtomicsMode(blas_, CUBLAS_ATOMICS_NOT_ALLOWED), "cublasSetAtomicsMode");
  } catch (...) {
    close_quietly();
    throw;
  }
}

Engine::~Engine() { close_quietly(); }

void Engine::close() {
  cublasStatus_t blas = CUBLAS_STATUS_SUCCESS;
  cudaError_t stream = cudaSuccess;
  if (blas_ != nullptr) blas = cublasDestroy(std::exchange(blas_, nullptr));
  if (blas_workspace_ != nullptr) {
    mf::detail::deallocate(device_, std::exchange(blas_workspace_, nullptr), kBlasWorkspace,
                           Category::workspace);
  }
  if (stream_ != nullptr) stream = cudaStreamDestroy(std::exchange(stream_, nullptr));
  require_ok(blas, "cublasDestroy");
  require_ok(stream, "cudaStreamDestroy");
}

void Engine::close_quietly() noexcept {
  try {
    close();
  } catch (const Error&) {  // what could not be given back is lost with the process
  }
}

void select_device(Device device) {
  const cudaError_t status = cudaSetDevice(device.index);
  if (status == cudaErrorInvalidDevice) {
    cudaGetLastError();  // else the next launch would be blamed for it
    int count = 0;
    require_ok(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    fail("cuda: {} does not exist; devices that answer: {}; give cuda:0 to cuda:{}", device, count,
         count - 1);
  }
  require_ok(status, "cudaSetDevice");
}

Engine& engine_of(Context& context) {
  {
    static std::mutex first_use;
    const std::lock_guard lock(first_use);
    if (context.native == nullptr) context.native = new Engine(context.device);
  }
  select_device(context.device);
  return *static_cast<Engine*>(context.native);
}

bool tf32_allowed() { return tf32; }
void allow_tf32(bool allowed) { tf32 = allowed; }

std::string model_name(Device device) {
  select_device(device);
  cudaDeviceProp properties{};
  require_ok(cudaGetDeviceProperties(&properties, device.index), "cudaGetDeviceProperties");
  return fmt::format("{}, {}.{}{}", properties.name, properties.major, properties.minor,
                     tf32 ? ", TF32" : "");
}

void release(int index) {
  Context& context = context_for(cuda_device(index));
  if (context.native != nullptr) {
    wait(context);
    const std::unique_ptr<Engine> engine(
        static_cast<Engine*>(std::exchange(context.native, nullptr)));
    engine->close();
  }
  release_cached(cuda_device(index));
}

}  // namespace mf::cuda
