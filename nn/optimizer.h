#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "autograd/parameter.h"
#include "tensor/backend.h"

namespace mf {

/// Euclidean norm of all gradients together, accumulated in f64 in the order of `parameters`.
double global_gradient_norm(const std::vector<Parameter>& parameters);
/// The factor that brings a gradient of this norm down to `limit`: min(1, limit / norm); 1 if limit
/// is 0.
double clip_factor(double norm, double limit);

/// Updates parameters from their gradients, in place. Parameters without a gradient are left alone.
/// Weight decay acts on matrices only: not on biases, gains and other vectors.
class Optimizer {
 public:
  /// Keeps handles; the parameters' device and dtype must not change afterwards.
  explicit Optimizer(std::vector<Parameter> parameters) : parameters_(std::move(parameters)) {}
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One step; gradients are multiplied by `gradient_scale` (clipping) as they are read.
  virtual void step(double learning_rate, double gradient_scale) = 0;
  /// Everything a resumed run needs besides the parameters, by name; handles share storage.
  virtual std::vector<std::pair<std::string, Tensor>> state() const = 0;

  /// Steps done, which Adam's bias correction counts.
  std::int64_t steps() const { return steps_; }
  /// For a resumed run.
  void set_steps(std::int64_t steps) { steps_ = steps; }

 protected:
  std::vector<Parameter> parameters_;  ///< in the order given
  std::int64_t steps_ = 0;             ///< each `step` counts one up
};

/// AdamW (Loshchilov and Hutter 2019), decay decoupled from the gradient; Adam where weight_decay
/// is 0:
///   m = b1 m + (1-b1) g,  v = b2 v + (1-b2) g^2,
///   p -= lr * (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps), after p *= 1 - lr * weight_decay.
class Adam final : public Optimizer {
 public:
  /// options.learning_rate is not used: each step is given its own.
  Adam(std::vector<Parameter> parameters, AdamOptions options);
  void step(double learning_rate, double gradient_scale) override;
  /// "adam.first.NAME" (m) and "adam.second.NAME" (v) of every parameter.
  std::vector<std::pair<std::string, Tensor>> state() const override;

 private:
  AdamOptions options_;
  std::vector<Tensor> first_moments_, second_moments_;
};

/// p -= lr * u,  u = momentum * u + g + weight_decay * p: decay in its classic form, a part of the
/// gradient.
class Sgd final : public Optimizer {
 public:
  /// With momentum 0 no velocities are kept.
  Sgd(std::vector<Parameter> parameters, double momentum, double weight_decay);
  void step(double learning_rate, double gradient_scale) override;
  /// "sgd.velocity.NAME" (u) of every parameter, if there are velocities.
  std::vector<std::pair<std::string, Tensor>> state() const override;

 private:
  double momentum_;
  double weight_decay_;
  std::vector<Tensor> velocities_;
};

}  // namespace mf
