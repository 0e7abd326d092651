#include "tests/cuda/ptx/standin.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "planted_bugs.h"
#include "tests/cuda/ptx/program.h"

// The stand-in itself: faults on request, the device limits, streams, counters, and what its parser
// refuses.
namespace {

using planted::queue_copy;
using standin::Kind;

/// A program of each call that a backend makes; the first failure ends it, and all is given back.
cudaError_t small_program(std::string& failed) {
  cudaError_t error = cudaSuccess;
  const auto step = [&](const char* name, cudaError_t result) {
    if (error == cudaSuccess && result != cudaSuccess) error = result, failed = name;
    return error == cudaSuccess;
  };
  void *data = nullptr, *pinned = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t event = nullptr;
  int count = 0;
  if (step("cudaGetDeviceCount", cudaGetDeviceCount(&count)) &&
      step("cudaSetDevice", cudaSetDevice(0)) && step("cudaMalloc", cudaMalloc(&data, 1024)) &&
      step("cudaHostAlloc", cudaHostAlloc(&pinned, 1024, cudaHostAllocDefault)) &&
      step("cudaStreamCreateWithFlags",
           cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)) &&
      step("cudaEventCreateWithFlags", cudaEventCreateWithFlags(&event, cudaEventDisableTiming)) &&
      step("cudaMemsetAsync", cudaMemsetAsync(data, 0, 1024, stream)) &&
      step("cudaMemcpyAsync",
           cudaMemcpyAsync(pinned, data, 1024, cudaMemcpyDeviceToHost, stream)) &&
      step("cudaEventRecord", cudaEventRecord(event, stream))) {
    queue_copy(static_cast<float*>(data), static_cast<float*>(data) + 64, 64, stream);
    step("cudaLaunchKernel", cudaGetLastError()) &&
        step("cudaEventSynchronize", cudaEventSynchronize(event)) &&
        step("cudaStreamSynchronize", cudaStreamSynchronize(stream));
  }
  if (event != nullptr) cudaEventDestroy(event);
  if (stream != nullptr) cudaStreamDestroy(stream);
  if (pinned != nullptr) cudaFreeHost(pinned);
  if (data != nullptr) cudaFree(data);
  cudaGetLastError();
  return error;
}

TEST_CASE("each call fails when asked to, once, and nothing is left behind") {
  for (const char* call : {"cudaGetDeviceCount", "cudaSetDevice", "cudaMalloc", "cudaHostAlloc",
                           "cudaStreamCreateWithFlags", "cudaEventCreateWithFlags",
                           "cudaMemsetAsync", "cudaMemcpyAsync", "cudaEventRecord",
                           "cudaLaunchKernel", "cudaEventSynchronize", "cudaStreamSynchronize"}) {
    const std::string name = call;
    CAPTURE(name);
    standin::fail(call, 1, cudaErrorUnknown);
    std::string failed;
    CHECK(small_program(failed) == cudaErrorUnknown);
    CHECK(failed == name);
    CHECK(small_program(failed) == cudaSuccess);
    const standin::Live left = standin::live();
    CHECK(left.allocations + left.host_allocations + left.streams + left.events == 0);
    CHECK(standin::take_reports().empty());
  }
}

TEST_CASE("the nth call fails") {
  standin::fail("cublasCreate", 2, CUBLAS_STATUS_ALLOC_FAILED);
  cublasHandle_t a = nullptr, b = nullptr;
  CHECK(cublasCreate(&a) == CUBLAS_STATUS_SUCCESS);
  CHECK(cublasCreate(&b) == CUBLAS_STATUS_ALLOC_FAILED);
  CHECK(b == nullptr);
  CHECK(standin::live().handles == 1);
  CHECK(cublasDestroy(a) == CUBLAS_STATUS_SUCCESS);
}

TEST_CASE("no device, and a device that runs out of memory") {
  const standin::Settings before = standin::settings();
  standin::settings().devices = 0;
  int count = -1;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  CHECK(count == -1);
  void* data = nullptr;
  CHECK(cudaMalloc(&data, 16) == cudaErrorNoDevice);
  cublasHandle_t handle = nullptr;
  CHECK(cublasCreate(&handle) == CUBLAS_STATUS_NOT_INITIALIZED);

  standin::settings() = before;
  standin::settings().device_memory = 1000;
  cudaGetLastError();
  CHECK(cudaMalloc(&data, 1001) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaMalloc(&data, 600) == cudaSuccess);
  std::size_t free_bytes = 0, total = 0;
  cudaMemGetInfo(&free_bytes, &total);
  CHECK(free_bytes == 400);
  CHECK(total == 1000);
  cudaFree(data);
  standin::settings() = before;
}

TEST_CASE("a batch of copies reads its sources when its attributes say so") {
  void *data = nullptr, *pinned = nullptr;
  cudaStream_t stream = nullptr;
  cudaMalloc(&data, 64);
  cudaHostAlloc(&pinned, 4, cudaHostAllocDefault);
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  int pageable = 1;
  auto* const words = static_cast<int*>(data);
  void* const to[] = {words, words + 1, words + 2};
  const void* const from[] = {pinned, &pageable, &pageable};
  const std::size_t bytes[] = {4, 4, 4};
  cudaMemcpyAttributes attributes[2] = {};
  attributes[0].srcAccessOrder = cudaMemcpySrcAccessOrderDuringApiCall;
  attributes[1].srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  std::size_t firsts[] = {0, 2};
  *static_cast<int*>(pinned) = 1;
  CHECK(cudaMemcpyBatchAsync(to, from, bytes, 3, attributes, firsts, 2, stream) == cudaSuccess);
  *static_cast<int*>(pinned) = pageable = 2;
  int back[3] = {};
  cudaMemcpyAsync(back, data, sizeof back, cudaMemcpyDeviceToHost, stream);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(back[0] == 1);
  CHECK(back[1] == 1);
  CHECK(back[2] == 2);
  CHECK(standin::take_reports().empty());

  attributes[0].srcAccessOrder = cudaMemcpySrcAccessOrderInvalid;
  CHECK(cudaMemcpyBatchAsync(to, from, bytes, 1, attributes, firsts, 1, stream) ==
        cudaErrorInvalidValue);
  CHECK(cudaMemcpyBatchAsync(to, from, bytes, 1, attributes, firsts, 1, nullptr) ==
        cudaErrorInvalidResourceHandle);
  cudaGetLastError();
  cudaStreamDestroy(stream);
  cudaFreeHost(pinned);
  cudaFree(data);
}

TEST_CASE("work runs when waited for, and counts") {
  standin::reset_statistics();
  void* data = nullptr;
  cudaStream_t stream = nullptr;
  cudaMalloc(&data, 512);
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaMemsetAsync(data, 0, 512, stream);
  queue_copy(static_cast<float*>(data), static_cast<float*>(data) + 64, 64, stream);
  CHECK(standin::statistics().total.launches == 0);
  CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  CHECK(standin::statistics().total.launches == 1);
  CHECK(standin::statistics().total.instructions > 64);
  CHECK(standin::statistics().kernels.size() == 1);
  CHECK(standin::statistics().calls.at("cudaMemsetAsync") == 1);
  cudaStreamDestroy(stream);
  cudaFree(data);
}

TEST_CASE("the PTX of the target asked for runs") {
  const standin::Settings before = standin::settings();
  float* data = nullptr;
  cudaMalloc(reinterpret_cast<void**>(&data), 512);
  cudaMemset(data, 0, 512);
  for (const int arch : {75, 90, 0}) {
    standin::settings().arch = arch;
    queue_copy(data, data + 64, 64, nullptr);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(planted::ptx_target() == (arch == 0 ? 90 : arch));
  }
  standin::settings() = before;
  cudaFree(data);
}

TEST_CASE("forgotten memory counts as never written") {
  standin::settings().print = false;
  void* data = nullptr;
  cudaMalloc(&data, 256);
  cudaMemset(data, 0, 256);
  float host = 0;
  CHECK(cudaMemcpy(&host, data, 4, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(standin::take_reports().empty());
  standin::forget(data, 256);
  cudaMemcpy(&host, data, 4, cudaMemcpyDeviceToHost);
  CHECK(host != host);
  const auto reports = standin::take_reports();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].kind == Kind::uninitialised);
  cudaFree(data);
  standin::settings().print = true;
}

// ---- Parser ----

/// The error of a kernel with this body.
std::string error_of(const std::string& body) {
  const std::string head =
      ".version 9.0\n.target sm_75\n.address_size 64\n.visible .entry k()\n{\n";
  const auto module = standin::ptx::parse(head + body + "ret;\n}\n");
  return module->functions.at("k")->error;
}

TEST_CASE("what the parser does not know is an error that names it and its line") {
  CHECK(error_of(".reg .b32 %r<2>;\nmov.b32 %r1, 7;\n").empty());
  const auto check_error = [](const std::string& body, const std::string& part) {
    const std::string error = error_of(body);
    CAPTURE(error);
    CHECK(error.find(part) != std::string::npos);
    CHECK(error.find("PTX line 7") != std::string::npos);
  };
  const std::string registers = ".reg .b32 %r<4>; .reg .f32 %f<4>;\n";
  check_error(registers + "dp4a.s32.s32 %r1, %r2, %r2, %r2;\n", "`dp4a.s32.s32");
  check_error(registers + "add.unheard.s32 %r1, %r2, %r2;\n", "`add.unheard.s32");
  check_error(registers + "ld.global.b128 %r1, [%r2];\n", "`ld.global.b128");
  check_error(registers + "mov.b32 %r1, %r9;\n", "'%r9' is not declared");
  check_error(registers + "mov.b32 %r1, somewhere;\n", "'somewhere' is not declared");
  check_error(registers + "call.uni nobody;\n", "call of 'nobody'");
  CHECK(error_of("bra $L_nowhere;\n").find("$L_nowhere is not defined") != std::string::npos);
  CHECK_THROWS_AS(standin::ptx::parse("no ptx at all"), standin::ptx::ParseError);
}

}  // namespace
