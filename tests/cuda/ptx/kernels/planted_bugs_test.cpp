#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "planted_bugs.h"
#include "tests/cuda/ptx/standin.h"

namespace planted {
namespace {

using standin::Kind;

Memory make_memory() {
  Memory m;
  cudaMalloc(reinterpret_cast<void**>(&m.in), kFloats * sizeof(float));
  cudaMalloc(reinterpret_cast<void**>(&m.out), kFloats * sizeof(float));
  cudaStreamCreateWithFlags(&m.stream, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&m.other, cudaStreamNonBlocking);
  const std::vector<float> ones(kFloats, 1.0f);
  cudaMemcpy(m.in, ones.data(), kFloats * sizeof(float), cudaMemcpyHostToDevice);
  return m;
}

void drop_memory(const Memory& m) {
  cudaStreamDestroy(m.stream);
  cudaStreamDestroy(m.other);
  cudaFree(m.in);
  cudaFree(m.out);
}

/// The kinds reported while `run` and a final wait go on.
std::vector<Kind> kinds_of(const std::function<void(const Memory&)>& run) {
  standin::settings().print = false;
  const Memory m = make_memory();
  run(m);
  cudaDeviceSynchronize();
  cudaGetLastError();
  standin::clear_error();
  std::vector<Kind> kinds;
  for (const auto& report : standin::take_reports()) kinds.push_back(report.kind);
  drop_memory(m);
  REQUIRE(standin::take_reports().empty());
  standin::settings().print = true;
  return kinds;
}

std::string text_of(const std::vector<Kind>& kinds) {
  std::string text;
  for (const Kind kind : kinds) text += (text.empty() ? "" : ", ") + std::string(name_of(kind));
  return text.empty() ? "nothing" : text;
}

/// What each kernel bug is reported as; nothing for those that no check can see.
const std::map<std::string, std::optional<Kind>>& expected_kinds() {
  static const std::map<std::string, std::optional<Kind>> kExpected = {
      {"plain += on a shared counter", Kind::race},
      {"plain += on a global cell from several blocks", Kind::race},
      {"no barrier between the steps of a tree sum", Kind::race},
      {"tile overwritten while others read it", Kind::race},
      {"warp-synchronous sum without __syncwarp", Kind::race},
      {"one __syncwarp where two are needed", Kind::race},
      {"write ordered with the reads of its own warp only", Kind::race},
      {"plain read beside atomics", Kind::race},
      {"in-place reversal", Kind::race},
      {"block reads what its neighbour writes", Kind::race},
      {"many threads write one byte", Kind::race},
      {"barrier at two places", Kind::barrier},
      {"barrier for half of the threads", Kind::barrier},
      {"barrier after an early return", Kind::barrier},
      {"full-mask shuffle in a divergent branch", Kind::warp_mask},
      {"full-mask shuffle after lanes returned", Kind::warp_mask},
      {"shuffle from a lane outside the mask", Kind::warp_mask},
      {"write past a shared array", Kind::out_of_bounds},
      {"write past a global buffer", Kind::out_of_bounds},
      {"read past a local array", Kind::out_of_bounds},
      {"misaligned vector load", Kind::misaligned},
      {"unset shared memory", Kind::uninitialised},
      {"unset local array", Kind::uninitialised},
      {"unset register", Kind::unset_register},
      {"unset global memory", Kind::uninitialised},
      {"atomicAdd on an output that nobody zeroed", Kind::uninitialised},
      {"host pointer as an argument", Kind::unknown_address},
      {"no blocks", Kind::launch},
      {"2048 threads in a block", Kind::launch},
      {"more threads than the launch bounds allow", Kind::launch},
      {"64 KiB of shared memory without opting in", Kind::launch},
      {"thread that waits for another forever", Kind::launch},
      // PTX arithmetic wraps: nothing is wrong with the instruction.
      {"int index that overflows", std::nullopt},
  };
  return kExpected;
}

struct Setup {
  int arch;
  standin::Order order;
};

const std::vector<Setup>& setups() {
  using standin::Order;
  static const std::vector<Setup> kSetups = {{75, Order::forward}, {75, Order::reverse},
                                             {75, Order::random},  {90, Order::forward},
                                             {90, Order::reverse}, {90, Order::random}};
  return kSetups;
}

/// Calls fn under every target and thread order.
template <class F>
void in_each_setup(F fn) {
  const standin::Settings before = standin::settings();
  for (const Setup& setup : setups()) {
    standin::settings().arch = setup.arch;
    standin::settings().order = setup.order;
    standin::settings().max_instructions = 1'000'000;
    CAPTURE(setup.arch);
    CAPTURE(static_cast<int>(setup.order));
    fn();
  }
  standin::settings() = before;
}

TEST_CASE("each planted kernel bug is found in every thread order, and its twin is clean") {
  int found = 0;
  for (const Bug& bug : kernel_bugs()) {
    const std::string name = bug.name;
    CAPTURE(name);
    REQUIRE(expected_kinds().contains(name));
    const std::optional<Kind> expected = expected_kinds().at(name);
    in_each_setup([&] {
      const auto kinds = kinds_of([&](const Memory& m) { bug.run(true, m); });
      CAPTURE(text_of(kinds));
      if (expected) {
        CHECK(std::count(kinds.begin(), kinds.end(), *expected) > 0);
      } else {
        CHECK(kinds.empty());
      }
      const auto twin = kinds_of([&](const Memory& m) { bug.run(false, m); });
      CHECK_MESSAGE(twin.empty(), text_of(twin));
    });
    found += expected ? 1 : 0;
  }
  MESSAGE("planted kernel bugs found: ", found, " of ", kernel_bugs().size());
}

// ---- Bugs of host code ----

/// The kinds that a host program with or without its bug brings.
void check_host_bug(const std::string& name, Kind expected,
                    const std::function<void(bool bug, const Memory&)>& run) {
  CAPTURE(name);
  const auto kinds = kinds_of([&](const Memory& m) { run(true, m); });
  CAPTURE(text_of(kinds));
  CHECK(std::count(kinds.begin(), kinds.end(), expected) > 0);
  const auto twin = kinds_of([&](const Memory& m) { run(false, m); });
  CHECK_MESSAGE(twin.empty(), text_of(twin));
}

TEST_CASE("use after free") {
  check_host_bug("use after free", Kind::use_after_free, [](bool bug, const Memory& m) {
    void* data = nullptr;
    cudaMalloc(&data, 256);
    if (bug) cudaFree(data);
    queue_copy(m.in, static_cast<float*>(data), 64, m.stream);
    cudaStreamSynchronize(m.stream);
    if (!bug) cudaFree(data);
  });
}

TEST_CASE("memory freed twice") {
  check_host_bug("freed twice", Kind::argument, [](bool bug, const Memory&) {
    void* data = nullptr;
    cudaMalloc(&data, 256);
    cudaFree(data);
    if (bug) cudaFree(data);
  });
}

TEST_CASE("two streams with no event between") {
  check_host_bug("streams", Kind::stream_order, [](bool bug, const Memory& m) {
    cudaEvent_t event = nullptr;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    queue_copy(m.in, m.out, 64, m.stream);
    cudaEventRecord(event, m.stream);
    if (!bug) cudaStreamWaitEvent(m.other, event, 0);
    queue_scale(m.out, 2.0f, 64, m.other);
    cudaStreamSynchronize(m.other);
    cudaEventDestroy(event);
  });
}

TEST_CASE("asynchronous copy from another stream") {
  check_host_bug("copy", Kind::stream_order, [](bool bug, const Memory& m) {
    queue_copy(m.in, m.out, 64, m.stream);
    cudaStreamSynchronize(bug ? m.other : m.stream);
    queue_scale(m.in, 2.0f, 64, m.other);
  });
}

TEST_CASE("copy in the wrong direction") {
  check_host_bug("direction", Kind::argument, [](bool bug, const Memory& m) {
    static float host[64];
    cudaMemcpyAsync(host, m.in, sizeof host, bug ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                    m.stream);
  });
}

TEST_CASE("copy past the end of a buffer") {
  check_host_bug("bounds", Kind::out_of_bounds, [](bool bug, const Memory& m) {
    cudaMemsetAsync(m.out, 0, (kFloats + (bug ? 1 : 0)) * sizeof(float), m.stream);
  });
}

TEST_CASE("destroyed stream") {
  check_host_bug("stream", Kind::argument, [](bool bug, const Memory& m) {
    cudaStream_t stream = nullptr;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    if (bug) cudaStreamDestroy(stream);
    queue_copy(m.in, m.out, 64, stream);
    if (!bug) cudaStreamDestroy(stream);
  });
}

TEST_CASE("cuBLAS arguments") {
  const float one = 1.0f, zero = 0.0f;
  const auto product = [&](const Memory& m, int lda, const float* b) {
    cublasHandle_t handle = nullptr;
    cublasCreate(&handle);
    cublasSetStream(handle, m.stream);
    cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 8, 8, 16, &one, m.in, lda, b, 16, &zero, m.out,
                8);
    cublasDestroy(handle);
  };
  check_host_bug("leading dimension", Kind::argument,
                 [&](bool bug, const Memory& m) { product(m, bug ? 4 : 8, m.in); });
  check_host_bug("matrix past its buffer", Kind::out_of_bounds, [&](bool bug, const Memory& m) {
    product(m, 8, m.in + (bug ? kFloats - 64 : kFloats - 128));
  });
}

TEST_CASE("read back without waiting shows stale data") {
  const auto read_back = [](bool bug) {
    float host[64];
    std::fill(std::begin(host), std::end(host), -1.0f);
    const auto kinds = kinds_of([&](const Memory& m) {
      queue_copy(m.in, m.out, 64, m.stream);
      cudaMemcpyAsync(host, m.out, sizeof host, cudaMemcpyDeviceToHost, m.stream);
      if (!bug) cudaStreamSynchronize(m.stream);
      CHECK(host[5] == (bug ? -1.0f : 1.0f));
    });
    CHECK(kinds.empty());
  };
  read_back(true);
  read_back(false);
}

TEST_CASE("pinned memory changed before its copy has run") {
  const auto first_element = [](bool bug) {
    float result = 0;
    kinds_of([&](const Memory& m) {
      void* pinned = nullptr;
      cudaHostAlloc(&pinned, 4, cudaHostAllocDefault);
      auto* host = static_cast<float*>(pinned);
      *host = 3.0f;
      cudaMemcpyAsync(m.out, host, 4, cudaMemcpyHostToDevice, m.stream);
      if (!bug) cudaStreamSynchronize(m.stream);
      *host = 4.0f;
      cudaMemcpyAsync(&result, m.out, 4, cudaMemcpyDeviceToHost, m.stream);
      cudaStreamSynchronize(m.stream);
      cudaFreeHost(pinned);
    });
    return result;
  };
  CHECK(first_element(true) == 4.0f);
  CHECK(first_element(false) == 3.0f);
}

/// Status of a child process that runs `body` and then exits with 0.
int status_of(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) std::exit(2);
    std::signal(SIGSEGV, SIG_DFL);  // the test framework has a handler of its own
    body();
    std::exit(0);  // with the checks at exit
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST_CASE("host code that reads device memory dies") {
  const auto read = [](bool bug) {
    return status_of([bug] {
      const Memory m = make_memory();
      float host = 0;
      cudaMemcpy(&host, m.in, sizeof host, cudaMemcpyDeviceToHost);
      if ((bug ? *m.in : host) != 1.0f) std::abort();
      drop_memory(m);
    });
  };
  CHECK(WIFSIGNALED(read(true)));
  CHECK(WTERMSIG(read(true)) == SIGSEGV);
  CHECK(read(false) == 0);
}

TEST_CASE("a leak makes the program fail") {
  const auto leak = [](bool bug) {
    return status_of([bug] {
      const Memory m = make_memory();
      void* more = nullptr;
      cudaMalloc(&more, 100);
      if (!bug) cudaFree(more);
      drop_memory(m);
    });
  };
  CHECK(WEXITSTATUS(leak(true)) == 1);
  CHECK(leak(false) == 0);
}

TEST_CASE("a report that nobody takes makes the program fail") {
  const auto run = [](bool bug) {
    return status_of([bug] {
      const Memory m = make_memory();
      kernel_bugs()[0].run(bug, m);
      cudaDeviceSynchronize();
      drop_memory(m);
    });
  };
  CHECK(WEXITSTATUS(run(true)) == 1);
  CHECK(run(false) == 0);
}

TEST_CASE("a race report names kernel, places and both threads") {
  standin::settings().print = false;
  const Memory m = make_memory();
  kernel_bugs()[0].run(true, m);
  cudaDeviceSynchronize();
  const auto reports = standin::take_reports();
  drop_memory(m);
  standin::settings().print = true;
  REQUIRE(!reports.empty());
  const std::string& text = reports[0].text;
  CAPTURE(text);
  for (const char* part : {"shared_counter", "block (0,0,0)", "thread (1,0,0)", "thread (0,0,0)",
                           "planted_bugs.cu:", "unordered with"}) {
    CHECK(text.find(part) != std::string::npos);
  }
}

}  // namespace
}  // namespace planted
