#pragma once

#include "memformer/audit/mrbp_audit.h"

namespace mf::test {

/// The audits' default model, smaller yet.
inline ModelConfig small_audit_model(DType dtype = DType::f32) {
  ModelConfig config = audit_model();
  config.width = 16;
  config.feed_forward = 32;
  config.segment = 6;
  config.slots = 3;
  config.dtype = dtype;
  return config;
}

}  // namespace mf::test
