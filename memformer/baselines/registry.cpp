#include "memformer/baselines/registry.h"

namespace mf {
namespace {

/// Calls fn(config) with the defaults of each alternative.
template <std::size_t I = 0, class F>
void each_baseline(F&& fn) {
  if constexpr (I < std::variant_size_v<BaselineConfig>) {
    fn(std::variant_alternative_t<I, BaselineConfig>{});
    each_baseline<I + 1>(fn);
  }
}

}  // namespace

std::vector<std::string> baseline_names() {
  std::vector<std::string> names;
  each_baseline([&](const auto& config) { names.emplace_back(config.kName); });
  return names;
}

BaselineConfig baseline_config(const std::string& name) {
  std::optional<BaselineConfig> found;
  std::string known;
  each_baseline([&](const auto& config) {
    if (name == config.kName) found = config;
    known += std::string(", ") + config.kName;
  });
  check(found.has_value(), "configuration: 'model.name' is \"{}\"; known models are memformer{}",
        name, known);
  return *found;
}

std::string name_of(const BaselineConfig& config) {
  return std::visit([](const auto& c) { return std::string(c.kName); }, config);
}

const TokenModelConfig& shared(const BaselineConfig& config) {
  return std::visit([](const auto& c) -> const TokenModelConfig& { return c; }, config);
}

void validate(const BaselineConfig& config) {
  std::visit([](const auto& c) { validate(c); }, config);
}

MultiplyAdds multiply_adds(const BaselineConfig& config) {
  return std::visit([](const auto& c) { return multiply_adds(c); }, config);
}

std::unique_ptr<Recurrence> make_baseline(const BaselineConfig& config, RngKey key) {
  return std::visit(
      [&](const auto& c) -> std::unique_ptr<Recurrence> {
        return std::make_unique<typename std::decay_t<decltype(c)>::Model>(c, key);
      },
      config);
}

}  // namespace mf
