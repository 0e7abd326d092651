#pragma once

#include <array>
#include <concepts>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "autograd/observer.h"
#include "autograd/tape.h"

namespace mf {

/// A tensor kept for backward. Using it after it was changed in place is an Error: its gradient
/// would silently be wrong.
class Saved {
 public:
  /// Nothing is kept.
  Saved() {}  // not `= default`, as with Tensor
  /// Keeps the tensor (its block, not a copy) and its version.
  Saved(Tensor value) : value_(std::move(value)), version_(value_.version()) {}
  /// The same in place of what was kept.
  Saved& operator=(Tensor value) {
    value_ = std::move(value);
    version_ = value_.version();
    return *this;
  }

  /// False where nothing is kept, or an undefined tensor.
  bool defined() const { return value_.defined(); }
  /// The tensor. Throws Error if its block was written in place since.
  operator const Tensor&() const {
    check(
        value_.version() == version_,
        "a tensor saved for backward, {}, was changed in place since; version {} was saved, it is "
        "now {}; change it after the sweep, or change a clone()",
        value_, version_, value_.version());
    return value_;
  }
  /// The same by name, for where no conversion is made.
  const Tensor& get() const { return *this; }
  /// The tensor without the check: for accounting.
  const Tensor& peek() const { return value_; }

 private:
  Tensor value_;
  std::uint64_t version_ = 0;
};

/// An input kept for backward: its tensor, or how to make it again where the input's Var says how.
class SavedInput {
 public:
  /// Nothing is kept.
  SavedInput() {}  // not `= default`, as with Tensor
  /// Keeps input.value, or input.recompute where there is one.
  explicit SavedInput(const Var& input) : recompute_(input.recompute) {
    if (!recompute_) tensor = input.value;
  }
  /// The input's tensor, made again if need be. Throws Error as Saved does.
  Tensor get() const { return recompute_ ? (*recompute_)() : tensor.get(); }

  Saved tensor;  ///< undefined if the input is made again; to be listed in the op's saved()

 private:
  std::shared_ptr<const Recompute> recompute_;
};

/// Which inputs need a gradient, so that forward saves only what backward will use.
class Wants {
 public:
  /// No input does: what `forward` is given where nothing is recorded.
  Wants() = default;
  /// Of these operands, which must outlive it.
  explicit Wants(std::span<const Var* const> inputs) : inputs_(inputs) {}
  /// Whether input number `input`, counted from 0, needs a gradient.
  bool operator[](int input) const {
    return !inputs_.empty() && inputs_[static_cast<std::size_t>(input)]->on_tape();
  }
  /// What to keep of an input that backward needs; call it where some other input is wanted.
  SavedInput keep(int input) const { return SavedInput(*inputs_[static_cast<std::size_t>(input)]); }

 private:
  std::span<const Var* const> inputs_;
};

/// An op is a plain struct. Differentiable inputs are arguments of `forward(Wants, const
/// Tensor&...)` (or one span of tensors); everything else is a field. `backward(gy, grads)` adds
/// one gradient per wanted input; `saved()` ties the Saved fields, so that they can be counted and
/// version-checked; `kName` is the op's name in messages and reports. `record` runs such a struct
/// and puts it on the tape; mf::ops holds those of the library.
template <class Op>
concept Differentiable = requires(Op op, const Tensor& gy, Grads& grads) {
  { Op::kName } -> std::convertible_to<const char*>;
  op.backward(gy, grads);
  op.saved();
};

/// The same with several results: forward returns a vector, and `backward(gys, grads)` gets one
/// gradient for each, undefined where none arrived. `saved()` returns a vector of pointers.
template <class Op>
concept DifferentiableMany = requires(Op op, std::span<const Tensor> gys, Grads& grads) {
  { Op::kName } -> std::convertible_to<const char*>;
  op.backward(gys, grads);
  { op.saved() } -> std::same_as<std::vector<const Saved*>>;
};

namespace detail {

template <Differentiable Op>
struct OpNode final : Node {
  explicit OpNode(Op&& value) : op(std::move(value)) {}
  const char* name() const override { return Op::kName; }
  void backward(std::span<const Tensor> gy, Grads& grads) override { op.backward(gy[0], grads); }
  std::vector<const Saved*> saved() const override {
    // saved() returns references to op's own fields, so constness is only a matter of form.
    auto fields = const_cast<Op&>(op).saved();
    return std::apply([](auto&... field) { return std::vector<const Saved*>{&field...}; }, fields);
  }
  Op op;
};

template <DifferentiableMany Op>
struct ManyNode final : Node {
  explicit ManyNode(Op value) : op(std::move(value)) {}
  const char* name() const override { return Op::kName; }
  void backward(std::span<const Tensor> gy, Grads& grads) override { op.backward(gy, grads); }
  std::vector<const Saved*> saved() const override { return op.saved(); }
  Op op;
};

/// The tape of the operands, null if all are constants. Throws Error if they are on two.
inline Tape* common_tape(const char* operation, std::span<const Var* const> inputs) {
  Tape* tape = nullptr;
  for (const Var* input : inputs) {
    if (!input->on_tape()) continue;
    check(tape == nullptr || tape == input->tape,
          "{}: operands are on two tapes; {} is on another one; record both on one tape, or pass "
          "constant(x.value)",
          operation, *input);
    tape = input->tape;
  }
  return tape;
}

/// Any number of operands, as Vars for the tape and as Tensors for `forward`.
struct Operands {
  explicit Operands(std::span<const Var> inputs) {
    vars.reserve(inputs.size());
    tensors.reserve(inputs.size());
    for (const Var& input : inputs) {
      vars.push_back(&input);
      tensors.push_back(input.value);
    }
  }
  std::span<const Tensor> values() const { return tensors; }

  std::vector<const Var*> vars;
  std::vector<Tensor> tensors;
};

/// op.forward(...), to be recorded on `tape` unless that is null; an error from below that does not
/// name the op gets its name.
template <class Op, class... Args>
auto run_forward(const Tape* tape, Op& op, const Args&... args) {
  const OpScope scope(Op::kName, OpPhase::forward,
                      [tape] { return tape ? tape->module() : std::string_view(); });
  try {
    return op.forward(args...);
  } catch (const Error& error) {
    const std::string prefix = std::string(Op::kName) + ": ";
    if (std::string_view(error.what()).starts_with(prefix)) throw;
    throw Error(prefix + error.what());
  }
}

}  // namespace detail

/// Runs op.forward and records the op if some operand is on a tape.
template <Differentiable Op, std::same_as<Var>... Inputs>
Var record(Op op, const Inputs&... inputs) {
  const std::array<const Var*, sizeof...(Inputs)> pointers{&inputs...};
  Tape* tape = detail::common_tape(Op::kName, pointers);
  if (tape == nullptr) return constant(detail::run_forward(nullptr, op, Wants{}, inputs.value...));
  auto node = std::make_unique<detail::OpNode<Op>>(std::move(op));
  Tensor y = detail::run_forward(tape, node->op, Wants(pointers), inputs.value...);
  return tape->append(std::move(node), pointers, std::move(y));
}

/// The same for ops with any number of inputs.
template <Differentiable Op>
Var record(Op op, std::span<const Var> inputs) {
  const detail::Operands operands(inputs);
  Tape* tape = detail::common_tape(Op::kName, operands.vars);
  if (tape == nullptr)
    return constant(detail::run_forward(nullptr, op, Wants{}, operands.values()));
  auto node = std::make_unique<detail::OpNode<Op>>(std::move(op));
  Tensor y = detail::run_forward(tape, node->op, Wants(operands.vars), operands.values());
  return tape->append(std::move(node), operands.vars, std::move(y));
}

/// The same for ops with several results.
template <DifferentiableMany Op>
std::vector<Var> record(Op op, std::span<const Var> inputs) {
  const detail::Operands operands(inputs);
  Tape* tape = detail::common_tape(Op::kName, operands.vars);
  if (tape == nullptr) {
    std::vector<Var> results;
    for (Tensor& y : detail::run_forward(nullptr, op, Wants{}, operands.values()))
      results.push_back(constant(std::move(y)));
    return results;
  }
  auto node = std::make_unique<detail::ManyNode<Op>>(std::move(op));
  const std::vector<Tensor> results =
      detail::run_forward(tape, node->op, Wants(operands.vars), operands.values());
  return tape->append(std::move(node), operands.vars, results);
}

}  // namespace mf
