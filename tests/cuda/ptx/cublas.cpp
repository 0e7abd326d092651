#include <cublas_v2.h>

#include <bit>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "runtime.h"

/// The matrix products of cuBLAS. Arguments are checked as the library documents them, memory when
/// the product runs. Each element is one chain of fused multiply-adds over k = 0, 1, ...
namespace standin {

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
  cublasPointerMode_t pointer_mode = CUBLAS_POINTER_MODE_HOST;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
  cublasAtomicsMode_t atomics = CUBLAS_ATOMICS_NOT_ALLOWED;
};
std::map<cublasHandle_t, Handle>& handles() {
  static auto* h = new std::map<cublasHandle_t, Handle>;
  return *h;
}

/// Body of a cuBLAS call; `body` gets the handle's state.
template <class F>
cublasStatus_t blas_call(const char* name, cublasHandle_t handle, F body) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure(name)) return static_cast<cublasStatus_t>(code);
  const auto found = handles().find(handle);
  if (found == handles().end()) {
    report(Kind::argument, std::string(name) + ": no such handle");
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  if (sticky_error() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  return body(found->second);
}

struct Matrix {
  std::uint64_t address = 0;
  bool transposed = false;
  std::int64_t rows = 0, columns = 0;  ///< as stored
  std::int64_t leading = 0;
  std::int64_t stride = 0;  ///< elements from one product of a batch to the next
};

struct Product {
  std::string call;
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  Matrix a, b, c;
  const void* alpha = nullptr;
  const void* beta = nullptr;
  bool tf32 = false;  ///< operands are rounded
};

Matrix stored(const void* data, cublasOperation_t operation, std::int64_t rows,
              std::int64_t columns, std::int64_t leading, std::int64_t stride) {
  const bool transposed = operation != CUBLAS_OP_N;
  return {reinterpret_cast<std::uint64_t>(data), transposed, transposed ? columns : rows,
          transposed ? rows : columns,           leading,    stride};
}

template <class T>
T element(const Matrix& x, const T* data, std::int64_t row, std::int64_t column) {
  return x.transposed ? data[column + row * x.leading] : data[row + column * x.leading];
}

/// Touches each column of the matrix; false if one may not be touched.
template <class T>
bool touch(const Product& p, const char* name, std::uint32_t operation, const Matrix& x,
           std::int64_t batch, bool write) {
  for (std::int64_t column = 0; column < x.columns; ++column) {
    const auto offset = static_cast<std::uint64_t>(batch * x.stride + column * x.leading);
    if (!touch_range(p.call + ", matrix " + name, operation, x.address + offset * sizeof(T),
                     static_cast<std::size_t>(x.rows) * sizeof(T), write)) {
      return false;
    }
  }
  return true;
}

template <class T>
T* view(const Matrix& x, std::int64_t batch) {
  return reinterpret_cast<T*>(device_memory().view(x.address)) + batch * x.stride;
}

/// A float with the 10 bits of mantissa that TF32 has, halves rounded away from zero.
float tf32_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::isfinite(value) ? std::bit_cast<float>((bits + 0x1000U) & ~0x1fffU) : value;
}
double tf32_of(double value) { return value; }

template <class T>
bool multiply(const Product& p, std::uint32_t operation, T alpha, T beta) {
  for (std::int64_t batch = 0; batch < p.batch; ++batch) {
    const bool reads = p.k > 0 && alpha != T{0};
    if (reads && !(touch<T>(p, "A", operation, p.a, batch, false) &&
                   touch<T>(p, "B", operation, p.b, batch, false))) {
      return false;
    }
    if (beta != T{0} && !touch<T>(p, "C", operation, p.c, batch, false)) return false;
    if (!touch<T>(p, "C", operation, p.c, batch, true)) return false;
    const T* a = view<T>(p.a, batch);
    const T* b = view<T>(p.b, batch);
    T* c = view<T>(p.c, batch);
    const auto operand = [&](T value) { return p.tf32 ? tf32_of(value) : value; };
    for (std::int64_t j = 0; j < p.n; ++j) {
      for (std::int64_t i = 0; i < p.m; ++i) {
        T sum = 0;
        for (std::int64_t l = 0; reads && l < p.k; ++l) {
          sum = std::fma(operand(element(p.a, a, i, l)), operand(element(p.b, b, l, j)), sum);
        }
        T& target = c[i + j * p.c.leading];
        // beta 0 means that c is not read: it may hold NaN.
        target = beta == T{0} ? alpha * sum : std::fma(beta, target, alpha * sum);
      }
    }
  }
  return true;
}

std::optional<std::string> wrong_argument(const Product& p) {
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0) return "a negative extent";
  const auto leading_fits = [](const Matrix& x) {
    return x.leading >= std::max<std::int64_t>(1, x.rows);
  };
  if (!leading_fits(p.a))
    return "lda " + std::to_string(p.a.leading) + " for " + std::to_string(p.a.rows) + " rows";
  if (!leading_fits(p.b))
    return "ldb " + std::to_string(p.b.leading) + " for " + std::to_string(p.b.rows) + " rows";
  if (!leading_fits(p.c))
    return "ldc " + std::to_string(p.c.leading) + " for " + std::to_string(p.c.rows) + " rows";
  if (p.alpha == nullptr || p.beta == nullptr) return "no alpha or beta";
  const std::int64_t extent = p.c.leading * std::max<std::int64_t>(p.n - 1, 0) + p.m;
  if (p.batch > 1 && p.c.stride < extent) return "products of a batch overlap in C";
  return std::nullopt;
}

template <class T>
cublasStatus_t enqueue_product(const Handle& handle, Product p) {
  if (const auto wrong = wrong_argument(p)) {
    report(Kind::argument, p.call + ": " + *wrong);
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (p.m == 0 || p.n == 0 || p.batch == 0) return CUBLAS_STATUS_SUCCESS;
  const bool on_host = handle.pointer_mode == CUBLAS_POINTER_MODE_HOST;
  const T alpha = on_host ? *static_cast<const T*>(p.alpha) : T{0};
  const T beta = on_host ? *static_cast<const T*>(p.beta) : T{0};
  enqueue(stream_of(handle.stream), p.call, [=](std::uint32_t operation) {
    const auto scalar = [&](const void* at, T& value) {
      if (on_host) return true;
      const auto address = reinterpret_cast<std::uint64_t>(at);
      if (!touch_range(p.call, operation, address, sizeof(T), false)) return false;
      std::memcpy(&value, device_memory().view(address), sizeof(T));
      return true;
    };
    T factor = alpha, kept = beta;
    if (!scalar(p.alpha, factor) || !scalar(p.beta, kept) ||
        !multiply<T>(p, operation, factor, kept)) {
      set_sticky_error(cudaErrorIllegalAddress);
    }
  });
  return CUBLAS_STATUS_SUCCESS;
}

template <class T, class Integer>
cublasStatus_t gemm(const char* call, cublasHandle_t handle, cublasOperation_t ta,
                    cublasOperation_t tb, Integer m, Integer n, Integer k, const void* alpha,
                    const void* a, Integer lda, long long stride_a, const void* b, Integer ldb,
                    long long stride_b, const void* beta, void* c, Integer ldc, long long stride_c,
                    Integer batch, bool tf32 = false) {
  return blas_call(call, handle, [&](const Handle& state) {
    return enqueue_product<T>(
        state, {call, m, n, k, batch, stored(a, ta, m, k, lda, stride_a),
                stored(b, tb, k, n, ldb, stride_b), stored(c, CUBLAS_OP_N, m, n, ldc, stride_c),
                alpha, beta, tf32});
  });
}

/// The Ex forms: all matrices float or all double, computed in their own type.
template <class Integer>
cublasStatus_t gemm_ex(const char* call, cublasHandle_t handle, cublasOperation_t ta,
                       cublasOperation_t tb, Integer m, Integer n, Integer k, const void* alpha,
                       const void* a, cudaDataType a_type, Integer lda, long long stride_a,
                       const void* b, cudaDataType b_type, Integer ldb, long long stride_b,
                       const void* beta, void* c, cudaDataType c_type, Integer ldc,
                       long long stride_c, Integer batch, cublasComputeType_t compute) {
  const bool alike = a_type == b_type && b_type == c_type;
  const bool is_float = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                        compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const bool is_double = compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  if (alike && c_type == CUDA_R_32F && is_float) {
    return gemm<float>(call, handle, ta, tb, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b,
                       beta, c, ldc, stride_c, batch, compute == CUBLAS_COMPUTE_32F_FAST_TF32);
  }
  if (alike && c_type == CUDA_R_64F && is_double) {
    return gemm<double>(call, handle, ta, tb, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b,
                        beta, c, ldc, stride_c, batch);
  }
  const std::lock_guard lock(mutex());
  report(Kind::argument, std::string(call) + ": types that the stand-in does not multiply");
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // namespace

}  // namespace standin

using namespace standin;

extern "C" {

// ---- Handles ----

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure("cublasCreate")) return static_cast<cublasStatus_t>(code);
  if (settings().devices == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  static std::uintptr_t count = 0x100;
  *handle = reinterpret_cast<cublasHandle_t>(++count);
  handles()[*handle] = Handle{};
  count_object(Object::handle, 1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const std::lock_guard lock(mutex());
  if (const int code = injected_failure("cublasDestroy")) return static_cast<cublasStatus_t>(code);
  if (handles().erase(handle) == 0) {
    report(Kind::argument, "cublasDestroy: no such handle");
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  count_object(Object::handle, -1);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion_v2(cublasHandle_t handle, int* version) {
  return blas_call("cublasGetVersion", handle,
                   [&](Handle&) { return *version = CUBLAS_VERSION, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  return blas_call("cublasSetStream", handle, [&](Handle& state) {
    if (!valid_stream("cublasSetStream", stream)) return CUBLAS_STATUS_INVALID_VALUE;
    state.stream = stream;
    return CUBLAS_STATUS_SUCCESS;
  });
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  return blas_call("cublasGetStream", handle,
                   [&](Handle& state) { return *stream = state.stream, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  return blas_call("cublasSetPointerMode", handle,
                   [&](Handle& state) { return state.pointer_mode = mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t mode) {
  return blas_call("cublasSetAtomicsMode", handle,
                   [&](Handle& state) { return state.atomics = mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  return blas_call("cublasSetMathMode", handle,
                   [&](Handle& state) { return state.math = mode, CUBLAS_STATUS_SUCCESS; });
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  return blas_call("cublasSetWorkspace", handle, [&](Handle&) {
    const auto address = reinterpret_cast<std::uint64_t>(workspace);
    const Allocation* a =
        device_memory().in_range(address) ? device_memory().find(address) : nullptr;
    if (bytes == 0) return CUBLAS_STATUS_SUCCESS;
    if (a == nullptr || !a->live || !a->contains(address, bytes) || address % 256 != 0) {
      report(Kind::argument, "cublasSetWorkspace: no aligned device memory of this size");
      return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
  });
}

const char* cublasGetStatusName(cublasStatus_t status) {
#define NAMED(code) \
  { code, #code }
  static const std::map<cublasStatus_t, const char*> kNames = {
      NAMED(CUBLAS_STATUS_SUCCESS),          NAMED(CUBLAS_STATUS_NOT_INITIALIZED),
      NAMED(CUBLAS_STATUS_ALLOC_FAILED),     NAMED(CUBLAS_STATUS_INVALID_VALUE),
      NAMED(CUBLAS_STATUS_ARCH_MISMATCH),    NAMED(CUBLAS_STATUS_MAPPING_ERROR),
      NAMED(CUBLAS_STATUS_EXECUTION_FAILED), NAMED(CUBLAS_STATUS_INTERNAL_ERROR),
      NAMED(CUBLAS_STATUS_NOT_SUPPORTED),    NAMED(CUBLAS_STATUS_LICENSE_ERROR),
  };
#undef NAMED
  const auto found = kNames.find(status);
  return found == kNames.end() ? "CUBLAS_STATUS (unknown)" : found->second;
}
const char* cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }

// ---- Products ----

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const float* alpha, const float* a, int lda,
                              const float* b, int ldb, const float* beta, float* c, int ldc) {
  return gemm<float>("cublasSgemm", handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c,
                     ldc, 0, 1);
}
cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                              int m, int n, int k, const double* alpha, const double* a, int lda,
                              const double* b, int ldb, const double* beta, double* c, int ldc) {
  return gemm<double>("cublasDgemm", handle, ta, tb, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c,
                      ldc, 0, 1);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
                                         cublasOperation_t tb, int m, int n, int k,
                                         const float* alpha, const float* a, int lda, long long sa,
                                         const float* b, int ldb, long long sb, const float* beta,
                                         float* c, int ldc, long long sc, int batch) {
  return gemm<float>("cublasSgemmStridedBatched", handle, ta, tb, m, n, k, alpha, a, lda, sa, b,
                     ldb, sb, beta, c, ldc, sc, batch);
}
cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t ta,
                                         cublasOperation_t tb, int m, int n, int k,
                                         const double* alpha, const double* a, int lda,
                                         long long sa, const double* b, int ldb, long long sb,
                                         const double* beta, double* c, int ldc, long long sc,
                                         int batch) {
  return gemm<double>("cublasDgemmStridedBatched", handle, ta, tb, m, n, k, alpha, a, lda, sa, b,
                      ldb, sb, beta, c, ldc, sc, batch);
}
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                            int m, int n, int k, const void* alpha, const void* a, cudaDataType at,
                            int lda, const void* b, cudaDataType bt, int ldb, const void* beta,
                            void* c, cudaDataType ct, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t) {
  return gemm_ex("cublasGemmEx", handle, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta,
                 c, ct, ldc, 0, 1, compute);
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType at,
                                          int lda, long long sa, const void* b, cudaDataType bt,
                                          int ldb, long long sb, const void* beta, void* c,
                                          cudaDataType ct, int ldc, long long sc, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
  return gemm_ex("cublasGemmStridedBatchedEx", handle, ta, tb, m, n, k, alpha, a, at, lda, sa, b,
                 bt, ldb, sb, beta, c, ct, ldc, sc, batch, compute);
}
cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t handle, cublasOperation_t ta,
                                             cublasOperation_t tb, int64_t m, int64_t n, int64_t k,
                                             const void* alpha, const void* a, cudaDataType at,
                                             int64_t lda, long long sa, const void* b,
                                             cudaDataType bt, int64_t ldb, long long sb,
                                             const void* beta, void* c, cudaDataType ct,
                                             int64_t ldc, long long sc, int64_t batch,
                                             cublasComputeType_t compute, cublasGemmAlgo_t) {
  return gemm_ex("cublasGemmStridedBatchedEx", handle, ta, tb, m, n, k, alpha, a, at, lda, sa, b,
                 bt, ldb, sb, beta, c, ct, ldc, sc, batch, compute);
}
}
