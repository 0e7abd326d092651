#pragma once

#include <cstdint>
#include <string>

#include "nn/feed_forward.h"
#include "tensor/dtype.h"

namespace mf {

enum class Architecture { encoder_decoder, encoder_only };
enum class Positions { learned, sinusoidal, relative_bias, simplified_relative, none };
/// Which LayerNorm the slots pass when they are read (spec 1.10, #1).
enum class ReadNorm { shared, own, none };
/// How a slot is brought back to scale after it was written (spec 1.10, #6).
enum class MemoryNorm { l2, layer_norm, none };

/// Every hyperparameter of the model. The numbers in brackets are rows of the table of open
/// questions, docs/differences.md; defaults are those that were seen to learn.
struct ModelConfig {
  Architecture architecture = Architecture::encoder_decoder;
  std::int64_t vocabulary = 257;
  std::int64_t width = 128;
  std::int64_t heads = 4;
  std::int64_t encoder_layers = 2;
  std::int64_t decoder_layers = 4;
  std::int64_t feed_forward = 512;
  std::int64_t segment = 64;  ///< longest segment, in tokens
  std::int64_t slots = 32;    ///< 0: no memory at all
  Activation activation = Activation::gelu;
  double dropout = 0.0;            ///< on embeddings, sub-layer outputs and hidden values
  double attention_dropout = 0.0;  ///< on attention weights
  bool final_norm = true;          ///< LayerNorm after each stack [7]
  bool layer_replay = false;       ///< keep only each layer's input, and run it again in the sweep
  double norm_epsilon = 1e-5;
  Positions positions = Positions::learned;  ///< [8]
  std::int64_t relative_buckets = 32;
  std::int64_t relative_max_distance = 128;
  double embedding_scale = 1.0;  ///< token embeddings are multiplied by it
  double embedding_deviation =
      0.0;  ///< of the initial token table; 0: 1/sqrt(width) if tied, else 1
  bool attention_bias = true;
  bool tie_embeddings = true;  ///< encoder and decoder share one token table
  bool tie_output = true;      ///< the logits use the decoder's token table

  ReadNorm memory_read_norm = ReadNorm::shared;  ///< [1]
  bool writer_project_value = false;             ///< [2] v1: a slot's own value is projected too
  bool writer_shared_key = true;                 ///< [3] slots and tokens share the key projection
  bool writer_output_projection = false;         ///< [4]
  double temperature = 1.0;                      ///< [5] divides the writer's scaled scores
  MemoryNorm memory_norm = MemoryNorm::l2;       ///< [6]
  double memory_radius = 0.0;                    ///< of l2; 0 stands for sqrt(width)
  double memory_epsilon = 1e-6;
  bool forgetting = true;                 ///< add the forgetting vectors before normalising
  double forgetting_initial_norm = 0.05;  ///< expected Euclidean norm of each at the start

  DType dtype = DType::f32;

  /// memory_radius with its default resolved.
  double radius() const;
  /// The first paper's writer: projected slot value, no forgetting, no normalisation (spec 1.8).
  void use_v1_writer();
  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

/// Throws Error naming the first impossible value and what it could be.
void validate(const ModelConfig& config);

/// The whole configuration as JSON text, every field present; and back. Unknown keys, wrong types
/// and unknown words are Errors that name the key.
std::string to_json(const ModelConfig& config);
ModelConfig model_config_from_json(const std::string& text);

}  // namespace mf
