#pragma once

#include <cstdint>
#include <string>

#include "nn/feed_forward.h"
#include "tensor/dtype.h"

namespace mf {

/// Which parts the model has.
enum class Architecture {
  encoder_decoder,  ///< the decoder predicts the next segment from E_t
  encoder_only      ///< the head reads E_t; one target per encoder position
};
/// How the model knows where a token stands in its segment.
enum class Positions {
  learned,              ///< a table, normal with deviation 0.02 at first
  sinusoidal,           ///< sinusoidal_positions
  relative_bias,        ///< T5's: RelativeBias in every self-attention
  simplified_relative,  ///< the paper's first version: relative_attention
  none                  ///< it does not
};
/// Which LayerNorm the slots pass when they are read (eq. R1).
enum class ReadNorm {
  shared,  ///< the tokens' one
  own,     ///< one of their own
  none     ///< none: slots are read as they are
};
/// How a slot is brought back to scale after it was written (eq. F2).
enum class MemoryNorm {
  l2,          ///< to length `memory_radius`
  layer_norm,  ///< without gain and bias
  none         ///< not at all
};

/// Every hyperparameter of the model. The numbers in brackets are rows of the table of open
/// questions, docs/differences.md; defaults are those that were seen to learn.
struct ModelConfig {
  Architecture architecture = Architecture::encoder_decoder;  ///< with or without decoder
  std::int64_t vocabulary = 257;             ///< V: token ids are 0..V-1; 257 for bytes
  std::int64_t width = 128;                  ///< d: features of tokens and slots
  std::int64_t heads = 4;                    ///< of every attention; must divide the width
  std::int64_t encoder_layers = 2;           ///< at least 1
  std::int64_t decoder_layers = 4;           ///< at least 1, if there is a decoder
  std::int64_t feed_forward = 512;           ///< hidden features of FeedForward
  std::int64_t segment = 64;                 ///< longest segment, in tokens
  std::int64_t slots = 32;                   ///< k; 0: no memory at all
  Activation activation = Activation::gelu;  ///< of FeedForward
  double dropout = 0.0;                      ///< on embeddings, sub-layer outputs and hidden values
  double attention_dropout = 0.0;            ///< on attention weights
  bool final_norm = true;                    ///< LayerNorm after each stack [7]
  bool layer_replay = false;   ///< keep only each layer's input, and run it again in the sweep
  double norm_epsilon = 1e-5;  ///< of every LayerNorm
  Positions positions = Positions::learned;  ///< [8] how the model knows where a token stands
  std::int64_t relative_buckets = 32;        ///< of relative_bias; a multiple of 4
  std::int64_t relative_max_distance = 128;  ///< of relative_bias; more than half the buckets
  double embedding_scale = 1.0;              ///< token embeddings are multiplied by it
  /// Of the initial token table; 0: 1/sqrt(width) if the output is tied, else 1.
  double embedding_deviation = 0.0;
  bool attention_bias = true;  ///< biases in the attention projections; the writer has none
  bool tie_embeddings = true;  ///< encoder and decoder share one token table
  bool tie_output = true;      ///< the logits use the decoder's token table

  ReadNorm memory_read_norm = ReadNorm::shared;  ///< [1] which LayerNorm slots pass when read
  bool writer_project_value = false;             ///< [2] v1: a slot's own value is projected too
  bool writer_shared_key = true;                 ///< [3] slots and tokens share the key projection
  bool writer_output_projection = false;         ///< [4] behind the merged heads
  double temperature = 1.0;                      ///< [5] divides the writer's scaled scores
  MemoryNorm memory_norm = MemoryNorm::l2;       ///< [6] how slots are brought back to scale
  double memory_radius = 0.0;                    ///< of l2; 0 stands for sqrt(width)
  double memory_epsilon = 1e-6;                  ///< of l2: keeps a slot of length 0 finite
  bool forgetting = true;                        ///< add the forgetting vectors before normalising
  double forgetting_initial_norm = 0.05;         ///< expected Euclidean norm of each at the start

  DType dtype = DType::f32;  ///< of parameters, activations and memory; or f64

  /// memory_radius with its default resolved.
  double radius() const;
  /// The first paper's writer (eq. W6): projected slot value, no forgetting, no normalisation.
  void use_v1_writer();
  /// Field by field.
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// Throws Error naming the first impossible value and what it could be.
void validate(const ModelConfig& config);

/// The whole configuration as JSON text, every field present.
std::string to_json(const ModelConfig& config);
/// The configuration of such a text; absent keys keep their defaults. Unknown keys, wrong types,
/// unknown words and impossible values are Errors that name the key.
ModelConfig model_config_from_json(const std::string& text);

}  // namespace mf
