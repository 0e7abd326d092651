#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#include "interpreter.h"
#include "report.h"
#include "standin.h"
#include "streams.h"

/// What the stand-ins of cudart and cuBLAS share.
namespace standin {

std::recursive_mutex& mutex();

/// Counts the call; the code it shall fail with, or 0.
int injected_failure(const char* call);

/// Error state as the runtime keeps it: the last error of the thread, and one that stays.
cudaError_t set_last_error(cudaError_t error);
cudaError_t take_last_error(bool clear);
cudaError_t sticky_error();
void set_sticky_error(cudaError_t error);

/// Body of a runtime call. Without a device, or after an error that stays, it fails at once.
template <class F>
cudaError_t runtime_call(const char* name, F body) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure(name))
    return set_last_error(static_cast<cudaError_t>(code));
  if (settings().devices == 0) return set_last_error(cudaErrorNoDevice);
  if (sticky_error() != cudaSuccess) return set_last_error(sticky_error());
  return set_last_error(body());
}

Stream& stream_of(cudaStream_t handle);
/// False, with a report, if `handle` is no stream that exists.
bool valid_stream(const char* call, cudaStream_t handle);

/// Kernel behind a host function pointer, nullptr if none is registered.
struct KernelReference {
  const ptx::Module* module;
  const ptx::Function* function;
};
bool find_kernel(const void* host, KernelReference& kernel);
const ptx::Variable* find_variable(const void* host);

/// Checks an operation on a range of device memory and notes it: bounds, freed memory, order
/// between streams, and when reading that all of it was written. False, with a report, if the range
/// is not to be touched.
bool touch_range(const std::string& what, std::uint32_t operation, std::uint64_t address,
                 std::size_t bytes, bool write);

/// Changes the number of live objects, for live() and the leak check.
enum class Object { host_allocation, stream, event, handle };
void count_object(Object object, int change);

/// Counters of a launch that ran.
void count_launch(const std::string& kernel, std::uint64_t instructions);

}  // namespace standin
