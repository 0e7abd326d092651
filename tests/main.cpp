#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "tensor/memory.h"

/// Every test program ends with an empty ledger: what its cases allocated they have freed.
int main(int argc, char** argv) {
  const int failed = doctest::Context(argc, argv).run();
  const auto left = static_cast<long long>(mf::memory_stats().active);
  if (left != 0) std::fprintf(stderr, "memory: %lld bytes are still active at exit\n", left);
  return failed != 0 || left != 0 ? 1 : 0;
}
