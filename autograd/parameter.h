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
  Parameter() = default;
  explicit Parameter(Tensor value, std::string name = "")
      : data_(std::make_shared<Data>(Data{std::move(name), std::move(value), {}})) {}

  bool defined() const { return data_ != nullptr; }
  const std::string& name() const { return data_->name; }
  void set_name(std::string name) { data_->name = std::move(name); }

  const Tensor& value() const { return data_->value; }
  Tensor& value() { return data_->value; }
  /// Undefined until the first contribution after `zero_grad`.
  const Tensor& grad() const { return data_->grad; }
  Tensor& grad() { return data_->grad; }
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
