#include "cuda/memory.h"

#include "cuda/check.h"
#include "cuda/context.h"

namespace mf::cuda {

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

std::int64_t free_bytes(Device device) {
  select_device(device);
  std::size_t free = 0, total = 0;
  require_ok(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return static_cast<std::int64_t>(free);
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
  if (bytes == 0) return;
  // What cudaMemcpyAsync does not promise, even of pageable memory: once this call returns the host
  // may change or free its memory. The copy itself is queued like a kernel.
  cudaMemcpyAttributes attributes{};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall;
  std::size_t first = 0;
  const auto size = static_cast<std::size_t>(bytes);
  require_ok(cudaMemcpyBatchAsync(&device_data, &host, &size, 1, &attributes, &first, 1,
                                  engine_of(context).stream()),
             "cudaMemcpyBatchAsync");
}

void download(Context& context, void* host, const void* device_data, std::int64_t bytes) {
  if (bytes == 0) return;
  const cudaStream_t stream = engine_of(context).stream();
  require_ok(cudaMemcpyAsync(host, device_data, static_cast<std::size_t>(bytes),
                             cudaMemcpyDeviceToHost, stream),
             "cudaMemcpyAsync");
  require_ok(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
}

void wait(Context& context) {
  require_ok(cudaStreamSynchronize(engine_of(context).stream()), "cudaStreamSynchronize");
}

}  // namespace mf::cuda
