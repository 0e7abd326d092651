#include <doctest/doctest.h>

#include <atomic>
#include <limits>
#include <stdexcept>
#include <string>

#include "tests/tensor/kernel_checks.h"

using namespace mf;
using namespace mf::test;
using doctest::Contains;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kWidths[] = {0, 1, 2, 15, 16, 17, 100, 1025, 5000};

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Tensor row(const std::vector<double>& values, DType dtype) {
  return from_host(values, {1, static_cast<std::int64_t>(values.size())}).to(dtype);
}

}  // namespace

TEST_CASE("backend: the cpu has every kernel of the table") {
  cpu_backend().each([](const auto& kernel) {
    INFO(std::string(kernel.name));
    const bool present = kernel.function != nullptr;
    CHECK(present);
  });
}

TEST_CASE("parallel_chunks: covers every item once and carries exceptions to the caller") {
  const int before = threads();
  for (const int count : {1, 3}) {
    set_threads(count);
    std::vector<std::atomic<int>> visits(1000);
    detail::parallel_chunks(1000, 10'000, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++visits[at(i)];
      // Nested calls run on the thread that makes them.
      detail::parallel_chunks(2, 100'000, [](std::int64_t, std::int64_t) {});
    });
    for (const auto& visit : visits) CHECK(visit == 1);
    const auto throws = [](std::int64_t, std::int64_t) { throw std::runtime_error("inside"); };
    CHECK_THROWS_WITH(detail::parallel_chunks(1000, 10'000, throws), "inside");
  }
  set_threads(0);
  CHECK(threads() == 1);
  set_threads(before);
}

TEST_CASE("elementwise: binary functions equal f64 loops for contiguous and strided operands") {
  for (const DType dtype : kFloats) {
    for (const Shape& shape : {Shape{}, Shape{0, 3}, Shape{1}, Shape{17}, Shape{4, 1, 5},
                               Shape{3, 5, 2, 7}, Shape{40'000}}) {
      const Tensor a = random_tensor(shape, dtype, 1);
      const Tensor b = affine(uniform(shape, RngKey{2}, 0.5, 2.0, dtype), 1.0);
      const auto x = values(a), y = values(b);
      std::vector<double> sum, difference, product, quotient;
      for (std::size_t i = 0; i < x.size(); ++i) {
        sum.push_back(x[i] + y[i]), difference.push_back(x[i] - y[i]);
        product.push_back(x[i] * y[i]), quotient.push_back(x[i] / y[i]);
      }
      for (const Tensor& left : {a, awkward(a)}) {
        for (const Tensor& right : {b, awkward(b)}) {
          CHECK(close(add(left, right), sum));
          CHECK(close(sub(left, right), difference));
          CHECK(close(mul(left, right), product));
          CHECK(close(div(left, right), quotient));
        }
      }
    }
  }
}

TEST_CASE("elementwise: broadcast operands equal expanded copies bit for bit") {
  for (const DType dtype : kFloats) {
    const Shape shape{3, 4, 50};
    const Tensor x = random_tensor(shape, dtype, 1);
    for (const Shape& small : {Shape{50}, Shape{4, 1}, Shape{3, 1, 50}, Shape{}, Shape{3, 1, 1}}) {
      const Tensor y = random_tensor(small, dtype, 2);
      const Tensor copy = y.expand(shape).contiguous();
      CHECK(same_bits(mul(x, y), mul(x, copy)));
      CHECK(same_bits(sub(y, x), sub(copy, x)));
      Tensor sum = x.clone(), expected = x.clone();
      add_(sum, y, 0.5), add_(expected, copy, 0.5);
      CHECK(same_bits(sum, expected));
    }
  }
}

TEST_CASE("elementwise: map_backward multiplies by the derivative at any strides") {
  for (const DType dtype : kFloats) {
    const Tensor x = random_tensor({5, 33}, dtype, 1);
    const Tensor gy = random_tensor({5, 33}, dtype, 2);
    const Tensor y = mf::tanh(x);
    std::vector<double> expected;
    for (std::size_t i = 0; i < values(x).size(); ++i) {
      const double t = std::tanh(values(x)[i]);
      expected.push_back(values(gy)[i] * (1.0 - t * t));
    }
    CHECK(close(map_backward(Unary::tanh, x, y, gy), expected));
    CHECK(close(map_backward(Unary::tanh, awkward(x), y, awkward(gy)), expected));
  }
}

TEST_CASE("elementwise: where picks by condition, also broadcast") {
  const Tensor condition = from_host<std::uint8_t>({1, 0, 1}, {3});
  const Tensor a = from_host<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor b = full({1, 1}, -1.0, DType::f32);
  CHECK(close(where(condition, a, b), {1, -1, 3, 4, -1, 6}));
}

TEST_CASE("copy: converts between every pair of dtypes and any strides") {
  const std::vector<double> numbers{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const Tensor source = from_host(numbers, {3, 4});
  for (const DType from : {DType::f32, DType::f64, DType::i32, DType::u8}) {
    for (const DType to : {DType::f32, DType::f64, DType::i32, DType::u8}) {
      CHECK(values(source.to(from).to(to)) == numbers);
      CHECK(values(source.to(from).transpose().to(to).transpose()) == numbers);
    }
  }
  Tensor filled = zeros({2, 3}, DType::i32);
  Tensor column = filled.slice(1, 1, 2);
  column.fill_(7.0);
  CHECK(values(filled) == std::vector<double>{0, 7, 0, 0, 7, 0});
}

TEST_CASE("in place: an operand that is another view of the same elements is an error") {
  Tensor x = random_tensor({4, 4}, DType::f64, 1);
  const std::vector<double> before = values(x);
  Tensor below = x.slice(0, 1, 4), row_of_x = x.slice(0, 0, 1), expanded = row_of_x.expand({4, 4});
  CHECK_THROWS_WITH(add_(x, x.transpose()), Contains("different views of the same elements"));
  CHECK_THROWS_WITH(add_(x, row_of_x), Contains("add_: f64[4, 4] and the operand f64[1, 4]"));
  CHECK_THROWS_WITH(below.copy_(x.slice(0, 0, 3)), Contains("copy_: "));
  CHECK_THROWS_WITH(x.copy_(x.transpose()), Contains("give a clone()"));
  CHECK_THROWS_WITH(expanded.fill_(1.0), Contains("fill_: f64[4, 4] is expanded"));
  CHECK_THROWS_WITH(expanded.copy_(x), Contains("several of its elements are one place"));
  CHECK_THROWS_WITH(add_(expanded, random_tensor({4, 4}, DType::f64, 2)), Contains("add_: "));
  CHECK(values(x) == before);

  // The same view, views apart and views that interleave are none.
  add_(x, x);
  CHECK(values(x) == values(affine(from_host(before, {4, 4}), 2.0)));
  below = x.slice(0, 2, 4);
  below.copy_(x.slice(0, 0, 2));
  Tensor columns = x.slice(1, 0, 2);
  columns.copy_(x.slice(1, 2, 4));
  for (std::int64_t i = 0; i < 4; ++i)
    for (std::int64_t j = 0; j < 4; ++j)
      CHECK(values(x)[at(4 * i + j)] == 2.0 * before[at(4 * (i % 2) + 2 + j % 2)]);
}

TEST_CASE("sum: a result is never a view of its operand") {
  const Tensor x = scalar(3.0, DType::f64);
  Tensor y = sum(x, {});
  y.fill_(4.0);
  CHECK(x.item() == 3.0);
}

TEST_CASE("random: draws are functions of key and index, in range and well spread") {
  for (const DType dtype : kFloats) {
    constexpr std::int64_t kCount = 100'000;
    const Tensor flat = uniform({kCount}, RngKey{3}, -2.0, 4.0, dtype);
    const Tensor bell = normal({kCount}, RngKey{3}, 1.0, 2.0, dtype);
    double low = 9.0, high = -9.0, mean = 0.0, variance = 0.0;
    for (const double value : values(flat))
      low = std::min(low, value), high = std::max(high, value);
    for (const double value : values(bell)) mean += value / kCount;
    for (const double value : values(bell)) variance += (value - mean) * (value - mean) / kCount;
    CHECK(low >= -2.0);
    CHECK(high < 4.0);
    CHECK(high - low > 5.99);
    CHECK(std::abs(mean - 1.0) < 0.03);
    CHECK(std::abs(variance - 4.0) < 0.1);
    CHECK(same_bits(uniform({10}, RngKey{3}, -2.0, 4.0, dtype), flat.slice(0, 0, 10)));
    CHECK(same_on_any_threads([&] { return normal({kCount}, RngKey{3}, 1.0, 2.0, dtype); }));
  }
  const Tensor narrow = uniform({100'000}, RngKey{3}, 0.0, 1e-3, DType::f32);
  for (const double value : values(narrow)) CHECK(value < static_cast<double>(1e-3f));
}

TEST_CASE("dropout: keeps exactly the elements whose uniform draw reaches p") {
  const RngKey key{12};
  for (const double p : {0.0, 0.1, 0.5, 0.9}) {
    const Tensor x = random_tensor({3, 101}, DType::f64, 1);
    auto expected = values(x);
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = key.uniform(i) >= p ? expected[i] / (1.0 - p) : 0.0;
    CHECK(close(dropout(x, p, key), expected));
    CHECK(close(dropout(awkward(x), p, key), expected));
  }
}

TEST_CASE("sum: equals the f64 loop for every arrangement of outer, n and inner") {
  for (const DType dtype : kFloats) {
    const std::int64_t extents[][3] = {{1, 1, 1}, {3, 5, 1},   {2, 100, 1}, {2, 5000, 1},
                                       {2, 7, 3}, {2, 300, 5}, {1, 3, 700}, {2, 0, 3},
                                       {0, 3, 2}, {3, 2, 0}};
    for (const auto& [outer, n, inner] : extents) {
      const Tensor x = random_tensor({outer, n, inner}, dtype, 1);
      const auto in = values(x);
      std::vector<double> expected(at(outer * inner));
      for (std::int64_t o = 0; o < outer; ++o)
        for (std::int64_t i = 0; i < n; ++i)
          for (std::int64_t c = 0; c < inner; ++c)
            expected[at(o * inner + c)] += in[at((o * n + i) * inner + c)];
      CHECK(close(sum(x, {1}), expected, 10 * tolerance(dtype)));
    }
  }
}

TEST_CASE("sum: long f32 sums keep their accuracy") {
  const Tensor x = full({2'000'000}, 0.1, DType::f32);
  CHECK(close(sum(x), {2'000'000 * static_cast<double>(0.1f)}, 1e-6));
  CHECK(close(sum(x.reshape({1'000'000, 2}), {0}),
              std::vector<double>(2, 1'000'000 * static_cast<double>(0.1f)), 1e-6));
}

TEST_CASE("sum: same bits on 1, 2, 3 and 4 threads") {
  const Tensor x = random_tensor({37, 301, 65}, DType::f32, 1);
  CHECK(same_on_any_threads([&] { return sum(x); }));
  for (const int axis : {0, 1, 2}) CHECK(same_on_any_threads([&] { return sum(x, {axis}); }));
}

TEST_CASE("max: the first of equals, and NaN wins") {
  for (const DType dtype : kFloats) {
    const Tensor x =
        from_host<double>({1, 3, 3, 2, -kInfinity, -kInfinity, 5, kNaN, 9, kNaN}, {5, 2}).to(dtype);
    const auto columns = max(x, 0);
    CHECK(std::isnan(values(columns.values)[1]));
    CHECK(values(columns.values)[0] == 9.0);
    CHECK(values(columns.indices) == std::vector<double>{4, 3});
    const auto rows = max(x, 1);
    CHECK(values(rows.indices) == std::vector<double>{1, 0, 0, 1, 1});
    CHECK(values(max(random_tensor({1, 700}, dtype, 1), 0).indices) == std::vector<double>(700, 0));
  }
}

TEST_CASE("sum_of_squares and count_nonfinite: f64 results for both dtypes") {
  for (const DType dtype : kFloats) {
    const Tensor x = random_tensor({10'007}, dtype, 1);
    double expected = 0.0;
    for (const double value : values(x)) expected += value * value;
    CHECK(std::abs(sum_of_squares(x) - expected) < 1e-9);
    CHECK(count_nonfinite(x) == 0);
    const Tensor bad = from_host<double>({1, kInfinity, -kInfinity, kNaN, 0}, {5}).to(dtype);
    CHECK(count_nonfinite(bad) == 3);
  }
}

TEST_CASE("softmax: rows sum to one for large inputs, and equal the f64 loop") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t width : kWidths) {
      const Tensor x = affine(random_tensor({3, width}, dtype, 1), 5.0, 1e4);
      const Tensor y = softmax(x), log_y = log_softmax(x), log_sum = logsumexp(x);
      const auto in = values(x);
      std::vector<double> expected(at(3 * width)), expected_log = expected, sums;
      for (std::int64_t r = 0; r < 3; ++r) {
        double total = 0.0;
        for (std::int64_t j = 0; j < width; ++j) total += std::exp(in[at(r * width + j)] - 1e4);
        sums.push_back(std::log(total) + 1e4);
        for (std::int64_t j = 0; j < width; ++j) {
          const std::size_t i = at(r * width + j);
          expected[i] = std::exp(in[i] - 1e4) / total;
          expected_log[i] = in[i] - sums.back();
        }
      }
      CHECK(close(y, expected));
      // f32 holds numbers near 1e4 to 5e-4.
      CHECK(close(log_y, expected_log, dtype == DType::f32 ? 2e-3 : 1e-10));
      CHECK(close(log_sum, sums));
      if (width > 0) CHECK(close(sum(y, {1}), {1.0, 1.0, 1.0}));
    }
  }
}

TEST_CASE("softmax: -inf elements weigh nothing, rows of -inf give zeros, NaN stays in its row") {
  for (const DType dtype : kFloats) {
    const Tensor x =
        from_host<double>(
            {0, -kInfinity, 0, -kInfinity, -kInfinity, -kInfinity, 1, kNaN, -kInfinity}, {3, 3})
            .to(dtype);
    const auto y = values(softmax(x)), log_y = values(log_softmax(x)), sums = values(logsumexp(x));
    CHECK(close(softmax(x.slice(0, 0, 2)), {0.5, 0, 0.5, 0, 0, 0}));
    for (std::size_t i = 6; i < 9; ++i) {
      CHECK(std::isnan(y[i]));
      CHECK(std::isnan(log_y[i]));
    }
    for (const std::size_t i : {1u, 3u, 4u, 5u}) CHECK(log_y[i] == -kInfinity);
    CHECK(sums[1] == -kInfinity);
    CHECK(std::isnan(sums[2]));
    CHECK(values(logsumexp(row({kInfinity, 1.0}, dtype)))[0] == kInfinity);
  }
}

TEST_CASE("softmax, layer_norm: a row has the same bits whatever rows are beside it") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t width : {5, 100, 300, 3000}) {
      constexpr std::int64_t kRows = 21;
      const Tensor x = random_tensor({kRows, width}, dtype, 1);
      const Tensor gain = random_tensor({width}, dtype, 2);
      const auto each = [&](const auto& op) {
        const Tensor together = op(x);
        for (std::int64_t r = 0; r < kRows; ++r)
          CHECK(same_bits(op(x.slice(0, r, r + 1)), together.slice(0, r, r + 1)));
      };
      each([](const Tensor& rows) { return softmax(rows); });
      each([](const Tensor& rows) { return log_softmax(rows); });
      each([](const Tensor& rows) { return logsumexp(rows); });
      each([&](const Tensor& rows) { return layer_norm(rows, gain, gain, 1e-5).y; });
    }
  }
}

TEST_CASE("softmax: backward of both forms equals the Jacobian") {
  for (const DType dtype : kFloats) {
    constexpr std::int64_t kWidth = 37;
    const Tensor x = random_tensor({1, kWidth}, dtype, 1);
    const Tensor gy = random_tensor({1, kWidth}, dtype, 2);
    const auto p = values(softmax(x)), g = values(gy);
    std::vector<double> expected(kWidth), expected_log(kWidth);
    for (std::size_t j = 0; j < kWidth; ++j) {
      for (std::size_t i = 0; i < kWidth; ++i) {
        expected[j] += g[i] * p[i] * ((i == j ? 1.0 : 0.0) - p[j]);
        expected_log[j] += g[i] * ((i == j ? 1.0 : 0.0) - p[j]);
      }
    }
    CHECK(close(softmax_backward(softmax(x), gy), expected));
    CHECK(close(log_softmax_backward(log_softmax(x), gy), expected_log));
  }
}

TEST_CASE("gather and scatter: rows by id, columns by index, repeated ids add up") {
  for (const DType dtype : kFloats) {
    const Tensor table = from_host<double>({1, 2, 3, 4, 5, 6}, {3, 2}).to(dtype);
    const Tensor ids = from_host<std::int32_t>({2, 0, 2, 2}, {4});
    CHECK(close(gather_rows(table, ids), {5, 6, 1, 2, 5, 6, 5, 6}));
    const Tensor gy = from_host<double>({1, 2, 3, 4, 5, 6, 7, 8}, {4, 2}).to(dtype);
    CHECK(close(scatter_rows(ids, gy, 3), {3, 4, 0, 0, 13, 16}));

    const Tensor x = from_host<double>({1, 2, 3, 4, 5, 6}, {2, 3}).to(dtype);
    const Tensor shared = from_host<std::int32_t>({2, 2, 0, 1}, {4});
    const Tensor own = from_host<std::int32_t>({2, 1, 0, 0}, {2, 2});
    CHECK(close(gather(x, shared), {3, 3, 1, 2, 6, 6, 4, 5}));
    CHECK(close(gather(x, own), {3, 2, 4, 4}));
    CHECK(close(scatter(shared, gy.reshape({2, 4}), 3), {3, 4, 3, 7, 8, 11}));
    CHECK(close(scatter(own, gy.reshape({2, 4}).slice(1, 0, 2), 3), {0, 2, 1, 11, 0, 0}));
  }
  CHECK(gather_rows(zeros({3, 2}, DType::f32), zeros({0}, DType::i32)).shape() == Shape{0, 2});
}

TEST_CASE("scatter: same bits on 1, 2, 3 and 4 threads") {
  constexpr std::int64_t kRows = 3000, kWidth = 130;
  std::vector<std::int32_t> ids(kRows);
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<std::int32_t>(RngKey{4}.below(20, i));
  const Tensor id = from_host(ids, {kRows});
  const Tensor gy = random_tensor({kRows, kWidth}, DType::f32, 1);
  CHECK(same_on_any_threads([&] { return scatter_rows(id, gy, 20); }));
  CHECK(same_on_any_threads([&] { return scatter(id, gy.transpose(), 20); }));
}
