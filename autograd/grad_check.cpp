#include "autograd/grad_check.h"

#include <algorithm>
#include <cmath>

#include "tensor/math.h"

namespace mf {
namespace {

/// Something whose coordinates are moved: an input or a parameter.
struct Subject {
  std::string name;
  Tensor value;  // shares the storage that fn reads
  Tensor analytic;
};

class Checker {
 public:
  Checker(std::string name, const GradFunction& fn, std::span<const Tensor> inputs,
          const GradCheckOptions& options, std::span<const Parameter> parameters)
      : fn_(fn), options_(options), parameters_(parameters.begin(), parameters.end()) {
    report_.name = std::move(name);
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      require_dtype(inputs[i]);
      subjects_.push_back({"input " + std::to_string(i), inputs[i].clone(), {}});
    }
    inputs_ = inputs.size();
    for (Parameter& parameter : parameters_) {
      require_dtype(parameter.value());
      subjects_.push_back({parameter.name(), parameter.value(), {}});
    }
  }

  GradReport run() {
    const std::vector<Tensor> first = analytic();
    const std::vector<Tensor> second = analytic();
    for (std::size_t i = 0; i < subjects_.size(); ++i) {
      Subject& subject = subjects_[i];
      subject.analytic = first[i];
      if (first_difference(first[i], second[i]) >= 0)
        add_failure(subject.name, first_difference(first[i], second[i]), 0.0, 0.0,
                    "two runs gave different bits: the function or a kernel is not deterministic");
    }
    for (std::size_t i = 0; i < subjects_.size(); ++i) {
      if (subjects_[i].value.elements() <= options_.full_limit) {
        check_coordinates(static_cast<int>(i), subjects_[i]);
      } else {
        check_directions(subjects_[i], options_.key.at(i));
      }
    }
    return report_;
  }

 private:
  void require_dtype(const Tensor& x) const {
    check(x.defined() && (x.dtype() == DType::f64 || options_.allow_f32),
          "grad_check: {} must be f64; finite differences of f32 are noise; build the model in f64",
          x);
  }

  /// Irregular weights in [0.5, 1.5), alternating in sign by the key's bits.
  Tensor weights(const Tensor& y) const {
    std::vector<double> values(static_cast<std::size_t>(y.elements()));
    const RngKey key = options_.key.at("weights");
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = (0.5 + key.uniform(2 * i)) * (key.uniform(2 * i + 1) < 0.5 ? -1.0 : 1.0);
    return from_host(values, y.shape()).to(y.dtype()).to(y.device());
  }

  std::vector<Tensor> analytic() {
    for (Parameter& parameter : parameters_) parameter.zero_grad();
    Tape tape;
    std::vector<Var> leaves;
    for (std::size_t i = 0; i < inputs_; ++i)
      leaves.push_back(tape.input(subjects_[i].value, subjects_[i].name));
    const Var y = fn_(tape, leaves);
    if (y.on_tape()) {
      tape.backward({{y, weights(y.value)}});
    } else {
      tape.backward(
          std::span<const Seed>{});  // no input reaches the result: all gradients are zero
    }
    std::vector<Tensor> grads;
    for (const Var& leaf : leaves) grads.push_back(tape.grad(leaf).clone());
    for (Parameter& parameter : parameters_) {
      grads.push_back(parameter.grad().defined() ? parameter.grad().clone()
                                                 : zeros_like(parameter.value()));
      parameter.zero_grad();
    }
    return grads;
  }

  double loss() {
    Tape off = Tape::off();
    std::vector<Var> leaves;
    for (std::size_t i = 0; i < inputs_; ++i) leaves.push_back(constant(subjects_[i].value));
    const Tensor y = fn_(off, leaves).value;
    return sum(mul(y, weights(y)).to(DType::f64)).item();
  }

  static double element(const Tensor& x, std::int64_t index) {
    const Tensor flat = x.contiguous().reshape({-1});
    return flat.slice(0, index, index + 1).item();
  }

  static void set_element(Tensor& x, std::int64_t index, double value) {
    x.reshape({-1}).slice(0, index, index + 1).fill_(value);
  }

  void check_coordinates(int input, Subject& subject) {
    for (std::int64_t i = 0; i < subject.value.elements(); ++i) {
      const double x = element(subject.value, i);
      if (options_.skip && options_.skip(input, i, x)) {
        ++report_.skipped;
        continue;
      }
      const double step = options_.step * std::max(1.0, std::abs(x));
      set_element(subject.value, i, x + step);
      const double above = loss();
      set_element(subject.value, i, x - step);
      const double below = loss();
      set_element(subject.value, i, x);
      compare(subject.name, i, element(subject.analytic, i), (above - below) / (2.0 * step));
    }
  }

  void check_directions(Subject& subject, RngKey key) {
    const Tensor original = subject.value.clone();
    for (int k = 0; k < options_.directions; ++k) {
      const Tensor direction =
          normal(original.shape(), key.at(static_cast<std::uint64_t>(k)), 0.0, 1.0, DType::f64)
              .to(original.dtype())
              .to(original.device());
      const double norm = std::sqrt(sum_of_squares(direction));
      subject.value.copy_(add(original, affine(direction, options_.step / norm)));
      const double above = loss();
      subject.value.copy_(add(original, affine(direction, -options_.step / norm)));
      const double below = loss();
      const double along = sum(mul(subject.analytic, direction)).item() / norm;
      compare(subject.name, -1, along, (above - below) / (2.0 * options_.step));
    }
    subject.value.copy_(original);
  }

  void compare(const std::string& input, std::int64_t index, double analytic, double numeric) {
    ++report_.checked;
    const double error =
        std::abs(analytic - numeric) / (options_.absolute + options_.relative * std::abs(numeric));
    if (!std::isfinite(analytic) || !std::isfinite(numeric)) {
      add_failure(input, index, analytic, numeric, "not finite");
    } else {
      report_.worst_error = std::max(report_.worst_error, error);
      if (error > 1.0) add_failure(input, index, analytic, numeric, "analytic and numeric differ");
    }
  }

  void add_failure(const std::string& input, std::int64_t index, double analytic, double numeric,
                   std::string reason) {
    report_.ok = false;
    report_.failures.push_back({input, index, analytic, numeric, std::move(reason)});
  }

  const GradFunction& fn_;
  const GradCheckOptions& options_;
  std::vector<Parameter> parameters_;
  std::vector<Subject> subjects_;
  std::size_t inputs_ = 0;
  GradReport report_;
};

}  // namespace

GradReport grad_check(std::string name, const GradFunction& fn, std::span<const Tensor> inputs,
                      const GradCheckOptions& options, std::span<const Parameter> parameters) {
  return Checker(std::move(name), fn, inputs, options, parameters).run();
}

std::string describe(const GradReport& report) {
  std::string text = fmt::format(
      "{}: {}, {} coordinates checked, {} skipped, worst error {:.3g} of the tolerance\n",
      report.name, report.ok ? "gradients agree" : "GRADIENTS DIFFER", report.checked,
      report.skipped, report.worst_error);
  constexpr std::size_t kShown = 10;
  for (std::size_t i = 0; i < std::min(kShown, report.failures.size()); ++i) {
    const GradReport::Failure& failure = report.failures[i];
    text += fmt::format("  {} [{}]: analytic {:.12g}, numeric {:.12g}, difference {:.3g}: {}\n",
                        failure.input, failure.index, failure.analytic, failure.numeric,
                        failure.analytic - failure.numeric, failure.reason);
  }
  if (report.failures.size() > kShown)
    text += fmt::format("  and {} more\n", report.failures.size() - kShown);
  return text;
}

}  // namespace mf
