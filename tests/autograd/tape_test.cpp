#include "autograd/tape.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "autograd/pass.h"
#include "memformer/audit/op_cases.h"
#include "tensor/memory.h"

namespace mf::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Tensor numbers(const Shape& shape, std::uint64_t key = 1) {
  return uniform(shape, RngKey{key}, -1.0, 1.0, DType::f64);
}

/// What an Error says; empty if `fn` throws none.
template <class F>
std::string message_of(F&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// y = x, whose backward makes a NaN.
struct NaNBackward {
  static constexpr const char* kName = "nan_backward";
  Tensor forward(Wants, const Tensor& x) const { return x; }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, full(gy.shape(), kNaN, gy.dtype())); }
  auto saved() { return std::tie(); }
};

/// y = x, whose backward makes f32 whatever x is.
struct WrongDType {
  static constexpr const char* kName = "wrong_dtype";
  Tensor forward(Wants, const Tensor& x) const { return x; }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, gy.to(DType::f32)); }
  auto saved() { return std::tie(); }
};

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("tape: constants are not recorded and their results are constants") {
    Tape tape;
    const Var y = mul(constant(numbers({3})), constant(numbers({3})));
    CHECK(!y.on_tape());
    CHECK(tape.size() == 0);
    const Var z = mul(tape.input(numbers({3})), y);
    CHECK(z.on_tape());
    CHECK(tape.size() == 1);
  }

  TEST_CASE("tape: a tape that is off records nothing and refuses a sweep") {
    Tape off = Tape::off();
    const Parameter weight(numbers({3}), "weight");
    const Var x = off.input(numbers({3}));
    CHECK(!x.on_tape());
    CHECK(!off.param(weight).on_tape());
    CHECK(!mul(x, off.param(weight)).on_tape());
    CHECK(off.size() == 0);
    CHECK(!off.records());
    CHECK(contains(message_of([&] { off.backward(std::span<const Seed>{}); }), "off"));
  }

  TEST_CASE("tape: operands on two tapes are an error that names the op") {
    Tape one, two;
    const Var a = one.input(numbers({2})), b = two.input(numbers({2}));
    const std::string text = message_of([&] { add(a, b); });
    CHECK(contains(text, "add: operands are on two tapes"));
    CHECK(contains(text, "f64[2]"));
    CHECK(contains(message_of([&] { concat({a, b}, 0); }), "concat: operands are on two tapes"));
  }

  TEST_CASE("tape: a second sweep and recording after a sweep are errors until clear()") {
    Tape tape;
    const Var x = tape.input(numbers({}));
    const Var y = square(x);
    tape.backward(y);
    CHECK(contains(message_of([&] { tape.backward(y); }), "this tape has been swept"));
    CHECK(contains(message_of([&] { square(x); }), "square: this tape has been swept"));
    CHECK(contains(message_of([&] { tape.input(numbers({2})); }), "clear()"));
    CHECK(contains(message_of([&] { tape.param(Parameter(numbers({2}))); }), "swept"));

    tape.clear();
    CHECK(tape.size() == 0);
    CHECK(tape.saved_bytes() == 0);
    const Var again = tape.input(scalar(3.0, DType::f64));
    tape.backward(square(again));
    CHECK(tape.grad(again).item() == 6.0);
  }

  TEST_CASE("tape: several seeds in one sweep give the sum of the sweeps with one each") {
    const Tensor value = numbers({2, 3});
    const auto gradient = [&](bool with_square, bool with_exp) {
      Tape tape;
      const Var x = tape.input(value);
      const Var a = square(x), b = exp(x);
      std::vector<Seed> seeds;
      if (with_square) seeds.push_back({a, numbers({2, 3}, 2)});
      if (with_exp) seeds.push_back({b, numbers({2, 3}, 3)});
      tape.backward(seeds);
      return tape.grad(x);
    };
    const Tensor total = add(gradient(true, false), gradient(false, true));
    CHECK(sum_of_squares(sub(gradient(true, true), total)) < 1e-30);
  }

  TEST_CASE("tape: a seed on an inner value and two seeds on one value add up") {
    Tape tape;
    const Var x = tape.input(scalar(2.0, DType::f64));
    const Var y = square(x);
    const Var z = scale(y, 3.0);
    const Tensor one = scalar(1.0, DType::f64);
    tape.backward({{z, one}, {y, one}, {y, one}});
    CHECK(tape.grad(x).item() == 20.0);  // (3 + 1 + 1) * 2x
    CHECK(one.item() == 1.0);            // seeds are the caller's: they are not written to
  }

  TEST_CASE("tape: a seed must have the shape and dtype of its var and be on this tape") {
    Tape tape, other;
    const Var x = tape.input(numbers({2, 3}));
    const Var foreign = other.input(numbers({2}));
    CHECK(contains(message_of([&] {
                     tape.backward({{square(x), numbers({3, 2})}});
                   }),
                   "backward: the seed f64[3, 2] does not have the shape of its var f64[2, 3]"));
    CHECK(contains(message_of([&] {
                     tape.backward({{square(x), numbers({2, 3}).to(DType::f32)}});
                   }),
                   "backward"));
    CHECK(contains(message_of([&] {
                     tape.backward({{foreign, numbers({2})}});
                   }),
                   "belongs to another one"));
    CHECK(contains(message_of([&] {
                     tape.backward({{constant(numbers({2})), numbers({2})}});
                   }),
                   "it is a constant"));
    CHECK(contains(message_of([&] { tape.backward(square(x)); }), "not a scalar"));
  }

  TEST_CASE("tape: a leaf that the sweep does not reach has gradient zero and says so") {
    Tape tape;
    const Var x = tape.input(numbers({2})), unused = tape.input(numbers({3}).to(DType::f32));
    tape.backward(sum(x));
    CHECK(tape.reached(x));
    CHECK(!tape.reached(unused));
    CHECK(tape.grad(unused).shape() == Shape{3});
    CHECK(tape.grad(unused).dtype() == DType::f32);
    CHECK(sum_of_squares(tape.grad(unused)) == 0.0);
  }

  TEST_CASE("tape: only leaves keep a gradient, and only after a sweep") {
    Tape tape;
    const Var x = tape.input(numbers({}));
    const Var y = square(x);
    CHECK(contains(message_of([&] { static_cast<void>(tape.grad(x)); }), "has not been swept"));
    tape.backward(y);
    CHECK(contains(message_of([&] { static_cast<void>(tape.grad(y)); }), "not a leaf"));
    CHECK(contains(message_of([&] { static_cast<void>(tape.grad(constant(numbers({})))); }),
                   "not a leaf"));
  }

  TEST_CASE("tape: a parameter has one id per tape and its gradients are written through") {
    Parameter weight(scalar(3.0, DType::f64), "weight");
    for (int pass = 1; pass <= 2; ++pass) {
      Tape tape;
      const Var a = tape.param(weight), b = tape.param(weight);
      CHECK(a.id == b.id);
      CHECK(!(pass == 1 && weight.grad().defined()));
      tape.backward(mul(a, b));
      CHECK(weight.grad().item() == 6.0 * pass);  // sweeps accumulate
      CHECK(tape.grad(a).item() == 6.0 * pass);
      CHECK(tape.reached(a));
    }
    weight.zero_grad();
    CHECK(!weight.grad().defined());
  }

  TEST_CASE("tape: copies of a parameter are one parameter, equal values are not") {
    const Parameter weight(numbers({2}), "weight");
    const Parameter alias = weight;
    const Parameter other(numbers({2}), "weight");
    Tape tape;
    CHECK(tape.param(weight).id == tape.param(alias).id);
    CHECK(tape.param(weight).id != tape.param(other).id);
  }

  TEST_CASE(
      "tape: gradients of two parameters never share a block, so each may be scaled in place") {
    Parameter a(numbers({2, 3}), "a"), b(numbers({2, 3}), "b"), c(numbers({2, 3}), "c");
    Tape tape;
    tape.backward({{add(tape.param(a), add(tape.param(b), reshape(tape.param(c), {2, 3}))),
                    numbers({2, 3}, 7)}});
    CHECK(!a.grad().shares_storage(b.grad()));
    CHECK(!a.grad().shares_storage(c.grad()));
    CHECK(!b.grad().shares_storage(c.grad()));
    Parameter summed(numbers({2, 3}), "summed");
    Tape second;
    second.backward(sum(second.param(summed)));
    CHECK(summed.grad().is_contiguous());  // an expanded gradient would overlap itself
  }

  TEST_CASE("tape: a saved tensor that was changed in place is an error that names the op") {
    Tape tape;
    Tensor value = numbers({3});
    const Var x = tape.input(value);
    const Var y = square(x);
    value.fill_(2.0);
    const std::string text = message_of([&] { tape.backward({{y, numbers({3})}}); });
    CHECK(contains(text, "backward of square"));
    CHECK(contains(text, "f64[3]"));
    CHECK(contains(text, "changed in place"));
  }

  TEST_CASE("tape: a change through a view of the saved block is noticed too") {
    Tape tape;
    Tensor value = numbers({4});
    const Var y = square(tape.input(value.slice(0, 0, 2)));
    Tensor rest = value.slice(0, 2, 4);
    rest.fill_(0.0);
    CHECK(contains(message_of([&] { tape.backward({{y, numbers({2})}}); }), "changed in place"));
  }

  TEST_CASE("tape: saved_bytes counts each block once and leaves parameters out") {
    const Parameter weight(numbers({4, 4}), "weight");
    Tape tape;
    const Var x = tape.input(numbers({3, 4}));
    const Var y = linear(x, tape.param(weight));  // saves x and the weight
    CHECK(tape.saved_bytes() == 3 * 4 * 8);
    mul(x, square(x));  // square saves x again; mul saves x again and its square
    CHECK(tape.saved_bytes() == 2 * 3 * 4 * 8);
    reshape(y, {4, 3});
    CHECK(tape.saved_bytes() == 2 * 3 * 4 * 8);
    tape.backward({{y, numbers({3, 4})}});
    CHECK(tape.saved_bytes() == 0);
  }

  TEST_CASE("tape: report lists op, module path, inputs, shapes and bytes of each entry") {
    Tape tape;
    const Pass pass{tape, RngKey{1}, Mode::train, {}};
    const Var x = tape.input(numbers({2, 3}));
    Var y, z;
    {
      const Pass layer = pass.at("encoder").at("layers", 0);
      const ModuleScope outer(layer);
      y = square(x);
      {
        const ModuleScope inner(layer.at("mlp"));
        y = add(y, constant(numbers({3})));
      }
      y = exp(y);
    }
    z = sum(y);
    const TapeReport report = tape.report();
    REQUIRE(report.rows.size() == 4);
    CHECK(report.rows[0].op == "square");
    CHECK(report.rows[0].module == "encoder/layers.0");
    CHECK(report.rows[1].op == "add");
    CHECK(report.rows[1].module == "encoder/layers.0/mlp");
    CHECK(report.rows[1].inputs == std::vector<std::int32_t>{report.rows[0].output, -1});
    CHECK(report.rows[2].module == "encoder/layers.0");
    CHECK(report.rows[3].module.empty());
    CHECK(report.rows[0].shapes == std::vector<Shape>{{2, 3}});
    CHECK(report.rows[0].saved_bytes == 48);
    CHECK(report.rows[1].saved_bytes == 0);
    CHECK(report.rows[3].output == z.id);
    CHECK(report.saved_bytes == 96);
    const std::string text = describe(report);
    CHECK(contains(text, "encoder/layers.0/mlp"));
    CHECK(contains(text, "4 entries, 96 bytes saved"));
  }

  TEST_CASE("tape: the report tells the order of visits, contributions, and no gradient from 0") {
    const Parameter weight(numbers({3}), "weight"), idle(numbers({2}), "idle");
    Tape tape;
    const Var x = tape.input(numbers({2, 3}), "x");
    const Var w = tape.param(weight);
    tape.param(idle);
    const Var y = mul(x, w);                      // entry 0
    square(x);                                    // entry 1: leads to no seed
    const Var z = add(y, scale(mul(y, y), 0.0));  // entries 2, 3, 4
    const auto norms = [&] {
      std::vector<std::string> texts;
      for (const TapeReport::Leaf& leaf : tape.report().leaves)
        texts.push_back(leaf.name + ": " + describe_gradient(leaf.gradient_norm));
      return texts;
    };
    CHECK(norms() == std::vector<std::string>{"x: none yet", "weight: none yet", "idle: none yet"});
    for (const TapeReport::Row& row : tape.report().rows) {
      CHECK(row.visit == -1);
      CHECK(row.received == std::vector<std::int32_t>{0});
    }
    tape.backward({{z, numbers({2, 3}, 7)}, {z, zeros({2, 3}, DType::f64)}});

    const TapeReport report = tape.report();
    const auto column = [&](auto member) {
      std::vector<std::decay_t<decltype(report.rows[0].*member)>> values;
      for (const TapeReport::Row& row : report.rows) values.push_back(row.*member);
      return values;
    };
    using Counts = std::vector<std::vector<std::int32_t>>;
    CHECK(column(&TapeReport::Row::op) ==
          std::vector<std::string>{"mul", "square", "mul", "scale", "add"});
    CHECK(column(&TapeReport::Row::visit) == std::vector<std::int32_t>{3, -1, 2, 1, 0});
    CHECK(column(&TapeReport::Row::received) == Counts{{3}, {0}, {1}, {1}, {2}});
    CHECK(column(&TapeReport::Row::given) == Counts{{1, 1}, {0}, {1, 1}, {1}, {1, 1}});
    REQUIRE(report.leaves.size() == 3);
    CHECK(report.leaves[0].received == 1);
    CHECK(report.leaves[0].parameter == false);
    CHECK(report.leaves[1].parameter);
    CHECK(*report.leaves[1].gradient_norm ==
          doctest::Approx(std::sqrt(sum_of_squares(weight.grad()))));
    CHECK(norms()[2] == "idle: none yet");
    const std::string text = describe(report);
    CHECK(contains(text, "leaf  idle"));
    CHECK(contains(text, "gradient none yet"));
    CHECK(contains(text, "5 entries, 0 bytes saved"));

    Tape zero;
    const Var leaf = zero.input(numbers({2}), "leaf");
    zero.backward({{scale(leaf, 0.0), numbers({2})}});
    CHECK(describe_gradient(zero.report().leaves[0].gradient_norm) == "0");
    tape.clear();
    CHECK(tape.report().leaves.empty());
  }

  TEST_CASE("tape: a result that no op saved and no Var holds is freed at once") {
    const std::int64_t before = memory_stats().active;
    const std::int64_t one = 1000 * 8;
    {
      Tape tape;
      Var y = tape.input(numbers({1000}));
      for (int i = 0; i < 50; ++i) y = affine(y, 1.01, 0.1);
      CHECK(memory_stats().active == before + one);  // the last value only; the leaf went as well
    }
    CHECK(memory_stats().active == before);
  }

  TEST_CASE("tape: the sweep frees what each entry saved as it passes") {
    const std::int64_t one = 1000 * 8;
    Tape tape;
    const Var x = tape.input(numbers({1000}));
    Var y = x;
    for (int i = 0; i < 50; ++i) y = tanh(y);
    CHECK(tape.saved_bytes() == 50 * one);
    const std::int64_t before = memory_stats().active;
    const Tensor seed = full({1000}, 1.0, DType::f64);
    const PeakScope peak;
    tape.backward({{y, seed}});
    CHECK(peak.growth() <= 2 * one);  // one gradient in, one out
    // Left: x, y (held here), the seed, the gradient of x.
    CHECK(memory_stats().active == before - 49 * one + 2 * one);
  }

  TEST_CASE(
      "tape: a value used twice meets its gradient before it is passed on (topological order)") {
    Tape tape;
    const Var a = tape.input(scalar(1.0, DType::f64));
    const Var b = add(a, a);
    const Var c = add(b, b);
    tape.backward(c);
    CHECK(tape.grad(a).item() == 4.0);
  }

  TEST_CASE("tape: gradients handed to two places do not write into each other") {
    Tape tape;
    const Var a = tape.input(numbers({3})), b = tape.input(numbers({3}, 2));
    const Var y = add(a, b);  // one gradient tensor for both
    tape.backward({{add(y, scale(a, 2.0)), full({3}, 1.0, DType::f64)}});
    CHECK(tape.grad(a).to_vector<double>() == std::vector<double>{3, 3, 3});
    CHECK(tape.grad(b).to_vector<double>() == std::vector<double>{1, 1, 1});
  }

  TEST_CASE("tape: a chain of 100,000 ops needs no stack") {
    Tape tape;
    const Var x = tape.input(scalar(0.5, DType::f64));
    Var y = x;
    for (int i = 0; i < 100000; ++i) y = affine(y, 1.0, 1e-6);
    CHECK(tape.size() == 100000);
    tape.backward(y);
    CHECK(tape.grad(x).item() == 1.0);
  }

  TEST_CASE("tape: anomaly mode names the op and module that first made a NaN forward") {
    for (const OpRow& row : op_table()) {
      std::vector<Tensor> inputs = values(row, row.shapes[0]);
      if (inputs[0].elements() == 0) continue;
      inputs[0].fill_(kNaN);
      Tape tape;
      tape.check_finite(true);
      std::vector<Var> vars;
      for (const Tensor& input : inputs) vars.push_back(tape.input(input));
      const Pass pass{tape, RngKey{1}, Mode::train, "model"};
      const Pass layer = pass.at("layer");
      const ModuleScope scope(layer);
      const std::string text = message_of([&] { row.build(vars); });
      if (row.variant == "no ids" || row.variant == "no keys") {  // no number of the input is used
        CHECK_MESSAGE(text.empty(), text);
        continue;
      }
      // The row of contiguous makes a view first, and that one meets the NaN.
      const std::string op = row.name == "contiguous" ? "transpose" : row.name;
      CHECK_MESSAGE(text.starts_with(op + " in model/layer: "), title(row) << ": " << text);
      CHECK_MESSAGE(contains(text, "f64["), text);
    }
  }

  TEST_CASE("tape: anomaly mode names the op whose backward first made a NaN") {
    for (const OpRow& row : op_table()) {
      const std::vector<Tensor> inputs = values(row, row.shapes[0]);
      Tape tape;
      tape.check_finite(true);
      std::vector<Var> vars;
      for (const Tensor& input : inputs) vars.push_back(tape.input(input));
      const Var y = row.build(vars);
      if (y.value.elements() == 0) continue;
      const ModuleScope scope(Pass{tape, RngKey{1}, Mode::train, "model/bad"});
      const Var z = record(NaNBackward{}, y);
      const std::string text = message_of([&] {
        tape.backward({{z, full(z.shape(), 1.0, z.dtype())}});
      });
      CHECK_MESSAGE(contains(text, "nan_backward in model/bad"), title(row) << ": " << text);
    }
  }

  TEST_CASE("tape: anomaly mode names a backward that overflows, and is quiet otherwise") {
    Tape tape;
    tape.check_finite(true);
    const Var x = tape.input(from_host({0.0, 1.0}, {2}));
    const Var y = sqrt(x);  // finite; the derivative at 0 is not
    const std::string text = message_of([&] { tape.backward({{y, numbers({2})}}); });
    CHECK(contains(text, "sqrt: the backward pass made 1 NaN or infinite values of f64[2]"));

    // Inputs with their ranges: what was large, small or broken before.
    Tape other;
    other.check_finite(true);
    const Var wide = other.input(from_host({-2.5, 0.0, kNaN, 7.0}, {4}));
    const std::string forward = message_of([&] { exp(wide); });
    CHECK_MESSAGE(contains(forward, "inputs f64[4] in [-2.5, 7] and 1 not finite"), forward);

    Tape calm;
    calm.check_finite(true);
    const Var z = calm.input(numbers({2}));
    calm.backward(sum(exp(z)));
    CHECK(calm.reached(z));
  }

  TEST_CASE("tape: a gradient of the wrong dtype is an error that names the op") {
    Tape tape;
    const Var y = record(WrongDType{}, tape.input(numbers({2})));
    const std::string text = message_of([&] { tape.backward({{y, numbers({2})}}); });
    CHECK(contains(text, "wrong_dtype"));
    CHECK(contains(text, "f32[2]"));
    CHECK(contains(text, "f64[2]"));
  }

  TEST_CASE("tape: a leaf must be a floating tensor") {
    Tape tape;
    CHECK(contains(message_of([&] { tape.input(empty({2}, DType::i32), "ids"); }),
                   "input: 'ids' is i32[2]"));
    CHECK(contains(message_of([&] { tape.input(Tensor{}); }), "undefined"));
    CHECK(contains(message_of([&] { tape.param(Parameter{}); }), "param: "));
  }
}

}  // namespace mf::test
