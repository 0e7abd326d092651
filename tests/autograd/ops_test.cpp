#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "memformer/audit/op_cases.h"

/// Everything that follows from a row of the table (memformer/audit/op_cases.cpp), for every row.
namespace mf::test {
namespace {

struct Run {
  Tensor result;
  std::vector<Tensor> gradients;  // undefined where not wanted
};

/// Forward and backward with irregular weights; inputs not in `wants` are constants.
Run run(const OpRow& row, std::span<const Tensor> inputs, std::span<const bool> wants) {
  Tape tape;
  std::vector<Var> vars;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    vars.push_back(wants[i] ? tape.input(inputs[i]) : constant(inputs[i]));
  const Var y = row.build(vars);
  const Tensor seed = uniform(y.shape(), RngKey{23}, -1.0, 1.0, DType::f64).to(y.dtype());
  tape.backward({{y, seed}});
  Run result{y.value, {}};
  for (const Var& var : vars) result.gradients.push_back(var.on_tape() ? tape.grad(var) : Tensor{});
  return result;
}

std::vector<Tensor> converted(std::span<const Tensor> tensors, DType dtype) {
  std::vector<Tensor> result;
  for (const Tensor& tensor : tensors) result.push_back(tensor.to(dtype));
  return result;
}

/// |a - b| / |b|, with |b| = 0 only equal to itself.
double relative_error(const Tensor& a, const Tensor& b) {
  const double size = std::sqrt(sum_of_squares(b));
  const double error = std::sqrt(sum_of_squares(sub(a.to(DType::f64), b)));
  return error == 0.0 ? 0.0 : error / size;
}

/// Calls fn(wants) for each non-empty subset of `n` inputs.
template <class F>
void for_each_subset(std::size_t n, F&& fn) {
  for (unsigned subset = 1; subset < 1U << n; ++subset) {
    const auto wants = std::make_unique<bool[]>(n);
    for (std::size_t i = 0; i < n; ++i) wants[i] = (subset >> i & 1U) != 0;
    fn(std::span<const bool>(wants.get(), n));
  }
}

constexpr bool kAll[] = {true, true, true, true, true, true, true, true};
std::span<const bool> all(std::size_t n) { return std::span<const bool>(kAll).first(n); }

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("ops: gradients pass the gate for every row, layout and shape") {
    GradCheckOptions options;
    for (const OpRow& row : op_table()) {
      options.skip = [&](int, std::int64_t, double x) { return row.kink && row.kink(x); };
      for (const OpCase& one : cases(row)) {
        const GradReport report =
            grad_check(title(row) + ", " + one.label, one.function, one.inputs, options);
        CHECK_MESSAGE(report.ok, describe(report));
        std::int64_t coordinates = 0;
        for (const Tensor& input : one.inputs) coordinates += input.elements();
        CHECK_MESSAGE(report.checked + report.skipped == coordinates, report.name);
      }
    }
  }

  TEST_CASE("ops: every op stands for at least twelve cases, with extents 1 and 0 among them") {
    std::vector<std::string> names;
    for (const OpRow& row : op_table()) names.push_back(row.name);
    for (const std::string& name : names) {
      std::size_t count = 0;
      bool one = false, zero = false;
      for (const OpRow& row : op_table()) {
        if (row.name != name) continue;
        count += cases(row).size() + (std::size_t{1} << row.shapes[0].size()) - 1;
        for (const std::vector<Shape>& shapes : row.shapes) {
          one |= shapes[0].elements() == 1;
          zero |= std::ranges::any_of(shapes, [](const Shape& s) { return s.elements() == 0; });
        }
      }
      CHECK_MESSAGE(count >= 12, name << " has " << count);
      CHECK_MESSAGE(one, name);
      CHECK_MESSAGE(zero, name);
    }
  }

  TEST_CASE("ops: each subset of wanted inputs gets the same bits as all of them") {
    for (const OpRow& row : op_table()) {
      for (const std::vector<Shape>& shapes : row.shapes) {
        const std::vector<Tensor> inputs = values(row, shapes);
        const Run full = run(row, inputs, all(inputs.size()));
        for_each_subset(inputs.size(), [&](std::span<const bool> wants) {
          const Run part = run(row, inputs, wants);
          CHECK_MESSAGE(first_difference(part.result, full.result) == -1, title(row));
          for (std::size_t i = 0; i < inputs.size(); ++i)
            if (wants[i])
              CHECK_MESSAGE(first_difference(part.gradients[i], full.gradients[i]) == -1,
                            title(row) << ", input " << i);
        });
      }
    }
  }

  TEST_CASE("ops: gradients have the shape and dtype of their inputs") {
    for (const OpRow& row : op_table()) {
      for (const std::vector<Shape>& shapes : row.shapes) {
        for (const DType dtype : {DType::f32, DType::f64}) {
          const std::vector<Tensor> inputs = converted(values(row, shapes), dtype);
          const Run both = run(row, inputs, all(inputs.size()));
          CHECK_MESSAGE(both.result.dtype() == dtype, title(row));
          for (std::size_t i = 0; i < inputs.size(); ++i) {
            CHECK_MESSAGE(both.gradients[i].shape() == inputs[i].shape(), title(row));
            CHECK_MESSAGE(both.gradients[i].dtype() == dtype, title(row));
          }
        }
      }
    }
  }

  TEST_CASE("ops: f32 results and gradients are those of f64 within 1e-4") {
    for (const OpRow& row : op_table()) {
      for (const std::vector<Shape>& shapes : row.shapes) {
        const std::vector<Tensor> narrow = converted(values(row, shapes), DType::f32);
        const std::vector<Tensor> wide = converted(narrow, DType::f64);
        const Run a = run(row, narrow, all(narrow.size()));
        const Run b = run(row, wide, all(wide.size()));
        const double result_error = relative_error(a.result, b.result);
        CHECK_MESSAGE(result_error <= 1e-4, title(row) << " " << describe(a.result));
        for (std::size_t i = 0; i < narrow.size(); ++i) {
          const double error = relative_error(a.gradients[i], b.gradients[i]);
          CHECK_MESSAGE(error <= 1e-4, title(row) << ", input " << i << ", " << describe(narrow[i])
                                                  << ", error " << error);
        }
      }
    }
  }

  TEST_CASE("ops: recorded and unrecorded forward give the same bits") {
    for (const OpRow& row : op_table()) {
      for (const std::vector<Shape>& shapes : row.shapes) {
        for (const DType dtype : {DType::f32, DType::f64}) {
          const std::vector<Tensor> inputs = converted(values(row, shapes), dtype);
          std::vector<Var> constants;
          for (const Tensor& input : inputs) constants.push_back(constant(input));
          const Var unrecorded = row.build(constants);
          CHECK_MESSAGE(!unrecorded.on_tape(), title(row));
          const Run recorded = run(row, inputs, all(inputs.size()));
          CHECK_MESSAGE(first_difference(recorded.result, unrecorded.value) == -1, title(row));
        }
      }
    }
  }

  TEST_CASE("ops: two runs give the same bits") {
    for (const OpRow& row : op_table()) {
      for (const DType dtype : {DType::f32, DType::f64}) {
        const std::vector<Tensor> inputs = converted(values(row, row.shapes[0]), dtype);
        const Run first = run(row, inputs, all(inputs.size()));
        const Run second = run(row, inputs, all(inputs.size()));
        CHECK_MESSAGE(first_difference(first.result, second.result) == -1, title(row));
        for (std::size_t i = 0; i < inputs.size(); ++i)
          CHECK_MESSAGE(first_difference(first.gradients[i], second.gradients[i]) == -1,
                        title(row));
      }
    }
  }

  TEST_CASE("ops: the tape holds the documented bytes for each subset of wanted inputs") {
    for (const OpRow& row : op_table()) {
      for (const DType dtype : {DType::f32, DType::f64}) {
        const std::vector<Tensor> inputs = converted(values(row, row.shapes[0]), dtype);
        for_each_subset(inputs.size(), [&](std::span<const bool> wants) {
          Tape tape;
          std::vector<Var> vars;
          for (std::size_t i = 0; i < inputs.size(); ++i)
            vars.push_back(wants[i] ? tape.input(inputs[i]) : constant(inputs[i]));
          const Var y = row.build(vars);
          const std::int64_t expected = row.saved_bytes({inputs, wants, y.value});
          CHECK_MESSAGE(tape.saved_bytes() == expected, title(row)
                                                            << ": " << tape.saved_bytes()
                                                            << " bytes, documented " << expected);
        });
      }
    }
  }

  TEST_CASE("ops: the report names the op by its public name") {
    for (const OpRow& row : op_table()) {
      Tape tape;
      std::vector<Var> vars;
      for (const Tensor& input : values(row, row.shapes[0])) vars.push_back(tape.input(input));
      row.build(vars);
      // Several results are joined for the table.
      const TapeReport report = tape.report();
      const std::size_t joined = row.name != "concat" && report.rows.back().op == "concat" ? 1 : 0;
      CHECK_MESSAGE(report.rows[report.rows.size() - 1 - joined].op == row.name, title(row));
    }
  }

  TEST_CASE("ops: dropout with p = 0 and contiguous on row-major values record nothing") {
    Tape tape;
    const Var x = tape.input(full({2, 3}, 1.0, DType::f32));
    CHECK(dropout(x, 0.0, RngKey{}).id == x.id);
    CHECK(contiguous(x).id == x.id);
    CHECK(tape.size() == 0);
  }

  TEST_CASE("ops: max sends its gradient to the first of equals") {
    Tape tape;
    const Var x = tape.input(from_host({2.0, 5.0, 5.0, 7.0, 7.0, 1.0}, {2, 3}));
    tape.backward({{max(x, 1), from_host({10.0, 20.0}, {2})}});
    CHECK(tape.grad(x).to_vector<double>() == std::vector<double>{0, 10, 0, 20, 0, 0});
  }

  TEST_CASE("ops: relu has gradient 0 at 0") {
    Tape tape;
    const Var x = tape.input(from_host({-1.0, 0.0, -0.0, 2.0}, {4}));
    tape.backward({{relu(x), full({4}, 1.0, DType::f64)}});
    CHECK(tape.grad(x).to_vector<double>() == std::vector<double>{0, 0, 0, 1});
  }

  TEST_CASE("ops: attention with own keys is its composition of plain ops, to rounding") {
    struct Sizes {
      std::int64_t queries, keys, width, value_width;
    };
    // Odd; one; no keys; more queries and keys than a block holds.
    for (const Sizes& s :
         {Sizes{3, 7, 5, 4}, Sizes{1, 1, 1, 1}, Sizes{4, 0, 3, 2}, Sizes{301, 293, 3, 5}}) {
      const double temperature = 0.7;
      const auto random = [](const Shape& shape, std::uint64_t key) {
        return normal(shape, RngKey{key}, 0.0, 1.0, DType::f64);
      };
      const Shape query{2, 2, s.queries, s.width}, result{2, 2, s.queries, s.value_width};
      const std::vector<Tensor> values{random(query, 1), random({2, 2, s.keys, s.width}, 2),
                                       random({2, 2, s.keys, s.value_width}, 3), random(query, 4),
                                       random(result, 5)};
      const Tensor mask = some_bits({2, 1, 1, s.keys});
      std::vector<std::uint8_t> bits = mask.to_vector<std::uint8_t>();
      for (std::uint8_t& bit : bits) bit = bit == 0 ? 1 : 0;
      const Tensor hidden = from_host(bits, mask.shape());

      using Operands = std::span<const Var>;
      const auto fused = [&](Operands x) {
        AttentionInputs inputs{.mask = mask, .options = {.temperature = temperature}};
        inputs.own_key = x[3];
        inputs.own_value = x[4];
        return attention(x[0], x[1], x[2], inputs).out;
      };
      const auto composed = [&](Operands x) {
        const double factor = 1.0 / (std::sqrt(static_cast<double>(s.width)) * temperature);
        const Var scores = masked_fill(matmul(x[0], transpose(x[1])), hidden,
                                       -std::numeric_limits<double>::infinity());
        const Var own = sum(mul(x[0], x[3]), {-1}, true);
        const Var weights = softmax(scale(concat({own, scores}, -1), factor));
        return add(mul(slice(weights, -1, 0, 1), x[4]),
                   matmul(slice(weights, -1, 1, weights.size(-1)), x[2]));
      };
      const auto results = [&](const auto& function) {
        Tape tape;
        std::vector<Var> leaves;
        for (const Tensor& value : values) leaves.push_back(tape.input(value));
        const Var y = function(Operands(leaves));
        tape.backward({{y, random(result, 6)}});
        std::vector<Tensor> all{y.value};
        for (const Var& leaf : leaves) all.push_back(tape.grad(leaf));
        return all;
      };
      const std::vector<Tensor> expected = results(composed), got = results(fused);
      for (std::size_t i = 0; i < expected.size(); ++i) {
        CAPTURE(i);
        CHECK(relative_error(got[i], expected[i]) <= 1e-12);
      }
    }
  }

  TEST_CASE("ops: an attention row with every key masked gives zeros and sends no gradient") {
    const auto random = [](const Shape& shape, std::uint64_t key) {
      return normal(shape, RngKey{key}, 0.0, 1.0, DType::f64);
    };
    Tape tape;
    const Var q = tape.input(random({1, 1, 2, 3}, 1));
    const Var k = tape.input(random({1, 1, 2, 3}, 2));
    const Var v = tape.input(random({1, 1, 2, 3}, 3));
    const Tensor mask = from_host<std::uint8_t>({0, 0, 1, 1}, {2, 2});
    const AttentionOutput output = attention(q, k, v, {.mask = mask, .want_map = true});
    tape.backward({{output.out, full({1, 1, 2, 3}, 1.0, DType::f64)}});
    CHECK(sum_of_squares(output.out.value.slice(2, 0, 1)) == 0.0);
    CHECK(sum_of_squares(tape.grad(q).slice(2, 0, 1)) == 0.0);
    CHECK(count_nonfinite(tape.grad(k)) == 0);
    CHECK(sum(output.map.slice(2, 1, 2)).item() == doctest::Approx(1.0));
    CHECK(std::isinf(output.log_sum.slice(2, 0, 1).item()));
  }
}

}  // namespace mf::test
