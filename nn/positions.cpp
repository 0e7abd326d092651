#include "nn/positions.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "nn/dropout.h"

namespace mf {

Tensor sinusoidal_positions(std::int64_t length, std::int64_t width, DType dtype) {
  std::vector<double> table(static_cast<std::size_t>(length * width));
  for (std::int64_t p = 0; p < length; ++p)
    for (std::int64_t i = 0; i < width; ++i) {
      const double exponent = static_cast<double>(i / 2 * 2) / static_cast<double>(width);
      const double angle = static_cast<double>(p) / std::pow(10000.0, exponent);
      table[static_cast<std::size_t>(p * width + i)] =
          i % 2 == 0 ? std::sin(angle) : std::cos(angle);
    }
  return from_host(table, {length, width}).to(dtype);
}

std::int32_t relative_bucket(std::int64_t query, std::int64_t key, std::int64_t buckets,
                             std::int64_t max_distance, bool two_sided) {
  const std::int64_t usable = two_sided ? buckets / 2 : buckets;
  const std::int64_t offset = two_sided && key > query ? usable : 0;
  const std::int64_t distance =
      two_sided ? std::abs(query - key) : std::max<std::int64_t>(query - key, 0);
  const std::int64_t exact = usable / 2;
  std::int64_t bucket = distance;
  if (distance >= exact) {
    const double ratio = std::log(static_cast<double>(distance) / static_cast<double>(exact)) /
                         std::log(static_cast<double>(max_distance) / static_cast<double>(exact));
    bucket = exact + static_cast<std::int64_t>(ratio * static_cast<double>(usable - exact));
  }
  return static_cast<std::int32_t>(offset + std::min(bucket, usable - 1));
}

Var RelativeBias::operator()(const Pass& pass, std::int64_t queries, std::int64_t keys) const {
  const ModuleScope scope(pass);
  std::vector<std::int32_t> ids;
  ids.reserve(static_cast<std::size_t>(queries * keys));
  for (std::int64_t i = 0; i < queries; ++i)
    for (std::int64_t j = 0; j < keys; ++j)
      ids.push_back(relative_bucket(i, j, buckets, max_distance, two_sided));
  const Var rows =
      embedding(pass.tape.param(weight), from_host(ids, {queries, keys}, weight.value().device()));
  return permute(rows, {2, 0, 1});
}

Var relative_attention(const Pass& pass, const Var& query, const Var& key, const Var& value,
                       const Var& table, const Tensor& mask, bool causal,
                       double dropout_probability) {
  const std::int64_t length = query.size(2);
  const std::int64_t reach = (table.size(0) + 1) / 2;
  check(length <= reach && key.size(2) == length,
        "relative_attention: {} queries and {} keys do not fit a table of reach {}; use "
        "self-attention "
        "within the segment",
        length, key.size(2), reach);
  const std::int64_t rows = table.size(0);
  std::vector<std::int32_t> row_of_key;  // [T, T]: the table's row for query i and key j
  std::vector<std::int32_t> key_of_row;  // [T, rows]: the key for query i and row r; T where none
  std::vector<std::uint8_t> hidden;      // [T, T]: keys after the query
  for (std::int64_t i = 0; i < length; ++i) {
    for (std::int64_t j = 0; j < length; ++j) {
      row_of_key.push_back(static_cast<std::int32_t>(i - j + reach - 1));
      hidden.push_back(causal && j > i ? 1 : 0);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t j = i + reach - 1 - r;
      key_of_row.push_back(static_cast<std::int32_t>(j >= 0 && j < length ? j : length));
    }
  }
  const Device device = query.device();
  const double scale_factor = 1.0 / std::sqrt(static_cast<double>(query.size(3)));
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const Var by_distance =
      gather(matmul(query, transpose(table)), from_host(row_of_key, {length, length}, device));
  Var logits = scale(add(matmul(query, transpose(key)), by_distance), scale_factor);  // eq. P1
  if (causal)
    logits = masked_fill(logits, from_host(hidden, {length, length}, device), minus_infinity);
  if (mask.defined())
    logits = where(mask, logits, constant(scalar(minus_infinity, logits.dtype(), device)));
  const Var weights = dropout(pass.at("dropout"), softmax(logits), dropout_probability);
  // Column T is zero: rows of the table that no key of this query has.
  Shape column = weights.shape();
  column[-1] = 1;
  const Var padded = concat({weights, constant(zeros(column, weights.dtype(), device))}, -1);
  const Var by_row = gather(padded, from_host(key_of_row, {length, rows}, device));
  return add(matmul(weights, value), matmul(by_row, table));  // eq. P2
}

}  // namespace mf
