#pragma once

#include "tensor/backend.h"
#include "tensor/cpu/target.h"

/// The CPU's kernels, one file per family. The contract of each is the comment of its entry in
/// tensor/backend.h.
namespace mf::cpu_kernels::MEMFORMER_ISA {

#include "tensor/kernel_functions.inc"

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
