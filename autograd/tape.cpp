#include "autograd/tape.h"

#include <algorithm>
#include <unordered_set>

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {
namespace {

/// slot += gradient, moving the first contribution in and writing in place only what nobody else
/// sees.
void accumulate(Tensor& slot, Tensor gradient) {
  if (!slot.defined()) {
    slot = std::move(gradient);
  } else if (slot.sole_owner() && slot.is_contiguous()) {
    add_(slot, gradient);
  } else {
    slot = add(slot, gradient);
  }
}

}  // namespace

void Tape::require_recording(std::string_view operation) const {
  check(
      !swept_,
      "{}: this tape has been swept, its saved tensors are freed; record on a new Tape, or clear() "
      "this one",
      operation);
}

std::int32_t Tape::add_place(const Tensor& value, bool leaf, std::string_view name) {
  places_.push_back({value.shape(), value.dtype(), value.device(), leaf, {}, std::string(name)});
  return static_cast<std::int32_t>(places_.size()) - 1;
}

Var Tape::input(Tensor value, std::string_view name) {
  check(value.defined() && is_float(value.dtype()),
        "input: '{}' is {}; a leaf must be a floating tensor", name, value);
  if (!records_) return constant(std::move(value));
  require_recording("input");
  const std::int32_t id = add_place(value, true, name);
  return {std::move(value), this, id};
}

Var Tape::param(const Parameter& parameter) {
  check(parameter.defined(), "param: the parameter is undefined; construct the layer first");
  if (!records_) return constant(parameter.value());
  require_recording("param");
  const auto [found, fresh] = parameter_ids_.try_emplace(parameter.identity(), -1);
  if (fresh) {
    found->second = add_place(parameter.value(), true, parameter.name());
    places_.back().parameter = parameter;
  }
  return {parameter.value(), this, found->second};
}

Var Tape::append(std::unique_ptr<detail::Node> node, std::span<const Var* const> inputs,
                 Tensor output) {
  return append(std::move(node), inputs, std::span<const Tensor>(&output, 1)).front();
}

std::vector<Var> Tape::append(std::unique_ptr<detail::Node> node,
                              std::span<const Var* const> inputs, std::span<const Tensor> outputs) {
  require_recording(node->name());
  Entry entry{std::move(node),
              {},
              static_cast<std::int32_t>(places_.size()),
              static_cast<std::int32_t>(outputs.size()),
              module_};
  entry.inputs.reserve(inputs.size());
  for (const Var* input : inputs) entry.inputs.push_back(input->on_tape() ? input->id : -1);
  std::vector<Var> results;
  results.reserve(outputs.size());
  for (const Tensor& output : outputs) {
    if (check_finite_ && count_nonfinite(output) > 0) {
      std::string operands;
      for (const Var* input : inputs) {
        if (!operands.empty()) operands += ", ";
        operands += describe(*input);
      }
      fail(
          "{}: the forward pass made {} NaN or infinite values of {}; inputs {}; lower the "
          "learning "
          "rate or clip gradients, and look at this layer's inputs",
          where(entry), count_nonfinite(output), output, operands);
    }
    results.push_back({output, this, add_place(output, false)});
  }
  entries_.push_back(std::move(entry));
  return results;
}

std::string Tape::exchange_module(std::string module) {
  std::string former = modules_[static_cast<std::size_t>(module_)];
  if (module != former) {
    modules_.push_back(std::move(module));
    module_ = static_cast<std::int32_t>(modules_.size()) - 1;
  }
  return former;
}

std::string Tape::where(const Entry& entry) const {
  const std::string& module = modules_[static_cast<std::size_t>(entry.module)];
  return module.empty() ? entry.node->name() : std::string(entry.node->name()) + " in " + module;
}

void Tape::deposit(std::int32_t id, Tensor gradient, std::string_view from) {
  Place& place = places_[static_cast<std::size_t>(id)];
  check(
      gradient.defined() && gradient.dtype() == place.dtype && gradient.device() == place.device,
      "{}: its backward made a gradient {} for an input {}{}; dtype and device must be the input's",
      from, gradient, place.dtype, place.shape);
  if (gradient.shape() != place.shape) gradient = sum_to(gradient, place.shape);
  if (check_finite_)
    check(count_nonfinite(gradient) == 0,
          "{}: the backward pass made {} NaN or infinite values of {}", from,
          count_nonfinite(gradient), gradient);
  if (!place.parameter.defined()) {
    accumulate(gradients_[static_cast<std::size_t>(id)], std::move(gradient));
    return;
  }
  // Clipping scales a parameter's gradient in place, so it must be nobody else's, nor overlap
  // itself.
  Tensor& slot = place.parameter.grad();
  if (!slot.defined() && !(gradient.sole_owner() && gradient.is_contiguous()))
    gradient = gradient.clone();
  accumulate(slot, std::move(gradient));
}

void Tape::backward(const Var& loss) {
  check(loss.value.defined() && loss.value.elements() == 1,
        "backward: {} is not a scalar; give a seed of its shape", loss);
  backward({{loss, full(loss.shape(), 1.0, loss.dtype(), loss.value.device())}});
}

void Tape::backward(std::span<const Seed> seeds) {
  check(records_, "backward: this tape is off and has recorded nothing; record on a Tape()");
  require_recording("backward");
  const CategoryScope category(Category::gradient);
  gradients_.resize(places_.size());
  for (const Seed& seed : seeds) {
    check(seed.var.tape == this, "backward: a seed's var {} is not on this tape; {}", seed.var,
          seed.var.on_tape() ? "it belongs to another one" : "it is a constant");
    check(seed.gradient.defined() && seed.gradient.shape() == seed.var.shape(),
          "backward: the seed {} does not have the shape of its var {}", seed.gradient, seed.var);
    deposit(seed.var.id, seed.gradient, "backward");
  }
  swept_ = true;
  std::vector<Tensor> gy;
  for (std::size_t i = entries_.size(); i-- > 0;) {
    Entry& entry = entries_[i];
    gy.clear();
    bool reached = false;
    for (std::int32_t k = 0; k < entry.outputs; ++k) {
      gy.push_back(std::move(gradients_[static_cast<std::size_t>(entry.first_output + k)]));
      gradients_[static_cast<std::size_t>(entry.first_output + k)] = Tensor{};
      reached |= gy.back().defined();
    }
    if (reached) {
      const std::string from = check_finite_ ? where(entry) : std::string(entry.node->name());
      Grads grads(*this, entry.inputs, from);
      try {
        entry.node->backward(gy, grads);
      } catch (const Error& error) {
        fail("{}: {}", "backward of " + where(entry), error.what());
      }
    }
    entry.node.reset();
  }
}

bool Tape::reached(const Var& leaf) const {
  check(leaf.tape == this && places_[static_cast<std::size_t>(leaf.id)].leaf,
        "grad: {} is not a leaf of this tape; only leaves made by input() keep a gradient", leaf);
  check(swept_, "grad: this tape has not been swept; call backward first");
  const Place& place = places_[static_cast<std::size_t>(leaf.id)];
  return place.parameter.defined() ? place.parameter.grad().defined()
                                   : gradients_[static_cast<std::size_t>(leaf.id)].defined();
}

Tensor Tape::grad(const Var& leaf) const {
  if (!reached(leaf)) return zeros(leaf.shape(), leaf.dtype(), leaf.value.device());
  const Place& place = places_[static_cast<std::size_t>(leaf.id)];
  return place.parameter.defined() ? place.parameter.grad()
                                   : gradients_[static_cast<std::size_t>(leaf.id)];
}

void Tape::clear() {
  entries_.clear();
  places_.clear();
  gradients_.clear();
  parameter_ids_.clear();
  modules_.resize(1);
  module_ = 0;
  swept_ = false;
}

TapeReport Tape::report() const {
  TapeReport report;
  std::unordered_set<const void*> counted;
  for (const Place& place : places_)
    if (place.parameter.defined()) counted.insert(place.parameter.value().storage_id());
  for (const Entry& entry : entries_) {
    TapeReport::Row row;
    row.module = modules_[static_cast<std::size_t>(entry.module)];
    row.inputs = entry.inputs;
    row.output = entry.first_output;
    for (std::int32_t k = 0; k < entry.outputs; ++k)
      row.shapes.push_back(places_[static_cast<std::size_t>(entry.first_output + k)].shape);
    if (entry.node) {
      row.op = entry.node->name();
      for (const Saved* saved : entry.node->saved())
        if (saved->defined() && counted.insert(saved->peek().storage_id()).second)
          row.saved_bytes += saved->peek().storage_bytes();
    } else {
      row.op = "(swept)";
    }
    report.saved_bytes += row.saved_bytes;
    report.rows.push_back(std::move(row));
  }
  return report;
}

std::string describe(const TapeReport& report) {
  std::string text = fmt::format("{:>6}  {:<20} {:<24} {:>12}  {}\n", "entry", "op", "output",
                                 "saved bytes", "module");
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const TapeReport::Row& row = report.rows[i];
    std::string shapes;
    for (const Shape& shape : row.shapes) {
      if (!shapes.empty()) shapes += ' ';
      shapes += describe(shape);
    }
    text += fmt::format("{:>6}  {:<20} {:<24} {:>12}  {}\n", i, row.op, shapes, row.saved_bytes,
                        row.module);
  }
  return text + fmt::format("{} entries, {} bytes saved\n", report.rows.size(), report.saved_bytes);
}

}  // namespace mf
