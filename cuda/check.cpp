#include "cuda/check.h"

#include "tensor/error.h"

namespace mf::cuda {

void require_ok(cudaError_t status, const char* call) {
  if (status != cudaSuccess) cudaGetLastError();  // else the next launch would be blamed for it
  check(status == cudaSuccess, "cuda: {} failed; {} ({}): {}", call, cudaGetErrorName(status),
        static_cast<int>(status), cudaGetErrorString(status));
}

void require_ok(cublasStatus_t status, const char* call) {
  check(status == CUBLAS_STATUS_SUCCESS, "cuda: {} failed; {} ({}): {}", call,
        cublasGetStatusName(status), static_cast<int>(status), cublasGetStatusString(status));
}

}  // namespace mf::cuda
