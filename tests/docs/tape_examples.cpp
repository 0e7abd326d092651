// The examples of docs/tape.md. docs_test.cpp checks that the page quotes these lines.

#include <doctest/doctest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/replay.h"
#include "nn/dropout.h"

namespace mf {

TEST_SUITE("docs") {
  TEST_CASE("tape examples: a gradient") {
    Tape tape;
    const Var x = tape.input(scalar(3.0, DType::f64), "x");
    tape.backward(square(x));
    const Tensor gradient = tape.grad(x);  // 6
    CHECK(gradient.item() == 6.0);
  }

  TEST_CASE("tape examples: a parameter") {
    Parameter weight(scalar(3.0, DType::f64), "weight");
    Tape tape;
    const Var w = tape.param(weight);
    tape.backward(mul(w, w));
    const Tensor gradient = weight.grad();  // 6; the next sweep adds to it
    CHECK(gradient.item() == 6.0);
    Tape next;
    next.backward(square(next.param(weight)));
    CHECK(weight.grad().item() == 12.0);
  }

  TEST_CASE("tape examples: recording is not training") {
    const Tensor x = full({8}, 1.0, DType::f64);
    Tape off = Tape::off();
    const Pass first{off, RngKey{7}, Mode::train, {}};
    const Var y = dropout(first.at("layer"), constant(x), 0.5);  // drops out, records nothing
    Tape tape;
    const Pass again{tape, RngKey{7}, Mode::train, {}};
    const Var z = dropout(again.at("layer"), tape.input(x), 0.5);  // the same mask, recorded
    CHECK(first_difference(y.value, z.value) < 0);
    CHECK((off.size() == 0 && tape.size() == 1));
  }

  TEST_CASE("tape examples: several seeds, one sweep") {
    const Tensor g = scalar(10.0, DType::f64), h = scalar(1.0, DType::f64);
    Tape tape;
    const Var x = tape.input(scalar(3.0, DType::f64), "x");
    const Var y = square(x), z = scale(y, 5.0);
    tape.backward({{y, g}, {z, h}});
    CHECK(tape.grad(x).item() == 90.0);  // (10 + 1 * 5) * 2 * 3
  }

  TEST_CASE("tape examples: a chain over two tapes") {
    Tape first, second;
    const Var x = first.input(scalar(3.0, DType::f64), "x");
    const Var state = square(x);
    const Var leaf = second.input(state.value, "state");
    second.backward(square(leaf));
    first.backward({{state, second.grad(leaf)}});
    const Tensor gradient = first.grad(x);  // 4 x^3 = 108
    CHECK(gradient.item() == 108.0);
  }

  TEST_CASE("tape examples: replay") {
    const Parameter weight(scalar(2.0, DType::f64), "weight");
    Tape tape;
    const Pass pass{tape, RngKey{7}, Mode::train, {}};
    const Var x = tape.input(scalar(3.0, DType::f64), "x");
    const auto block = [&](const Pass& inner, const Var& v) {
      return square(exp(mul(inner.tape.param(weight), v)));
    };
    const Var y = replay(pass, block, x);  // one entry, which saves x
    tape.backward(y);                      // runs block again, on a tape of its own
    CHECK(weight.grad().item() == doctest::Approx(2.0 * 3.0 * std::exp(12.0)).epsilon(1e-12));
    CHECK(tape.size() == 1);
  }

  TEST_CASE("tape examples: what a tape holds") {
    Tape tape;
    const Var x = tape.input(zeros({2, 3}, DType::f32), "x");
    const Var y = sum(exp(x));
    const std::string table = describe(tape.report());
    CHECK(table.find("exp") != table.npos);
    CHECK(tape.saved_bytes() == 24);  // of exp's result; sum saves nothing
    CHECK(y.value.item() == 6.0);
  }

  TEST_CASE("tape examples: anomaly mode") {
    Tape tape;
    tape.check_finite(true);
    const Var x = tape.input(scalar(-1.0, DType::f64), "x");
    CHECK_THROWS_WITH_AS(log(x), doctest::Contains("log: the forward pass made 1 NaN"), Error);
  }
}

}  // namespace mf
