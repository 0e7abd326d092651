#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "memformer/data/gram_table.h"

namespace mf {

/// Byte model with Witten-Bell smoothing, interpolated over all context lengths k = 0..order:
///   p_k(c | h) = (N(h c) + T(h) p_{k-1}(c | h')) / (N(h) + T(h)),   p_{-1} = 1/256
/// N counts occurrences, T(h) is the number of different bytes seen after h, and h' is h without
/// its oldest byte. What a memory model on bytes must beat to have learned anything. Source: Witten
/// and Bell 1991; Chen and Goodman 1998, section 2.6.
class NgramModel {
 public:
  /// Most context bytes that a model may have.
  static constexpr int kMaxOrder = 7;  ///< context and byte are packed into 64 bits

  /// Counts all of `text`; `order` is the number of context bytes. Throws Error on an order outside
  /// 0..kMaxOrder.
  NgramModel(std::string_view text, int order);

  /// p(byte | the last `order` bytes of `context`); fewer are used where there are fewer.
  double probability(std::string_view context, char byte) const;
  /// Mean of -log2 p over the bytes of `text`, which starts without context.
  double bits_per_byte(std::string_view text) const;

 private:
  struct Context {
    std::uint32_t total = 0;     ///< N(h)
    std::uint32_t distinct = 0;  ///< T(h)
  };
  struct Level {
    GramTable<Context> contexts;
    GramTable<std::uint32_t> grams;  ///< N(h c)
  };
  std::vector<Level> levels_;  ///< by context length
};

/// Bits per byte of `test` under a model of the given order trained on `train`, or on its last
/// `max_train_bytes`: the part nearest to the test text. Throws Error where either is empty.
double ngram_bits_per_byte(std::string_view train, std::string_view test, int order,
                           std::int64_t max_train_bytes = 3'000'000);

}  // namespace mf
