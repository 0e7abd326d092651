#pragma once

namespace mf::cuda {

/// What tensor/formulas.h takes from the device: the toolkit's functions, none of the fast and
/// inaccurate ones. For the host too, as the formulas are for both.
struct DeviceMath {
  __host__ __device__ static float exp(float x) { return ::expf(x); }
  __host__ __device__ static float log(float x) { return ::logf(x); }
  __host__ __device__ static float sqrt(float x) { return ::sqrtf(x); }
  __host__ __device__ static float tanh(float x) { return ::tanhf(x); }
  __host__ __device__ static float normal_cdf(float x) { return ::normcdff(x); }
  __host__ __device__ static float normal_density(float x) {
    return ::expf(-0.5f * x * x) * static_cast<float>(kInverseSqrt2Pi);
  }

  __host__ __device__ static double exp(double x) { return ::exp(x); }
  __host__ __device__ static double log(double x) { return ::log(x); }
  __host__ __device__ static double sqrt(double x) { return ::sqrt(x); }
  __host__ __device__ static double tanh(double x) { return ::tanh(x); }
  __host__ __device__ static double normal_cdf(double x) { return ::normcdf(x); }
  __host__ __device__ static double normal_density(double x) {
    return ::exp(-0.5 * x * x) * kInverseSqrt2Pi;
  }

 private:
  static constexpr double kInverseSqrt2Pi = 0.39894228040143267794;
};

}  // namespace mf::cuda
