#pragma once

// What the kernels include from outside this folder. avx2.cpp and avx512.cpp include it before they
// choose their instruction set: an inline function of another library must not be compiled for a
// processor that the program may not run on, since the linker keeps one copy of it for everybody.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <numbers>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "tensor/attention_sizes.h"
#include "tensor/backend.h"
#include "tensor/cpu/eigen_product.h"
#include "tensor/cpu/parallel.h"
#include "tensor/cpu/tables.h"
#include "tensor/dropout.h"
#include "tensor/memory.h"
#include "tensor/random.h"
