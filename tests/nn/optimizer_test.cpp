// Optimizers against plain loops in f64, clipping, and the learning-rate schedule.

#include <doctest/doctest.h>

#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "tests/support.h"

namespace mf::test {
namespace {

using Values = std::vector<double>;

/// A matrix, a vector and a matrix that never gets a gradient.
std::vector<Parameter> some_parameters(DType dtype) {
  std::vector<Parameter> parameters;
  const std::vector<std::pair<std::string, Shape>> shapes{
      {"weight", {3, 4}}, {"bias", {4}}, {"unused", {2, 2}}};
  for (std::size_t i = 0; i < shapes.size(); ++i)
    parameters.emplace_back(random_tensor(shapes[i].second, RngKey{71}.at(i), dtype),
                            shapes[i].first);
  return parameters;
}

void set_gradients(std::vector<Parameter>& parameters, std::uint64_t step) {
  for (std::size_t i = 0; i < 2; ++i)
    parameters[i].grad() = random_tensor(parameters[i].value().shape(), RngKey{72}.at(step).at(i),
                                         parameters[i].value().dtype());
}

double norm_of(const std::vector<Parameter>& parameters) {
  double squares = 0.0;
  for (const Parameter& parameter : parameters)
    if (parameter.grad().defined())
      for (const double g : doubles(parameter.grad())) squares += g * g;
  return std::sqrt(squares);
}

double worst_error(const Tensor& x, const Values& expected) {
  return relative_difference(x.to(DType::f64), from_host(expected, x.shape()));
}

/// Runs the optimizer for five clipped steps beside `rule(p, m, v, g, lr, decay, step)`, which
/// updates one number the slow way; returns the worst relative error of any parameter.
template <class Rule>
double against_plain_loop(Optimizer& optimizer, std::vector<Parameter>& parameters,
                          double weight_decay, const Rule& rule) {
  constexpr double kLimit = 1.5;
  std::vector<Values> p, m, v;
  for (const Parameter& parameter : parameters) {
    p.push_back(doubles(parameter.value()));
    m.emplace_back(p.back().size(), 0.0);
    v.emplace_back(p.back().size(), 0.0);
  }
  for (std::uint64_t step = 1; step <= 5; ++step) {
    set_gradients(parameters, step);
    const double norm = norm_of(parameters), lr = 0.1 / static_cast<double>(step);
    CHECK(global_gradient_norm(parameters) == doctest::Approx(norm).epsilon(1e-12));
    CHECK(norm > kLimit);  // clipping is at work
    const double clip = kLimit / norm;
    for (std::size_t i = 0; i < 2; ++i) {
      const Values g = doubles(parameters[i].grad());
      const double decay = parameters[i].name() == "weight" ? weight_decay : 0.0;
      for (std::size_t j = 0; j < g.size(); ++j)
        rule(p[i][j], m[i][j], v[i][j], clip * g[j], lr, decay, static_cast<double>(step));
    }
    optimizer.step(lr, clip_factor(norm, kLimit));
  }
  CHECK(optimizer.steps() == 5);
  double worst = 0.0;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    worst = std::max(worst, worst_error(parameters[i].value(), p[i]));
  return worst;
}

double tolerance(DType dtype) { return dtype == DType::f64 ? 1e-13 : 2e-6; }

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("adam: five clipped steps equal the plain loop; only matrices decay") {
    for (const DType dtype : {DType::f64, DType::f32})
      for (const double weight_decay : {0.0, 0.3}) {
        std::vector<Parameter> parameters = some_parameters(dtype);
        AdamOptions options;
        options.beta1 = 0.8;
        options.beta2 = 0.95;
        options.weight_decay = weight_decay;
        Adam adam(parameters, options);
        const auto rule = [](double& p, double& m, double& v, double g, double lr, double decay,
                             double step) {
          m = 0.8 * m + 0.2 * g;
          v = 0.95 * v + 0.05 * g * g;
          const double m_hat = m / (1.0 - std::pow(0.8, step));
          const double v_hat = v / (1.0 - std::pow(0.95, step));
          p -= lr * decay * p;
          p -= lr * m_hat / (std::sqrt(v_hat) + 1e-8);
        };
        CHECK(against_plain_loop(adam, parameters, weight_decay, rule) <= tolerance(dtype));
        // The plain loop can disagree: decay on the vector too would show.
        std::vector<Parameter> again = some_parameters(dtype);
        Adam same(again, options);
        const auto wrong = [&](double& p, double& m, double& v, double g, double lr, double,
                               double step) { rule(p, m, v, g, lr, 0.1, step); };
        CHECK(against_plain_loop(same, again, weight_decay, wrong) > 1e-3);
      }
  }

  TEST_CASE("sgd: five clipped steps equal the plain loop, with and without momentum and decay") {
    for (const DType dtype : {DType::f64, DType::f32})
      for (const double momentum : {0.0, 0.9})
        for (const double weight_decay : {0.0, 0.3}) {
          std::vector<Parameter> parameters = some_parameters(dtype);
          Sgd sgd(parameters, momentum, weight_decay);
          const auto rule = [momentum](double& p, double& m, double&, double g, double lr,
                                       double decay, double) {
            m = momentum * m + g + decay * p;
            p -= lr * m;
          };
          CHECK(against_plain_loop(sgd, parameters, weight_decay, rule) <= tolerance(dtype));
        }
  }

  TEST_CASE("adam: the first step is the learning rate against the gradient's sign") {
    std::vector<Parameter> parameters{Parameter(from_host({1.0, 1.0, 1.0}, {3}), "x")};
    parameters[0].grad() = from_host({5.0, -0.01, 0.0}, {3});
    Adam(parameters, {}).step(0.1, 1.0);
    const Values x = doubles(parameters[0].value());
    CHECK(x[0] == doctest::Approx(0.9).epsilon(1e-7));
    CHECK(x[1] == doctest::Approx(1.1).epsilon(1e-6));
    CHECK(x[2] == 1.0);
  }

  TEST_CASE("optimizer: a parameter without a gradient is left alone, bit for bit") {
    std::vector<Parameter> parameters = some_parameters(DType::f32);
    const Tensor unused = parameters[2].value().clone(), used = parameters[0].value().clone();
    AdamOptions options;
    options.weight_decay = 0.5;
    Adam adam(parameters, options);
    Sgd sgd(parameters, 0.9, 0.5);
    for (Optimizer* optimizer : {static_cast<Optimizer*>(&adam), static_cast<Optimizer*>(&sgd)}) {
      set_gradients(parameters, 1);
      optimizer->step(0.1, 1.0);
    }
    CHECK(identical(parameters[2].value(), unused));
    CHECK(!identical(parameters[0].value(), used));
  }

  TEST_CASE("optimizer: a run continued from the saved state has the bits of an unbroken one") {
    const auto train = [](Optimizer& optimizer, std::vector<Parameter>& parameters,
                          std::uint64_t begin, std::uint64_t end) {
      for (std::uint64_t step = begin; step < end; ++step) {
        set_gradients(parameters, step);
        optimizer.step(0.05, 1.0);
      }
    };
    const auto make = [](bool adam,
                         std::vector<Parameter>& parameters) -> std::unique_ptr<Optimizer> {
      if (adam) return std::make_unique<Adam>(parameters, AdamOptions{});
      return std::make_unique<Sgd>(parameters, 0.9, 0.0);
    };
    for (const bool adam : {true, false}) {
      std::vector<Parameter> whole = some_parameters(DType::f32),
                             broken = some_parameters(DType::f32);
      const auto unbroken = make(adam, whole);
      train(*unbroken, whole, 0, 6);

      std::vector<std::pair<std::string, Tensor>> saved;
      {
        const auto first = make(adam, broken);
        train(*first, broken, 0, 3);
        for (const auto& [name, value] : first->state()) saved.emplace_back(name, value.clone());
      }
      REQUIRE(saved.size() == (adam ? 6 : 3));
      CHECK(saved[0].first == (adam ? "adam.first.weight" : "sgd.velocity.weight"));
      const auto second = make(adam, broken);
      second->set_steps(3);
      const auto handles = second->state();
      REQUIRE(handles.size() == saved.size());
      for (std::size_t i = 0; i < saved.size(); ++i) {
        CHECK(handles[i].first == saved[i].first);
        Tensor(handles[i].second).copy_(saved[i].second);
      }
      train(*second, broken, 3, 6);
      for (std::size_t i = 0; i < whole.size(); ++i)
        CHECK(identical(broken[i].value(), whole[i].value()));
    }
  }

  TEST_CASE("clip_factor: brings a long gradient down to the limit and leaves a short one alone") {
    CHECK(clip_factor(4.0, 1.0) == 0.25);
    CHECK(clip_factor(1.0, 1.0) == 1.0);
    CHECK(clip_factor(0.3, 1.0) == 1.0);
    CHECK(clip_factor(0.0, 1.0) == 1.0);
    CHECK(clip_factor(100.0, 0.0) == 1.0);  // 0: no clipping
  }

  TEST_CASE("global_gradient_norm: 3, 4 and 12 make 13, whatever has no gradient") {
    std::vector<Parameter> parameters = some_parameters(DType::f32);
    CHECK(global_gradient_norm(parameters) == 0.0);
    parameters[0].grad() = zeros({3, 4}, DType::f32);
    parameters[0].grad().slice(0, 0, 1).slice(1, 0, 1).fill_(3.0);
    parameters[0].grad().slice(0, 2, 3).slice(1, 3, 4).fill_(-4.0);
    parameters[1].grad() = full({4}, 6.0, DType::f32);
    CHECK(global_gradient_norm(parameters) == 13.0);
  }

  TEST_CASE("schedule: linear warm-up, half a cosine, then the floor") {
    const Schedule schedule{.peak = 2.0, .warmup = 4, .total = 24, .floor = 0.1};
    CHECK(schedule.at(0) == 0.5);
    CHECK(schedule.at(1) == 1.0);
    CHECK(schedule.at(3) == 2.0);
    CHECK(schedule.at(4) == 2.0);
    CHECK(schedule.at(9) == doctest::Approx(2.0 * (0.1 + 0.9 * 0.5 * (1.0 + std::sqrt(0.5)))));
    CHECK(schedule.at(14) == doctest::Approx(1.1));
    CHECK(schedule.at(24) == doctest::Approx(0.2));
    CHECK(schedule.at(1000) == doctest::Approx(0.2));
    for (std::int64_t step = 4; step < 24; ++step) CHECK(schedule.at(step + 1) < schedule.at(step));
  }

  TEST_CASE("schedule: constant where no total is given, no warm-up where none is wanted") {
    const Schedule constant{.peak = 0.5, .warmup = 2, .total = 0};
    CHECK(constant.at(0) == 0.25);
    CHECK(constant.at(2) == 0.5);
    CHECK(constant.at(1'000'000) == 0.5);
    const Schedule immediate{.peak = 0.5, .warmup = 0, .total = 10, .floor = 0.0};
    CHECK(immediate.at(0) == 0.5);
    CHECK(immediate.at(10) == doctest::Approx(0.0));
  }
}

}  // namespace mf::test
