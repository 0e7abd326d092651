#include "memformer/audit/summary.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace mf {

Statistics statistics_of(const Tensor& tensor) {
  Statistics statistics;
  std::vector<double> finite;
  finite.reserve(static_cast<std::size_t>(tensor.elements()));
  visit_any(tensor.dtype(), [&](auto zero) {
    for (const auto element : tensor.to_vector<decltype(zero)>()) {
      const auto value = static_cast<double>(element);
      if (std::isnan(value)) {
        ++statistics.nan;
      } else if (std::isinf(value)) {
        ++statistics.infinite;
      } else {
        finite.push_back(value);
      }
    }
  });
  const double nothing = std::numeric_limits<double>::quiet_NaN();
  if (finite.empty()) {
    statistics.mean = statistics.deviation = statistics.minimum = statistics.maximum = nothing;
    return statistics;
  }
  const auto count = static_cast<double>(finite.size());
  for (const double value : finite) statistics.mean += value / count;
  double squares = 0.0;
  for (const double value : finite) squares += std::pow(value - statistics.mean, 2) / count;
  statistics.deviation = std::sqrt(squares);
  const auto [smallest, largest] = std::ranges::minmax(finite);
  statistics.minimum = smallest;
  statistics.maximum = largest;
  return statistics;
}

std::int64_t memory_bytes_per_row(const ModelConfig& config) {
  return config.slots * config.width * size_of(config.dtype);
}

}  // namespace mf
