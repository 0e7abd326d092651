// Every entry of the kernel table on cuda:0 against the cpu, through the public functions of
// tensor/math.h. On a machine without a device it is linked with the stand-in of tests/cuda/ptx,
// which executes the kernels' PTX.

#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "autograd/ops/cross_entropy.h"
#include "cuda/cuda.h"
#include "cuda/table.h"
#include "tests/cuda/table_coverage.h"
#include "tests/tensor/kernel_checks.h"

namespace mf::test {
namespace {

using Tensors = std::vector<Tensor>;
using Function = std::function<Tensors(const Tensors&)>;

/// The device, with the counting table installed before the first use.
Device gpu() {
  static const CountingTable counting(cuda::table());
  static const bool installed = [] {
    cuda::install();
    register_backend(Device::Kind::cuda, &counting.table());
    return true;
  }();
  static_cast<void>(installed);
  return cuda_device();
}

Tensors on(Device device, const Tensors& inputs) {
  Tensors moved;
  for (const Tensor& x : inputs) moved.push_back(x.defined() ? x.to(device) : x);
  return moved;
}

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr std::int64_t kSizes[] = {0, 1, 31, 32, 33, 257};

/// Largest |a - b|, relative to |b| or to b's largest element, taken as 0.1 to 1, whichever is
/// more; infinite where one is NaN or infinite and the other something else.
double distance(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = values(a), y = values(b);
  double scale = 0.0;
  for (const double value : y)
    if (std::isfinite(value)) scale = std::max(scale, std::abs(value));
  double largest = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    const double error =
        std::abs(x[i] - y[i]) / std::max(std::clamp(scale, 0.1, 1.0), std::abs(y[i]));
    largest = std::max(largest, std::isfinite(error) ? error : kInf);
  }
  return largest;
}

/// The largest error so far, as a share of what is allowed: so that a slow drift shows.
struct Worst {
  double share = 0.0;
  std::string where;
};
Worst& worst() {
  static Worst worst;
  return worst;
}

/// `limit` counts units in the last place of the dtype; 0 asks for the same bits.
void check_agree(const Function& fn, const Tensors& inputs, double limit) {
  // New blocks hold nothing, so that what a kernel leaves unwritten cannot be an older result.
  release_cached(gpu());
  const Tensors expected = fn(inputs);
  const Tensors actual = on(cpu, fn(on(gpu(), inputs)));
  REQUIRE(actual.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CAPTURE(describe(expected[i]));
    REQUIRE(actual[i].defined() == expected[i].defined());
    if (!expected[i].defined()) continue;
    REQUIRE(actual[i].shape() == expected[i].shape());
    REQUIRE(actual[i].dtype() == expected[i].dtype());
    if (limit == 0.0) {
      CHECK(first_difference(actual[i], expected[i]) == -1);
      continue;
    }
    const double unit = expected[i].dtype() == DType::f64 ? 0x1p-52 : 0x1p-23;
    const double error = distance(actual[i], expected[i]) / unit;
    CHECK(error <= limit);
    if (error / limit > worst().share)
      worst() = {error / limit, doctest::getContextOptions()->currentTest->m_name};
  }
}

/// The same for inputs with other strides too.
void check_agree_any_layout(const Function& fn, const Tensors& inputs, double limit) {
  check_agree(fn, inputs, limit);
  check_agree(
      [&](const Tensors& x) {
        Tensors strided;
        for (const Tensor& one : x) strided.push_back(one.defined() ? awkward(one) : one);
        return fn(strided);
      },
      inputs, limit);
}

Tensor mask_tensor(const Shape& shape, std::uint64_t seed, double kept = 0.7) {
  const Tensor draws = uniform(shape, RngKey{seed}, 0.0, 1.0, DType::f64);
  std::vector<std::uint8_t> mask;
  for (const double draw : draws.to_vector<double>()) mask.push_back(draw < kept ? 1 : 0);
  return from_host(mask, shape);
}

Tensor ids_tensor(const Shape& shape, std::int64_t bound, std::uint64_t seed) {
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < shape.elements(); ++i)
    ids.push_back(static_cast<std::int32_t>(
        RngKey{seed}.below(static_cast<std::uint64_t>(bound), static_cast<std::uint64_t>(i))));
  return from_host(ids, shape);
}

Tensor special_values(DType dtype) {
  return from_host({kNaN, kInf, -kInf, 0.0, -0.0, 1.0, -1.0, 0.3, -0.6, 5.0, -5.0, 40.0, -40.0,
                    1e-30, -1e-30, 1e30, -1e30},
                   {17})
      .to(dtype);
}

TEST_CASE("cuda: bytes come back as they went, with any dtype and size") {
  for (const std::int64_t n : kSizes) {
    for (const DType dtype : {DType::f32, DType::f64, DType::i32, DType::u8}) {
      const Tensor x = ids_tensor({n}, 200, 1).to(dtype);
      const Tensor there = x.to(gpu());
      CHECK(there.device() == gpu());
      CHECK(same_bits(there, x));
      CHECK(same_bits(there.clone(), x));
    }
  }
  CHECK(scalar(2.5, DType::f64, gpu()).item() == 2.5);
}

TEST_CASE("cuda: the host's memory may change as soon as it was uploaded") {
  for (const std::int64_t n : {1, 257, 1 << 20}) {
    Tensor host = full({n}, 1.0, DType::f32);
    std::vector<Tensor> there;
    for (int i = 1; i <= 4; ++i) {
      host.fill_(i);
      there.push_back(host.to(gpu()));
    }
    for (int i = 1; i <= 4; ++i)
      CHECK(same_bits(there[static_cast<std::size_t>(i - 1)], full({n}, i, DType::f32)));
  }
}

TEST_CASE("cuda: the host gets no pointer to a device's elements") {
  Tensor x = zeros({2}, DType::f32, gpu());
  CHECK_THROWS_WITH_AS(x.data<float>(),
                       "data: f32[2] on cuda:0 is out of the host's reach; copy it with to(cpu)",
                       Error);
  CHECK_THROWS_WITH_AS(
      x.mutable_data<float>(),
      "mutable_data: f32[2] on cuda:0 is out of the host's reach; copy it with to(cpu)", Error);
  CHECK(x.to(cpu).data<float>()[1] == 0.0F);
  CHECK(x.raw_data() != nullptr);
}

TEST_CASE("cuda: copy converts between all dtypes as the cpu does") {
  for (const DType from : {DType::f32, DType::f64, DType::i32, DType::u8}) {
    for (const DType to : {DType::f32, DType::f64, DType::i32, DType::u8}) {
      for (const std::int64_t n : kSizes) {
        Tensor x = ids_tensor({n, 3}, 120, 2).to(from);
        if (is_float(from)) x = affine(x, 1.0, 0.375);
        check_agree_any_layout([&](const Tensors& t) { return Tensors{t[0].to(to)}; }, {x}, 0);
      }
    }
  }
  const Tensor negative = from_host({-3, 2147483647, -2147483647, 0}, {4});
  for (const DType to : {DType::f32, DType::f64})
    check_agree([&](const Tensors& t) { return Tensors{t[0].to(to)}; }, {negative}, 0);
}

TEST_CASE("cuda: copy and fill reach views with any strides") {
  for (const DType dtype : {DType::f32, DType::f64, DType::i32, DType::u8}) {
    const Tensor x = ids_tensor({2, 3, 4, 5, 6}, 100, 3).to(dtype);
    check_agree(
        [](const Tensors& t) {
          return Tensors{t[0].permute({4, 2, 0, 3, 1}).contiguous(),
                         t[0].slice(2, 1, 3).slice(4, 2, 5).contiguous(),
                         t[0].slice(1, 0, 1).expand({2, 3, 4, 5, 6}).contiguous()};
        },
        {x}, 0);
    check_agree(
        [](const Tensors& t) {
          Tensor whole = t[0].clone();
          Tensor part = whole.transpose(1, 3).slice(2, 1, 3);
          part.fill_(7.0);
          return Tensors{whole, full({33}, 3.0, whole.dtype(), whole.device())};
        },
        {x}, 0);
  }
}

TEST_CASE("cuda: uniform draws and dropout have the cpu's bits, normal draws its values") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : kSizes) {
      const RngKey key = RngKey{5}.at("draws");
      CHECK(same_bits(uniform({n}, key, -0.3, 1.7, dtype, gpu()),
                      uniform({n}, key, -0.3, 1.7, dtype)));
      const Tensor there = normal({n}, key, 0.5, 2.0, dtype, gpu());
      CHECK(distance(there, normal({n}, key, 0.5, 2.0, dtype)) <=
            (dtype == DType::f64 ? 1e-14 : 1e-6));
      const Tensor x = random_tensor({n, 3}, dtype, 6);
      for (const double p : {0.0, 0.3, 0.999})
        check_agree_any_layout([&](const Tensors& t) { return Tensors{dropout(t[0], p, key)}; },
                               {x}, 0);
    }
  }
}

constexpr Unary kUnaries[] = {Unary::negative, Unary::exp,        Unary::log,  Unary::sqrt,
                              Unary::square,   Unary::reciprocal, Unary::tanh, Unary::sigmoid,
                              Unary::relu,     Unary::silu,       Unary::gelu, Unary::gelu_tanh};

TEST_CASE("cuda: map and map_backward, every function") {
  for (const DType dtype : kFloats) {
    for (const Unary function : kUnaries) {
      CAPTURE(static_cast<int>(function));
      const auto forward = [&](const Tensors& t) { return Tensors{map(function, t[0])}; };
      const auto backward = [&](const Tensors& t) {
        return Tensors{map_backward(function, t[0], t[1], t[2])};
      };
      const bool positive = function == Unary::log || function == Unary::sqrt;
      for (const std::int64_t n : {1, 33, 257}) {
        Tensor x = random_tensor({n}, dtype, 7);
        if (positive) x = affine(square(x), 1.0, 0.01);
        // In f32 the cpu has polynomials of its own, of 3.6e-7.
        check_agree_any_layout(forward, {x}, 8);
        check_agree_any_layout(backward, {x, map(function, x), random_tensor({n}, dtype, 8)}, 16);
      }
      const Tensor matrix = affine(square(random_tensor({3, 5, 4}, dtype, 9)), 1.0, 0.01);
      check_agree_any_layout(forward, {matrix}, 8);
      check_agree(
          [&](const Tensors& t) {
            return Tensors{map(function, t[0].slice(1, 2, 3).expand({3, 5, 4}))};
          },
          {matrix}, 8);
      check_agree(forward, {special_values(dtype)}, 8);
      check_agree(forward, {empty({0, 3}, dtype)}, 0);
    }
  }
}

TEST_CASE("cuda: arithmetic has the cpu's bits") {
  for (const DType dtype : kFloats) {
    const auto all = [](const Tensors& t) {
      Tensor sum = t[0].clone();
      add_(sum, t[1], 0.3);
      return Tensors{add(t[0], t[1]), sub(t[0], t[1]),       mul(t[0], t[1]),
                     div(t[0], t[1]), affine(t[0], 0.7, -2), sum};
    };
    for (const std::int64_t n : kSizes)
      check_agree_any_layout(
          all, {random_tensor({n, 3}, dtype, 10), random_tensor({n, 3}, dtype, 11)}, 0);
    // Broadcast on either side, in the middle and at the end.
    check_agree_any_layout(all,
                           {random_tensor({4, 3, 5}, dtype, 12), random_tensor({5}, dtype, 13)}, 0);
    check_agree_any_layout(
        all, {random_tensor({4, 3, 5}, dtype, 12), random_tensor({3, 1}, dtype, 13)}, 0);
    const Tensor special = special_values(dtype);
    check_agree(all, {special.reshape({17, 1}).expand({17, 17}).contiguous(), special}, 1e-9);
    const auto choose = [](const Tensors& t) { return Tensors{where(t[0], t[1], t[2])}; };
    check_agree_any_layout(choose,
                           {mask_tensor({6, 33}, 14), random_tensor({6, 33}, dtype, 15),
                            random_tensor({6, 33}, dtype, 16)},
                           0);
    check_agree(choose,
                {mask_tensor({6, 1}, 14), random_tensor({33}, dtype, 15), scalar(2.0, dtype)}, 0);
  }
}

TEST_CASE("cuda: select moves ids and masks too") {
  const Tensor mask = mask_tensor({40}, 14);
  for (const DType dtype : {DType::i32, DType::u8}) {
    const Tensor a = ids_tensor({40}, 200, 17).to(dtype), b = ids_tensor({40}, 200, 18).to(dtype);
    const auto run = [&](Device device) {
      const Tensor c = mask.to(device), x = a.to(device), z = b.to(device);
      Tensor y = empty({40}, dtype, device);
      const Shape shape{40}, strides{1};
      backend_for(device).select(context_for(device), View{c.raw_data(), DType::u8, shape, strides},
                                 View{x.raw_data(), dtype, shape, strides},
                                 View{z.raw_data(), dtype, shape, strides},
                                 MutView{y.mutable_raw_data(), dtype, shape, strides});
      return y;
    };
    CHECK(same_bits(run(gpu()), run(cpu)));
  }
}

TEST_CASE("cuda: sums over any axes, short and long") {
  for (const DType dtype : kFloats) {
    const auto all = [](const Tensors& t) {
      return Tensors{sum(t[0]), sum(t[0], {0}), sum(t[0], {1}), sum(t[0], {0}, true)};
    };
    for (const std::int64_t n : kSizes) {
      check_agree_any_layout(all, {random_tensor({n, 3}, dtype, 20)}, 64);
      check_agree_any_layout(all, {random_tensor({3, n}, dtype, 21)}, 64);
    }
    check_agree(all, {random_tensor({5000, 1}, dtype, 22)}, 64);
    check_agree(all, {random_tensor({4500, 2}, dtype, 23)}, 64);
    check_agree(
        [](const Tensors& t) {
          return Tensors{sum(t[0], {1}), sum(t[0], {0, 2})};
        },
        {random_tensor({3, 70, 5}, dtype, 24)}, 64);
    check_agree(all, {special_values(dtype).reshape({17, 1})}, 64);
    // Over nothing.
    check_agree(
        [](const Tensors& t) {
          return Tensors{sum(t[0], {1}), sum(t[0], {0})};
        },
        {empty({3, 0}, dtype)}, 0);
    check_agree([](const Tensors& t) { return Tensors{sum(t[0], {1})}; }, {empty({3, 0, 4}, dtype)},
                0);
  }
}

TEST_CASE("cuda: max finds the first of equals, and NaN") {
  for (const DType dtype : kFloats) {
    const auto both = [](int axis) {
      return [axis](const Tensors& t) {
        const MaxResult result = max(t[0], axis);
        return Tensors{result.values, result.indices};
      };
    };
    for (const std::int64_t n : {1, 31, 32, 33, 257}) {
      const Tensor ties = ids_tensor({3, n, 2}, 5, 25).to(dtype);
      for (const int axis : {0, 1, 2}) check_agree_any_layout(both(axis), {ties}, 0);
    }
    check_agree(both(0), {special_values(dtype)}, 0);
    check_agree(both(0), {special_values(dtype).slice(0, 1, 17).contiguous()}, 0);
    check_agree(both(0), {full({40}, -kInf, dtype)}, 0);
    check_agree(both(1), {empty({0, 3}, dtype)}, 0);
  }
}

TEST_CASE("cuda: norms and counts of values that are not finite") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : {0, 1, 33, 3000}) {
      const Tensor x = random_tensor({n}, dtype, 26);
      CHECK(sum_of_squares(x.to(gpu())) == doctest::Approx(sum_of_squares(x)).epsilon(1e-14));
      CHECK(count_nonfinite(x.to(gpu())) == 0);
    }
    CHECK(count_nonfinite(special_values(dtype).to(gpu())) == 3);
  }
}

TEST_CASE("cuda: matmul takes every layout that the cpu takes") {
  for (const DType dtype : kFloats) {
    const auto product = [](const Tensors& t) { return Tensors{matmul(t[0], t[1], 0.5)}; };
    const auto all_layouts = [&](const Tensor& a, const Tensor& b) {
      check_agree_any_layout(product, {a, b}, 64);
      check_agree(
          [](const Tensors& t) {
            const Tensor a_columns = t[0].transpose().contiguous().transpose();
            const Tensor b_columns = t[1].transpose().contiguous().transpose();
            return Tensors{matmul(a_columns, t[1]), matmul(t[0], b_columns),
                           matmul(a_columns, b_columns)};
          },
          {a, b}, 64);
    };
    for (const std::int64_t m : {1, 3, 33})
      for (const std::int64_t n : {1, 4, 31})
        for (const std::int64_t k : {1, 5, 32})
          all_layouts(random_tensor({m, k}, dtype, 30), random_tensor({k, n}, dtype, 31));
    for (const Shape& a : {Shape{2, 3, 4, 5}, Shape{1, 3, 4, 5}, Shape{4, 5}, Shape{2, 1, 4, 5}})
      for (const Shape& b : {Shape{2, 3, 5, 6}, Shape{5, 6}, Shape{3, 5, 6}, Shape{2, 1, 5, 6}})
        all_layouts(random_tensor(a, dtype, 32), random_tensor(b, dtype, 33));
    // Heads of attention: the batch axes are not neighbours in memory.
    check_agree(
        [](const Tensors& t) {
          const Tensor q = t[0].transpose(1, 2), k = t[1].transpose(1, 2);
          return Tensors{matmul(q, k.transpose())};
        },
        {random_tensor({2, 5, 3, 4}, dtype, 34), random_tensor({2, 7, 3, 4}, dtype, 35)}, 64);
    // Rows that overlap, which cuBLAS has no words for.
    check_agree(
        [](const Tensors& t) {
          return Tensors{matmul(t[0].expand({6, 4}), t[1]), matmul(t[1], t[2].expand({5, 7}))};
        },
        {random_tensor({1, 4}, dtype, 36), random_tensor({4, 5}, dtype, 37),
         random_tensor({1, 7}, dtype, 38)},
        64);
    // Nothing to sum, and no results.
    check_agree(product, {empty({3, 0}, dtype), empty({0, 4}, dtype)}, 0);
    check_agree(product, {empty({0, 3}, dtype), random_tensor({3, 4}, dtype, 39)}, 0);
    check_agree(product, {random_tensor({2, 3}, dtype, 40), empty({3, 0}, dtype)}, 0);
  }
}

TEST_CASE("cuda: products with a base and a bias") {
  for (const DType dtype : kFloats) {
    const Tensor x = random_tensor({2, 5, 3}, dtype, 41), w = random_tensor({3, 4}, dtype, 42);
    const Tensor bias = random_tensor({4}, dtype, 43);
    const Tensor residual = random_tensor({2, 5, 4}, dtype, 44);
    check_agree_any_layout(
        [](const Tensors& t) {
          Tensor c = t[3].clone();
          matmul_add_(c, t[0], t[1], 0.5);
          return Tensors{linear(t[0], t[1], {}),
                         linear(t[0], t[1], t[2]),
                         linear(t[0], t[1], {}, t[3]),
                         linear(t[0], t[1], t[2], t[3]),
                         linear(t[0], t[1].slice(1, 0, 2), t[2].slice(0, 1, 3)),
                         c};
        },
        {x, w, bias, residual}, 64);
    check_agree(
        [](const Tensors& t) { return Tensors{linear(t[0], t[1], t[2], t[3])}; },
        {empty({5, 0}, dtype), empty({0, 4}, dtype), bias, random_tensor({5, 4}, dtype, 45)}, 0);
    for (const Unary function : {Unary::gelu, Unary::relu, Unary::silu, Unary::gelu_tanh}) {
      check_agree(
          [&](const Tensors& t) {
            const MappedLinear kept = linear_map(t[0], t[1], t[2], function, true);
            const MappedLinear mapped = linear_map(t[0], t[1], {}, function, false);
            const Tensor gy = t[3].reshape({10, 4});
            const MappedLinearBackward back =
                linear_map_backward(gy, t[1], function, t[0].reshape({10, 3}));
            return Tensors{kept.linear, kept.mapped, mapped.mapped, back.gradient, back.mapped};
          },
          {x, w, bias, residual}, 64);
    }
  }
}

TEST_CASE("cuda: rows, of any width") {
  for (const DType dtype : kFloats) {
    const auto all = [](const Tensors& t) {
      const Tensor y = softmax(t[0]), log_y = log_softmax(t[0]);
      return Tensors{y, log_y, logsumexp(t[0]), softmax_backward(y, t[1]),
                     log_softmax_backward(log_y, t[1])};
    };
    for (const std::int64_t width : {1, 31, 32, 33, 257, 1024, 1025, 2500}) {
      const Tensor x = random_tensor({3, width}, dtype, 50);
      check_agree_any_layout(all, {x, random_tensor({3, width}, dtype, 51)}, 64);
    }
    check_agree(all, {random_tensor({9, 5}, dtype, 52), random_tensor({9, 5}, dtype, 53)}, 64);
    check_agree(all, {empty({0, 5}, dtype), empty({0, 5}, dtype)}, 0);
    check_agree(
        [](const Tensors& t) {
          return Tensors{softmax(t[0], 0), logsumexp(t[0], 1)};
        },
        {random_tensor({6, 5, 4}, dtype, 54)}, 64);
    const Tensor special = from_host({kNaN, 1.0, 2.0, kInf, 1.0, 2.0, -kInf, 1.0, 2.0, -kInf, -kInf,
                                      -kInf, kInf, -kInf, 0.0, 1000.0, -1000.0, 999.0},
                                     {6, 3})
                               .to(dtype);
    const auto forward = [](const Tensors& t) {
      return Tensors{softmax(t[0]), log_softmax(t[0]), logsumexp(t[0])};
    };
    check_agree(forward, {special}, 64);
  }
}

TEST_CASE("cuda: layer_norm and normalize, of any width") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t width : {1, 31, 32, 33, 257, 1025}) {
      const Tensor x = random_tensor({2, 35, width}, dtype, 60);
      const Tensor gain = random_tensor({width}, dtype, 61),
                   bias = random_tensor({width}, dtype, 62);
      const Tensor gy = random_tensor({2, 35, width}, dtype, 63);
      const auto norms = [](const Tensors& t) {
        const LayerNormResult result = layer_norm(t[0], t[1], t[2], 1e-5);
        const NormalizeResult unit = normalize(t[0], 1.5, 1e-3);
        return Tensors{result.y, result.mean, result.rstd, unit.y, unit.norm};
      };
      check_agree_any_layout(norms, {x, gain, bias}, 64);
      const LayerNormResult forward = layer_norm(x, gain, bias, 1e-5);
      const NormalizeResult unit = normalize(x, 1.5, 1e-3);
      const auto gradients = [](const Tensors& t) {
        const LayerNormGrads all =
            layer_norm_backward(t[0], t[1], t[2], t[3], t[4], true, true, true);
        const LayerNormGrads gain_only =
            layer_norm_backward(t[0], t[1], t[2], t[3], t[4], false, true, false);
        Tensor sum = t[4].clone();
        layer_norm_backward(t[0], t[1], t[2], t[3], t[4], true, false, false, &sum);
        return Tensors{all.x,          all.gain, all.bias,
                       gain_only.gain, sum,      normalize_backward(t[0], t[5], t[4], 1.5)};
      };
      check_agree(gradients, {x, gain, forward.mean, forward.rstd, gy, unit.norm}, 128);
    }
    check_agree(
        [](const Tensors& t) {
          const LayerNormGrads grads =
              layer_norm_backward(t[0], t[1], t[2], t[2], t[0], true, true, true);
          return Tensors{layer_norm(t[0], t[1], t[1], 1e-5).y, grads.x, grads.gain, grads.bias};
        },
        {empty({0, 5}, dtype), random_tensor({5}, dtype, 64), empty({0}, dtype)}, 0);
  }
}

TEST_CASE("cuda: gathers and scatters have the cpu's bits") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : kSizes) {
      for (const std::int64_t width : {1, 33, 130}) {
        check_agree(
            [&](const Tensors& t) {
              return Tensors{gather_rows(t[0], t[1]), scatter_rows(t[1], t[2], 7)};
            },
            {random_tensor({7, width}, dtype, 70), ids_tensor({n}, 7, 71),
             random_tensor({n, width}, dtype, 72)},
            0);
      }
      // Fewer positions than targets, and more.
      for (const std::int64_t targets : {3, 300}) {
        const auto both = [&](const Tensors& t) {
          return Tensors{gather(t[0], t[1]), scatter(t[1], t[2], targets)};
        };
        const Tensor x = random_tensor({2, 3, targets}, dtype, 73);
        const Tensor gy = random_tensor({2, 3, n}, dtype, 74);
        check_agree_any_layout(both, {x, ids_tensor({2, 3, n}, targets, 75), gy}, 0);
        check_agree(both, {x, ids_tensor({n}, targets, 76), gy}, 0);
      }
    }
  }
}

/// Ids of which some name none of `bound` things; what the cpu takes in their place; and 1 where
/// the id is good.
struct DoubtfulIds {
  Tensor given, replaced, good;
};

DoubtfulIds doubtful_ids(const Shape& shape, std::int64_t bound, std::uint64_t seed) {
  constexpr std::int32_t kLeast = std::numeric_limits<std::int32_t>::min();
  constexpr std::int32_t kMost = std::numeric_limits<std::int32_t>::max();
  const auto past = static_cast<std::int32_t>(bound);
  const std::int32_t bad[] = {-1, past, kLeast, kMost, -past, past + 1};
  std::vector<std::int32_t> given = ids_tensor(shape, bound, seed).to_vector<std::int32_t>();
  std::vector<std::int32_t> replaced = given;
  std::vector<std::uint8_t> good(given.size(), 1);
  for (std::size_t i = 0; i < given.size(); i += 3)
    given[i] = bad[i / 3 % std::size(bad)], replaced[i] = 0, good[i] = 0;
  return {from_host(given, shape), from_host(replaced, shape), from_host(good, shape)};
}

/// Equal elements, or both NaN.
bool same_values(const Tensor& a, const Tensor& b) { return distance(a, b) == 0.0; }

TEST_CASE("cuda: ids out of range give NaN in gathers, and scatters leave them out") {
  for (const DType dtype : kFloats) {
    const Tensor nan = scalar(kNaN, dtype), zero = scalar(0.0, dtype);
    for (const std::int64_t n : {1, 33, 70}) {
      for (const std::int64_t width : {1, 33, 130}) {
        const DoubtfulIds ids = doubtful_ids({n}, 7, 71);
        const Tensor there = ids.given.to(gpu()), good = ids.good.reshape({n, 1});
        const Tensor table = random_tensor({7, width}, dtype, 70);
        CHECK(same_values(gather_rows(table.to(gpu()), there),
                          where(good, gather_rows(table, ids.replaced), nan)));
        const Tensor gy = random_tensor({n, width}, dtype, 72);
        CHECK(same_values(scatter_rows(there, gy.to(gpu()), 7),
                          scatter_rows(ids.replaced, where(good, gy, zero), 7)));
      }
      // Fewer positions than targets, and more.
      for (const std::int64_t targets : {3, 300}) {
        const Tensor x = random_tensor({2, 3, targets}, dtype, 73);
        const Tensor gy = random_tensor({2, 3, n}, dtype, 74);
        for (const Shape& shape : {Shape{2, 3, n}, Shape{n}}) {
          const DoubtfulIds ids = doubtful_ids(shape, targets, 75);
          const Tensor there = ids.given.to(gpu());
          CHECK(same_values(gather(x.to(gpu()), there),
                            where(ids.good, gather(x, ids.replaced), nan)));
          CHECK(same_values(scatter(there, gy.to(gpu()), targets),
                            scatter(ids.replaced, where(ids.good, gy, zero), targets)));
        }
      }
    }
  }
}

TEST_CASE("cuda: ids out of range give integers with all bits one") {
  const Tensor ids = from_host({1, -1, 2, 0}, {4}, gpu());
  const Shape shape{2, 1}, flat{4}, column{4, 1}, one{1}, strides{1, 1};
  for (const DType dtype : {DType::i32, DType::u8}) {
    const Tensor table = from_host({5, 6}, shape).to(dtype).to(gpu());
    Tensor y = empty(column, dtype, gpu());
    backend_for(gpu()).gather_rows(context_for(gpu()),
                                   View{table.raw_data(), dtype, shape, strides},
                                   View{ids.raw_data(), DType::i32, flat, one},
                                   MutView{y.mutable_raw_data(), dtype, column, strides});
    const double none = dtype == DType::i32 ? -1.0 : 255.0;
    CHECK(values(y.to(cpu)) == std::vector<double>{6.0, none, none, 5.0});
  }
}

TEST_CASE("cuda: a target out of range makes the loss NaN, and its row of the gradient") {
  for (const DType dtype : kFloats) {
    const Tensor nan = scalar(kNaN, dtype), gloss = scalar(0.7, dtype);
    for (const Shape& shape : {Shape{40, 1}, Shape{40, 11}, Shape{10, 1100}, Shape{1500, 2}}) {
      const std::int64_t rows = shape[0], classes = shape[1];
      DoubtfulIds targets = doubtful_ids({rows}, classes, 81);
      for (Tensor* ids : {&targets.given, &targets.replaced}) ids->slice(0, 1, 2).fill_(-100);
      const Tensor logits = random_tensor(shape, dtype, 80);
      const Tensor label_weights = affine(square(random_tensor({classes}, dtype, 82)), 1.0, 0.1);
      for (const Tensor& weights : {label_weights, Tensor{}}) {
        const Tensors there = on(gpu(), {logits, targets.given, weights, gloss});
        const CrossEntropyResult result = cross_entropy(there[0], there[1], there[2], -100);
        CHECK(std::isnan(result.loss.item()));
        const CrossEntropyResult expected = cross_entropy(logits, targets.replaced, weights, -100);
        const double limit = dtype == DType::f64 ? 1e-14 : 1e-5;
        CHECK(distance(result.log_sum, expected.log_sum) <= limit);
        const Tensor gradient = cross_entropy_backward(logits, targets.replaced, weights, -100,
                                                       expected.log_sum, gloss);
        CHECK(distance(cross_entropy_backward(there[0], there[1], there[2], -100, result.log_sum,
                                              there[3]),
                       where(targets.good.reshape({rows, 1}), gradient, nan)) <= limit);
        for (const auto reduction :
             {CrossEntropyOptions::Reduction::sum, CrossEntropyOptions::Reduction::mean}) {
          const Var loss = cross_entropy(constant(there[0]), there[1], {-100, there[2], reduction});
          CHECK(std::isnan(loss.value.item()));
        }
      }
    }
  }
}

TEST_CASE("cuda: an operand of another device is an error that names both") {
  const Tensor x = zeros({3, 4}, DType::f32, gpu());
  const Tensor here = zeros({3, 4}, DType::f32);
  const Tensor ids = zeros({3}, DType::i32);
  const doctest::Contains both("devices are mixed; f32[3, 4] on cuda:0 and i32[3]; move one");
  CHECK_THROWS_WITH_AS(gather_rows(x, ids), both, Error);
  CHECK_THROWS_WITH_AS(scatter_rows(ids, x, 5), both, Error);
  CHECK_THROWS_WITH_AS(gather(x, ids), both, Error);
  CHECK_THROWS_WITH_AS(cross_entropy(x, ids, {}, -1), both, Error);

  const doctest::Contains mixed("devices are mixed");
  const Tensor bits = zeros({3, 4}, DType::u8);
  CHECK_THROWS_WITH_AS(scatter(ids, x.slice(1, 0, 3), 5), mixed, Error);
  CHECK_THROWS_WITH_AS(add(x, here), mixed, Error);
  CHECK_THROWS_WITH_AS(matmul(x, here.transpose()), mixed, Error);
  CHECK_THROWS_WITH_AS(where(bits, x, x), mixed, Error);
  CHECK_THROWS_WITH_AS(where(bits.to(gpu()), here, here), mixed, Error);
  CHECK_THROWS_WITH_AS(concat(std::vector{x, here}, 0), doctest::Contains("must agree"), Error);

  const Tensor q = zeros({1, 1, 3, 4}, DType::f32, gpu());
  const Tensor mask = zeros({3, 3}, DType::u8), bias = zeros({3, 3}, DType::f32);
  CHECK_THROWS_WITH_AS(attention(q, q, q, mask, {}, {}), mixed, Error);
  CHECK_THROWS_WITH_AS(attention(q, q, q, {}, bias, {}), mixed, Error);
  CHECK_THROWS_WITH_AS(attention(q, q, q.to(cpu), {}, {}, {}), mixed, Error);
  const AttentionResult result = attention(q, q, q, {}, {}, {});
  const auto backward = [&](const Tensor& m, const Tensor& b, const Tensor& gout) {
    attention_backward(q, q, q, m, b, {}, result.out, result.log_sum, gout, {});
  };
  CHECK_THROWS_WITH_AS(backward(mask, {}, q), mixed, Error);
  CHECK_THROWS_WITH_AS(backward({}, bias, q), mixed, Error);
  CHECK_THROWS_WITH_AS(backward({}, {}, q.to(cpu)), mixed, Error);

  const Tensor gain = full({4}, 1.0, DType::f32, gpu());
  const LayerNormResult norm = layer_norm(x, gain, gain, 1e-5);
  Tensor sum = here.clone();
  CHECK_THROWS_WITH_AS(
      layer_norm_backward(x, gain, norm.mean, norm.rstd, x, true, true, true, &sum), mixed, Error);
  Tensor parameter = x.clone(), velocity = here.clone();
  CHECK_THROWS_WITH_AS(sgd_(parameter, x, 1.0, 0.1, 0.9, 0.0, velocity), mixed, Error);
  CHECK_THROWS_WITH_AS(adam_(parameter, x, 1.0, {}, 1, velocity, velocity), mixed, Error);
}

TEST_CASE("cuda: cross_entropy and its gradient") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t classes : {1, 11, 33, 1100}) {
      for (const std::int64_t rows : {0, 1, 40}) {
        const Tensor logits = random_tensor({rows, classes}, dtype, 80);
        std::vector<std::int32_t> targets =
            ids_tensor({rows}, classes, 81).to_vector<std::int32_t>();
        for (std::size_t i = 0; i < targets.size(); i += 3) targets[i] = -100;
        const Tensor weights = affine(square(random_tensor({classes}, dtype, 82)), 1.0, 0.1);
        const auto both = [](const Tensors& t) {
          const CrossEntropyResult result = cross_entropy(t[0], t[1], t[2], -100);
          const Tensor gloss = scalar(0.7, t[0].dtype(), t[0].device());
          return Tensors{result.loss, result.log_sum,
                         cross_entropy_backward(t[0], t[1], t[2], -100, result.log_sum, gloss)};
        };
        check_agree(both, {logits, from_host(targets, {rows}), weights}, 64);
        check_agree(both, {logits, from_host(targets, {rows}), Tensor{}}, 64);
      }
    }
  }
}

TEST_CASE("cuda: optimizer steps have the cpu's bits") {
  for (const DType dtype : kFloats) {
    for (const std::int64_t n : kSizes) {
      check_agree(
          [](const Tensors& t) {
            Tensor p = t[0].clone(), m = t[2].clone(), v = square(t[3]);
            AdamOptions options;
            options.weight_decay = 0.1;
            adam_(p, t[1], 0.5, options, 3, m, v);
            Tensor momentum = t[0].clone(), u = t[2].clone(), plain = t[0].clone(), none;
            sgd_(momentum, t[1], 0.5, 0.1, 0.9, 0.01, u);
            sgd_(plain, t[1], 0.5, 0.1, 0.0, 0.01, none);
            return Tensors{p, m, v, momentum, u, plain};
          },
          {random_tensor({n}, dtype, 90), random_tensor({n}, dtype, 91),
           random_tensor({n}, dtype, 92), random_tensor({n}, dtype, 93)},
          0);
    }
  }
}

// Attention -------------------------------------------------------------------------------------

struct AttentionCase {
  std::int64_t batch = 2, heads = 2, queries = 5, keys = 9, width = 8, value_width = 6;
  bool mask = false, bias = false, own = false, strided = false;
  AttentionOptions options{};
};

std::string describe(const AttentionCase& c) {
  return "B" + std::to_string(c.batch) + " H" + std::to_string(c.heads) + " T" +
         std::to_string(c.queries) + " S" + std::to_string(c.keys) + " D" +
         std::to_string(c.width) + " E" + std::to_string(c.value_width) + (c.mask ? " mask" : "") +
         (c.bias ? " bias" : "") + (c.own ? " own" : "") + (c.strided ? " strided" : "") +
         (c.options.causal ? " causal" : "") + " dropout " + std::to_string(c.options.dropout) +
         " temperature " + std::to_string(c.options.temperature);
}

void check_attention(const AttentionCase& c, DType dtype, double limit = 64) {
  CAPTURE(describe(c));
  const auto heads = [&](std::int64_t length, std::int64_t width, std::uint64_t seed) {
    return random_tensor({c.batch, c.heads, length, width}, dtype, seed);
  };
  // Query 1 sees nothing.
  Tensor mask = mask_tensor({c.batch, 1, c.queries, c.keys}, 103);
  if (c.queries > 1) mask.slice(2, 1, 2).fill_(0.0);
  const Tensors inputs{heads(c.queries, c.width, 100),
                       heads(c.keys, c.width, 101),
                       heads(c.keys, c.value_width, 102),
                       c.mask ? mask : Tensor{},
                       c.bias ? random_tensor({c.heads, c.queries, c.keys}, dtype, 104) : Tensor{},
                       c.own ? heads(c.queries, c.width, 105) : Tensor{},
                       c.own ? heads(c.queries, c.value_width, 106) : Tensor{},
                       heads(c.queries, c.value_width, 107)};
  const auto run = [&](const Tensors& given) {
    Tensors t = given;
    if (c.strided)
      for (Tensor& x : t)
        if (x.defined()) x = awkward(x);
    const OwnKeyValue own{t[5], t[6]};
    const AttentionResult result = attention(t[0], t[1], t[2], t[3], t[4], c.options, true, own);
    const AttentionResult without_map =
        attention(t[0], t[1], t[2], t[3], t[4], c.options, false, own);
    const AttentionGrads grads =
        attention_backward(t[0], t[1], t[2], t[3], t[4], c.options, result.out,
                           c.strided ? awkward(result.log_sum) : result.log_sum, t[7], {}, own);
    return Tensors{result.out, result.log_sum, result.map, without_map.out, grads.q,
                   grads.k,    grads.v,        grads.bias, grads.own_key,   grads.own_value};
  };
  check_agree(run, inputs, limit);
}

TEST_CASE("cuda: attention and its gradients, every option") {
  for (const DType dtype : kFloats) {
    for (unsigned bits = 0; bits < 32; ++bits) {
      AttentionCase c;
      c.mask = (bits & 1) != 0;
      c.bias = (bits & 2) != 0;
      c.own = (bits & 4) != 0;
      c.options.causal = (bits & 8) != 0;
      if ((bits & 16) != 0) {
        c.options.dropout = 0.3;
        c.options.key = RngKey{108};
        c.options.temperature = 0.7;
        c.options.scale = 0.4;
      }
      c.batch = c.heads = bits % 3 == 0 ? 2 : 1;
      check_attention(c, dtype);
    }
  }
}

TEST_CASE("cuda: attention of lengths and widths beside the tiles'") {
  for (const DType dtype : kFloats) {
    AttentionCase c;
    c.batch = c.heads = 1;
    for (const std::int64_t queries : {1, 32, 33}) {
      for (const std::int64_t keys : {1, 31, 65}) {
        c.queries = queries, c.keys = keys, c.width = 5, c.value_width = 3;
        c.options.causal = keys >= queries;
        c.own = keys == 31;
        check_attention(c, dtype);
      }
    }
    c.queries = 3, c.keys = 4, c.options.causal = false, c.own = true;
    for (const std::int64_t width : {1, 33, 64, 65, 130}) {
      c.width = width, c.value_width = 131 - width;
      check_attention(c, dtype);
    }
    c.strided = c.mask = c.bias = true;
    c.width = 16, c.value_width = 8, c.heads = 3;
    check_attention(c, dtype);
  }
}

TEST_CASE("cuda: attention where there is little or nothing to see") {
  for (const DType dtype : kFloats) {
    AttentionCase c;
    c.batch = c.heads = 1;
    c.keys = 0;
    check_attention(c, dtype);
    c.own = true;
    check_attention(c, dtype);
    c.own = false, c.keys = 4, c.queries = 0;
    check_attention(c, dtype);
    // More queries than keys: the first see none.
    c.queries = 40, c.keys = 35, c.options.causal = true, c.bias = true;
    check_attention(c, dtype);
  }
}

TEST_CASE("cuda: attention with logits that are large, infinite or NaN") {
  for (const DType dtype : kFloats) {
    for (const double special : {kNaN, kInf, -kInf, 1e30, 800.0, -800.0}) {
      CAPTURE(special);
      Tensor q = random_tensor({1, 1, 3, 4}, dtype, 110);
      const Tensor k = random_tensor({1, 1, 37, 4}, dtype, 111);
      const Tensor v = random_tensor({1, 1, 37, 5}, dtype, 112);
      Tensor bias = random_tensor({3, 37}, dtype, 113);
      bias.slice(0, 1, 2).slice(1, 35, 36).fill_(special);
      const auto run = [](const Tensors& t) {
        const AttentionResult result = attention(t[0], t[1], t[2], {}, t[3], {}, true);
        return Tensors{result.out, result.log_sum, result.map};
      };
      check_agree(run, {q, k, v, bias}, 64);
    }
  }
}

// What holds of the whole backend ---------------------------------------------------------------

TEST_CASE("cuda: the same work gives the same bits twice") {
  for (const DType dtype : kFloats) {
    const Tensor x = random_tensor({1, 2, 40, 16}, dtype, 120).to(gpu());
    const auto run = [&] {
      const AttentionResult forward = attention(x, x, x, {}, {}, {});
      const AttentionGrads grads =
          attention_backward(x, x, x, {}, {}, {}, forward.out, forward.log_sum, x, {});
      const Tensor ids = ids_tensor({80}, 5, 121).to(gpu());
      return Tensors{forward.out,
                     grads.q,
                     grads.k,
                     grads.v,
                     sum(x),
                     sum(x, {2}),
                     scatter_rows(ids, x.reshape({80, 16}), 5),
                     softmax(x),
                     matmul(x, x.transpose())};
    };
    const Tensors first = run(), second = run();
    for (std::size_t i = 0; i < first.size(); ++i) CHECK(same_bits(first[i], second[i]));
  }
}

TEST_CASE("cuda: memory is counted, cached and given back") {
  const MemoryStats before = memory_stats(gpu());
  {
    const Tensor x = zeros({1000}, DType::f32, gpu());
    CHECK(memory_stats(gpu()).active == before.active + 4000);
  }
  CHECK(memory_stats(gpu()).active == before.active);
  CHECK(memory_stats(gpu()).cached > 0);
  cuda::release();
  CHECK(memory_stats(gpu()).cached == 0);
  CHECK(memory_stats(gpu()).by_category[static_cast<std::size_t>(Category::workspace)] == 0);
  CHECK(scalar(1.0, DType::f32, gpu()).item() == 1.0);
  cuda::release();
}

TEST_CASE("cuda: every entry of the kernel table is filled, and was called by these tests") {
  gpu();
  CHECK(CountingTable::empty() == std::vector<std::string>{});
  CHECK(CountingTable::unused() == std::vector<std::string>{});
  MESSAGE("the largest error is " << worst().share << " of what is allowed, in '" << worst().where
                                  << "'");
}

}  // namespace
}  // namespace mf::test
