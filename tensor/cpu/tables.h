#pragma once

#include "tensor/backend.h"
#include "tensor/cpu/isa.h"

/// The CPU's table of kernels and what is to be said of them, once per instruction set; each from
/// the file of that name.
namespace mf::cpu_kernels {

namespace portable {
const Backend& table();
IsaTraits traits();
FmaLoop fma_loop(DType dtype);
}  // namespace portable
namespace avx2 {
const Backend& table();
IsaTraits traits();
FmaLoop fma_loop(DType dtype);
}  // namespace avx2
namespace avx512 {
const Backend& table();
IsaTraits traits();
FmaLoop fma_loop(DType dtype);
}  // namespace avx512

/// The entries that are the same for all: allocation and transfers.
Backend memory_functions();

}  // namespace mf::cpu_kernels
