#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "tensor/cpu/target.h"

#if MEMFORMER_VECTOR_BYTES > 16
#include <immintrin.h>
#endif

/// Vectors of the instruction set that this file is compiled for, as far as a compiler cannot make
/// them from a loop: broadcasts, fused multiply-add and transposition for the matrix product.
namespace mf::cpu_kernels::MEMFORMER_ISA {

inline constexpr std::size_t kVectorBytes = MEMFORMER_VECTOR_BYTES;
/// Elements of T in a vector.
template <class T>
inline constexpr int kVector = static_cast<int>(kVectorBytes / sizeof(T));

template <class T>
struct VectorOf {
  using type [[gnu::vector_size(kVectorBytes)]] = T;
  /// The same in memory, where it may lie at any multiple of T.
  using loose [[gnu::vector_size(kVectorBytes), gnu::aligned(alignof(T)), gnu::may_alias]] = T;
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
[[gnu::always_inline]] inline Vector<T> load(const T* x) {
  return *reinterpret_cast<const typename VectorOf<T>::loose*>(x);
}
template <class T>
[[gnu::always_inline]] inline void store(T* x, Vector<T> value) {
  *reinterpret_cast<typename VectorOf<T>::loose*>(x) = value;
}
template <class T>
[[gnu::always_inline]] inline Vector<T> broadcast(T x) {
  return x - Vector<T>{};  // not x + 0, which would turn -0 into 0
}

// load_first: the first `count` elements at x, fewer than a vector, and zeros; store_first: those
// of value to x. Nothing beyond them is read or written.
#if MEMFORMER_VECTOR_BYTES == 64
[[gnu::always_inline]] inline Vector<float> load_first(const float* x, std::int64_t count) {
  return Vector<float>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << count) - 1U), x));
}
[[gnu::always_inline]] inline Vector<double> load_first(const double* x, std::int64_t count) {
  return Vector<double>(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << count) - 1U), x));
}
[[gnu::always_inline]] inline void store_first(float* x, Vector<float> value, std::int64_t count) {
  _mm512_mask_storeu_ps(x, static_cast<__mmask16>((1U << count) - 1U), __m512(value));
}
[[gnu::always_inline]] inline void store_first(double* x, Vector<double> value,
                                               std::int64_t count) {
  _mm512_mask_storeu_pd(x, static_cast<__mmask8>((1U << count) - 1U), __m512d(value));
}
#elif MEMFORMER_VECTOR_BYTES == 32
[[gnu::always_inline]] inline __m256i first_floats(std::int64_t count) {
  const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), index);
}
[[gnu::always_inline]] inline __m256i first_doubles(std::int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
[[gnu::always_inline]] inline Vector<float> load_first(const float* x, std::int64_t count) {
  return Vector<float>(_mm256_maskload_ps(x, first_floats(count)));
}
[[gnu::always_inline]] inline Vector<double> load_first(const double* x, std::int64_t count) {
  return Vector<double>(_mm256_maskload_pd(x, first_doubles(count)));
}
[[gnu::always_inline]] inline void store_first(float* x, Vector<float> value, std::int64_t count) {
  _mm256_maskstore_ps(x, first_floats(count), __m256(value));
}
[[gnu::always_inline]] inline void store_first(double* x, Vector<double> value,
                                               std::int64_t count) {
  _mm256_maskstore_pd(x, first_doubles(count), __m256d(value));
}
#else
template <class T>
[[gnu::always_inline]] inline Vector<T> load_first(const T* x, std::int64_t count) {
  Vector<T> value{};
  for (int i = 0; i < count; ++i) value[i] = x[i];
  return value;
}
template <class T>
[[gnu::always_inline]] inline void store_first(T* x, Vector<T> value, std::int64_t count) {
  for (int i = 0; i < count; ++i) x[i] = value[i];
}
#endif

/// a b + c, rounded once where the instruction set can.
#if MEMFORMER_VECTOR_BYTES == 64
[[gnu::always_inline]] inline Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) {
  return Vector<float>(_mm512_fmadd_ps(__m512(a), __m512(b), __m512(c)));
}
[[gnu::always_inline]] inline Vector<double> fma(Vector<double> a, Vector<double> b,
                                                 Vector<double> c) {
  return Vector<double>(_mm512_fmadd_pd(__m512d(a), __m512d(b), __m512d(c)));
}
#elif MEMFORMER_VECTOR_BYTES == 32
[[gnu::always_inline]] inline Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) {
  return Vector<float>(_mm256_fmadd_ps(__m256(a), __m256(b), __m256(c)));
}
[[gnu::always_inline]] inline Vector<double> fma(Vector<double> a, Vector<double> b,
                                                 Vector<double> c) {
  return Vector<double>(_mm256_fmadd_pd(__m256d(a), __m256d(b), __m256d(c)));
}
#else
template <class V>
[[gnu::always_inline]] inline V fma(V a, V b, V c) {
  return a * b + c;
}
#endif

namespace registers {

/// The first (or second) result of exchanging, between vectors a and b, the elements whose index
/// differs in bit `Step`.
template <int Step, bool Second, class V, int... I>
[[gnu::always_inline]] inline V exchange(V a, V b, std::integer_sequence<int, I...>) {
  constexpr int kSize = sizeof...(I);
  if constexpr (Second) {
    return __builtin_shufflevector(a, b, ((I & Step) != 0 ? I + kSize : I + Step)...);
  } else {
    return __builtin_shufflevector(a, b, ((I & Step) != 0 ? I - Step + kSize : I)...);
  }
}

template <std::size_t Step, class V, std::size_t Size>
[[gnu::always_inline]] inline void transpose_from(V (&rows)[Size]) {
  if constexpr (Step < Size) {
    using Indices = std::make_integer_sequence<int, static_cast<int>(Size)>;
#pragma GCC unroll 16
    for (std::size_t i = 0; i < Size; ++i) {
      if ((i & Step) != 0) continue;
      const V a = rows[i];
      const V b = rows[i + Step];
      rows[i] = exchange<static_cast<int>(Step), false>(a, b, Indices{});
      rows[i + Step] = exchange<static_cast<int>(Step), true>(a, b, Indices{});
    }
    transpose_from<2 * Step>(rows);
  }
}

}  // namespace registers

/// Transposes a square block held in registers: log2(Size) rounds of exchanges.
template <class V, std::size_t Size>
[[gnu::always_inline]] inline void transpose(V (&rows)[Size]) {
  registers::transpose_from<1>(rows);
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
