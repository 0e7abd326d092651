// What the backend does when a call of CUDA or cuBLAS fails. Only on the stand-in, where any call
// can be made to.

#include <doctest/doctest.h>

#include <cuda_runtime_api.h>

#include <array>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "cuda/cuda.h"
#include "tensor/math.h"
#include "tests/cuda/ptx/standin.h"

namespace mf::test {
namespace {

using doctest::Contains;

/// A little of everything that calls the runtime, up to giving all of it back.
double work() {
  const Device gpu = cuda_device();
  const Tensor x = full({3, 40}, 0.5, DType::f32, cpu).to(gpu);
  const Tensor y = softmax(matmul(x, x.transpose()));
  const double result = sum_of_squares(y);
  synchronize(gpu);
  try {
    empty({std::int64_t{1} << 40}, DType::f32, gpu);
  } catch (const Error& error) {
    if (std::string(error.what()).find("no memory left") == std::string::npos) throw;
  }
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
  for (const std::string call : {"cudaSetDevice", "cudaMalloc", "cudaFree", "cudaMemcpyBatchAsync",
                                 "cudaMemcpyAsync", "cudaLaunchKernel", "cudaStreamSynchronize",
                                 "cudaStreamDestroy", "cublasDestroy", "cudaMemGetInfo"})
    CHECK_MESSAGE(calls.contains(call), call);
  CHECK(calls.size() >= 16);
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

  const Tensor kept = zeros({1000}, DType::f32, gpu);
  const MemoryStats before = memory_stats(gpu);
  CHECK(before.active == 4000);
  CHECK(before.cached >= 4 << 20);
  std::string message;
  try {
    const Tensor large = zeros({std::int64_t{1} << 40}, DType::f32, gpu);
  } catch (const Error& error) {
    message = error.what();
  }
  const std::size_t left = standin::settings().device_memory - standin::live().bytes;
  CHECK(message ==
        "allocate: cuda:0 has no memory left; requested 4398046511104 bytes, active "
        "4000, peak " +
            std::to_string(before.peak) + ", cached " + std::to_string(before.cached) +
            " until they were given back, now free " + std::to_string(left) +
            "; use a smaller batch, a shorter segment or replay");
  CHECK(memory_stats(gpu).cached == 0);
  CHECK(scalar(1.0, DType::f64, gpu).item() == 1.0);
  cuda::release();
  CHECK(standin::take_reports().empty());
}

TEST_CASE("cuda: a block that could not be freed stays counted, and the next release frees it") {
  cuda::install();
  const Device gpu = cuda_device();
  CHECK(scalar(1.0, DType::f64, gpu).item() == 1.0);
  release_cached(gpu);
  const std::size_t held = standin::live().allocations;
  // Sizes of blocks on both sides of each change of step.
  const std::array<std::int64_t, 7> sizes{64, 960, 1024, 1152, 2048, 2304, 1 << 20};
  {
    std::vector<Tensor> blocks;
    for (const std::int64_t size : sizes) blocks.push_back(empty({size}, DType::u8, gpu));
  }
  std::int64_t cached = 0;
  for (const std::int64_t size : sizes) cached += size;
  CHECK(memory_stats(gpu).cached == cached);
  std::size_t blocks = sizes.size();
  // The smallest go first; each time one is freed, and the next fails.
  for (std::size_t i = 0; i + 1 < sizes.size(); ++i) {
    standin::fail("cudaFree", 2, static_cast<int>(cudaErrorUnknown));
    CHECK_THROWS_WITH_AS(release_cached(gpu), Contains("cudaFree"), Error);
    cached -= sizes[i];
    CHECK(memory_stats(gpu).cached == cached);
    CHECK(standin::live().allocations == held + --blocks);
  }
  release_cached(gpu);
  CHECK(memory_stats(gpu).cached == 0);
  CHECK(standin::live().allocations == held);
  cuda::release();
  CHECK(standin::take_reports().empty());
}

TEST_CASE("cuda: neither uploads nor ids make the host wait") {
  cuda::install();
  const Device gpu = cuda_device();
  CHECK(scalar(1.0, DType::f64, gpu).item() == 1.0);
  {
    Tensor host = full({100}, 1.5, DType::f32);
    standin::reset_statistics();
    const Tensor there = host.to(gpu);
    host.fill_(0.0);  // before the copy runs
    const Tensor ids = from_host({2, 0, 1}, {3}, gpu);
    const Tensor x = zeros({3, 4}, DType::f32, gpu), gloss = scalar(1.0, DType::f32, gpu);
    scatter_rows(ids, gather_rows(x, ids), 3);
    scatter(ids, gather(x, ids), 4);
    const CrossEntropyResult result = cross_entropy(x, ids, {}, -1);
    cross_entropy_backward(x, ids, {}, -1, result.log_sum, gloss);
    const auto calls = standin::statistics().calls;
    CHECK(calls.at("cudaMemcpyBatchAsync") == 2);
    CHECK_FALSE(calls.contains("cudaMemcpyAsync"));
    CHECK_FALSE(calls.contains("cudaStreamSynchronize"));
    CHECK(there.to_vector<float>() == std::vector<float>(100, 1.5F));
  }
  cuda::release();
  CHECK(standin::take_reports().empty());
}

TEST_CASE("cuda: the first use of a device may be by several threads at once") {
  cuda::install();
  constexpr int kDevices = 4, kThreads = 4;
  standin::settings().devices = 1 + kDevices;
  const std::size_t streams = standin::live().streams;
  for (int device = 1; device <= kDevices; ++device) {
    std::latch start(kThreads);
    std::array<double, kThreads> results{};
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        results[static_cast<std::size_t>(i)] = scalar(i, DType::f64, cuda_device(device)).item();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < kThreads; ++i) CHECK(results[static_cast<std::size_t>(i)] == i);
    CHECK(standin::live().streams == streams + 1);
    CHECK(memory_stats(cuda_device(device)).active == 0);
    cuda::release(device);
    CHECK(standin::live().streams == streams);
  }
  standin::settings().devices = 1;
  CHECK(standin::take_reports().empty());
}

TEST_CASE("cuda: a device that does not exist is an error that says how many there are") {
  cuda::install();
  constexpr const char* kMessage =
      "cuda: cuda:7 does not exist; devices that answer: 1; give cuda:0 to cuda:0";
  CHECK_THROWS_WITH_AS(zeros({2}, DType::f32, cuda_device(7)), kMessage, Error);
  CHECK_THROWS_WITH_AS(scalar(1.0, DType::f32).to(cuda_device(7)), kMessage, Error);
  CHECK_THROWS_WITH_AS(synchronize(cuda_device(7)), kMessage, Error);
  CHECK_THROWS_WITH_AS(empty({2}, DType::f32, cuda_device(-1)),
                       Contains("cuda:-1 does not exist; devices that answer: 1"), Error);
  CHECK(memory_stats(cuda_device(7)).active == 0);
  // The next launch is not blamed for it.
  CHECK(scalar(1.0, DType::f64, cuda_device()).item() == 1.0);
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
