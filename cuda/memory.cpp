#include "cuda/memory.h"

#include "cuda/check.h"
#include "cuda/context.h"

namespace mf::cuda {
namespace {

/// Copies and waits: the host's memory may change or go once this returns.
void transfer(Context& context, void* to, const void* from, std::int64_t bytes,
              cudaMemcpyKind kind) {
  if (bytes == 0) return;
  const cudaStream_t stream = engine_of(context).stream();
  require_ok(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream),
             "cudaMemcpyAsync");
  require_ok(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

}  // namespace

void* allocate(Device device, std::int64_t bytes) {
  select_device(device);
  void* data = nullptr;
  const cudaError_t status = cudaMalloc(&data, static_cast<std::size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // else the next launch would be blamed for it
    return nullptr;
  }
  require_ok(status, "cudaMalloc");
  return data;
}

void free_block(Device device, void* data) {
  // Caches of static lifetime are emptied when the runtime may be gone, and the memory with it.
  const auto require = [](cudaError_t status, const char* call) {
    if (status != cudaErrorCudartUnloading) require_ok(status, call);
    return status == cudaSuccess;
  };
  if (require(cudaSetDevice(device.index), "cudaSetDevice")) require(cudaFree(data), "cudaFree");
}

void upload(Context& context, void* device_data, const void* host, std::int64_t bytes) {
  transfer(context, device_data, host, bytes, cudaMemcpyHostToDevice);
}

void download(Context& context, void* host, const void* device_data, std::int64_t bytes) {
  transfer(context, host, device_data, bytes, cudaMemcpyDeviceToHost);
}

void wait(Context& context) {
  require_ok(cudaStreamSynchronize(engine_of(context).stream()), "cudaStreamSynchronize");
}

}  // namespace mf::cuda
