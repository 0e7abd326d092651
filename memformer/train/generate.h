#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "memformer/model/memformer.h"

namespace mf {

/// How a token is drawn from logits.
struct SamplingOptions {
  double temperature = 0.8;  ///< 0: always the most likely token, the first of equals
  std::int64_t top_k = 0;    ///< only the k most likely tokens; 0: all
  double top_p = 1.0;        ///< only the fewest most likely tokens whose probabilities reach top_p
};

/// Throws Error naming the first impossible value.
void validate(const SamplingOptions& options);

/// Draws a token from softmax(logits / temperature), cut to top_k and then to top_p. The draw is
/// element `element` of the key's stream, so the same arguments give the same token.
/// Throws Error on impossible options, on NaN or +infinity, and if every logit is -infinity.
std::int32_t sample(std::span<const double> logits, const SamplingOptions& options, RngKey key,
                    std::uint64_t element);

/// `sample` for draw after draw: what it sorts in is allocated once.
class Sampler {
 public:
  /// Throws Error as `validate` does.
  explicit Sampler(const SamplingOptions& options) : options_(options) { validate(options); }
  /// As `sample`, with the options given above.
  std::int32_t operator()(std::span<const double> logits, RngKey key, std::uint64_t element);

 private:
  struct Candidate {
    double logit;
    std::int32_t token;
  };

  SamplingOptions options_;
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

/// Continues a text byte by byte, as the model was trained to: the text so far is cut into
/// segments; step t encodes segment t with the memory M_t and writes M_{t+1}; the decoder predicts
/// segment t+1 from the begin token and what that segment holds so far, reading one byte a step
/// with the keys and values of the bytes before in a cache. Nothing is recorded, and a text of any
/// length takes the memory of one segment.
///
/// A prompt shorter than a segment is encoded as one short segment. What is left of a longer one
/// after its last full segment begins the segment that the decoder continues.
class Generator {
 public:
  /// Throws Error unless the model has a decoder and reads bytes, and the prompt has a byte.
  Generator(const Memformer& model, std::string_view prompt, const SamplingOptions& options,
            RngKey key);

  /// The next byte; it belongs to the text from then on. The begin token is never drawn.
  char next();

  /// M_t of the segment to be encoded next.
  const State& memory() const { return memory_; }

 private:
  /// Reads a segment, writes the memory and makes the decoder ready for the segment after it.
  void encode(std::span<const std::int32_t> segment);
  /// The decoder reads the newest token of the begun segment; logits [1, vocabulary] of the next.
  Tensor read_newest();

  const Memformer& model_;
  Sampler sampler_;
  RngKey key_;
  Device device_;
  State memory_;
  DecoderCache cache_;
  std::vector<std::int32_t> begun_;  // the segment that the decoder is predicting
  std::uint64_t drawn_ = 0;
};

}  // namespace mf
