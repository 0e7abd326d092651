#include "memformer/data/ngram.h"

#include <algorithm>
#include <cmath>

#include "tensor/error.h"

namespace mf {
namespace {

std::uint64_t append(std::uint64_t packed, char byte) {
  return packed << 8 | static_cast<unsigned char>(byte);
}

/// The last `length` of the bytes packed into `history`.
std::uint64_t last_bytes(std::uint64_t history, std::size_t length) {
  return history & ((std::uint64_t{1} << 8 * length) - 1);
}

std::uint64_t pack(std::string_view bytes) {
  std::uint64_t packed = 0;
  for (const char byte : bytes) packed = append(packed, byte);
  return packed;
}

}  // namespace

NgramModel::NgramModel(std::string_view text, int order) {
  check(order >= 0 && order <= kMaxOrder, "ngram: order {} is out of range; 0..{} can be counted",
        order, kMaxOrder);
  levels_.resize(static_cast<std::size_t>(order) + 1);
  // Level by level, because one level's tables fit the cache better than all of them.
  for (std::size_t length = 0; length < levels_.size(); ++length) {
    Level& level = levels_[length];
    std::uint64_t history = pack(text.substr(0, length));
    for (std::size_t i = length; i < text.size(); ++i) {
      const std::uint64_t h = last_bytes(history, length);
      Context& context = level.contexts[h];
      ++context.total;
      if (level.grams[append(h, text[i])]++ == 0) ++context.distinct;
      history = append(history, text[i]);
    }
  }
}

double NgramModel::probability(std::string_view context, char byte) const {
  const std::size_t longest = std::min(context.size(), levels_.size() - 1);
  const std::uint64_t history = pack(context.substr(context.size() - longest));
  double p = 1.0 / 256;
  for (std::size_t length = 0; length <= longest; ++length) {
    const std::uint64_t h = last_bytes(history, length);
    const Context* seen = levels_[length].contexts.find(h);
    if (seen == nullptr) break;  // so no longer context was seen either
    const std::uint32_t* gram = levels_[length].grams.find(append(h, byte));
    const double count = gram == nullptr ? 0 : *gram;
    p = (count + seen->distinct * p) / (static_cast<double>(seen->total) + seen->distinct);
  }
  return p;
}

double NgramModel::bits_per_byte(std::string_view text) const {
  check(!text.empty(), "ngram: no bytes to measure; the text is empty; give at least one byte");
  double bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    bits -= std::log2(probability(text.substr(0, i), text[i]));
  return bits / static_cast<double>(text.size());
}

double ngram_bits_per_byte(std::string_view train, std::string_view test, int order,
                           std::int64_t max_train_bytes) {
  check(!train.empty() && max_train_bytes > 0,
        "ngram: nothing to count; {} training bytes, at most {} used; give both at least 1",
        train.size(), max_train_bytes);
  const std::size_t used = std::min(train.size(), static_cast<std::size_t>(max_train_bytes));
  return NgramModel(train.substr(train.size() - used), order).bits_per_byte(test);
}

}  // namespace mf
