#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "runtime.h"

/// The public calls of the CUDA runtime.
namespace standin {

namespace {

struct Event {
  Clock clock;
  double time = -1.0;  ///< set when the work before it has run; negative: not yet
  bool recorded = false, timed = true, asked = false;
};

struct KernelOptions {
  std::size_t dynamic_shared = 48 * 1024;
};

struct Objects {
  std::map<cudaStream_t, std::unique_ptr<Stream>> streams;
  std::map<cudaEvent_t, std::shared_ptr<Event>> events;
  std::map<const void*, std::size_t> pinned;  // begin, size
  std::map<const void*, KernelOptions> kernels;
  std::map<std::uint64_t, int> owner;  // device of an allocation
};
Objects& objects() {
  static Objects* o = new Objects;
  return *o;
}

thread_local int current_device = 0;

/// Time that events see: advances with the work that runs, alike in every run.
double now_ms = 0;

int architecture() { return settings().arch == 0 ? 90 : settings().arch; }

std::size_t shared_limit() {  // with opt-in
  switch (architecture()) {
    case 75:
      return 64 * 1024;
    case 80:
    case 87:
      return 163 * 1024;
    case 86:
    case 89:
    case 120:
      return 99 * 1024;
    default:
      return 227 * 1024;
  }
}
int threads_per_multiprocessor() { return architecture() == 75 ? 1024 : 1536; }

std::uint64_t address_of(const void* p) { return reinterpret_cast<std::uint64_t>(p); }
bool is_device(const void* p) { return device_memory().in_range(address_of(p)); }

bool is_pinned(const void* p, std::size_t bytes) {
  const auto next = objects().pinned.upper_bound(p);
  if (next == objects().pinned.begin()) return false;
  const auto& [begin, size] = *std::prev(next);
  return address_of(p) + bytes <= address_of(begin) + size;
}

cudaError_t allocate(void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  if (bytes >
      settings().device_memory - std::min(settings().device_memory, device_memory().live_bytes())) {
    return cudaErrorMemoryAllocation;
  }
  const std::uint64_t address = device_memory().allocate(bytes);
  if (address == 0) return cudaErrorMemoryAllocation;
  objects().owner[address] = current_device;
  *pointer = reinterpret_cast<void*>(address);
  return cudaSuccess;
}

cudaError_t release(const char* call, const void* pointer) {
  if (pointer == nullptr || device_memory().release(address_of(pointer))) return cudaSuccess;
  report(Kind::argument, std::string(call) + ": " + hex(address_of(pointer)) +
                             " is no device allocation, or was freed");
  return cudaErrorInvalidValue;
}

bool check_kind(const char* call, const void* to, const void* from, cudaMemcpyKind& kind) {
  const bool to_device = is_device(to), from_device = is_device(from);
  const cudaMemcpyKind actual =
      to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  if (kind == cudaMemcpyDefault) kind = actual;
  if (kind == actual) return true;
  report(Kind::argument, std::string(call) + ": the copy's direction does not fit its pointers");
  return false;
}

/// Does a copy when its turn comes. `staged` holds a source that was read at the call.
void copy_now(const char* call, std::uint32_t operation, void* to, const void* from,
              std::size_t bytes, const std::vector<std::byte>& staged) {
  now_ms += 1e-3 + static_cast<double>(bytes) * 1e-7;
  const auto readable = [&]() -> const std::byte* {
    if (!staged.empty()) return staged.data();
    if (!is_device(from)) return static_cast<const std::byte*>(from);
    // On the device, what was never written stays so in the copy.
    const bool checks = settings().uninitialised;
    settings().uninitialised = checks && !is_device(to);
    const bool fine = touch_range(call, operation, address_of(from), bytes, false);
    settings().uninitialised = checks;
    return fine ? device_memory().view(address_of(from)) : nullptr;
  };
  const std::byte* source = readable();
  std::byte* target = static_cast<std::byte*>(to);
  if (source != nullptr && is_device(to)) {
    target = touch_range(call, operation, address_of(to), bytes, true)
                 ? device_memory().view(address_of(to))
                 : nullptr;
  }
  if (source == nullptr || target == nullptr) {
    set_sticky_error(cudaErrorIllegalAddress);
    return;
  }
  std::memmove(target, source, bytes);
  if (is_device(to) && is_device(from)) {
    device_memory().copy_written(address_of(to), address_of(from), bytes);
  }
}

/// `order` says when a host source is read; without it pageable memory is read at the call, pinned
/// memory when the copy runs.
cudaError_t copy(const char* call, void* to, const void* from, std::size_t bytes,
                 cudaMemcpyKind kind, Stream& stream,
                 cudaMemcpySrcAccessOrder order = cudaMemcpySrcAccessOrderInvalid) {
  if (bytes == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr || !check_kind(call, to, from, kind)) {
    return cudaErrorInvalidValue;
  }
  const bool at_call = order == cudaMemcpySrcAccessOrderInvalid
                           ? !is_pinned(from, bytes)
                           : order == cudaMemcpySrcAccessOrderDuringApiCall;
  std::vector<std::byte> staged;
  if (at_call && !is_device(from)) {
    const auto* begin = static_cast<const std::byte*>(from);
    staged.assign(begin, begin + bytes);
  }
  enqueue(stream, call, [=, staged = std::move(staged)](std::uint32_t operation) {
    copy_now(call, operation, to, from, bytes, staged);
  });
  return cudaSuccess;
}

cudaError_t set(const char* call, void* to, int value, std::size_t bytes, Stream& stream) {
  if (bytes == 0) return cudaSuccess;
  if (!is_device(to)) {
    report(Kind::unknown_address,
           std::string(call) + " of " + hex(address_of(to)) + ", which is no device memory");
    return cudaErrorInvalidValue;
  }
  enqueue(stream, call, [=](std::uint32_t operation) {
    now_ms += 1e-3;
    if (!touch_range(call, operation, address_of(to), bytes, true)) {
      return set_sticky_error(cudaErrorIllegalAddress);
    }
    std::memset(device_memory().view(address_of(to)), value, bytes);
  });
  return cudaSuccess;
}

// ---- Launches ----

cudaError_t error_of(Kind kind) {
  switch (kind) {
    case Kind::misaligned:
      return cudaErrorMisalignedAddress;
    case Kind::out_of_bounds:
    case Kind::use_after_free:
    case Kind::unknown_address:
      return cudaErrorIllegalAddress;
    case Kind::trap:
      return cudaErrorAssert;
    case Kind::unsupported:
      return cudaErrorInvalidKernelImage;
    default:
      return cudaErrorLaunchFailure;
  }
}

/// The limits of a launch; the error and, in `why`, the reason.
cudaError_t check_launch(const ptx::Function& kernel, const KernelOptions& options, dim3 grid,
                         dim3 block, std::size_t dynamic_shared, std::string& why) {
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0)
    return why = "a grid of no blocks", cudaErrorInvalidConfiguration;
  if (threads == 0) return why = "a block of no threads", cudaErrorInvalidConfiguration;
  if (threads > 1024 || block.z > 64) {
    return why = std::to_string(threads) + " threads in a block", cudaErrorInvalidConfiguration;
  }
  if (grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    return why = "a grid of too many blocks", cudaErrorInvalidConfiguration;
  }
  if (threads > static_cast<std::uint64_t>(kernel.max_threads)) {
    why = std::to_string(threads) + " threads in a block; its launch bounds allow " +
          std::to_string(kernel.max_threads);
    return cudaErrorInvalidValue;
  }
  const std::size_t allowed = std::max<std::size_t>(options.dynamic_shared, 48 * 1024);
  if (dynamic_shared + kernel.shared_bytes > allowed) {
    why = std::to_string(dynamic_shared) + " bytes of dynamic and " +
          std::to_string(kernel.shared_bytes) + " of static shared memory; " +
          std::to_string(allowed) + " are allowed";
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

cudaError_t launch(const void* host, dim3 grid, dim3 block, void** arguments,
                   std::size_t dynamic_shared, cudaStream_t handle) {
  KernelReference kernel{};
  if (!find_kernel(host, kernel)) return cudaErrorInvalidDeviceFunction;
  const std::string name = demangle(kernel.function->name);
  if (!kernel.function->error.empty()) {
    report(Kind::unsupported, "kernel " + name + ": " + kernel.function->error);
    return cudaErrorInvalidKernelImage;
  }
  std::string why;
  const cudaError_t error =
      check_launch(*kernel.function, objects().kernels[host], grid, block, dynamic_shared, why);
  if (error != cudaSuccess) {
    report(Kind::launch, "kernel " + name + ": " + why);
    return error;
  }
  if (!valid_stream("cudaLaunchKernel", handle)) return cudaErrorInvalidResourceHandle;
  ptx::Launch l;
  l.module = kernel.module;
  l.kernel = kernel.function;
  l.grid = {grid.x, grid.y, grid.z};
  l.block = {block.x, block.y, block.z};
  l.dynamic_shared = dynamic_shared;
  l.parameters.resize(kernel.function->parameter_bytes);
  for (std::size_t n = 0; n < kernel.function->parameters.size(); ++n) {
    const ptx::Parameter& p = kernel.function->parameters[n];
    std::memcpy(l.parameters.data() + p.offset, arguments[n], p.size);
  }
  enqueue(stream_of(handle), "kernel " + name,
          [l = std::move(l), name](std::uint32_t operation) mutable {
            if (sticky_error() != cudaSuccess) return;
            l.operation = operation;
            try {
              const std::uint64_t instructions = execute(l);
              count_launch(name, instructions);
              now_ms += 1e-3 + static_cast<double>(instructions) * 1e-6;
            } catch (const ptx::Fault& f) {
              set_sticky_error(error_of(f.kind));
            }
          });
  return cudaSuccess;
}

Event* event_of(const char* call, cudaEvent_t handle) {
  const auto found = objects().events.find(handle);
  if (found != objects().events.end()) return found->second.get();
  report(Kind::argument, std::string(call) + ": no such event");
  return nullptr;
}

template <class Handle>
Handle make_handle() {
  static std::uintptr_t count = 0x1000;
  return reinterpret_cast<Handle>(++count);
}

}  // namespace

bool valid_stream(const char* call, cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return true;
  if (objects().streams.contains(handle)) return true;
  report(Kind::argument, std::string(call) + ": no such stream");
  return false;
}

Stream& stream_of(cudaStream_t handle) {
  const auto found = objects().streams.find(handle);
  return found == objects().streams.end() ? default_stream() : *found->second;
}

}  // namespace standin

using namespace standin;

extern "C" {

// ---- Device and errors ----

cudaError_t cudaGetDeviceCount(int* count) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure("cudaGetDeviceCount")) {
    return set_last_error(static_cast<cudaError_t>(code));
  }
  // A machine without a driver leaves the count alone.
  if (settings().devices == 0) return set_last_error(cudaErrorInsufficientDriver);
  *count = settings().devices;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  return runtime_call("cudaSetDevice", [&] {
    if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDevice(int* device) {
  return runtime_call("cudaGetDevice", [&] { return *device = current_device, cudaSuccess; });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  return runtime_call("cudaGetDeviceProperties", [&] {
    if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
    *p = cudaDeviceProp{};
    std::strcpy(p->name, "PTX interpreter");
    p->totalGlobalMem = settings().device_memory;
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = shared_limit();
    p->sharedMemPerMultiprocessor = shared_limit() + 1024;
    p->reservedSharedMemPerBlock = 1024;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = architecture() / 10, p->minor = architecture() % 10;
    p->multiProcessorCount = 4;
    p->maxThreadsPerMultiProcessor = threads_per_multiprocessor();
    p->maxBlocksPerMultiProcessor = 16;
    p->l2CacheSize = 4 << 20;
    p->memoryBusWidth = 256;
    p->unifiedAddressing = 1;
    p->concurrentKernels = 1;
    p->textureAlignment = 512;
    return cudaSuccess;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return runtime_call("cudaDeviceGetAttribute", [&] {
    if (device < 0 || device >= settings().devices) return cudaErrorInvalidDevice;
    const std::map<cudaDeviceAttr, int> values = {
        {cudaDevAttrMultiProcessorCount, 4},
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxThreadsPerMultiProcessor, threads_per_multiprocessor()},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxSharedMemoryPerBlock, 48 * 1024},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(shared_limit())},
        {cudaDevAttrComputeCapabilityMajor, architecture() / 10},
        {cudaDevAttrComputeCapabilityMinor, architecture() % 10},
        {cudaDevAttrMaxGridDimX, 0x7fffffff},
        {cudaDevAttrMaxGridDimY, 65535},
        {cudaDevAttrMaxGridDimZ, 65535},
        {cudaDevAttrClockRate, 1'000'000},
        {cudaDevAttrMemoryClockRate, 1'000'000},
        {cudaDevAttrGlobalMemoryBusWidth, 256},
        {cudaDevAttrL2CacheSize, 4 << 20}};
    const auto found = values.find(attribute);
    if (found == values.end()) {
      report(Kind::argument, "cudaDeviceGetAttribute: attribute " + std::to_string(attribute) +
                                 " has no value here; add it to cudart.cpp");
      return cudaErrorInvalidValue;
    }
    *value = found->second;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure("cudaDriverGetVersion"))
    return static_cast<cudaError_t>(code);
  *version = settings().devices == 0 ? 0 : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure("cudaRuntimeGetVersion"))
    return static_cast<cudaError_t>(code);
  *version = CUDART_VERSION;
  return cudaSuccess;
}

/// The runtime forgets the last error when it is asked for; one that stays comes back.
cudaError_t cudaGetLastError() {
  const std::lock_guard lock(mutex());
  return std::max(take_last_error(true), sticky_error());
}
cudaError_t cudaPeekAtLastError() {
  const std::lock_guard lock(mutex());
  return std::max(take_last_error(false), sticky_error());
}

const char* cudaGetErrorName(cudaError_t error) {
#define NAMED(code) \
  { code, #code }
  static const std::map<cudaError_t, const char*> kNames = {
      NAMED(cudaSuccess),
      NAMED(cudaErrorInvalidValue),
      NAMED(cudaErrorMemoryAllocation),
      NAMED(cudaErrorInitializationError),
      NAMED(cudaErrorInvalidConfiguration),
      NAMED(cudaErrorInvalidSymbol),
      NAMED(cudaErrorInvalidDevice),
      NAMED(cudaErrorInvalidDeviceFunction),
      NAMED(cudaErrorInvalidKernelImage),
      NAMED(cudaErrorInvalidResourceHandle),
      NAMED(cudaErrorInsufficientDriver),
      NAMED(cudaErrorNoDevice),
      NAMED(cudaErrorNotReady),
      NAMED(cudaErrorIllegalAddress),
      NAMED(cudaErrorMisalignedAddress),
      NAMED(cudaErrorLaunchFailure),
      NAMED(cudaErrorLaunchOutOfResources),
      NAMED(cudaErrorAssert),
      NAMED(cudaErrorMissingConfiguration),
      NAMED(cudaErrorUnknown),
  };
#undef NAMED
  const auto found = kNames.find(error);
  return found == kNames.end() ? "cudaError (name not in the stand-in)" : found->second;
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

// ---- Memory ----

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return runtime_call("cudaMalloc", [&] { return allocate(pointer, bytes); });
}
cudaError_t cudaFree(void* pointer) {
  return runtime_call("cudaFree", [&] {
    wait_for_all();
    return release("cudaFree", pointer);
  });
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  return runtime_call("cudaMallocAsync", [&] {
    if (!valid_stream("cudaMallocAsync", stream)) return cudaErrorInvalidResourceHandle;
    return allocate(pointer, bytes);
  });
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return runtime_call("cudaFreeAsync", [&] {
    if (!valid_stream("cudaFreeAsync", stream)) return cudaErrorInvalidResourceHandle;
    enqueue(stream_of(stream), "cudaFreeAsync",
            [pointer](std::uint32_t) { (void)release("cudaFreeAsync", pointer); });
    return cudaSuccess;
  });
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return runtime_call("cudaMemGetInfo", [&] {
    *total = settings().device_memory;
    *free = *total - std::min(*total, device_memory().live_bytes());
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return runtime_call("cudaMemcpyAsync", [&] {
    if (!valid_stream("cudaMemcpyAsync", stream)) return cudaErrorInvalidResourceHandle;
    return copy("cudaMemcpyAsync", to, from, bytes, kind, stream_of(stream));
  });
}
cudaError_t cudaMemcpyBatchAsync(void* const* to, const void* const* from, const size_t* bytes,
                                 size_t count, cudaMemcpyAttributes* attributes, size_t* firsts,
                                 size_t attribute_count, cudaStream_t stream) {
  return runtime_call("cudaMemcpyBatchAsync", [&] {
    if (stream == nullptr || stream == cudaStreamLegacy ||
        !valid_stream("cudaMemcpyBatchAsync", stream)) {
      return cudaErrorInvalidResourceHandle;
    }
    if (attribute_count == 0 || attribute_count > count || firsts[0] != 0)
      return cudaErrorInvalidValue;
    for (std::size_t i = 0, k = 0; i < count; ++i) {
      if (k + 1 < attribute_count && firsts[k + 1] == i) ++k;
      const cudaMemcpySrcAccessOrder order = attributes[k].srcAccessOrder;
      if (order == cudaMemcpySrcAccessOrderInvalid) return cudaErrorInvalidValue;
      const cudaError_t error = copy("cudaMemcpyBatchAsync", to[i], from[i], bytes[i],
                                     cudaMemcpyDefault, stream_of(stream), order);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return runtime_call("cudaMemcpy", [&] {
    const cudaError_t error = copy("cudaMemcpy", to, from, bytes, kind, default_stream());
    if (error != cudaSuccess) return error;
    wait_for(default_stream().clock);
    return sticky_error();
  });
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return runtime_call("cudaMemsetAsync", [&] {
    if (!valid_stream("cudaMemsetAsync", stream)) return cudaErrorInvalidResourceHandle;
    return set("cudaMemsetAsync", to, value, bytes, stream_of(stream));
  });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return runtime_call("cudaMemset",
                      [&] { return set("cudaMemset", to, value, bytes, default_stream()); });
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset,
                               cudaMemcpyKind kind) {
  return runtime_call("cudaMemcpyToSymbol", [&] {
    const ptx::Variable* v = find_variable(symbol);
    if (v == nullptr) return cudaErrorInvalidSymbol;
    const cudaError_t error =
        copy("cudaMemcpyToSymbol", reinterpret_cast<void*>(v->address + offset), from, bytes, kind,
             default_stream());
    if (error != cudaSuccess) return error;
    wait_for(default_stream().clock);
    return sticky_error();
  });
}
cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  return runtime_call("cudaGetSymbolAddress", [&] {
    const ptx::Variable* v = find_variable(symbol);
    if (v == nullptr) return cudaErrorInvalidSymbol;
    *pointer = reinterpret_cast<void*>(v->address);
    return cudaSuccess;
  });
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  return runtime_call("cudaHostAlloc", [&] {
    *pointer = std::malloc(std::max<std::size_t>(bytes, 1));
    if (*pointer == nullptr) return cudaErrorMemoryAllocation;
    objects().pinned[*pointer] = bytes;
    count_object(Object::host_allocation, 1);
    return cudaSuccess;
  });
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return cudaHostAlloc(pointer, bytes, 0);
}
cudaError_t cudaFreeHost(void* pointer) {
  return runtime_call("cudaFreeHost", [&] {
    if (pointer == nullptr) return cudaSuccess;
    wait_for_all();
    if (objects().pinned.erase(pointer) == 0) {
      report(Kind::argument, "cudaFreeHost of memory that cudaHostAlloc did not give");
      return cudaErrorInvalidValue;
    }
    count_object(Object::host_allocation, -1);
    std::free(pointer);
    return cudaSuccess;
  });
}

// ---- Streams and events ----

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return runtime_call("cudaStreamCreateWithFlags", [&] {
    *stream = make_handle<cudaStream_t>();
    objects().streams[*stream] = make_stream((flags & cudaStreamNonBlocking) == 0);
    count_object(Object::stream, 1);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return runtime_call("cudaStreamDestroy", [&] {
    const auto found = objects().streams.find(stream);
    if (found == objects().streams.end()) {
      report(Kind::argument, "cudaStreamDestroy: no such stream");
      return cudaErrorInvalidResourceHandle;
    }
    retire(*found->second);
    objects().streams.erase(found);
    count_object(Object::stream, -1);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return runtime_call("cudaStreamSynchronize", [&] {
    if (!valid_stream("cudaStreamSynchronize", stream)) return cudaErrorInvalidResourceHandle;
    wait_for(stream_of(stream).clock);
    return sticky_error();
  });
}
/// Not ready when first asked, so that the caller's waiting is exercised.
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return runtime_call("cudaStreamQuery", [&] {
    if (!valid_stream("cudaStreamQuery", handle)) return cudaErrorInvalidResourceHandle;
    Stream& stream = stream_of(handle);
    if (!stream.pending.empty() && !std::exchange(stream.asked, true)) return cudaErrorNotReady;
    wait_for(stream.clock);
    return sticky_error();
  });
}
cudaError_t cudaDeviceSynchronize() {
  return runtime_call("cudaDeviceSynchronize", [&] {
    wait_for_all();
    return sticky_error();
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return runtime_call("cudaEventCreateWithFlags", [&] {
    *event = make_handle<cudaEvent_t>();
    objects().events[*event] = std::make_shared<Event>();
    objects().events[*event]->timed = (flags & cudaEventDisableTiming) == 0;
    count_object(Object::event, 1);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return runtime_call("cudaEventDestroy", [&] {
    if (event_of("cudaEventDestroy", event) == nullptr) return cudaErrorInvalidResourceHandle;
    objects().events.erase(event);
    count_object(Object::event, -1);
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  return runtime_call("cudaEventRecord", [&] {
    if (!valid_stream("cudaEventRecord", handle)) return cudaErrorInvalidResourceHandle;
    if (event_of("cudaEventRecord", event) == nullptr) return cudaErrorInvalidResourceHandle;
    const std::shared_ptr<Event> e = objects().events[event];
    Stream& stream = stream_of(handle);
    e->recorded = true;
    e->asked = false;
    e->time = -1.0;
    enqueue(stream, "cudaEventRecord", [e](std::uint32_t) { e->time = now_ms; });
    e->clock = stream.clock;
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return runtime_call("cudaEventSynchronize", [&] {
    const Event* e = event_of("cudaEventSynchronize", event);
    if (e == nullptr) return cudaErrorInvalidResourceHandle;
    if (e->recorded) wait_for(e->clock);
    return sticky_error();
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return runtime_call("cudaEventQuery", [&] {
    Event* e = event_of("cudaEventQuery", event);
    if (e == nullptr) return cudaErrorInvalidResourceHandle;
    if (e->recorded && e->time < 0 && !std::exchange(e->asked, true)) return cudaErrorNotReady;
    if (e->recorded) wait_for(e->clock);
    return sticky_error();
  });
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return runtime_call("cudaEventElapsedTime", [&] {
    const Event* a = event_of("cudaEventElapsedTime", start);
    const Event* b = event_of("cudaEventElapsedTime", end);
    if (a == nullptr || b == nullptr || !a->recorded || !b->recorded || !a->timed || !b->timed) {
      return cudaErrorInvalidResourceHandle;
    }
    if (a->time < 0 || b->time < 0) return cudaErrorNotReady;
    *ms = static_cast<float>(b->time - a->time);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return runtime_call("cudaStreamWaitEvent", [&] {
    if (!valid_stream("cudaStreamWaitEvent", stream)) return cudaErrorInvalidResourceHandle;
    const Event* e = event_of("cudaStreamWaitEvent", event);
    if (e == nullptr) return cudaErrorInvalidResourceHandle;
    stream_of(stream).clock.join(e->clock);
    return cudaSuccess;
  });
}

// ---- Kernels ----

cudaError_t cudaLaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return runtime_call("cudaLaunchKernel",
                      [&] { return launch(host, grid, block, arguments, shared, stream); });
}

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  return runtime_call("cudaFuncSetAttribute", [&] {
    KernelReference kernel{};
    if (!find_kernel(host, kernel)) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaErrorInvalidValue;
    if (value < 0 ||
        static_cast<std::size_t>(value) + kernel.function->shared_bytes > shared_limit()) {
      return cudaErrorInvalidValue;
    }
    objects().kernels[host].dynamic_shared =
        static_cast<std::size_t>(value) + kernel.function->shared_bytes;
    return cudaSuccess;
  });
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, const void* host) {
  return runtime_call("cudaFuncGetAttributes", [&] {
    KernelReference kernel{};
    if (!find_kernel(host, kernel)) return cudaErrorInvalidDeviceFunction;
    *a = cudaFuncAttributes{};
    a->sharedSizeBytes = kernel.function->shared_bytes;
    a->localSizeBytes = kernel.function->local_bytes;
    a->maxThreadsPerBlock = kernel.function->max_threads;
    a->numRegs = 32;  // PTX registers are no measure of a chip's
    a->ptxVersion = a->binaryVersion = kernel.module->target;
    a->maxDynamicSharedSizeBytes = static_cast<int>(objects().kernels[host].dynamic_shared);
    return cudaSuccess;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* host,
                                                                   int threads, size_t shared,
                                                                   unsigned) {
  return runtime_call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&] {
    KernelReference kernel{};
    if (!find_kernel(host, kernel)) return cudaErrorInvalidDeviceFunction;
    if (threads <= 0) return cudaErrorInvalidValue;
    const std::size_t used = shared + kernel.function->shared_bytes + 1024;
    const auto by_shared = static_cast<int>((shared_limit() + 1024) / used);
    *blocks = threads > kernel.function->max_threads
                  ? 0
                  : std::min({16, threads_per_multiprocessor() / threads, by_shared});
    return cudaSuccess;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* host,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, host, threads, shared, 0);
}
}
