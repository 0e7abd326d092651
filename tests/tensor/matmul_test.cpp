#include <doctest/doctest.h>

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Core>
#include <cmath>
#include <limits>

#include "tests/tensor/kernel_checks.h"

using namespace mf;
using namespace mf::test;

namespace {

/// The same values stored transposed.
Tensor column_major(const Tensor& x) { return x.transpose().contiguous().transpose(); }

enum class Layout : std::uint8_t { nn, nt, tn, tt };
constexpr Layout kLayouts[] = {Layout::nn, Layout::nt, Layout::tn, Layout::tt};

Tensor left(Layout layout, const Tensor& a) {
  return layout == Layout::tn || layout == Layout::tt ? column_major(a) : a;
}
Tensor right(Layout layout, const Tensor& b) {
  return layout == Layout::nt || layout == Layout::tt ? column_major(b) : b;
}

/// alpha a b + base + bias in f64 by three loops, and beside each element the sum of the sizes of
/// what it was added up from, which bounds its rounding error.
struct Expected {
  std::vector<double> value, size;
  std::int64_t depth = 0;
};

Expected triple_loop(const Tensor& a, const Tensor& b, double alpha = 1.0, const Tensor& base = {},
                     const Tensor& bias = {}) {
  const std::int64_t m = a.size(0), k = a.size(1), n = b.size(1);
  const auto x = values(a), y = values(b);
  Expected c{std::vector<double>(static_cast<std::size_t>(m * n)),
             std::vector<double>(static_cast<std::size_t>(m * n)), k};
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t l = 0; l < k; ++l) {
      const double factor = x[static_cast<std::size_t>(i * k + l)];
      for (std::int64_t j = 0; j < n; ++j) {
        const double product = factor * y[static_cast<std::size_t>(l * n + j)];
        c.value[static_cast<std::size_t>(i * n + j)] += product;
        c.size[static_cast<std::size_t>(i * n + j)] += std::abs(product);
      }
    }
  const auto added = base.defined() ? values(base) : std::vector<double>(c.value.size());
  const auto repeated =
      bias.defined() ? values(bias) : std::vector<double>(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < c.value.size(); ++i) {
    const double offset = repeated[i % static_cast<std::size_t>(n)];
    c.value[i] = alpha * c.value[i] + added[i] + offset;
    c.size[i] = std::abs(alpha) * c.size[i] + std::abs(added[i]) + std::abs(offset);
  }
  return c;
}

/// Within the a-priori bound of a sum of K products, (K + 4) eps (|a| |b| + ..): half of it for
/// what is checked, half for the oracle, which has rounded too where it is f64 itself.
bool within_bound(const Tensor& actual, const Expected& expected) {
  const std::vector<double> got = values(actual);
  const double eps = actual.dtype() == DType::f64 ? std::numeric_limits<double>::epsilon()
                                                  : double{std::numeric_limits<float>::epsilon()};
  if (got.size() != expected.value.size()) return false;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double limit = (static_cast<double>(expected.depth) + 4.0) * eps * expected.size[i];
    if (!(std::abs(got[i] - expected.value[i]) <= limit)) return false;
  }
  return true;
}

/// a b by Eigen in the operands' dtype.
Tensor by_eigen(const Tensor& a, const Tensor& b) {
  Tensor c = zeros({a.size(0), b.size(1)}, a.dtype());
  const Tensor x = a.contiguous(), y = b.contiguous();
  visit_float(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Matrix> left(x.data<T>(), x.size(0), x.size(1));
    const Eigen::Map<const Matrix> right(y.data<T>(), y.size(0), y.size(1));
    Eigen::Map<Matrix>(c.mutable_data<T>(), c.size(0), c.size(1)).noalias() = left * right;
  });
  return c;
}

/// Eigen's result as an expectation with the sizes of the triple loop.
Expected as_expected(const Tensor& c, Expected like) {
  like.value = values(c);
  return like;
}

/// x with one element moved to the next floating-point number.
Tensor one_ulp_off(const Tensor& x, std::int64_t element) {
  Tensor y = x.clone();
  visit_float(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    T& value = y.mutable_data<T>()[element];
    value = std::nextafter(value, std::numeric_limits<T>::infinity());
  });
  return y;
}

/// Products of random [m, k] and [k, n], plain, added with factor `alpha` to a base, and with bias
/// (and base, if `residual`), in every layout and on every instruction set.
void check_against_oracles(std::int64_t m, std::int64_t k, std::int64_t n, DType dtype,
                           std::uint64_t seed, double alpha, bool residual) {
  const Tensor a = random_tensor({m, k}, dtype, seed);
  const Tensor b = random_tensor({k, n}, dtype, seed + 1);
  const Tensor base = random_tensor({m, n}, dtype, seed + 2);
  const Tensor bias = random_tensor({n}, dtype, seed + 3);
  const Tensor rest = residual ? base : Tensor{};
  const Expected plain = triple_loop(a, b);
  const Expected eigen = as_expected(by_eigen(a, b), plain);
  const Expected added = triple_loop(a, b, alpha, base);
  const Expected affine = triple_loop(a, b, 1.0, rest, bias);
  CAPTURE(m);
  CAPTURE(n);
  CAPTURE(k);
  on_each_isa([&] {
    CAPTURE(name_of(current_isa()));
    for (const Layout layout : kLayouts) {
      const Tensor x = left(layout, a), y = right(layout, b);
      const Tensor c = matmul(x, y);
      CHECK(within_bound(c, plain));
      CHECK(within_bound(c, eigen));
      Tensor sum = base.clone();
      matmul_add_(sum, x, y, alpha);
      CHECK(within_bound(sum, added));
      CHECK(within_bound(linear(x, y, bias, rest), affine));
    }
    CHECK(within_bound(matmul(awkward(a), awkward(b)), plain));
  });
}

}  // namespace

TEST_CASE("matmul: within the rounding bound of three loops and of Eigen for ragged shapes") {
  const std::int64_t extents[] = {0,  1,  2,  3,  5,  6,  7,  13, 14,  15,
                                  16, 17, 28, 31, 32, 33, 64, 65, 100, 129};
  constexpr std::uint64_t kCount = std::size(extents);
  const RngKey key{77};
  for (const DType dtype : kFloats) {
    for (std::uint64_t sample = 0; sample < 160; ++sample) {
      // The first 20 samples take every extent in each of the three places.
      const auto draw = [&](std::uint64_t place) {
        return sample < kCount ? extents[(sample * (2 * place + 1) + 7 * place) % kCount]
                               : extents[key.below(kCount, 3 * sample + place)];
      };
      const std::int64_t m = draw(0), n = draw(1), k = draw(3);
      check_against_oracles(m, k, n, dtype, 3 * sample, -0.5, true);
    }
  }
}

TEST_CASE("matmul: within the rounding bound across the borders of depth blocks and row groups") {
  const std::int64_t shapes[][3] = {{29, 511, 33}, {29, 512, 33},   {29, 513, 33}, {13, 1024, 70},
                                    {1, 1100, 40}, {40, 1100, 1},   {130, 64, 65}, {260, 100, 34},
                                    {7, 1537, 7},  {300, 513, 129}, {2, 5000, 3}};
  for (const DType dtype : kFloats) {
    for (const auto& [m, k, n] : shapes) {
      check_against_oracles(m, k, n, dtype, 1, 2.0, false);
    }
  }
}

TEST_CASE("matmul: the rounding bound rejects one wrong product, and one left out") {
  for (const DType dtype : kFloats) {
    const Tensor a = random_tensor({9, 100}, dtype, 1);
    const Tensor b = random_tensor({100, 33}, dtype, 2);
    const Expected expected = triple_loop(a, b);
    REQUIRE(within_bound(matmul(a, b), expected));
    // Two columns of a exchanged: each sum meets two wrong factors.
    const Tensor parts[] = {a.slice(1, 0, 50), a.slice(1, 51, 52), a.slice(1, 50, 51),
                            a.slice(1, 52, 100)};
    CHECK(!within_bound(matmul(concat(parts, 1), b), expected));
    CHECK(!within_bound(matmul(a.slice(1, 0, 99), b.slice(0, 0, 99)), expected));
    Tensor nan = matmul(a, b);
    nan.slice(0, 8, 9).slice(1, 32, 33).fill_(std::numeric_limits<double>::quiet_NaN());
    CHECK(!within_bound(nan, expected));
  }
}

TEST_CASE("matmul: empty rows, columns and inner sizes") {
  on_each_isa([] {
    for (const DType dtype : kFloats) {
      CHECK(matmul(zeros({0, 3}, dtype), zeros({3, 4}, dtype)).shape() == Shape{0, 4});
      CHECK(matmul(zeros({2, 3}, dtype), zeros({3, 0}, dtype)).shape() == Shape{2, 0});
      CHECK(close(matmul(zeros({2, 0}, dtype), zeros({0, 3}, dtype)), std::vector<double>(6, 0.0)));
      Tensor c = full({2, 3}, 7.0, dtype);
      matmul_add_(c, zeros({2, 0}, dtype), zeros({0, 3}, dtype));
      CHECK(close(c, std::vector<double>(6, 7.0)));
      const Tensor affine =
          linear(zeros({2, 0}, dtype), zeros({0, 3}, dtype), full({3}, 5.0, dtype));
      CHECK(close(affine, std::vector<double>(6, 5.0)));
      CHECK(matmul(zeros({0, 2, 3}, dtype), zeros({3, 4}, dtype)).shape() == Shape{0, 2, 4});
    }
  });
}

TEST_CASE("matmul: batches broadcast on either side, whatever their strides") {
  for (const DType dtype : kFloats) {
    const Tensor a = random_tensor({2, 3, 9, 8}, dtype, 1);
    const Tensor b = random_tensor({2, 3, 8, 37}, dtype, 2);
    const auto at = [](const Tensor& x, std::int64_t i, std::int64_t j) {
      return x.slice(0, i, i + 1).slice(1, j, j + 1).reshape({x.size(2), x.size(3)});
    };
    // As heads lie in attention: [batch, length, heads, width], and transposed matrices.
    const Tensor heads = a.permute({0, 2, 1, 3}).contiguous().permute({0, 2, 1, 3});
    const Tensor turned = b.transpose().contiguous().transpose();
    on_each_isa([&] {
      CAPTURE(name_of(current_isa()));
      const Tensor all = matmul(a, b);
      const Tensor strided = matmul(heads, turned);
      const Tensor one_right = matmul(a, at(b, 0, 0));
      const Tensor one_left = matmul(at(a, 0, 0), b);
      const Tensor mixed = matmul(a.slice(1, 0, 1), b.slice(0, 0, 1));
      Tensor sum = full({2, 3, 9, 37}, 1.0, dtype);
      matmul_add_(sum, a, b, 3.0);
      for (std::int64_t i = 0; i < 2; ++i) {
        for (std::int64_t j = 0; j < 3; ++j) {
          const Expected expected = triple_loop(at(a, i, j), at(b, i, j));
          CHECK(within_bound(at(all, i, j), expected));
          CHECK(within_bound(at(strided, i, j), expected));
          CHECK(within_bound(at(one_right, i, j), triple_loop(at(a, i, j), at(b, 0, 0))));
          CHECK(within_bound(at(one_left, i, j), triple_loop(at(a, 0, 0), at(b, i, j))));
          CHECK(within_bound(at(mixed, i, j), triple_loop(at(a, i, 0), at(b, 0, j))));
          CHECK(within_bound(at(sum, i, j), triple_loop(at(a, i, j), at(b, i, j), 3.0,
                                                        full({9, 37}, 1.0, dtype))));
        }
      }
    });
  }
}

TEST_CASE("matmul: NaN and infinities reach the elements they meet, and no others") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  const std::int64_t shapes[][3] = {{1, 5, 3}, {6, 16, 16}, {17, 70, 35}, {40, 520, 33}};
  for (const DType dtype : kFloats) {
    for (const auto& [m, k, n] : shapes) {
      for (const double special : {kInfinity, -kInfinity, kNaN}) {
        Tensor a = random_tensor({m, k}, dtype, 1);
        Tensor b = random_tensor({k, n}, dtype, 2);
        a.slice(0, m / 2, m / 2 + 1).slice(1, k - 1, k).fill_(special);
        b.slice(0, k / 3, k / 3 + 1).slice(1, n - 1, n).fill_(special);
        b.slice(0, k - 1, k).slice(1, 0, 1).fill_(0.0);  // infinity times zero is NaN
        const Expected expected = triple_loop(a, b);
        on_each_isa([&] {
          CAPTURE(name_of(current_isa()));
          for (const Layout layout : kLayouts) {
            const auto c = values(matmul(left(layout, a), right(layout, b)));
            bool same = c.size() == expected.value.size();
            for (std::size_t i = 0; same && i < c.size(); ++i) {
              const double x = c[i], y = expected.value[i];
              same = std::isfinite(y) ? std::isfinite(x) : x == y || (x != x && y != y);
            }
            CHECK(same);
          }
        });
      }
    }
  }
}

TEST_CASE("matmul: same bits on 1, 2, 3 and 4 threads") {
  for (const DType dtype : kFloats) {
    const std::int64_t sizes[][3] = {{777, 65, 130}, {60, 70, 1300},  {1, 500, 3000}, {3000, 9, 7},
                                     {85, 700, 90},  {14, 1100, 600}, {2, 300, 1300}};
    on_each_isa([&] {
      CAPTURE(name_of(current_isa()));
      for (const auto& [m, k, n] : sizes) {
        const Tensor a = random_tensor({m, k}, dtype, 1);
        const Tensor b = random_tensor({k, n}, dtype, 2);
        const Tensor bias = random_tensor({n}, dtype, 3);
        for (const Layout layout : kLayouts) {
          const Tensor x = left(layout, a), y = right(layout, b);
          CHECK(same_on_any_threads([&] { return matmul(x, y); }));
        }
        CHECK(same_on_any_threads([&] { return linear(a, b, bias); }));
        CHECK(
            same_on_any_threads([&] { return linear_map(a, b, bias, Unary::gelu, false).mapped; }));
        CHECK(same_on_any_threads([&] {
          Tensor c = full({m, n}, 0.3, dtype);
          matmul_add_(c, a, b, 0.7);
          return c;
        }));
      }
      const Tensor a = random_tensor({13, 50, 33}, dtype, 1);
      const Tensor b = random_tensor({13, 33, 41}, dtype, 2);
      CHECK(same_on_any_threads([&] { return matmul(a, b); }));
    });
  }
}

TEST_CASE("matmul: a function of a product meets every element once, on any threads") {
  const std::int64_t sizes[][3] = {
      {1, 40, 130}, {2, 300, 1300}, {3, 600, 129}, {60, 70, 1300}, {85, 70, 90}};
  for (const DType dtype : kFloats) {
    on_each_isa([&] {
      CAPTURE(name_of(current_isa()));
      for (const auto& [m, k, n] : sizes) {
        CAPTURE(m);
        const Tensor x = random_tensor({m, k}, dtype, 1);
        const Tensor w = random_tensor({k, n}, dtype, 2);
        const Tensor bias = random_tensor({n}, dtype, 3);
        const Tensor linear_part = linear(x, w, bias);
        // y = f(z) v with gy [m, k], v = w^T [n, k] and z [m, n].
        const Tensor v = w.transpose().contiguous();
        const Tensor product = matmul(x, v.transpose());
        for (const int count : {1, 3}) {
          const ThreadScope scope(count);
          const MappedLinear both = linear_map(x, w, bias, Unary::gelu, true);
          CHECK(close(both.linear, values(linear_part)));
          CHECK(close(both.mapped, values(gelu(linear_part))));
          const MappedLinearBackward back = linear_map_backward(x, v, Unary::gelu, linear_part);
          CHECK(close(back.mapped, values(gelu(linear_part))));
          CHECK(close(back.gradient,
                      values(map_backward(Unary::gelu, linear_part, gelu(linear_part), product))));
        }
      }
    });
  }
}

TEST_CASE("matmul: the comparison of threads sees one ulp in one element") {
  for (const DType dtype : kFloats) {
    const Tensor c = matmul(random_tensor({85, 70}, dtype, 1), random_tensor({70, 90}, dtype, 2));
    CHECK(same_on_any_threads([&] { return c; }));
    CHECK(!same_on_any_threads(
        [&] { return threads() == 3 ? one_ulp_off(c, c.elements() - 1) : c; }));
  }
}

// What Eigen does not promise.
#if !defined(MEMFORMER_GEMM_EIGEN)
namespace {

/// Rows of x, stored on their own.
Tensor rows(const Tensor& x, std::int64_t first, std::int64_t count) {
  return x.slice(0, first, first + count).contiguous();
}

}  // namespace

TEST_CASE("matmul: zeros have the sign that alpha times the sum, plus base and bias gives") {
  for (const DType dtype : kFloats) {
    const auto negative = [](const Tensor& x) {
      bool all = true;
      for (const double value : values(x)) all &= value == 0.0 && std::signbit(value);
      return all;
    };
    for (const std::int64_t n : {1, 7, 16, 33, 64}) {
      const Tensor minus = full({5, 20}, -0.0, dtype);
      const Tensor ones = full({20, n}, 1.0, dtype);
      const Tensor minus_base = full({5, n}, -0.0, dtype);
      const Tensor minus_bias = full({n}, -0.0, dtype);
      on_each_isa([&] {
        CAPTURE(name_of(current_isa()));
        CAPTURE(n);
        // Sums begin with +0, so that a sum of -0 is +0; nothing else turns a sign.
        CHECK(values(matmul(minus, ones)) == std::vector<double>(static_cast<std::size_t>(5 * n)));
        CHECK(!negative(matmul(minus, ones)));
        CHECK(negative(matmul(minus, ones, -1.0)));
        CHECK(!negative(linear(minus, ones, minus_bias, minus_base)));
        Tensor c = minus_base.clone();
        matmul_add_(c, minus, ones, -1.0);
        CHECK(negative(c));
      });
    }
  }
}

TEST_CASE("matmul: an element's bits do not depend on how many rows and columns there are") {
  constexpr std::int64_t kMost = 40;
  const std::int64_t shapes[][2] = {{1, 1},    {7, 5},   {64, 16},  {64, 32},  {33, 33},
                                    {100, 70}, {128, 8}, {513, 48}, {1100, 17}};
  for (const DType dtype : kFloats) {
    for (const auto& [k, n] : shapes) {
      const Tensor a = random_tensor({150, k}, dtype, 1);
      const Tensor b = random_tensor({k, n}, dtype, 2);
      const Tensor bias = random_tensor({n}, dtype, 3);
      CAPTURE(k);
      CAPTURE(n);
      on_each_isa([&] {
        CAPTURE(name_of(current_isa()));
        const Tensor whole = matmul(a, b);
        const Tensor affine = linear(a, b, bias);
        for (const Layout layout : kLayouts) {
          CAPTURE(static_cast<int>(layout));
          const Tensor y = right(layout, b);
          CHECK(same_bits(matmul(left(layout, a), y), whole));
          for (std::int64_t m = 1; m <= kMost; ++m) {
            CAPTURE(m);
            const std::int64_t first = 3 * m % 100;
            const Tensor x = left(layout, rows(a, first, m));
            CHECK(same_bits(matmul(x, y), rows(whole, first, m)));
            CHECK(same_bits(linear(x, y, bias), rows(affine, first, m)));
            // Neither on where the rows lie in a larger block.
            CHECK(same_bits(matmul(left(layout, a).slice(0, first, first + m), y),
                            rows(whole, first, m)));
          }
          for (std::int64_t columns = 1; columns < n; columns += 3) {
            CAPTURE(columns);
            const Tensor part = right(layout, b.slice(1, n - columns, n).contiguous());
            CHECK(same_bits(matmul(left(layout, a), part),
                            whole.slice(1, n - columns, n).contiguous()));
          }
        }
      });
    }
    const Tensor c = matmul(random_tensor({9, 20}, dtype, 1), random_tensor({20, 30}, dtype, 2));
    CHECK(!same_bits(c, one_ulp_off(c, 100)));
  }
}
#endif

TEST_CASE("matmul: same bits wherever in memory the operands lie") {
  for (const DType dtype : kFloats) {
    const std::int64_t sizes[][3] = {{4, 5, 6},   {7, 3, 9},    {1, 40, 1}, {1, 40, 30},
                                     {30, 40, 1}, {20, 30, 40}, {3, 16, 16}};
    on_each_isa([&] {
      CAPTURE(name_of(current_isa()));
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
    });
  }
}
