#include "memformer/replay/state.h"

#include "autograd/ops/where.h"

namespace mf {

State values_of(const LiveState& state) {
  State values;
  for (const auto& entry : state)
    values.push_back({entry.name, entry.value.value, entry.differentiable, entry.boundary});
  return values;
}

State kept(const LiveState& state) {
  State values = values_of(state);
  for (auto& entry : values) entry.value.set_category(Category::state);
  return values;
}

LiveState constants_of(const State& state) {
  LiveState live;
  for (const auto& entry : state)
    live.push_back({entry.name, constant(entry.value), entry.differentiable, entry.boundary});
  return live;
}

LiveState leaves_of(Tape& tape, const State& state) {
  LiveState live;
  for (const auto& entry : state)
    live.push_back(
        {entry.name,
         entry.differentiable ? tape.input(entry.value, entry.name) : constant(entry.value),
         entry.differentiable, entry.boundary});
  return live;
}

LiveState cross_boundary(LiveState state, std::int64_t segment) {
  for (auto& entry : state)
    if (!entry.differentiable || entry.boundary.cuts_before(segment))
      entry.value = constant(entry.value.value);
  return state;
}

State with_boundary(State state, Boundary boundary) {
  for (auto& entry : state) entry.boundary = boundary;
  return state;
}

Var reset_rows(const Var& x, const Var& initial, const Tensor& reset) {
  if (!reset.defined()) return x;
  check(reset.shape() == Shape{x.size(0)}, "state: reset must be u8[{}]; got {}", x.size(0), reset);
  std::vector<std::int64_t> extents(static_cast<std::size_t>(x.rank()), 1);
  extents[0] = x.size(0);
  return where(reset.reshape(Shape(extents)), initial, x);
}

std::int64_t bytes_of(const State& state) {
  std::int64_t bytes = 0;
  for (const auto& entry : state) bytes += entry.value.bytes();
  return bytes;
}

void require_same_bits(const State& replayed, const State& stored, std::int64_t segment) {
  check(replayed.size() == stored.size(),
        "replay: segment {} gave {} state tensors when it ran again, {} before", segment,
        replayed.size(), stored.size());
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const Tensor& again = replayed[i].value;
    const Tensor& before = stored[i].value;
    check(again.shape() == before.shape() && again.dtype() == before.dtype(),
          "replay: state '{}' after segment {} is {} when it ran again, {} before", stored[i].name,
          segment, again, before);
    const std::int64_t at = first_difference(again, before);
    if (at < 0) continue;
    const auto element = [at](const Tensor& x) {
      return x.contiguous().reshape({-1}).slice(0, at, at + 1).item();
    };
    fail(
        "replay: state '{}' after segment {} differs at element {}; {:.17g} when it ran again, "
        "{:.17g} before; a weight changed, another key was used or a kernel is not deterministic",
        stored[i].name, segment, at, element(again), element(before));
  }
}

}  // namespace mf
