#pragma once

#include "memformer/train/config.h"

namespace mf::test {

/// A model and a text that train in moments; windows of three segments that overlap by one.
inline RunConfig small_run(DType dtype) {
  RunConfig config;
  config.model.width = 16;
  config.model.heads = 2;
  config.model.encoder_layers = config.model.decoder_layers = 1;
  config.model.feed_forward = 24;
  config.model.segment = 8;
  config.model.slots = 3;
  config.model.dropout = 0.1;
  // A key's bias has no gradient but rounding, which Adam would make steps of full length.
  config.model.attention_bias = false;
  config.model.dtype = dtype;
  config.data.source = "file:" MEMFORMER_SOURCE_DIR "/README.md";
  config.data.batch = 2;
  config.train.horizon = 3;
  config.train.stride = 2;
  config.train.steps = 5;
  config.train.warmup = 1;
  return config;
}

}  // namespace mf::test
