#include "planted_bugs.h"

namespace planted {
namespace {

constexpr unsigned kFull = 0xffffffffu;

// ---- Races ----

template <bool kBug>
__global__ void shared_counter(float* out) {
  __shared__ float count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  if (kBug) {
    count += 1;
  } else {
    atomicAdd(&count, 1.0f);
  }
  __syncthreads();
  if (threadIdx.x == 0) *out = count;
}

template <bool kBug>
__global__ void global_counter(float* out) {
  if (kBug) {
    *out += 1;
  } else {
    atomicAdd(out, 1.0f);
  }
}

template <bool kBug>
__global__ void tree_sum(const float* in, float* out) {
  __shared__ float s[128];
  const int t = threadIdx.x;
  s[t] = in[t];
  __syncthreads();
  for (int k = 64; k > 0; k /= 2) {
    if (t < k) s[t] += s[t + k];
    if (!kBug) __syncthreads();
  }
  if (t == 0) *out = s[0];
}

template <bool kBug>
__global__ void tile_loop(const float* in, float* out) {
  __shared__ float tile[64];
  const int t = threadIdx.x;
  float sum = 0;
  for (int k = 0; k < 4; ++k) {
    tile[t] = in[64 * k + t];
    __syncthreads();
    sum += tile[63 - t];
    if (!kBug) __syncthreads();  // else the next tile overwrites what others still read
  }
  out[t] = sum;
}

template <bool kBug>
__global__ void warp_sum(const float* in, float* out) {
  __shared__ float s[32];
  const int t = threadIdx.x;
  s[t] = in[t];
  for (int k = 16; k > 0; k /= 2) {
    if (!kBug) __syncwarp();
    if (t < k) s[t] += s[t + k];
  }
  if (t == 0) *out = s[0];
}

template <bool kBug>
__global__ void warp_exchange(const float* in, float* out) {
  __shared__ float s[32];
  const int t = threadIdx.x;
  s[t] = in[t];
  __syncwarp();
  const float neighbour = s[t ^ 1];
  if (!kBug) __syncwarp();
  s[t] = neighbour + 1;
  __syncwarp();
  out[t] = s[t ^ 1];
}

template <bool kBug>
__global__ void write_after_other_warp(float* out) {
  __shared__ float s;
  const int t = threadIdx.x;
  if (t == 0) s = 0;
  __syncthreads();
  const float value = s;
  if (kBug) {
    __syncwarp();
  } else {
    __syncthreads();
  }
  if (t == 63) s = 1;
  out[t] = value;
}

template <bool kBug>
__global__ void read_beside_atomics(float* out) {
  __shared__ int count;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1);
  if (!kBug) __syncthreads();
  if (threadIdx.x == 0) *out = static_cast<float>(count);
}

template <bool kBug>
__global__ void reverse_in_place(float* data) {
  const int t = threadIdx.x, other = static_cast<int>(blockDim.x) - 1 - t;
  const float value = data[other];
  if (!kBug) __syncthreads();
  data[t] = value;
}

template <bool kBug>
__global__ void neighbour_blocks(float* data) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  data[i] = static_cast<float>(i);
  // The first element of the next block's part may or may not be there yet.
  if (threadIdx.x == 0) data[i + 1024] = data[kBug ? i + blockDim.x : i];
}

template <bool kBug>
__global__ void byte_counter(float* out) {
  __shared__ unsigned char bytes[4];
  const int t = threadIdx.x;
  if (t < 4) bytes[t] = 0;
  __syncthreads();
  if (kBug || t == 3) bytes[t == 3 ? 3 : 1] = static_cast<unsigned char>(t);
  __syncthreads();
  if (t == 0) *out = bytes[1];
}

// ---- Barriers and warp operations ----

template <bool kBug>
__global__ void two_barriers(float* out) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  if (kBug) {
    if (t < 40) {
      __syncthreads();
    } else {
      s[t] *= 2;
      __syncthreads();
    }
  } else {
    if (t >= 40) s[t] *= 2;
    __syncthreads();
  }
  out[t] = s[63 - t];
}

template <bool kBug>
__global__ void half_barrier(float* out) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  if (!kBug || t < 40) __syncthreads();
  out[t] = s[t];
}

template <bool kBug>
__global__ void early_return(float* out, int n) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  if (kBug && t >= n) return;
  if (t < n) s[t] = static_cast<float>(t);
  __syncthreads();
  if (t < n) out[t] = s[n - 1 - t];
}

template <bool kBug>
__global__ void divergent_shuffle(const float* in, float* out) {
  const int t = threadIdx.x;
  float value = in[t];
  if (t < 16) value += __shfl_down_sync(kBug ? kFull : 0xffffu, value, 1, 16);
  out[t] = value;
}

template <bool kBug>
__global__ void exited_shuffle(const float* in, float* out, int n) {
  const int t = threadIdx.x;
  if (kBug && t >= n) return;
  float value = t < n ? in[t] : 0.0f;
  value += __shfl_xor_sync(kFull, value, 1);
  if (t < n) out[t] = value;
}

template <bool kBug>
__global__ void unnamed_lane(const float* in, float* out) {
  const int t = threadIdx.x;
  float value = in[t];
  if (t < 16) value = __shfl_sync(0xffffu, value, kBug ? 20 : 4);
  out[t] = value;
}

// ---- Memory ----

template <bool kBug>
__global__ void past_shared(float* out) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  s[kBug ? t + 1 : t] = 1;
  __syncthreads();
  out[t] = s[kBug ? 63 : t];
}

template <bool kBug>
__global__ void past_global(float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (kBug ? i <= n : i < n) out[i] = 1;
}

template <bool kBug>
__global__ void past_local(const float* in, float* out) {
  float values[8];
  for (int k = 0; k < 8; ++k) values[k] = in[k];
  const int index = static_cast<int>(in[threadIdx.x]) * (kBug ? 8 : 7);
  out[threadIdx.x] = values[index];
}

template <bool kBug>
__global__ void vector_load(const float* in, float* out) {
  const int t = threadIdx.x;
  const float4 v = *reinterpret_cast<const float4*>(in + (kBug ? 1 : 0) + 4 * t);
  out[t] = v.x + v.w;
}

template <bool kBug>
__global__ void unset_shared(float* out) {
  __shared__ float s[64];
  const int t = threadIdx.x;
  if (!kBug || t < 32) s[t] = 0;
  __syncthreads();
  out[t] = s[t] * 0.0f;
}

template <bool kBug>
__global__ void unset_local(const float* in, float* out) {
  float values[8];
  for (int k = 0; k < (kBug ? 4 : 8); ++k) values[k] = in[k];
  out[threadIdx.x] = values[static_cast<int>(in[threadIdx.x]) * 5];
}

template <bool kBug>
__global__ void unset_register(const float* in, float* out) {
  // In C++ the compiler would assume that the branch is taken.
  if (kBug) {
    asm volatile(
        "{ .reg .f32 value; .reg .pred low;\n"
        "  setp.lt.f32 low, %1, 0f00000000;\n"
        "  @low mov.f32 value, 0f3F800000;\n"
        "  add.f32 %0, value, value; }"
        : "=f"(out[threadIdx.x])
        : "f"(in[threadIdx.x]));
  } else {
    out[threadIdx.x] = in[threadIdx.x] < 0 ? 2.0f : 0.0f;
  }
}

__global__ void add_all(const float* in, float* out) { atomicAdd(out, in[threadIdx.x]); }

__global__ void copy_elements(const float* in, float* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i];
}
__global__ void scale_elements(float* out, float factor, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] *= factor;
}

template <bool kBug>
__global__ void large_index(float* out, int row, int columns) {
  const int wraps = row * columns;
  const long long right = static_cast<long long>(row) * columns;
  if (threadIdx.x == 0) out[0] = kBug ? static_cast<float>(wraps) : static_cast<float>(right);
}

__global__ void dynamic_shared(float* out) {
  extern __shared__ float s[];
  s[threadIdx.x] = 1;
  out[threadIdx.x] = s[threadIdx.x];
}

template <bool kBug>
__global__ void spin(float* out) {
  volatile float* flag = out;
  if (threadIdx.x == 1) *flag = 1;
  // A thread that another has to set free: no progress is promised without a barrier.
  if (!kBug) __syncthreads();
  while (kBug && *flag != 2) {
  }
}

__global__ void __launch_bounds__(128) bounded(float* out) { out[threadIdx.x] = 1; }

}  // namespace

#define RUN(kernel, blocks, threads, ...)                           \
  [](bool bug, const Memory& m) {                                   \
    if (bug) {                                                      \
      kernel<true><<<blocks, threads, 0, m.stream>>>(__VA_ARGS__);  \
    } else {                                                        \
      kernel<false><<<blocks, threads, 0, m.stream>>>(__VA_ARGS__); \
    }                                                               \
  }

const std::vector<Bug>& kernel_bugs() {
  static const std::vector<Bug> kBugs = {
      {"plain += on a shared counter", RUN(shared_counter, 1, 64, m.out)},
      {"plain += on a global cell from several blocks", RUN(global_counter, 8, 1, m.in)},
      {"no barrier between the steps of a tree sum", RUN(tree_sum, 1, 128, m.in, m.out)},
      {"tile overwritten while others read it", RUN(tile_loop, 1, 64, m.in, m.out)},
      {"warp-synchronous sum without __syncwarp", RUN(warp_sum, 1, 32, m.in, m.out)},
      {"one __syncwarp where two are needed", RUN(warp_exchange, 1, 32, m.in, m.out)},
      {"write ordered with the reads of its own warp only",
       RUN(write_after_other_warp, 1, 64, m.out)},
      {"plain read beside atomics", RUN(read_beside_atomics, 1, 64, m.out)},
      {"in-place reversal", RUN(reverse_in_place, 1, 64, m.in)},
      {"block reads what its neighbour writes", RUN(neighbour_blocks, 4, 64, m.in)},
      {"many threads write one byte", RUN(byte_counter, 1, 64, m.out)},
      {"barrier at two places", RUN(two_barriers, 1, 64, m.out)},
      {"barrier for half of the threads", RUN(half_barrier, 1, 64, m.out)},
      {"barrier after an early return", RUN(early_return, 1, 64, m.out, 50)},
      {"full-mask shuffle in a divergent branch", RUN(divergent_shuffle, 1, 32, m.in, m.out)},
      {"full-mask shuffle after lanes returned", RUN(exited_shuffle, 1, 32, m.in, m.out, 24)},
      {"shuffle from a lane outside the mask", RUN(unnamed_lane, 1, 32, m.in, m.out)},
      {"write past a shared array", RUN(past_shared, 1, 64, m.out)},
      {"write past a global buffer", RUN(past_global, kFloats / 64 + 1, 64, m.out, kFloats)},
      {"read past a local array", RUN(past_local, 1, 32, m.in, m.out)},
      {"misaligned vector load", RUN(vector_load, 1, 32, m.in, m.out)},
      {"unset shared memory", RUN(unset_shared, 1, 64, m.out)},
      {"unset local array", RUN(unset_local, 1, 32, m.in, m.out)},
      {"unset register", RUN(unset_register, 1, 32, m.in, m.out)},
      {"unset global memory",
       [](bool bug, const Memory& m) {
         copy_elements<<<1, 64, 0, m.stream>>>(bug ? m.out : m.in, m.out + 64, 64);
       }},
      {"atomicAdd on an output that nobody zeroed",
       [](bool bug, const Memory& m) {
         if (!bug) cudaMemsetAsync(m.out, 0, sizeof(float), m.stream);
         add_all<<<1, 64, 0, m.stream>>>(m.in, m.out);
       }},
      {"host pointer as an argument",
       [](bool bug, const Memory& m) {
         static float host[64];
         copy_elements<<<1, 64, 0, m.stream>>>(bug ? host : m.in, m.out, 64);
       }},
      {"no blocks",
       [](bool bug, const Memory& m) {
         copy_elements<<<bug ? 0 : 1, 64, 0, m.stream>>>(m.in, m.out, 64);
       }},
      {"2048 threads in a block",
       [](bool bug, const Memory& m) {
         copy_elements<<<1, bug ? 2048 : 1024, 0, m.stream>>>(m.in, m.out, 64);
       }},
      {"more threads than the launch bounds allow",
       [](bool bug, const Memory& m) { bounded<<<1, bug ? 256 : 128, 0, m.stream>>>(m.out); }},
      {"64 KiB of shared memory without opting in",
       [](bool bug, const Memory& m) {
         constexpr int kBytes = 64 * 1024;
         if (!bug) {
           cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                kBytes);
         }
         dynamic_shared<<<1, 32, kBytes, m.stream>>>(m.out);
         if (!bug) {
           cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 0);
         }
       }},
      {"thread that waits for another forever", RUN(spin, 1, 2, m.in)},
      {"int index that overflows", RUN(large_index, 1, 1, m.out, 70000, 70000)},
  };
  return kBugs;
}

void queue_copy(const float* in, float* out, int n, cudaStream_t stream) {
  copy_elements<<<(n + 63) / 64, 64, 0, stream>>>(in, out, n);
}
int ptx_target() {
  cudaFuncAttributes attributes{};
  cudaFuncGetAttributes(&attributes, copy_elements);
  return attributes.ptxVersion;
}
void queue_scale(float* out, float factor, int n, cudaStream_t stream) {
  scale_elements<<<(n + 63) / 64, 64, 0, stream>>>(out, factor, n);
}

}  // namespace planted
