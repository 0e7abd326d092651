// When the host waits for the device. Only on the stand-in, which counts the calls.

#include <doctest/doctest.h>

#include "cuda/cuda.h"
#include "memformer/train/trainer.h"
#include "tests/cuda/ptx/standin.h"
#include "tests/cuda/small_run.h"

namespace mf::test {
namespace {

/// Calls since the statistics began, of all functions with this in their names.
std::uint64_t calls(const std::string& part) {
  std::uint64_t count = 0;
  for (const auto& [name, times] : standin::statistics().calls)
    if (name.find(part) != std::string::npos) count += times;
  return count;
}

/// Waits in one step of a run that has begun; CUDA is asked for no memory in it, and gets none
/// back.
std::uint64_t waits_of_a_step(bool check_replay) {
  RunConfig config = small_run(DType::f32);
  config.train.check_replay = check_replay;
  Trainer trainer = Trainer::start(config, "", cuda_device());
  for (int step = 0; step < 2; ++step) trainer.step();
  standin::reset_statistics();
  trainer.step();
  CHECK(calls("cudaLaunchKernel") > 100);
  for (const char* const other : {"Malloc", "Free", "Memset", "cudaMemcpy2D", "Symbol", "Event"})
    CHECK(calls(other) == 0);
  CHECK(standin::statistics().calls.count("cudaMemcpy") == 0);  // it waits, unlike the asynchronous
  return calls("Synchronize");
}

TEST_CASE("cuda: a training step waits for the losses and the gradient norm") {
  cuda::install();
  const auto segments = static_cast<std::uint64_t>(small_run(DType::f32).train.horizon);
  CHECK(waits_of_a_step(false) == 2);
  // The audit of replayed states reads two states for each segment but the last.
  CHECK(waits_of_a_step(true) == 2 + 2 * (segments - 1));
  cuda::release();
  CHECK(standin::take_reports().empty());
}

}  // namespace
}  // namespace mf::test
