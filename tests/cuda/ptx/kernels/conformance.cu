#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "conformance.h"

namespace conformance {
namespace {

constexpr std::uint32_t kFull = 0xffffffffu;

__device__ int index_of_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// ---- Warp operations ----

template <int kWidth>
__global__ void shuffle_kernel(int mode, int operand, std::uint32_t mask, const int* in, int* out) {
  const int lane = threadIdx.x;
  const int value = in[lane];
  if ((mask >> lane & 1) == 0) return;
  switch (mode) {
    case 0:
      out[lane] = __shfl_sync(mask, value, operand, kWidth);
      break;
    case 1:
      out[lane] = __shfl_up_sync(mask, value, operand, kWidth);
      break;
    case 2:
      out[lane] = __shfl_down_sync(mask, value, operand, kWidth);
      break;
    default:
      out[lane] = __shfl_xor_sync(mask, value, operand, kWidth);
      break;
  }
}

__global__ void vote_kernel(std::uint32_t mask, const int* in, std::uint32_t* out) {
  const int lane = threadIdx.x;
  const int value = in[lane];
  if ((mask >> lane & 1) == 0) return;
  std::uint32_t* mine = out + 6 * lane;
  mine[0] = __ballot_sync(mask, value > 0);
  mine[1] = __any_sync(mask, value > 0);
  mine[2] = __all_sync(mask, value > 0);
  mine[3] = __match_any_sync(mask, value);
  int all = 0;
  mine[4] = __match_all_sync(mask, value, &all);
  mine[5] = all;
}

__global__ void active_mask_kernel(std::uint32_t* out) {
  const int lane = threadIdx.x;
  if (lane % 2 == 0) {
    out[lane] = __activemask();
  } else if (lane < 16) {
    out[lane] = __activemask() + 0;
  } else {
    out[lane] = __activemask();
  }
}

__global__ void warp_reduce_kernel(const int* in, int* out) {
  const int lane = threadIdx.x;
  int sum = in[lane], least = sum, most = sum;
#if __CUDA_ARCH__ >= 800
  sum = __reduce_add_sync(kFull, sum);
  least = __reduce_min_sync(kFull, least);
  most = __reduce_max_sync(kFull, most);
#else
  for (int k = 16; k > 0; k /= 2) {
    sum += __shfl_xor_sync(kFull, sum, k);
    least = min(least, __shfl_xor_sync(kFull, least, k));
    most = max(most, __shfl_xor_sync(kFull, most, k));
  }
#endif
  out[3 * lane] = sum;
  out[3 * lane + 1] = least;
  out[3 * lane + 2] = most;
}

// ---- Atomics ----

__global__ void atomics_kernel(AtomicTotals* t) {
  __shared__ int shared;
  const int i = index_of_thread();
  if (threadIdx.x == 0) shared = 0;
  __syncthreads();
  atomicAdd(&t->add, i);
  atomicSub(&t->sub, i);
  atomicMax(&t->max, i - 100);
  atomicMin(&t->min, 100 - i);
  if (atomicExch(&t->exchanged_times, 1) == 0) atomicAdd(&t->shared_add, 1'000'000);
  atomicInc(&t->inc, 99);
  atomicDec(&t->dec, 99);
  atomicAnd(&t->bits_and, ~(1u << (i % 8)));
  atomicOr(&t->bits_or, 1u << (i % 32));
  atomicXor(&t->bits_xor, static_cast<std::uint32_t>(i));
  std::uint32_t seen = 0;  // addition by compare and swap
  for (std::uint32_t old = ~0u; old != seen;) {
    old = seen;
    seen = atomicCAS(&t->cas, old, old + 3);
  }
  using u64 = unsigned long long;
  atomicAdd(reinterpret_cast<u64*>(&t->add64), u64{1} << 33);
  atomicMax(reinterpret_cast<u64*>(&t->max64), static_cast<u64>(i) << 40);
  atomicAdd(&t->add_float, 0.5f);
  atomicAdd(&t->add_double, 0.25);
  atomicAdd(&shared, 2);
  __syncthreads();
  if (threadIdx.x == 0) atomicAdd(&t->shared_add, shared);
}

// ---- Conversions and rounding ----

__global__ void float_to_integer_kernel(const float* in, std::int64_t* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const float x = in[i];
  out[i] = __float2int_rn(x), out[n + i] = __float2int_rd(x);
  out[2 * n + i] = __float2int_ru(x), out[3 * n + i] = __float2int_rz(x);
  out[4 * n + i] = __float2uint_rn(x), out[5 * n + i] = __float2uint_rd(x);
  out[6 * n + i] = __float2uint_ru(x), out[7 * n + i] = __float2uint_rz(x);
  out[8 * n + i] = __float2ll_rn(x), out[9 * n + i] = __float2ll_rd(x);
  out[10 * n + i] = __float2ll_ru(x), out[11 * n + i] = __float2ll_rz(x);
  out[12 * n + i] = __float2ull_rn(x), out[13 * n + i] = __float2ull_rd(x);
  out[14 * n + i] = __float2ull_ru(x), out[15 * n + i] = __float2ull_rz(x);
}

__global__ void double_to_integer_kernel(const double* in, std::int64_t* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const double x = in[i];
  out[i] = __double2int_rn(x), out[n + i] = __double2int_rd(x);
  out[2 * n + i] = __double2int_ru(x), out[3 * n + i] = __double2int_rz(x);
  out[4 * n + i] = __double2uint_rn(x), out[5 * n + i] = __double2uint_rd(x);
  out[6 * n + i] = __double2uint_ru(x), out[7 * n + i] = __double2uint_rz(x);
  out[8 * n + i] = __double2ll_rn(x), out[9 * n + i] = __double2ll_rd(x);
  out[10 * n + i] = __double2ll_ru(x), out[11 * n + i] = __double2ll_rz(x);
  out[12 * n + i] = __double2ull_rn(x), out[13 * n + i] = __double2ull_rd(x);
  out[14 * n + i] = __double2ull_ru(x), out[15 * n + i] = __double2ull_rz(x);
}

__global__ void integer_to_float_kernel(const std::int64_t* in, float* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const long long x = in[i];
  out[i] = __ll2float_rn(x), out[n + i] = __ll2float_rd(x);
  out[2 * n + i] = __ll2float_ru(x), out[3 * n + i] = __ll2float_rz(x);
}

__global__ void double_to_float_kernel(const double* in, float* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const double x = in[i];
  out[i] = __double2float_rn(x), out[n + i] = __double2float_rd(x);
  out[2 * n + i] = __double2float_ru(x), out[3 * n + i] = __double2float_rz(x);
}

__global__ void to_small_kernel(const float* in, std::uint16_t* half, std::uint16_t* bfloat,
                                int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  half[i] = __half_as_ushort(__float2half_rn(in[i]));
  bfloat[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
}

__global__ void from_small_kernel(float* half, float* bfloat) {
  const int i = index_of_thread();
  half[i] = __half2float(__ushort_as_half(static_cast<unsigned short>(i)));
  bfloat[i] = __bfloat162float(__ushort_as_bfloat16(static_cast<unsigned short>(i)));
}

__global__ void rounding_float_kernel(const float* pa, const float* pb, float* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const float a = pa[i], b = pb[i];
  const float results[] = {
      __fadd_rn(a, b),    __fadd_rd(a, b),    __fadd_ru(a, b),    __fadd_rz(a, b),
      __fmul_rn(a, b),    __fmul_rd(a, b),    __fmul_ru(a, b),    __fmul_rz(a, b),
      __fdiv_rn(a, b),    __fdiv_rd(a, b),    __fdiv_ru(a, b),    __fdiv_rz(a, b),
      __fmaf_rn(a, b, a), __fmaf_rd(a, b, a), __fmaf_ru(a, b, a), __fmaf_rz(a, b, a),
      __fsqrt_rn(a),      __fsqrt_rd(a),      __fsqrt_ru(a),      __fsqrt_rz(a)};
  for (int k = 0; k < 20; ++k) out[k * n + i] = results[k];
}

__global__ void rounding_double_kernel(const double* pa, const double* pb, double* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const double a = pa[i], b = pb[i];
  const double results[] = {
      __dadd_rn(a, b),   __dadd_rd(a, b), __dadd_ru(a, b),   __dadd_rz(a, b),   __dmul_rn(a, b),
      __dmul_rd(a, b),   __dmul_ru(a, b), __dmul_rz(a, b),   __ddiv_rn(a, b),   __ddiv_rd(a, b),
      __ddiv_ru(a, b),   __ddiv_rz(a, b), __fma_rn(a, b, a), __fma_rd(a, b, a), __fma_ru(a, b, a),
      __fma_rz(a, b, a), __dsqrt_rn(a),   __dsqrt_rd(a),     __dsqrt_ru(a),     __dsqrt_rz(a)};
  for (int k = 0; k < 20; ++k) out[k * n + i] = results[k];
}

#define COMPARE(which)                                                                          \
  asm("{ .reg .pred p; setp." which ".f32 p, %1, %2; selp.f32 %0, 0f3F800000, 0f00000000, p; }" \
      : "=f"(*next)                                                                             \
      : "f"(a), "f"(b));                                                                        \
  next += n

__global__ void comparisons_kernel(const float* pa, const float* pb, float* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const float a = pa[i], b = pb[i];
  out[i] = fminf(a, b), out[n + i] = fmaxf(a, b), out[2 * n + i] = __saturatef(a);
  asm("add.sat.f32 %0, %1, %2;" : "=f"(out[3 * n + i]) : "f"(a), "f"(b));
  asm("fma.rn.sat.f32 %0, %1, %2, %1;" : "=f"(out[4 * n + i]) : "f"(a), "f"(b));
  float* next = out + 5 * n + i;
  COMPARE("eq");
  COMPARE("ne");
  COMPARE("lt");
  COMPARE("le");
  COMPARE("gt");
  COMPARE("ge");
  COMPARE("equ");
  COMPARE("neu");
  COMPARE("ltu");
  COMPARE("leu");
  COMPARE("gtu");
  COMPARE("geu");
  COMPARE("num");
  COMPARE("nan");
}
#undef COMPARE

// ---- Integers ----

__device__ std::uint32_t bit_field(std::uint32_t a, std::uint32_t position, std::uint32_t length) {
  std::uint32_t result;
  asm("bfe.u32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(position), "r"(length));
  return result;
}
__device__ std::int64_t signed_field(std::int64_t a, std::uint32_t position, std::uint32_t length) {
  std::int64_t result;
  asm("bfe.s64 %0, %1, %2, %3;" : "=l"(result) : "l"(a), "r"(position), "r"(length));
  return result;
}
/// __byte_perm has no sign replication.
__device__ std::uint32_t permuted(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  std::uint32_t result;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(selector));
  return result;
}
__device__ std::uint32_t majority(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xe8;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}
__device__ std::uint64_t clamped_shift(std::uint64_t a, std::uint32_t n) {
  std::uint64_t left, right;
  asm("shl.b64 %0, %1, %2;" : "=l"(left) : "l"(a), "r"(n));
  asm("shr.s64 %0, %1, %2;" : "=l"(right) : "l"(a), "r"(n));
  return left ^ right;
}

__global__ void integers_kernel(const std::int64_t* pa, const std::int64_t* pb, std::uint64_t* out,
                                int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  const std::int64_t a = pa[i], b = pb[i];
  const auto ua = static_cast<std::uint64_t>(a), ub = static_cast<std::uint64_t>(b);
  const auto a32 = static_cast<std::int32_t>(a), b32 = static_cast<std::int32_t>(b);
  const auto ua32 = static_cast<std::uint32_t>(a), ub32 = static_cast<std::uint32_t>(b);
  const std::uint64_t results[kIntegerResults] = {
      ua * ub,
      static_cast<std::uint64_t>(__mul64hi(a, b)),
      __umul64hi(ua, ub),
      b != 0 ? static_cast<std::uint64_t>(a / b) : 0,
      b != 0 ? static_cast<std::uint64_t>(a % b) : 0,
      ub != 0 ? ua / ub : 0,
      ub != 0 ? ua % ub : 0,
      static_cast<std::uint64_t>(std::int64_t{a32} * b32),
      static_cast<std::uint32_t>(__mulhi(a32, b32)),
      __umulhi(ua32, ub32),
      static_cast<std::uint64_t>(__popcll(a)),
      static_cast<std::uint64_t>(__clzll(a)),
      static_cast<std::uint64_t>(__clz(a32)),
      __brevll(ua),
      __brev(ua32),
      static_cast<std::uint64_t>(__ffsll(a)),
      permuted(ua32, ub32, 0x7a31),
      __funnelshift_l(ua32, ub32, ub32),
      __funnelshift_rc(ua32, ub32, ub32 & 63),
      bit_field(ua32, ub32 & 63, static_cast<std::uint32_t>(ub >> 8) & 63),
      static_cast<std::uint64_t>(
          signed_field(a, ub32 & 127, static_cast<std::uint32_t>(ub >> 8) & 127)),
      majority(ua32, ub32, ua32 * 3),
      clamped_shift(ua, ub32 & 127),
      static_cast<std::uint64_t>(min(a, b)) ^ max(ua, ub)};
  for (int k = 0; k < kIntegerResults; ++k) out[k * n + i] = results[k];
}

// ---- Barriers, local memory, calls, vectors, constants ----

__global__ void barriers_kernel(const int* in, int* out) {
  __shared__ int stage[128];
  const int t = threadIdx.x;
  const int value = in[t];
  out[4 * t] = __syncthreads_count(value > 0);
  out[4 * t + 1] = __syncthreads_or(value > 90);
  out[4 * t + 2] = __syncthreads_and(value > 0);
  // Only the upper half meets here, twice.
  if (t >= 64) {
    stage[t] = value;
    asm volatile("bar.sync 1, 64;" ::: "memory");
    const int neighbour = stage[64 + (t + 1) % 64];
    asm volatile("bar.sync 1, 64;" ::: "memory");
    stage[t] = neighbour * 10;
  } else {
    stage[t] = value * 100;
  }
  __syncthreads();
  out[4 * t + 3] = stage[127 - t];
}

__device__ __noinline__ int fibonacci(int n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

__device__ int by_case(int which, int x) {
  switch (which) {
    case 0:
      return x + 1;
    case 1:
      return x * x;
    case 2:
      return ~x;
    case 3:
      return x >> 2;
    case 4:
      return x ^ 0x55;
    case 5:
      return 7 - x;
    case 6:
      return x % 5;
    default:
      return -x;
  }
}

__global__ void local_and_calls_kernel(const int* in, int* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  int table[16];
  for (int k = 0; k < 16; ++k) table[k] = in[(i + k) % n] * (k + 1);
  int sum = 0;
  for (int k = 0; k < n; ++k) sum += table[in[k] & 15];
  out[3 * i] = sum;
  out[3 * i + 1] = fibonacci(in[i] & 7);
  out[3 * i + 2] = by_case(in[i] & 7, in[i]);
}

template <class T>
__device__ void copy_shifted(const float* in, float* out, int n) {
  const auto* from = reinterpret_cast<const T*>(in);
  auto* to = reinterpret_cast<T*>(out);
  const int count = n * static_cast<int>(sizeof(float)) / static_cast<int>(sizeof(T));
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[(i + 1) % count];
}

__global__ void vectors_kernel(const float* in, float* out, int n) {
  copy_shifted<unsigned char>(in, out, n);
  copy_shifted<short>(in, out + n, n);
  copy_shifted<float>(in, out + 2 * n, n);
  copy_shifted<double>(in, out + 3 * n, n);
  copy_shifted<float2>(in, out + 4 * n, n);
  copy_shifted<uchar4>(in, out + 5 * n, n);
  copy_shifted<float4>(in, out + 6 * n, n);
  copy_shifted<double2>(in, out + 7 * n, n);
}

__constant__ float table[8] = {1, 2, 4, 8, 16, 32, 64, 128};
__constant__ float scale = 1;
__device__ int calls = 40;

__global__ void constants_kernel(const int* index, float* out, int n) {
  const int i = index_of_thread();
  if (i >= n) return;
  out[2 * i] = table[index[i] & 7] * scale;
  out[2 * i + 1] = static_cast<float>(calls + 2);
}

// ---- Maths ----

template <class T>
__device__ T function(int which, T x) {
  switch (which) {
    case 0:
      return exp(x);
    case 1:
      return log(x);
    case 2:
      return tanh(x);
    case 3:
      return erf(x);
    case 4:
      return erfc(x);
    case 5:
      return normcdf(x);
    case 6:
      return sqrt(x);
    case 7:
      return rsqrt(x);
    case 8:
      return log1p(x);
    case 9:
      return expm1(x);
    case 10:
      return cos(x);
    case 11:
      return sin(x);
    case 12: {
      T s, c;
      sincospi(x, &s, &c);
      return x < 0 ? s : c;
    }
    case 13:
      return cospi(x);
    case 14:
      return exp2(x);
    case 15:
      return log2(x);
    case 16:
      return pow(x, T(1.75));
    case 17:
      return T(1) / x;
    case 18:
      return cbrt(x);
    case 19:
      return atan2(x, T(2));
    case 20:
      return fmod(x, T(0.7));
    case 21:
      return round(x);
    case 22:
      return rint(x);
    default:
      return floor(x) - trunc(x);
  }
}

template <class T>
__global__ void function_kernel(int which, const T* in, T* out, int n) {
  const int i = index_of_thread();
  if (i < n) out[i] = function(which, in[i]);
}

int blocks(int n) { return (n + 127) / 128; }

}  // namespace

void shuffle(int mode, int width, int operand, std::uint32_t mask, const int* in, int* out) {
  switch (width) {
    case 1:
      shuffle_kernel<1><<<1, kWarp>>>(mode, operand, mask, in, out);
      break;
    case 2:
      shuffle_kernel<2><<<1, kWarp>>>(mode, operand, mask, in, out);
      break;
    case 4:
      shuffle_kernel<4><<<1, kWarp>>>(mode, operand, mask, in, out);
      break;
    case 8:
      shuffle_kernel<8><<<1, kWarp>>>(mode, operand, mask, in, out);
      break;
    case 16:
      shuffle_kernel<16><<<1, kWarp>>>(mode, operand, mask, in, out);
      break;
    default:
      shuffle_kernel<32><<<1, kWarp>>>(mode, operand, mask, in, out);
      break;
  }
}
void vote(std::uint32_t mask, const int* in, std::uint32_t* out) {
  vote_kernel<<<1, kWarp>>>(mask, in, out);
}
void active_mask(std::uint32_t* out) { active_mask_kernel<<<1, kWarp>>>(out); }
void warp_reduce(const int* in, int* out) { warp_reduce_kernel<<<1, kWarp>>>(in, out); }
void atomics(AtomicTotals* totals) { atomics_kernel<<<2, 128>>>(totals); }
void float_to_integer(const float* in, std::int64_t* out, int n) {
  float_to_integer_kernel<<<blocks(n), 128>>>(in, out, n);
}
void double_to_integer(const double* in, std::int64_t* out, int n) {
  double_to_integer_kernel<<<blocks(n), 128>>>(in, out, n);
}
void integer_to_float(const std::int64_t* in, float* out, int n) {
  integer_to_float_kernel<<<blocks(n), 128>>>(in, out, n);
}
void double_to_float(const double* in, float* out, int n) {
  double_to_float_kernel<<<blocks(n), 128>>>(in, out, n);
}
void to_small(const float* in, std::uint16_t* half, std::uint16_t* bfloat, int n) {
  to_small_kernel<<<blocks(n), 128>>>(in, half, bfloat, n);
}
void from_small(float* half, float* bfloat) { from_small_kernel<<<256, 256>>>(half, bfloat); }
void rounding_float(const float* a, const float* b, float* out, int n) {
  rounding_float_kernel<<<blocks(n), 128>>>(a, b, out, n);
}
void rounding_double(const double* a, const double* b, double* out, int n) {
  rounding_double_kernel<<<blocks(n), 128>>>(a, b, out, n);
}
void comparisons(const float* a, const float* b, float* out, int n) {
  comparisons_kernel<<<blocks(n), 128>>>(a, b, out, n);
}
void integers(const std::int64_t* a, const std::int64_t* b, std::uint64_t* out, int n) {
  integers_kernel<<<blocks(n), 128>>>(a, b, out, n);
}
void barriers(const int* in, int* out) { barriers_kernel<<<1, 128>>>(in, out); }
void local_and_calls(const int* in, int* out, int n) {
  local_and_calls_kernel<<<blocks(n), 128>>>(in, out, n);
}
void vectors(const float* in, float* out, int n) { vectors_kernel<<<1, 128>>>(in, out, n); }
void set_constant(float value) { cudaMemcpyToSymbol(scale, &value, sizeof value); }
void constants(const int* index, float* out, int n) {
  constants_kernel<<<blocks(n), 128>>>(index, out, n);
}
void function_float(int which, const float* in, float* out, int n) {
  function_kernel<<<blocks(n), 128>>>(which, in, out, n);
}
void function_double(int which, const double* in, double* out, int n) {
  function_kernel<<<blocks(n), 128>>>(which, in, out, n);
}

}  // namespace conformance
