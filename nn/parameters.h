#pragma once

#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "autograd/parameter.h"
#include "tensor/math.h"
#include "tensor/memory.h"
#include "tensor/random.h"

namespace mf {

/// Collects the parameters of a layer. A layer lists its members in `each`:
///   `template <class F> void each(F&& fn) const { fn("weight", weight); fn("bias", bias); }`
/// Members are Parameters, layers, vectors of layers or optional layers; undefined parameters and
/// parameters already met (tied ones) are passed over.
class ParameterCollector {
 public:
  /// Takes a member of the layer that is being listed; `name` is added to the layer's path.
  template <class Member>
  void operator()(const std::string& name, const Member& member) {
    const std::string path = prefix_.empty() ? name : prefix_ + "." + name;
    if constexpr (std::is_same_v<Member, Parameter>) {
      if (!member.defined() || !seen_.insert(member.identity()).second) return;
      Parameter parameter = member;
      parameter.set_name(path);
      parameters_.push_back(parameter);
    } else if constexpr (requires { member.has_value(); }) {
      if (member.has_value()) (*this)(name, *member);
    } else if constexpr (requires { member.begin(); }) {
      for (std::size_t i = 0; i < member.size(); ++i)
        (*this)(name + "." + std::to_string(i), member[i]);
    } else {
      const std::string outer = std::exchange(prefix_, path);
      member.each(*this);
      prefix_ = outer;
    }
  }

  /// What was collected, in order; the collector is empty then.
  std::vector<Parameter> take() { return std::move(parameters_); }

 private:
  std::string prefix_;
  std::unordered_set<const void*> seen_;
  std::vector<Parameter> parameters_;
};

/// Every parameter of `layer`, in the order of its members; each gets its path as its name, such as
/// "encoder.layers.0.self_attention.query.weight".
template <class Layer>
std::vector<Parameter> parameters(const Layer& layer) {
  ParameterCollector collector;
  layer.each(collector);
  return collector.take();
}

/// Elements of all values: the size of a model.
inline std::int64_t count_elements(const std::vector<Parameter>& parameters) {
  std::int64_t count = 0;
  for (const Parameter& parameter : parameters) count += parameter.value().elements();
  return count;
}

/// Moves the values to `device`; every handle of a parameter sees it. Gradients are dropped.
inline void move_to(Device device, std::vector<Parameter> parameters) {
  const CategoryScope category(Category::parameter);
  for (Parameter& parameter : parameters) {
    parameter.value() = parameter.value().to(device);
    parameter.zero_grad();
  }
}

/// Moves every value by normal noise, so that none keeps a special value such as a zero bias: for
/// checks, of gradients above all.
inline void perturb(const std::vector<Parameter>& parameters, RngKey key, double deviation = 0.1) {
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    Parameter parameter = parameters[i];
    Tensor& value = parameter.value();
    add_(value, normal(value.shape(), key.at(i), 0.0, 1.0, DType::f64).to(value.dtype()),
         deviation);
  }
}

/// Sets every gradient to "none yet".
inline void zero_grad(std::vector<Parameter>& parameters) {
  for (Parameter& parameter : parameters) parameter.zero_grad();
}

}  // namespace mf
