// The smallest tape: a = 1, b = a + a, c = b + b. Then dc/da = 4.
//
// Each value is used twice. Who follows the graph from c to a and stops at values already seen gets
// 2; who follows every path gets 4, but in time that doubles with each line. The tape needs
// neither: its entries are in order of recording, so one loop from the newest to the oldest meets
// each entry once, after all who use its result have handed their share in.

#include <cstdio>

#include "autograd/ops.h"

int main() {
  using namespace mf;
  Tape tape;
  const Var a = tape.input(scalar(1.0, DType::f64), "a");
  const Var b = add(a, a);
  const Var c = add(b, b);
  std::printf("a = %g, b = a + a = %g, c = b + b = %g\n\n", a.value.item(), b.value.item(),
              c.value.item());
  std::printf("%s\n", describe(tape.report()).c_str());

  tape.backward(c);
  const double gradient = tape.grad(a).item();
  std::printf("dc/da = %g\n\n", gradient);

  // A chain of 40 doublings has 2^40 paths and 40 entries.
  Tape longer;
  const Var first = longer.input(scalar(1.0, DType::f64), "first");
  Var x = first;
  for (int i = 0; i < 40; ++i) x = add(x, x);
  longer.backward(x);
  const double chained = longer.grad(first).item();
  std::printf("40 doublings: dx/dfirst = %.0f = 2^40\n", chained);
  return gradient == 4.0 && chained == 0x1p40 ? 0 : 1;
}
