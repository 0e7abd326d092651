#pragma once

#include "tensor/backend.h"

/// The CPU's table of kernels, once per instruction set; each from the file of that name.
namespace mf::cpu_kernels {

namespace portable {
const Backend& table();
}
namespace avx2 {
const Backend& table();
}
namespace avx512 {
const Backend& table();
}

/// The entries that are the same for all: allocation and transfers.
Backend memory_functions();

}  // namespace mf::cpu_kernels
