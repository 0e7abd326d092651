// Chapter 3 of the walkthrough: docs/walkthrough/03-the-tape.md.
// The smallest tape: a = 1, b = a + a, c = b + b. Then dc/da = 4. The tape's order makes that easy;
// two other orders are tried beside it.

#include <cstdio>
#include <utility>
#include <vector>

#include "autograd/ops.h"
#include "nn/optimizer.h"

namespace {

using namespace mf;
using Rows = std::vector<TapeReport::Row>;
using Gradients = std::vector<double>;  // by id

/// A sum hands its gradient to each of its operands.
void hand_on(const TapeReport::Row& row, Gradients& g) {
  for (const std::int32_t input : row.inputs)
    g[static_cast<std::size_t>(input)] += g[static_cast<std::size_t>(row.output)];
}

double newest_first(const Rows& rows) {
  Gradients g(rows.size() + 1, 0.0);
  g.back() = 1.0;
  for (auto row = rows.rbegin(); row != rows.rend(); ++row) hand_on(*row, g);
  return g.front();
}

double oldest_first(const Rows& rows) {
  Gradients g(rows.size() + 1, 0.0);
  g.back() = 1.0;
  for (const TapeReport::Row& row : rows) hand_on(row, g);
  return g.front();
}

/// From the result to its operands, each value once: it hands on what it has when it is met first.
void visit(const Rows& rows, std::int32_t id, Gradients& g, std::vector<bool>& seen) {
  if (id == 0 || seen[static_cast<std::size_t>(id)]) return;  // id 0 is the leaf a
  seen[static_cast<std::size_t>(id)] = true;
  for (const std::int32_t input : rows[static_cast<std::size_t>(id) - 1].inputs) {
    g[static_cast<std::size_t>(input)] += g[static_cast<std::size_t>(id)];
    visit(rows, input, g, seen);
  }
}

double depth_first(const Rows& rows) {
  Gradients g(rows.size() + 1, 0.0);
  g.back() = 1.0;
  std::vector<bool> seen(g.size(), false);
  visit(rows, rows.back().output, g, seen);
  return g.front();
}

}  // namespace

int main() {
  bool right = true;

  Tape tape;
  const Var a = tape.input(scalar(1.0, DType::f64), "a");
  const Var b = add(a, a);
  const Var c = add(b, b);
  std::printf("a = %g, b = a + a = %g, c = b + b = %g\n", a.value.item(), b.value.item(),
              c.value.item());
  const Rows rows = tape.report().rows;
  for (const TapeReport::Row& row : rows)
    std::printf("entry: %s of values %d and %d, result is value %d\n", row.op.c_str(),
                row.inputs[0], row.inputs[1], row.output);
  tape.backward(c);
  std::printf("dc/da: %g by the tape; newest entry first %g, depth first %g, oldest first %g\n",
              tape.grad(a).item(), newest_first(rows), depth_first(rows), oldest_first(rows));
  right &= tape.grad(a).item() == 4.0 && newest_first(rows) == 4.0;
  right &= depth_first(rows) == 2.0 && oldest_first(rows) == 0.0;

  // A chain of 40 doublings has 2^40 paths and 40 entries.
  Tape longer;
  const Var first = longer.input(scalar(1.0, DType::f64), "first");
  Var x = first;
  for (int i = 0; i < 40; ++i) x = add(x, x);
  const auto entries = static_cast<int>(longer.size());
  longer.backward(x);
  const double chained = longer.grad(first).item();
  std::printf("40 doublings: %d entries, dx/dfirst = %.0f = 2^40\n", entries, chained);
  right &= entries == 40 && chained == 0x1p40;

  // A tape is swept once: the sweep has freed what the entries saved.
  try {
    tape.backward(c);
    right = false;
  } catch (const Error& error) {
    std::printf("%s\n", error.what());
  }

  // "No gradient" and "a gradient of zero" are two things.
  Tape third;
  const Var used = third.input(scalar(3.0, DType::f64), "used");
  const Var times_zero = third.input(scalar(5.0, DType::f64), "times zero");
  const Var unused = third.input(scalar(7.0, DType::f64), "unused");
  third.backward(add(square(used), scale(times_zero, 0.0)));
  for (const auto& [name, leaf] :
       {std::pair{"used", used}, std::pair{"times_zero", times_zero}, std::pair{"unused", unused}})
    std::printf("%-10s  reached: %-3s  gradient: %g\n", name, third.reached(leaf) ? "yes" : "no",
                third.grad(leaf).item());
  right &= third.reached(times_zero) && !third.reached(unused);

  // An optimizer treats them differently: momentum goes on through a zero, not through "none".
  Parameter zero(scalar(1.0, DType::f64)), none(scalar(1.0, DType::f64));
  Adam adam({zero, none}, AdamOptions{});
  zero.grad() = none.grad() = scalar(1.0, DType::f64);
  adam.step(0.1, 1.0);
  std::printf("after a step with gradient 1: %.4f and %.4f\n", zero.value().item(),
              none.value().item());
  zero.grad() = scalar(0.0, DType::f64);
  none.zero_grad();
  adam.step(0.1, 1.0);
  std::printf("after a step with gradient 0: %.4f, with none: %.4f\n", zero.value().item(),
              none.value().item());
  right &= zero.value().item() < 0.84 && none.value().item() > 0.89;
  return right ? 0 : 1;
}
