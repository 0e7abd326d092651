#include "nn/optimizer.h"

#include <cmath>

#include "tensor/math.h"

namespace mf {
namespace {

std::vector<Tensor> zeros_for(const std::vector<Parameter>& parameters) {
  const CategoryScope category(Category::optimizer);
  std::vector<Tensor> tensors;
  for (const Parameter& parameter : parameters) tensors.push_back(zeros_like(parameter.value()));
  return tensors;
}

double decay_of(const Parameter& parameter, double weight_decay) {
  return parameter.value().rank() >= 2 ? weight_decay : 0.0;
}

}  // namespace

double global_gradient_norm(const std::vector<Parameter>& parameters) {
  std::vector<Tensor> gradients;
  for (const Parameter& parameter : parameters)
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  return std::sqrt(sum_of_squares(gradients));
}

double clip_factor(double norm, double limit) {
  return limit > 0.0 && norm > limit ? limit / norm : 1.0;
}

Adam::Adam(std::vector<Parameter> parameters, AdamOptions options)
    : Optimizer(std::move(parameters)),
      options_(options),
      first_moments_(zeros_for(parameters_)),
      second_moments_(zeros_for(parameters_)) {}

void Adam::step(double learning_rate, double gradient_scale) {
  ++steps_;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = parameters_[i];
    if (!parameter.grad().defined()) continue;
    AdamOptions options = options_;
    options.learning_rate = learning_rate;
    options.weight_decay = decay_of(parameter, options_.weight_decay);
    adam_(parameter.value(), parameter.grad(), gradient_scale, options, steps_, first_moments_[i],
          second_moments_[i]);
  }
}

std::vector<std::pair<std::string, Tensor>> Adam::state() const {
  std::vector<std::pair<std::string, Tensor>> state;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    state.emplace_back("adam.first." + parameters_[i].name(), first_moments_[i]);
    state.emplace_back("adam.second." + parameters_[i].name(), second_moments_[i]);
  }
  return state;
}

Sgd::Sgd(std::vector<Parameter> parameters, double momentum, double weight_decay)
    : Optimizer(std::move(parameters)),
      momentum_(momentum),
      weight_decay_(weight_decay),
      velocities_(momentum > 0.0 ? zeros_for(parameters_)
                                 : std::vector<Tensor>(parameters_.size())) {}

void Sgd::step(double learning_rate, double gradient_scale) {
  ++steps_;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = parameters_[i];
    if (!parameter.grad().defined()) continue;
    sgd_(parameter.value(), parameter.grad(), gradient_scale, learning_rate, momentum_,
         decay_of(parameter, weight_decay_), velocities_[i]);
  }
}

std::vector<std::pair<std::string, Tensor>> Sgd::state() const {
  std::vector<std::pair<std::string, Tensor>> state;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    if (velocities_[i].defined())
      state.emplace_back("sgd.velocity." + parameters_[i].name(), velocities_[i]);
  return state;
}

}  // namespace mf
