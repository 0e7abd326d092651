#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "cuda/cuda.h"
#include "tensor/memory.h"

/// Exit 77 where no device answers. Ends with empty ledgers, and with nothing of the device held.
int main(int argc, char** argv) {
  if (!mf::cuda::available()) {
    std::puts("skipped: no CUDA device answers");
    return 77;
  }
  const int failed = doctest::Context(argc, argv).run();
  mf::cuda::release();
  const auto left = static_cast<long long>(mf::memory_stats().active +
                                           mf::memory_stats(mf::cuda_device()).active);
  if (left != 0) std::fprintf(stderr, "memory: %lld bytes are still active at exit\n", left);
  return failed != 0 || left != 0 ? 1 : 0;
}
