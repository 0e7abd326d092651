#pragma once

#include <memory>
#include <string>
#include <utility>

#include "tensor/tensor.h"

namespace mf {

/// A trained tensor: a shared handle to {name, value, gradient}. Copies alias the same parameter,
/// so a table can be tied by copying its Parameter.
class Parameter {
 public:
  /// Undefined: what a layer without bias has as its bias.
  Parameter() = default;
  /// A new parameter without gradient.
  explicit Parameter(Tensor value, std::string name = "")
      : data_(std::make_shared<Data>(Data{std::move(name), std::move(value), {}})) {}

  /// False for Parameter{}; the functions below need a defined one.
  bool defined() const { return data_ != nullptr; }
  /// Its path in the model, such as "encoder.layers.0.self_attention.query.weight", once
  /// `parameters` has collected it.
  const std::string& name() const { return data_->name; }
  /// For all handles.
  void set_name(std::string name) { data_->name = std::move(name); }

  /// What the tape reads and the optimizer writes.
  const Tensor& value() const { return data_->value; }
  /// The same, to be written or replaced; all handles see it.
  Tensor& value() { return data_->value; }
  /// Undefined until the first contribution after `zero_grad`.
  const Tensor& grad() const { return data_->grad; }
  /// The same, for who adds to it: Tape::backward.
  Tensor& grad() { return data_->grad; }
  /// Makes the gradient undefined and frees it.
  void zero_grad() { data_->grad = Tensor{}; }

  /// Equal for handles of one parameter.
  const void* identity() const { return data_.get(); }

 private:
  struct Data {
    std::string name;
    Tensor value;
    Tensor grad;
  };
  std::shared_ptr<Data> data_;
};

}  // namespace mf
