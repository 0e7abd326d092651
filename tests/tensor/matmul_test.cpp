#include <doctest/doctest.h>

#include "tests/tensor/kernel_checks.h"

using namespace mf;
using namespace mf::test;

namespace {

/// [M, K] x [K, N] by three loops.
std::vector<double> triple_loop(const Tensor& a, const Tensor& b) {
  const std::int64_t m = a.size(0), k = a.size(1), n = b.size(1);
  const auto x = values(a), y = values(b);
  std::vector<double> c(static_cast<std::size_t>(m * n));
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      for (std::int64_t l = 0; l < k; ++l)
        c[static_cast<std::size_t>(i * n + j)] +=
            x[static_cast<std::size_t>(i * k + l)] * y[static_cast<std::size_t>(l * n + j)];
  return c;
}

/// The same values stored transposed.
Tensor column_major(const Tensor& x) { return x.transpose().contiguous().transpose(); }

}  // namespace

TEST_CASE("matmul: equals the triple loop for every layout and ragged shape") {
  const std::int64_t sizes[][3] = {{1, 1, 1},     {2, 3, 4},     {5, 5, 5},     {1, 70, 33},
                                   {33, 70, 1},   {1, 300, 1},   {19, 1, 23},   {65, 17, 129},
                                   {300, 65, 70}, {70, 65, 600}, {257, 64, 128}};
  for (const DType dtype : kFloats) {
    for (const auto& [m, k, n] : sizes) {
      const Tensor a = random_tensor({m, k}, dtype, 1);
      const Tensor b = random_tensor({k, n}, dtype, 2);
      const auto expected = triple_loop(a, b);
      const double limit = tolerance(dtype) * std::sqrt(static_cast<double>(k));
      for (const Tensor& left : {a, column_major(a)})
        for (const Tensor& right : {b, column_major(b)})
          CHECK(close(matmul(left, right), expected, limit));
      CHECK(close(matmul(awkward(a), awkward(b)), expected, limit));
    }
  }
}

TEST_CASE("matmul: alpha scales the product and matmul_add_ keeps what was there") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t size : {3, 40}) {
      const Tensor a = random_tensor({size, size}, dtype, 1);
      const Tensor b = random_tensor({size, size}, dtype, 2);
      Tensor c = full({size, size}, 2.0, dtype);
      matmul_add_(c, a, b, -0.5);
      auto expected = triple_loop(a, b);
      for (double& value : expected) value = 2.0 - 0.5 * value;
      CHECK(close(c, expected, 10 * tolerance(dtype)));
    }
  }
}

TEST_CASE("matmul: empty rows, columns and inner sizes") {
  for (const DType dtype : kFloats) {
    CHECK(matmul(zeros({0, 3}, dtype), zeros({3, 4}, dtype)).shape() == Shape{0, 4});
    CHECK(matmul(zeros({2, 3}, dtype), zeros({3, 0}, dtype)).shape() == Shape{2, 0});
    CHECK(close(matmul(zeros({2, 0}, dtype), zeros({0, 3}, dtype)), std::vector<double>(6, 0.0)));
    Tensor c = full({2, 3}, 7.0, dtype);
    matmul_add_(c, zeros({2, 0}, dtype), zeros({0, 3}, dtype));
    CHECK(close(c, std::vector<double>(6, 7.0)));
    CHECK(matmul(zeros({0, 2, 3}, dtype), zeros({3, 4}, dtype)).shape() == Shape{0, 2, 4});
  }
}

TEST_CASE("matmul: batches broadcast on either side") {
  for (const DType dtype : kFloats) {
    const Tensor a = random_tensor({2, 3, 9, 8}, dtype, 1);
    const Tensor b = random_tensor({2, 3, 8, 7}, dtype, 2);
    const auto at = [](const Tensor& x, std::int64_t i, std::int64_t j) {
      return x.slice(0, i, i + 1).slice(1, j, j + 1).reshape({x.size(2), x.size(3)});
    };
    const Tensor all = matmul(a, b);
    const Tensor one_right = matmul(a, at(b, 0, 0));
    const Tensor one_left = matmul(at(a, 0, 0), b);
    const Tensor mixed = matmul(a.slice(1, 0, 1), b.slice(0, 0, 1));
    for (std::int64_t i = 0; i < 2; ++i) {
      for (std::int64_t j = 0; j < 3; ++j) {
        CHECK(close(at(all, i, j), triple_loop(at(a, i, j), at(b, i, j))));
        CHECK(close(at(one_right, i, j), triple_loop(at(a, i, j), at(b, 0, 0))));
        CHECK(close(at(one_left, i, j), triple_loop(at(a, 0, 0), at(b, i, j))));
        CHECK(close(at(mixed, i, j), triple_loop(at(a, i, 0), at(b, 0, j))));
      }
    }
  }
}

TEST_CASE("matmul: same bits on 1, 2, 3 and 4 threads") {
  for (const DType dtype : kFloats) {
    const std::int64_t sizes[][3] = {{777, 65, 130}, {60, 70, 1300}, {1, 500, 3000}, {3000, 9, 7}};
    for (const auto& [m, k, n] : sizes) {
      const Tensor a = random_tensor({m, k}, dtype, 1);
      const Tensor b = random_tensor({k, n}, dtype, 2);
      CHECK(same_on_any_threads([&] { return matmul(a, b); }));
    }
    const Tensor a = random_tensor({13, 50, 33}, dtype, 1);
    const Tensor b = random_tensor({13, 33, 41}, dtype, 2);
    CHECK(same_on_any_threads([&] { return matmul(a, b); }));
  }
}

TEST_CASE("matmul: same bits wherever in memory the operands lie") {
  for (const DType dtype : kFloats) {
    const std::int64_t sizes[][3] = {{4, 5, 6},   {7, 3, 9},    {1, 40, 1}, {1, 40, 30},
                                     {30, 40, 1}, {20, 30, 40}, {3, 16, 16}};
    for (const auto& [m, k, n] : sizes) {
      const Tensor a = random_tensor({m, k}, dtype, 1);
      const Tensor b = random_tensor({k, n}, dtype, 2);
      const Tensor expected = matmul(a, b);
      for (std::int64_t shift = 1; shift < 5; ++shift) {
        const auto moved = [&](const Tensor& x) {
          Tensor block = zeros({x.elements() + shift}, dtype);
          Tensor place = block.slice(0, shift, shift + x.elements()).reshape(x.shape());
          place.copy_(x);
          return place;
        };
        Tensor c = moved(zeros({m, n}, dtype));
        matmul_add_(c, moved(a), moved(b));
        Tensor aligned = zeros({m, n}, dtype);
        matmul_add_(aligned, a, b);
        CHECK(same_bits(c.clone(), aligned));
        CHECK(same_bits(aligned, expected));
      }
    }
  }
}
