#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

/// Kernels whose results are known exactly, or within stated units in the last place. They are the
/// test of whatever executes them: the interpreter here, a device elsewhere.
namespace conformance {

inline constexpr int kWarp = 32;

/// Modes: 0 idx, 1 up, 2 down, 3 xor. Lanes of `mask` exchange; others leave out[lane] alone.
void shuffle(int mode, int width, int operand, std::uint32_t mask, const int* in, int* out);

/// out[6 * lane]: ballot, any, all, match_any, match_all, its flag, for the lanes of `mask`.
void vote(std::uint32_t mask, const int* in, std::uint32_t* out);
/// out[lane] = the active mask in the branch that lane takes: even, odd below 16, or odd above.
void active_mask(std::uint32_t* out);
/// out[3 * lane]: sum, minimum and maximum of the warp.
void warp_reduce(const int* in, int* out);

/// 256 threads in 2 blocks on totals[16], zeroed except where an operation starts elsewhere.
struct AtomicTotals {
  int add, sub, max, min, exchanged_times;
  std::uint32_t inc, dec, bits_and, bits_or, bits_xor, cas;
  std::uint64_t add64, max64;
  float add_float;
  double add_double;
  int shared_add;
};
void atomics(AtomicTotals* totals);

/// out[k * n + i], k: rn, rd, ru, rz to int; the same to unsigned, long long, unsigned long long.
void float_to_integer(const float* in, std::int64_t* out, int n);
void double_to_integer(const double* in, std::int64_t* out, int n);
/// out[k * n + i], k: rn, rd, ru, rz from int64 to float (as bits) ...
void integer_to_float(const std::int64_t* in, float* out, int n);
void double_to_float(const double* in, float* out, int n);
/// half and bfloat16 bits of in, then the float values of all 65536 bit patterns of each.
void to_small(const float* in, std::uint16_t* half, std::uint16_t* bfloat, int n);
void from_small(float* half, float* bfloat);

/// out[k * n + i]: add, mul, div, fma (c = a), sqrt for the modes rn, rd, ru, rz in turn.
void rounding_float(const float* a, const float* b, float* out, int n);
void rounding_double(const double* a, const double* b, double* out, int n);
/// out[k * n + i]: min, max, and saturated a, a + b and fma(a, b, a); then for each comparison of
/// PTX (eq ne lt le gt ge equ neu ltu leu gtu geu num nan) 0 or 1.
inline constexpr int kComparisonResults = 5 + 14;
void comparisons(const float* a, const float* b, float* out, int n);

inline constexpr int kIntegerResults = 24;
void integers(const std::int64_t* a, const std::int64_t* b, std::uint64_t* out, int n);

/// 128 threads: counts, any, all over a barrier; a pipeline of two halves with a named barrier.
void barriers(const int* in, int* out);

/// Local array indexed at run time, recursion, and a switch.
void local_and_calls(const int* in, int* out, int n);
/// Loads of 1, 2, 4, 8 and 16 bytes and their stores, shifted by one element.
void vectors(const float* in, float* out, int n);
/// Values of a constant table, of the same after `scale` was copied to it, and of a variable.
void set_constant(float scale);
void constants(const int* index, float* out, int n);

/// Maths functions by number; names and references are in the test.
inline constexpr int kFunctions = 24;
void function_float(int which, const float* in, float* out, int n);
void function_double(int which, const double* in, double* out, int n);

}  // namespace conformance
