// An op of your own: a plain struct with forward, backward and saved. No base class, no
// registration. Then the gradient checker judges it, and a wrong one.

#include <cstdio>

#include "autograd/grad_check.h"
#include "autograd/op.h"
#include "tensor/math.h"

namespace {

/// y = log(1 + exp(x)), elementwise.
/// x: f32|f64, any shape. Result: same shape and dtype.
/// Saves: x. Gradient: gx = gy * sigmoid(x).
struct Softplus {
  static constexpr const char* kName = "softplus";
  mf::Saved x{};

  mf::Tensor forward(mf::Wants, const mf::Tensor& input) {
    x = input;
    // log(1 + e^x) = -log(sigmoid(-x)).
    return mf::negative(mf::log(mf::sigmoid(mf::negative(input))));
  }
  void backward(const mf::Tensor& gy, mf::Grads& g) const { g.add(0, mf::mul(gy, mf::sigmoid(x))); }
  auto saved() { return std::tie(x); }
};

mf::Var softplus(const mf::Var& x) { return mf::record(Softplus{}, x); }

/// The same with tanh where sigmoid belongs.
struct WrongSoftplus : Softplus {
  static constexpr const char* kName = "wrong_softplus";
  void backward(const mf::Tensor& gy, mf::Grads& g) const { g.add(0, mf::mul(gy, mf::tanh(x))); }
};

}  // namespace

int main() {
  using namespace mf;
  const Tensor x = from_host({-2.0, -0.5, 0.0, 0.5, 2.0, 8.0}, {2, 3});

  const GradReport good = grad_check(
      "softplus", [](Tape&, std::span<const Var> inputs) { return softplus(inputs[0]); }, {{x}});
  std::printf("%s\n", describe(good).c_str());

  const GradReport wrong = grad_check(
      "wrong_softplus",
      [](Tape&, std::span<const Var> inputs) { return record(WrongSoftplus{}, inputs[0]); }, {{x}});
  std::printf("%s\n", describe(wrong).c_str());
  return good.ok && !wrong.ok ? 0 : 1;
}
