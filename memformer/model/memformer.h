#pragma once

#include <optional>

#include "memformer/model/decoder.h"
#include "memformer/model/memory.h"
#include "memformer/model/writer.h"
#include "memformer/replay/recurrence.h"

namespace mf {

/// Memformer (arXiv 2010.06891 v2). Step t reads M_t and segment s_t, writes M_{t+1}, and is scored
/// on s_{t+1}:
///   E_t = Encoder(s_t, M_t),   M_{t+1} = BMN(Write(M_t, E_t)),   P(s_{t+1}) = Decoder(E_t)
/// (eq. S2, S3).
/// Encoder-only: the head reads E_t and targets are one per encoder position.
class Memformer final : public Recurrence {
 public:
  /// Throws Error if `config` is impossible. The same key gives the same weights in f32 and f64,
  /// but for rounding.
  Memformer(const ModelConfig& config, RngKey key);

  /// As given to the constructor.
  const ModelConfig& config() const { return config_; }
  /// The stack that reads segment and memory.
  const Encoder& encoder() const { return encoder_; }
  /// Of a model with memory only.
  const Memory& memory() const { return memory_.value(); }
  /// Of a model with memory only.
  const MemoryWriter& writer() const { return writer_.value(); }
  /// "memory": M_0 [batch, slots, width], a view of one row; an empty state without slots.
  State initial_state(std::int64_t batch) const override;
  /// Encoder and writer: M_{t+1}.
  LiveState next_state(const Pass& pass, const Segment& segment,
                       const LiveState& state) const override;
  /// Outputs are the logits [B, K, vocabulary] and the loss is cross-entropy in nats, both
  /// undefined where the segment has no targets; there is no auxiliary loss.
  StepResult step(const Pass& pass, const Segment& segment, const LiveState& state) const override;
  /// All of them, named by their paths: "encoder.layers.0.self_attention.query.weight".
  std::vector<Parameter> parameters() const override;

  /// E_t for tokens i32 [B, L] (padding u8 [B, L] or undefined) and the memory (undefined if slots
  /// is 0).
  Var encode(const Pass& pass, const Tensor& tokens, const Tensor& padding,
             const Var& memory) const;
  /// Logits [B, K, vocabulary] of the decoder for inputs i32 [B, K].
  Var decode(const Pass& pass, const Tensor& inputs, const Var& encoded,
             const Tensor& padding) const;
  /// Incremental decoding, in evaluation mode and without a tape: `start_decoding` behind the
  /// encoded segment [B, L, width], then `decode_next` for one position after the other.
  void start_decoding(DecoderCache& cache, const Tensor& encoded, const Tensor& padding = {}) const;
  /// One token per row, i32 [B]. Returns the logits [B, vocabulary] that `decode` of all tokens so
  /// far has at this position, but for rounding, at the cost of one position. Throws Error as
  /// Decoder::next does.
  Tensor decode_next(DecoderCache& cache, const Tensor& ids) const;
  /// M_{t+1} as a state.
  LiveState write(const Pass& pass, const Var& memory, const Var& encoded,
                  const Tensor& padding) const;
  /// The memory of `state` with the rows that start a document reset.
  Var read_state(const Pass& pass, const LiveState& state, const Tensor& reset) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("encoder", encoder_);
    fn("memory", memory_);
    fn("writer", writer_);
    fn("decoder", decoder_);
    fn("output", output_);
  }

 private:
  Var logits(const Pass& pass, const Var& x) const;

  ModelConfig config_;
  Encoder encoder_;
  std::optional<Memory> memory_;
  std::optional<MemoryWriter> writer_;
  std::optional<Decoder> decoder_;
  std::optional<Linear> output_;
};

}  // namespace mf
