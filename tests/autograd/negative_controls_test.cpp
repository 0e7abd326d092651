#include <doctest/doctest.h>

#include "autograd/grad_check.h"
#include "autograd/ops.h"
#include "memformer/audit/planted_gradients.h"

namespace mf::test {

TEST_SUITE("autograd") {
  TEST_CASE(
      "grad_check: catches all twenty-one planted faults and accepts the right op beside each") {
    int caught = 0;
    for (const PlantedGradient& planted : planted_gradients()) {
      const auto check = [&](const auto& function) {
        return grad_check(
            planted.fault, [&](Tape&, std::span<const Var> x) { return function(x); },
            planted.inputs);
      };
      const GradReport right = check(planted.right), wrong = check(planted.wrong);
      CHECK_MESSAGE(right.ok, describe(right));
      CHECK_MESSAGE(!wrong.ok, "not caught: " << planted.fault);
      caught += wrong.ok ? 0 : 1;
    }
    CHECK(caught == 21);
  }

  TEST_CASE("grad_check: kinks of relu and max fail, and are counted where they are skipped") {
    const Tensor x = from_host({-1.0, 0.0, 2.0, 0.0}, {2, 2});
    const GradFunction rectified = [](Tape&, std::span<const Var> v) { return relu(v[0]); };
    GradCheckOptions options;
    CHECK(!grad_check("relu at 0", rectified, std::span(&x, 1), options).ok);
    options.skip = [](int, std::int64_t, double value) { return value == 0.0; };
    const GradReport skipped = grad_check("relu at 0", rectified, std::span(&x, 1), options);
    CHECK(skipped.ok);
    CHECK(skipped.checked == 2);
    CHECK(skipped.skipped == 2);

    const Tensor ties = from_host({3.0, 3.0, 1.0, 2.0, 5.0, 4.0}, {2, 3});
    const GradFunction largest = [](Tape&, std::span<const Var> v) { return max(v[0], 1); };
    options.skip = nullptr;
    CHECK(!grad_check("max of equals", largest, std::span(&ties, 1), options).ok);
    options.skip = [](int, std::int64_t index, double) { return index < 2; };
    const GradReport untied = grad_check("max of equals", largest, std::span(&ties, 1), options);
    CHECK(untied.ok);
    CHECK(untied.checked == 4);
    CHECK(untied.skipped == 2);
  }

  TEST_CASE("grad_check: finite differences of f32 at step 1e-5 fail, and f32 is refused") {
    const Tensor x = uniform({4, 5}, RngKey{2}, -1.5, 1.5, DType::f32);
    const GradFunction block = [](Tape&, std::span<const Var> v) {
      return softmax(gelu(matmul(v[0], transpose(v[0]))));
    };
    GradCheckOptions options;
    options.step = 1e-5;
    CHECK_THROWS_AS(grad_check("f32", block, std::span(&x, 1), options), Error);
    options.allow_f32 = true;
    CHECK(!grad_check("f32", block, std::span(&x, 1), options).ok);
    const Tensor wide = x.to(DType::f64);
    CHECK(grad_check("f64", block, std::span(&wide, 1)).ok);
  }
}

}  // namespace mf::test
