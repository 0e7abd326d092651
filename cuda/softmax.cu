#include "cuda/device_math.cuh"
#include "cuda/kernels.h"
#include "cuda/team.cuh"
#include "tensor/formulas.h"

namespace mf::cuda {
namespace device {

/// exp_shift of the largest element, NaN ignored.
template <class Team, class T>
__device__ T exp_shift_of_row(const T* x, std::int64_t n) {
  return exp_shift(Team::combine(n, -kInfinity<T>, Larger{}, [&](std::int64_t j) { return x[j]; }));
}

/// log sum_j exp x_j.
template <class Team, class T>
__device__ T log_sum_exp(const T* x, std::int64_t n) {
  const T shift = exp_shift_of_row<Team>(x, n);
  const auto term = [&](std::int64_t j) { return DeviceMath::exp(x[j] - shift); };
  return shift + DeviceMath::log(Team::template sum<T>(n, term));
}

template <class T>
struct Softmax {
  std::int64_t n;
  const T* x;
  T* y;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const in = x + row * n;
    T* const out = y + row * n;
    const T shift = exp_shift_of_row<Team>(in, n);
    const T sum = Team::template sum<T>(n, [&](std::int64_t j) {
      const T value = DeviceMath::exp(in[j] - shift);
      out[j] = value;
      return value;
    });
    const T scale = sum == T{0} ? T{0} : T{1} / sum;
    Team::each(n, [&](std::int64_t j) { out[j] *= scale; });
  }
};

template <class T>
struct SoftmaxBackward {
  std::int64_t n;
  const T *y, *gy;
  T* gx;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const p = y + row * n;
    const T* const g = gy + row * n;
    const T mean = Team::template sum<T>(n, [&](std::int64_t j) { return p[j] * g[j]; });
    Team::each(n, [&](std::int64_t j) { gx[row * n + j] = p[j] * (g[j] - mean); });
  }
};

template <class T>
struct LogSoftmax {
  std::int64_t n;
  const T* x;
  T* y;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T shift = formulas::log_sum_shift(log_sum_exp<Team>(x + row * n, n));
    Team::each(n, [&](std::int64_t j) { y[row * n + j] = x[row * n + j] - shift; });
  }
};

template <class T>
struct LogSoftmaxBackward {
  std::int64_t n;
  const T *y, *gy;
  T* gx;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T* const log_p = y + row * n;
    const T* const g = gy + row * n;
    const T total = Team::template sum<T>(n, [&](std::int64_t j) { return g[j]; });
    Team::each(n,
               [&](std::int64_t j) { gx[row * n + j] = g[j] - DeviceMath::exp(log_p[j]) * total; });
  }
};

template <class T>
struct LogSumExp {
  std::int64_t n;
  const T* x;
  T* y;

  template <class Team>
  __device__ void run(std::int64_t row) const {
    const T log_sum = log_sum_exp<Team>(x + row * n, n);
    if (Team::rank() == 0) y[row] = log_sum;
  }
};

}  // namespace device

// x, y [rows, width]. A row of -inf gives zeros.
void softmax(Context& context, View x, MutView y) {
  launch_rows<device::Softmax>(context, "softmax", x, y);
}

// y, gy, gx [rows, width]: gx = y (gy - sum_j gy_j y_j).
void softmax_backward(Context& context, View y, View gy, MutView gx) {
  launch_rows<device::SoftmaxBackward>(context, "softmax_backward", y, gy, gx);
}

// x, y [rows, width]. A row of -inf gives -inf.
void log_softmax(Context& context, View x, MutView y) {
  launch_rows<device::LogSoftmax>(context, "log_softmax", x, y);
}

// y, gy, gx [rows, width]: gx = gy - exp(y) sum_j gy_j.
void log_softmax_backward(Context& context, View y, View gy, MutView gx) {
  launch_rows<device::LogSoftmaxBackward>(context, "log_softmax_backward", y, gy, gx);
}

// x [rows, width] -> y [rows].
void logsumexp(Context& context, View x, MutView y) {
  launch_rows<device::LogSumExp>(context, "logsumexp", x, y);
}

}  // namespace mf::cuda
