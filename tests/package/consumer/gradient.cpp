#include <cstdio>

#include "autograd/ops.h"

int main() {
  using namespace mf;
  Tape tape;
  const Var x = tape.input(full({2, 2}, 3.0, DType::f64), "x");
  tape.backward(sum(matmul(x, x)));
  const double gradient = tape.grad(x).to_vector<double>()[0];
  std::printf("d sum(x x) / dx = %g\n", gradient);
  return gradient == 12.0 ? 0 : 1;
}
