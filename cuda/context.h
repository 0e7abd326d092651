#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

#include "tensor/backend.h"
#include "tensor/memory.h"

namespace mf::cuda {

/// What a device works with. All its work is queued on one stream: kernels run in the order of the
/// program, and a block that was freed may be handed out again at once.
class Engine {
 public:
  explicit Engine(Device device);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  cudaStream_t stream() const { return stream_; }
  cublasHandle_t blas() const { return blas_; }
  /// Gives everything back, before the destructor does so without a word about errors.
  void close();

 private:
  void close_quietly() noexcept;

  Device device_;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  void* blas_workspace_ = nullptr;
};

/// Makes `device` the one that this thread's calls go to.
void select_device(Device device);
/// The engine of the context's device, made on first use; selects the device.
Engine& engine_of(Context& context);

bool tf32_allowed();

/// "NVIDIA H100, 9.0", and ", TF32" where that is allowed.
std::string model_name(Device device);

/// Memory of the device for as long as a kernel's host function runs. The stream keeps the order,
/// so that the block may go back while the kernels that use it are still queued.
template <class T>
class Workspace {
 public:
  Workspace(const Context& context, std::int64_t count)
      : device_(context.device),
        bytes_(count * static_cast<std::int64_t>(sizeof(T))),
        data_(static_cast<T*>(mf::detail::allocate(device_, bytes_, Category::workspace))) {}
  ~Workspace() { mf::detail::deallocate(device_, data_, bytes_, Category::workspace); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  T* data() const { return data_; }

 private:
  Device device_;
  std::int64_t bytes_;
  T* data_;
};

}  // namespace mf::cuda
