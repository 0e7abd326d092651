#include <doctest/doctest.h>

#include "tests/tensor/kernel_checks.h"

using namespace mf;
using namespace mf::test;

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

}  // namespace

TEST_CASE("layer_norm: forward and backward equal f64 loops for ragged widths") {
  for (const DType dtype : kFloats) {
    for (const auto& [rows, width] : {std::pair<std::int64_t, std::int64_t>{3, 2},
                                      {1, 1},
                                      {5, 17},
                                      {4, 100},
                                      {70, 1030},
                                      {1000, 12},
                                      {0, 4}}) {
      const Tensor x = affine(random_tensor({rows, width}, dtype, 1), 2.0, 3.0);
      const Tensor gy = random_tensor({rows, width}, dtype, 2);
      const Tensor gain = random_tensor({width}, dtype, 3), bias = random_tensor({width}, dtype, 4);
      const double epsilon = 1e-3;
      const auto in = values(x), g = values(gy), a = values(gain), b = values(bias);
      std::vector<double> y(in.size()), gx(in.size()), ggain(a.size()), gbias(a.size());
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::size_t first = at(r * width);
        const double n = static_cast<double>(width);
        double mean = 0.0, variance = 0.0, mean_h = 0.0, mean_h_xhat = 0.0;
        for (std::size_t j = 0; j < a.size(); ++j) mean += in[first + j] / n;
        for (std::size_t j = 0; j < a.size(); ++j)
          variance += (in[first + j] - mean) * (in[first + j] - mean) / n;
        const double rstd = 1.0 / std::sqrt(variance + epsilon);
        for (std::size_t j = 0; j < a.size(); ++j) {
          const double xhat = (in[first + j] - mean) * rstd;
          y[first + j] = xhat * a[j] + b[j];
          ggain[j] += g[first + j] * xhat;
          gbias[j] += g[first + j];
          mean_h += g[first + j] * a[j] / n;
          mean_h_xhat += g[first + j] * a[j] * xhat / n;
        }
        for (std::size_t j = 0; j < a.size(); ++j) {
          const double xhat = (in[first + j] - mean) * rstd;
          gx[first + j] = rstd * (g[first + j] * a[j] - mean_h - xhat * mean_h_xhat);
        }
      }
      const auto result = layer_norm(x, gain, bias, epsilon);
      const auto grads =
          layer_norm_backward(x, gain, result.mean, result.rstd, gy, true, true, true);
      CHECK(close(result.y, y));
      CHECK(close(grads.x, gx, 10 * tolerance(dtype)));
      CHECK(close(grads.gain, ggain));
      CHECK(close(grads.bias, gbias));
      const auto only_bias =
          layer_norm_backward(x, gain, result.mean, result.rstd, gy, false, false, true);
      CHECK(same_bits(only_bias.bias, grads.bias));
      CHECK_FALSE(only_bias.x.defined());
    }
  }
}

TEST_CASE("layer_norm: backward gives the same bits on 1, 2, 3 and 4 threads") {
  const Tensor x = random_tensor({301, 330}, DType::f32, 1),
               gy = random_tensor({301, 330}, DType::f32, 2);
  const Tensor gain = random_tensor({330}, DType::f32, 3);
  const auto result = layer_norm(x, gain, gain, 1e-5);
  const auto backward = [&] {
    return layer_norm_backward(x, gain, result.mean, result.rstd, gy, true, true, true);
  };
  CHECK(same_on_any_threads([&] { return backward().x; }));
  CHECK(same_on_any_threads([&] { return backward().gain; }));
  CHECK(same_on_any_threads([&] { return backward().bias; }));
}

TEST_CASE("normalize: rows get the radius as length, and backward equals the f64 loop") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t width : {1, 3, 64, 1029}) {
      const Tensor x = random_tensor({2, width}, dtype, 1),
                   gy = random_tensor({2, width}, dtype, 2);
      const double radius = 3.0, epsilon = 0.1;
      const auto in = values(x), g = values(gy);
      std::vector<double> y(in.size()), gx(in.size()), norms;
      for (std::int64_t r = 0; r < 2; ++r) {
        double squares = epsilon * epsilon, along = 0.0;
        for (std::int64_t j = 0; j < width; ++j) {
          squares += in[at(r * width + j)] * in[at(r * width + j)];
          along += in[at(r * width + j)] * g[at(r * width + j)];
        }
        norms.push_back(std::sqrt(squares));
        for (std::int64_t j = 0; j < width; ++j) {
          const std::size_t i = at(r * width + j);
          y[i] = radius * in[i] / norms.back();
          gx[i] = radius * (g[i] - in[i] * along / squares) / norms.back();
        }
      }
      const auto result = normalize(x, radius, epsilon);
      CHECK(close(result.y, y));
      CHECK(close(result.norm, norms));
      CHECK(close(normalize_backward(x, result.norm, gy, radius), gx));
    }
  }
}

TEST_CASE("cross_entropy: weights and ignored rows, forward and backward, equal the f64 loop") {
  for (const DType dtype : kFloats) {
    for (const bool weighted : {false, true}) {
      constexpr std::int64_t kRows = 7, kClasses = 33;
      const Tensor logits = affine(random_tensor({kRows, kClasses}, dtype, 1), 3.0);
      const std::vector<std::int32_t> target{0, 32, -100, 5, 5, 31, -100};
      const Tensor targets = from_host(target, {kRows});
      const Tensor weights = weighted ? uniform({kClasses}, RngKey{2}, 0.5, 2.0, dtype) : Tensor{};
      const auto x = values(logits);
      const auto w = weighted ? values(weights) : std::vector<double>(kClasses, 1.0);
      double loss = 0.0;
      std::vector<double> gradient(x.size());
      for (std::size_t r = 0; r < kRows; ++r) {
        if (target[r] == -100) continue;
        const double* in = x.data() + r * kClasses;
        const std::size_t t = at(target[r]);
        double total = 0.0;
        for (std::size_t j = 0; j < kClasses; ++j) total += std::exp(in[j]);
        loss += w[t] * (std::log(total) - in[t]);
        for (std::size_t j = 0; j < kClasses; ++j)
          gradient[r * kClasses + j] =
              0.7 * w[t] * (std::exp(in[j]) / total - (j == t ? 1.0 : 0.0));
      }
      const auto result = cross_entropy(logits, targets, weights, -100);
      CHECK(close(result.loss, {loss}));
      CHECK(close(cross_entropy_backward(logits, targets, weights, -100, result.log_sum,
                                         scalar(0.7, dtype)),
                  gradient));
      if (!weighted) continue;
      const Tensor pairs[] = {weights.reshape({kClasses, 1}), zeros({kClasses, 1}, dtype)};
      const Tensor column = concat(pairs, 1).slice(1, 0, 1).reshape({kClasses});
      CHECK(!column.is_contiguous());
      CHECK(close(cross_entropy(logits, targets, column, -100).loss, {loss}));
      CHECK(close(
          cross_entropy_backward(logits, targets, column, -100, result.log_sum, scalar(0.7, dtype)),
          gradient));
    }
  }
}

TEST_CASE("cross_entropy: same bits on 1, 2, 3 and 4 threads") {
  const Tensor logits = random_tensor({501, 250}, DType::f32, 1);
  std::vector<std::int32_t> target(501);
  for (std::size_t i = 0; i < target.size(); ++i)
    target[i] = static_cast<std::int32_t>(RngKey{4}.below(250, i));
  const Tensor targets = from_host(target, {501});
  CHECK(same_on_any_threads([&] { return cross_entropy(logits, targets, {}, -1).loss; }));
  const auto result = cross_entropy(logits, targets, {}, -1);
  CHECK(same_on_any_threads([&] {
    return cross_entropy_backward(logits, targets, {}, -1, result.log_sum, scalar(1, DType::f32));
  }));
}

TEST_CASE("adam: three steps equal the f64 recurrence") {
  for (const DType dtype : kFloats) {
    AdamOptions options;
    options.weight_decay = 0.1;
    options.learning_rate = 0.01;
    Tensor parameter = random_tensor({37}, dtype, 1);
    Tensor first = zeros({37}, dtype), second = zeros({37}, dtype);
    auto p = values(parameter);
    std::vector<double> m(37), v(37);
    for (int step = 1; step <= 3; ++step) {
      const Tensor gradient = random_tensor({37}, dtype, 10 + static_cast<std::uint64_t>(step));
      const auto g = values(gradient);
      adam_(parameter, gradient, 0.5, options, step, first, second);
      for (std::size_t i = 0; i < p.size(); ++i) {
        m[i] = 0.9 * m[i] + 0.1 * 0.5 * g[i];
        v[i] = 0.999 * v[i] + 0.001 * 0.25 * g[i] * g[i];
        const double m_hat = m[i] / (1.0 - std::pow(0.9, step));
        const double v_hat = v[i] / (1.0 - std::pow(0.999, step));
        p[i] = p[i] * (1.0 - 0.01 * 0.1) - 0.01 * m_hat / (std::sqrt(v_hat) + 1e-8);
      }
    }
    CHECK(close(parameter, p));
    CHECK(close(first, m));
    CHECK(close(second, v));
  }
}

TEST_CASE("sgd: with and without momentum equals the f64 recurrence") {
  for (const DType dtype : kFloats) {
    for (const double momentum : {0.0, 0.9}) {
      Tensor parameter = random_tensor({37}, dtype, 1);
      Tensor velocity = momentum > 0.0 ? zeros({37}, dtype) : Tensor{};
      auto p = values(parameter);
      std::vector<double> u(37);
      for (std::uint64_t step = 0; step < 3; ++step) {
        const Tensor gradient = random_tensor({37}, dtype, 10 + step);
        const auto g = values(gradient);
        sgd_(parameter, gradient, 0.5, 0.1, momentum, 0.01, velocity);
        for (std::size_t i = 0; i < p.size(); ++i) {
          u[i] = momentum * u[i] + 0.5 * g[i] + 0.01 * p[i];
          p[i] -= 0.1 * u[i];
        }
      }
      CHECK(close(parameter, p));
    }
  }
}
