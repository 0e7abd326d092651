#pragma once

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

namespace mf::cuda {

/// Throws Error that names `call` and the status, unless the call succeeded. Every call of CUDA and
/// cuBLAS goes through these; an error of a kernel that ran earlier may show at any later call.
void require_ok(cudaError_t status, const char* call);
void require_ok(cublasStatus_t status, const char* call);

}  // namespace mf::cuda
