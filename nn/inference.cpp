#include "nn/inference.h"

#include "tensor/math.h"

namespace mf {
namespace {

/// R by distance, the farthest first: see KeyValueCache::relative.
Tensor by_falling_distance(const Tensor& table, std::int64_t capacity) {
  const std::int64_t reach = (table.size(0) + 1) / 2;
  check(capacity <= reach, "key_value_cache: {} positions do not fit a table of reach {}", capacity,
        reach);
  std::vector<std::int32_t> rows;
  for (std::int64_t distance = capacity - 1; distance >= 0; --distance)
    rows.push_back(static_cast<std::int32_t>(distance + reach - 1));
  return gather_rows(table, from_host(rows, {capacity}, table.device()));
}

}  // namespace

Tensor infer(const Linear& layer, const Tensor& x) {
  return linear(x, layer.weight.value(), layer.bias.defined() ? layer.bias.value() : Tensor{});
}

Tensor infer(const LayerNorm& layer, const Tensor& x) {
  return layer_norm(x, layer.gain.value(), layer.bias.value(), layer.epsilon).y;
}

Tensor infer(const FeedForward& layer, const Tensor& x) {
  return infer(layer.down, map(function_of(layer.activation), infer(layer.up, x)));
}

void KeyValueCache::reset(const MultiHeadAttention& attention, std::int64_t batch,
                          std::int64_t capacity, Device device) {
  const Tensor& weight = attention.key.weight.value();
  const Shape shape{batch, attention.heads, capacity, weight.size(1) / attention.heads};
  const bool fits = keys.defined() && keys.shape() == shape && keys.dtype() == weight.dtype() &&
                    keys.device() == device;
  if (!fits) {
    keys = empty(shape, weight.dtype(), device);
    values = empty(shape, weight.dtype(), device);
  }
  length = 0;
  relative = attention.relative ? by_falling_distance(attention.relative->weight.value(), capacity)
                                : Tensor{};
}

void KeyValueCache::append(const MultiHeadAttention& attention, const Tensor& context) {
  const std::int64_t added = context.size(1);
  check(length + added <= keys.size(2),
        "key_value_cache: {} positions more than the {} held do not fit a capacity of {}; reset "
        "it for the next segment",
        added, length, keys.size(2));
  const auto store = [&](const Linear& projection, const Tensor& all) {
    const Tensor rows = infer(projection, context);
    Tensor place = all.slice(2, length, length + added);
    place.copy_(rows.reshape({rows.size(0), added, all.size(1), all.size(3)}).transpose(1, 2));
  };
  store(attention.key, keys);
  store(attention.value, values);
  length += added;
}

Tensor infer(const MultiHeadAttention& attention, const Tensor& x, const KeyValueCache& cache,
             const Tensor& mask, const Tensor& bias) {
  const Shape query{x.size(0), attention.heads, 1, cache.keys.size(3)};
  const Tensor q = infer(attention.query, x).reshape(query);
  Tensor k = cache.keys.slice(2, 0, cache.length);
  Tensor v = cache.values.slice(2, 0, cache.length);
  if (cache.relative.defined()) {
    // q.k_j + q.R_{i-j} = q.(k_j + R_{i-j}), and R is added to the values too.
    const std::int64_t capacity = cache.relative.size(0);
    const Tensor rows = cache.relative.slice(0, capacity - cache.length, capacity);
    k = add(k, rows);
    v = add(v, rows);
  }
  const Tensor mixed = mf::attention(q, k, v, mask, bias, {}).out;
  return infer(attention.output, mixed.reshape(x.shape()));
}

}  // namespace mf
