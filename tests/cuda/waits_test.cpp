// When the host waits for the device. Only on the stand-in, which counts the calls.

#include <doctest/doctest.h>

#include "cuda/cuda.h"
#include "memformer/train/trainer.h"
#include "tests/cuda/ptx/standin.h"
#include "tests/cuda/small_run.h"

namespace mf::test {
namespace {

std::uint64_t calls(const std::string& name) {
  const auto& all = standin::statistics().calls;
  const auto found = all.find(name);
  return found == all.end() ? 0 : found->second;
}

/// Waits in one step of a run that has begun; CUDA is asked for no memory in it.
std::uint64_t waits_of_a_step(bool check_replay) {
  RunConfig config = small_run(DType::f32);
  config.train.check_replay = check_replay;
  Trainer trainer = Trainer::start(config, "", cuda_device());
  for (int step = 0; step < 2; ++step) trainer.step();
  standin::reset_statistics();
  trainer.step();
  CHECK(calls("cudaLaunchKernel") > 100);
  CHECK(calls("cudaMalloc") == 0);
  return calls("cudaStreamSynchronize");
}

TEST_CASE("cuda: a training step waits for the losses of its segments and the gradient norm") {
  cuda::install();
  const auto segments = static_cast<std::uint64_t>(small_run(DType::f32).train.horizon);
  CHECK(waits_of_a_step(false) == segments + 1);
  // The audit of replayed states reads two states for each segment but the last.
  CHECK(waits_of_a_step(true) == segments + 1 + 2 * (segments - 1));
  cuda::release();
  CHECK(standin::take_reports().empty());
}

}  // namespace
}  // namespace mf::test
