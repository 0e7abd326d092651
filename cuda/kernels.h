#pragma once

#include "tensor/backend.h"

/// The CUDA backend's kernels: host functions that queue the work on the context's stream and
/// return. The contract of each is the comment of its entry in tensor/backend.h.
namespace mf::cuda {

#include "tensor/kernel_functions.inc"

/// y = f(x) and gx *= f'(x); x, y and gx contiguous. Of matmul_map_backward.
void map_and_differentiate(Context&, Unary function, View x, MutView gx, MutView y);

}  // namespace mf::cuda
