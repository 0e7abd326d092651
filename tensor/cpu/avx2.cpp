// The kernels for x86-64 with AVX2 and FMA.
#if defined(__x86_64__)
#include "tensor/cpu/foundation.h"

#define MEMFORMER_ISA avx2
#define MEMFORMER_VECTOR_BYTES 32
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,bmi,bmi2")
#endif

#include "tensor/cpu/kernels.inc"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
