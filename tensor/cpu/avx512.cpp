// The kernels for x86-64 with AVX-512.
#if defined(__x86_64__)
#include "tensor/cpu/foundation.h"

#define MEMFORMER_ISA avx512
#define MEMFORMER_VECTOR_BYTES 64
#if defined(__clang__)
#pragma clang attribute push(                                                                 \
    __attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2")
#pragma GCC target("prefer-vector-width=512")
#endif

#include "tensor/cpu/kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
