#pragma once

#include <cuda_runtime_api.h>

#include <vector>

/// Bugs for the checks to find. Each comes with a twin that differs only in being right.
namespace planted {

/// Device memory that all cases share: `kFloats` floats each, `in` holds 1.
inline constexpr int kFloats = 4096;
struct Memory {
  float* in = nullptr;
  float* out = nullptr;
  cudaStream_t stream = nullptr, other = nullptr;
};

struct Bug {
  const char* name;
  /// Queues the buggy or the right version; the caller waits.
  void (*run)(bool bug, const Memory& memory);
};
/// The bugs that consist of a kernel or its launch.
const std::vector<Bug>& kernel_bugs();

/// out[i] = in[i] for i < n in blocks of 64: for bugs of host code.
void queue_copy(const float* in, float* out, int n, cudaStream_t stream);
/// out[i] *= factor.
void queue_scale(float* out, float factor, int n, cudaStream_t stream);

/// Target of the PTX that queue_copy's kernel runs from.
int ptx_target();

}  // namespace planted
