#include "autograd/tape.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {
namespace {

/// slot += gradient, moving the first contribution in and writing in place only what nobody else
/// sees.
void accumulate(Tensor& slot, Tensor&& gradient) {
  if (!slot.defined()) {
    slot = std::move(gradient);
  } else if (slot.sole_owner() && slot.is_contiguous()) {
    add_(slot, gradient);
  } else {
    slot = add(slot, gradient);
  }
}

/// "f32[8, 64] in [-3.1, 4.2]", "f32[8] in [0, 1] and 3 not finite".
std::string described_with_range(const Tensor& x) {
  if (!x.defined() || !is_float(x.dtype())) return describe(x);
  double low = std::numeric_limits<double>::infinity(), high = -low;
  std::int64_t bad = 0;
  for (const double value : x.to(cpu).to(DType::f64).to_vector<double>()) {
    if (std::isfinite(value)) {
      low = std::min(low, value);
      high = std::max(high, value);
    } else {
      ++bad;
    }
  }
  const std::string range = low <= high ? fmt::format(" in [{:.4g}, {:.4g}]", low, high) : "";
  return describe(x) + range + (bad > 0 ? fmt::format(" and {} not finite", bad) : "");
}

}  // namespace

void Tape::require_recording(const char* operation) const {
  check(
      !swept_,
      "{}: this tape has been swept, its saved tensors are freed; record on a new Tape, or clear() "
      "this one",
      operation);
}

std::int32_t Tape::add_place(const Tensor& value, bool leaf) {
  places_.emplace_back(value, leaf);
  return static_cast<std::int32_t>(places_.size()) - 1;
}

Var Tape::input(Tensor value, std::string_view name) {
  check(value.defined() && is_float(value.dtype()),
        "input: '{}' is {}; a leaf must be a floating tensor", name, value);
  if (!records_) return constant(std::move(value));
  require_recording("input");
  const std::int32_t id = add_place(value, true);
  input_names_.emplace_back(id, name);
  return {std::move(value), this, id, nullptr};
}

Var Tape::param(const Parameter& parameter) {
  check(parameter.defined(), "param: the parameter is undefined; construct the layer first");
  if (!records_) return constant(parameter.value());
  require_recording("param");
  const auto [found, fresh] = parameter_ids_.try_emplace(parameter.identity(), -1);
  if (fresh) {
    found->second = add_place(parameter.value(), true);
    places_.back().parameter = parameter;
  }
  return {parameter.value(), this, found->second, nullptr};
}

void Tape::add_entry(std::unique_ptr<detail::Node> node, std::span<const Var* const> inputs,
                     std::size_t outputs) {
  entries_.push_back({std::move(node), static_cast<std::int32_t>(inputs_.size()),
                      static_cast<std::int32_t>(inputs.size()),
                      static_cast<std::int32_t>(places_.size()), static_cast<std::int32_t>(outputs),
                      module_});
  for (const Var* input : inputs) inputs_.push_back(input->on_tape() ? input->id : -1);
}

void Tape::check_output(const detail::Node& node, std::span<const Var* const> inputs,
                        const Tensor& output) const {
  const std::int64_t bad = count_nonfinite(output);
  if (bad == 0) return;
  std::string operands;
  for (const Var* input : inputs) {
    if (!operands.empty()) operands += ", ";
    operands += described_with_range(input->value);
  }
  fail(
      "{}: the forward pass made {} NaN or infinite values of {}; inputs {}; lower the learning "
      "rate or clip gradients, and look at this layer's inputs",
      where(node, module_), bad, described_with_range(output), operands);
}

Var Tape::append(std::unique_ptr<detail::Node> node, std::span<const Var* const> inputs,
                 Tensor&& output) {
  require_recording(node->name());
  if (check_finite_) check_output(*node, inputs, output);
  add_entry(std::move(node), inputs, 1);
  const std::int32_t id = add_place(output, false);
  return {std::move(output), this, id, nullptr};
}

std::vector<Var> Tape::append(std::unique_ptr<detail::Node> node,
                              std::span<const Var* const> inputs, std::span<const Tensor> outputs) {
  require_recording(node->name());
  if (check_finite_)
    for (const Tensor& output : outputs) check_output(*node, inputs, output);
  add_entry(std::move(node), inputs, outputs.size());
  std::vector<Var> results;
  results.reserve(outputs.size());
  for (const Tensor& output : outputs)
    results.push_back({output, this, add_place(output, false), nullptr});
  return results;
}

std::int32_t Tape::enter_module(const std::string& path) {
  const std::int32_t former = module_;
  if (path != modules_[static_cast<std::size_t>(former)]) {
    modules_.push_back(path);
    module_ = static_cast<std::int32_t>(modules_.size()) - 1;
  }
  return former;
}

std::string Tape::where(const detail::Node& node, std::int32_t module) const {
  const std::string& path = modules_[static_cast<std::size_t>(module)];
  return path.empty() ? node.name() : std::string(node.name()) + " in " + path;
}

void Tape::deposit(std::int32_t id, Tensor&& gradient, const char* from) {
  Place& place = places_[static_cast<std::size_t>(id)];
  check(
      gradient.defined() && gradient.dtype() == place.dtype && gradient.device() == place.device,
      "{}: its backward made a gradient {} for an input {}{}; dtype and device must be the input's",
      from, gradient, place.dtype, place.shape);
  if (gradient.shape() != place.shape) gradient = sum_to(gradient, place.shape);
  if (check_finite_)
    if (const std::int64_t bad = count_nonfinite(gradient); bad > 0)
      fail("{}: the backward pass made {} NaN or infinite values of {}", from, bad,
           described_with_range(gradient));
  ++received_[static_cast<std::size_t>(id)];
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

Tensor* Tape::accumulator(std::int32_t id) {
  Place& place = places_[static_cast<std::size_t>(id)];
  Tensor& slot =
      place.parameter.defined() ? place.parameter.grad() : gradients_[static_cast<std::size_t>(id)];
  const bool mine = slot.defined() && slot.sole_owner() && slot.is_contiguous();
  if (!mine || check_finite_) return nullptr;
  ++received_[static_cast<std::size_t>(id)];
  return &slot;
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
  given_.resize(inputs_.size());
  received_.resize(places_.size());
  visited_.resize(entries_.size());
  for (const Seed& seed : seeds) {
    check(seed.var.tape == this, "backward: a seed's var {} is not on this tape; {}", seed.var,
          seed.var.on_tape() ? "it belongs to another one" : "it is a constant");
    check(seed.gradient.defined() && seed.gradient.shape() == seed.var.shape(),
          "backward: the seed {} does not have the shape of its var {}", seed.gradient, seed.var);
    deposit(seed.var.id, Tensor(seed.gradient), "backward");
  }
  swept_ = true;
  std::int32_t visits = 0;
  for (std::size_t i = entries_.size(); i-- > 0;) {
    Entry& entry = entries_[i];
    const char* const name = entry.node->name();
    visited_[i].name = name;
    const std::span gy(gradients_.data() + entry.first_output,
                       static_cast<std::size_t>(entry.outputs));
    if (std::ranges::any_of(gy, &Tensor::defined)) {
      visited_[i].order = visits++;
      const std::string place = check_finite_ ? where(*entry.node, entry.module) : "";
      Grads grads(*this, inputs_of(entry), given_.data() + entry.first_input,
                  check_finite_ ? place.c_str() : name);
      const detail::OpScope scope(name, OpPhase::backward, [&] {
        return std::string_view(modules_[static_cast<std::size_t>(entry.module)]);
      });
      try {
        entry.node->backward(gy, grads);
      } catch (const Error& error) {
        fail("{}: {}", "backward of " + where(*entry.node, entry.module), error.what());
      }
    }
    entry.node.reset();
    for (Tensor& gradient : gy) gradient = Tensor{};
  }
}

const Tensor& Tape::gradient_at(std::int32_t id) const {
  const Place& place = places_[static_cast<std::size_t>(id)];
  return place.parameter.defined() ? place.parameter.grad()
                                   : gradients_[static_cast<std::size_t>(id)];
}

bool Tape::reached(const Var& leaf) const {
  check(leaf.tape == this && places_[static_cast<std::size_t>(leaf.id)].leaf,
        "grad: {} is not a leaf of this tape; only leaves made by input() keep a gradient", leaf);
  check(swept_, "grad: this tape has not been swept; call backward first");
  return gradient_at(leaf.id).defined();
}

Tensor Tape::grad(const Var& leaf) const {
  return reached(leaf) ? gradient_at(leaf.id)
                       : zeros(leaf.shape(), leaf.dtype(), leaf.value.device());
}

void Tape::clear() {
  entries_.clear();
  inputs_.clear();
  given_.clear();
  received_.clear();
  visited_.clear();
  places_.clear();
  gradients_.clear();
  input_names_.clear();
  parameter_ids_.clear();
  modules_.resize(1);
  module_ = 0;
  swept_ = false;
}

std::unordered_set<const void*> Tape::parameter_blocks() const {
  std::unordered_set<const void*> blocks;
  for (const Place& place : places_)
    if (place.parameter.defined()) blocks.insert(place.parameter.value().storage_id());
  return blocks;
}

std::int64_t Tape::saved_bytes(const Entry& entry, std::unordered_set<const void*>& counted) const {
  std::int64_t bytes = 0;
  if (!entry.node) return bytes;
  for (const Saved* saved : entry.node->saved())
    if (saved->defined() && counted.insert(saved->peek().storage_id()).second)
      bytes += saved->peek().storage_bytes();
  return bytes;
}

std::int64_t Tape::saved_bytes() const {
  std::unordered_set<const void*> counted = parameter_blocks();
  std::int64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += saved_bytes(entry, counted);
  return bytes;
}

TapeReport Tape::report() const {
  TapeReport report;
  std::unordered_set<const void*> counted = parameter_blocks();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    const Visit visit = i < visited_.size() ? visited_[i] : Visit{};
    TapeReport::Row row;
    row.op = entry.node ? entry.node->name() : visit.name;
    row.module = modules_[static_cast<std::size_t>(entry.module)];
    const std::span<const std::int32_t> inputs = inputs_of(entry);
    row.inputs.assign(inputs.begin(), inputs.end());
    row.output = entry.first_output;
    for (std::int32_t k = 0; k < entry.outputs; ++k) {
      const Place& place = places_[static_cast<std::size_t>(entry.first_output + k)];
      row.shapes.push_back(place.shape);
      row.received.push_back(received_at(entry.first_output + k));
    }
    row.saved_bytes = saved_bytes(entry, counted);
    row.visit = visit.order;
    row.given.resize(inputs.size());
    if (swept_) std::copy_n(given_.begin() + entry.first_input, inputs.size(), row.given.begin());
    report.saved_bytes += row.saved_bytes;
    report.rows.push_back(std::move(row));
  }
  std::unordered_map<std::int32_t, std::string> names(input_names_.begin(), input_names_.end());
  for (std::size_t i = 0; i < places_.size(); ++i) {
    const Place& place = places_[i];
    if (!place.leaf) continue;
    const auto id = static_cast<std::int32_t>(i);
    const bool parameter = place.parameter.defined();
    TapeReport::Leaf leaf{parameter ? place.parameter.name() : names[id],
                          id,
                          parameter,
                          place.shape,
                          received_at(id),
                          {}};
    // Before the sweep only parameters have a place for gradients.
    if (parameter || i < gradients_.size())
      if (const Tensor& gradient = gradient_at(id); gradient.defined())
        leaf.gradient_norm = std::sqrt(sum_of_squares(gradient));
    report.leaves.push_back(std::move(leaf));
  }
  return report;
}

namespace {

std::string joined(const auto& values) {
  std::string text;
  for (const auto& value : values) {
    if (!text.empty()) text += ' ';
    if constexpr (std::is_integral_v<std::decay_t<decltype(value)>>) {
      text += std::to_string(value);
    } else {
      text += describe(value);
    }
  }
  return text;
}

}  // namespace

std::string describe(const TapeReport& report) {
  std::string text = fmt::format("{:>6}  {:<20} {:<24} {:>12} {:>6} {:>13}  {}\n", "entry", "op",
                                 "output", "saved bytes", "visit", "contributions", "module");
  for (std::size_t i = 0; i < report.rows.size(); ++i) {
    const TapeReport::Row& row = report.rows[i];
    text +=
        fmt::format("{:>6}  {:<20} {:<24} {:>12} {:>6} {:>13}  {}\n", i, row.op, joined(row.shapes),
                    row.saved_bytes, row.visit < 0 ? "-" : std::to_string(row.visit),
                    joined(row.received), row.module);
  }
  for (const TapeReport::Leaf& leaf : report.leaves)
    text += fmt::format("{:>6}  {:<20} {:<24} {:>12} {:>6} {:>13}  gradient {}\n", "leaf",
                        leaf.name, describe(leaf.shape), "", "", leaf.received,
                        describe_gradient(leaf.gradient_norm));
  return text + fmt::format("{} entries, {} bytes saved\n", report.rows.size(), report.saved_bytes);
}

std::string describe_gradient(const std::optional<double>& norm) {
  if (!norm) return "none yet";
  return *norm == 0.0 ? "0" : fmt::format("{:.3g}", *norm);
}

}  // namespace mf
