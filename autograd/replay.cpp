#include "autograd/replay.h"

#include "autograd/op.h"

namespace mf {
namespace {

std::vector<Tensor> values_of(std::span<const Var> vars) {
  std::vector<Tensor> values;
  for (const Var& var : vars) values.push_back(var.value);
  return values;
}

struct ReplayNode final : detail::Node {
  ReplayFunction fn;
  RngKey key;
  Mode mode;
  std::string module;
  bool check_finite = false;
  std::vector<Saved> inputs;

  const char* name() const override { return "replay"; }

  void backward(std::span<const Tensor> gy, Grads& grads) override {
    Tape tape;
    tape.check_finite(check_finite);
    std::vector<Var> leaves;
    std::vector<Var> outputs;
    {
      const CategoryScope category(Category::activation);
      for (std::size_t i = 0; i < inputs.size(); ++i)
        leaves.push_back(grads.wants(static_cast<int>(i))
                             ? tape.input(inputs[i].get(), "replay input")
                             : constant(inputs[i].get()));
      outputs = fn(Pass{tape, key, mode, module}, leaves);
    }
    check(outputs.size() == gy.size(), "the function gave {} results, and {} when it ran again",
          gy.size(), outputs.size());
    std::vector<Seed> seeds;
    for (std::size_t i = 0; i < gy.size(); ++i)
      if (gy[i].defined() && outputs[i].on_tape()) seeds.push_back({outputs[i], gy[i]});
    tape.backward(seeds);
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (leaves[i].on_tape() && tape.reached(leaves[i]))
        grads.add(static_cast<int>(i), tape.grad(leaves[i]));
  }

  std::vector<const Saved*> saved() const override {
    std::vector<const Saved*> pointers;
    for (const Saved& input : inputs) pointers.push_back(&input);
    return pointers;
  }
};

}  // namespace

std::vector<Var> replay(const Pass& pass, ReplayFunction fn, std::span<const Var> inputs) {
  // In anomaly mode the first run is recorded, and forgotten: only a tape names what made a NaN.
  const bool check_finite = pass.tape.checks_finite();
  Tape first = check_finite ? Tape() : Tape::off();
  first.check_finite(check_finite);
  std::vector<Var> values;
  for (const Var& input : inputs)
    values.push_back(input.on_tape() ? first.input(input.value) : constant(input.value));
  std::vector<Var> outputs =
      fn(Pass{first, pass.key, pass.mode, check_finite ? pass.module : std::string()}, values);
  for (Var& output : outputs) output = constant(output.value);
  if (!pass.tape.records()) return outputs;
  auto node = std::make_unique<ReplayNode>();
  node->fn = std::move(fn);
  node->key = pass.key;
  node->mode = pass.mode;
  node->module = pass.module;
  node->check_finite = check_finite;
  std::vector<const Var*> pointers;
  for (const Var& input : inputs) {
    check(!input.on_tape() || input.tape == &pass.tape,
          "replay: input {} is on another tape than the pass; record both on one tape", input);
    node->inputs.emplace_back(input.value);
    pointers.push_back(&input);
  }
  return pass.tape.append(std::move(node), pointers, values_of(outputs));
}

Var replay(const Pass& pass, std::function<Var(const Pass&, const Var&)> fn, const Var& input) {
  return replay(
             pass,
             [fn = std::move(fn)](const Pass& inner, std::span<const Var> inputs) {
               return std::vector<Var>{fn(inner, inputs[0])};
             },
             std::span<const Var>(&input, 1))
      .front();
}

}  // namespace mf
