// What the backend does when a call of CUDA or cuBLAS fails. Only on the stand-in, where any call
// can be made to.

#include <doctest/doctest.h>

#include <cuda_runtime_api.h>

#include <string>

#include "cuda/cuda.h"
#include "tensor/math.h"
#include "tests/cuda/ptx/standin.h"

namespace mf::test {
namespace {

/// A little of everything that calls the runtime, up to giving all of it back.
double work() {
  const Device gpu = cuda_device();
  const Tensor x = full({3, 40}, 0.5, DType::f32, cpu).to(gpu);
  const Tensor y = softmax(matmul(x, x.transpose()));
  const double result = sum_of_squares(y);
  cuda::synchronize();
  cuda::release();
  return result;
}

std::string error_of_work() {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// After a failure the backend works again, and holds no more than before but for `lost` things
/// that a failed call did not give back.
void check_recovers(double expected, const standin::Live& before, std::size_t lost) {
  standin::clear_error();
  cuda::release();
  CHECK(memory_stats(cuda_device()).active == 0);
  CHECK(work() == expected);
  const standin::Live after = standin::live();
  CHECK(after.allocations + after.streams + after.handles ==
        before.allocations + before.streams + before.handles + lost);
  CHECK(standin::take_reports().empty());
}

TEST_CASE("cuda: a call that fails is an error that names it, and nothing is lost") {
  cuda::install();
  work();
  standin::reset_statistics();
  const double expected = work();
  const auto calls = standin::statistics().calls;
  CHECK(calls.size() >= 14);
  std::uint64_t failures = 0;
  for (const auto& [call, count] : calls) {
    const bool blas = call.starts_with("cublas");
    for (std::uint64_t nth = 1; nth <= count; ++nth) {
      CAPTURE(call);
      CAPTURE(nth);
      const standin::Live before = standin::live();
      standin::fail(call, nth, blas ? 14 : static_cast<int>(cudaErrorUnknown));
      const std::string message = error_of_work();
      standin::fail(call, 0, 0);
      // A launch is known by its kernel.
      const bool launch = call == "cudaGetLastError" || call == "cudaLaunchKernel";
      const std::string name = launch ? "cuda: " : call.substr(0, call.find("_v2"));
      CHECK_MESSAGE(message.find(name.substr(0, name.find("_64"))) != std::string::npos, message);
      const bool gives_back = call.find("Destroy") != std::string::npos;
      check_recovers(expected, before, gives_back ? 1 : 0);
      ++failures;
    }
  }
  standin::settings().leaks = false;  // what failed Destroy calls have left
  MESSAGE(failures << " failures of " << calls.size() << " functions");
}

TEST_CASE(
    "cuda: memory that has run out is looked for in the cache, then is an error with figures") {
  cuda::install();
  const Device gpu = cuda_device();
  { const Tensor cached = zeros({1 << 20}, DType::f32, gpu); }
  const std::int64_t held = memory_stats(gpu).cached;
  CHECK(held >= 4 << 20);
  standin::fail("cudaMalloc", 1, static_cast<int>(cudaErrorMemoryAllocation));
  { const Tensor other = zeros({3 << 20}, DType::f32, gpu); }
  CHECK(memory_stats(gpu).active == 0);
  CHECK(memory_stats(gpu).cached < held + (12 << 20));

  std::string message;
  try {
    const Tensor large = zeros({std::int64_t{1} << 40}, DType::f32, gpu);
  } catch (const Error& error) {
    message = error.what();
  }
  CHECK(message.find("cuda:0 has no memory left") != std::string::npos);
  CHECK(message.find("4398046511104") != std::string::npos);
  CHECK(scalar(1.0, DType::f64, gpu).item() == 1.0);
  cuda::release();
  CHECK(standin::take_reports().empty());
}

TEST_CASE("cuda: without a device the error says so") {
  standin::fail("cudaGetDeviceCount", 1, static_cast<int>(cudaErrorInsufficientDriver));
  CHECK_FALSE(cuda::available());
  standin::fail("cudaGetDeviceCount", 1, static_cast<int>(cudaErrorNoDevice));
  CHECK_THROWS_AS(cuda::install(), Error);
  CHECK(cuda::available());
}

}  // namespace
}  // namespace mf::test
