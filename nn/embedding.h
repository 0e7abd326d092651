#pragma once

#include "autograd/ops/embedding.h"
#include "autograd/pass.h"
#include "nn/init.h"

namespace mf {

/// Row ids_i of a table. ids: i32, any shape; table: [rows, width]. Result: ids.shape + [width].
struct Embedding {
  Parameter weight;

  Embedding() = default;
  Embedding(std::int64_t rows, std::int64_t width, double deviation, RngKey key, DType dtype)
      : weight(normal_parameter({rows, width}, deviation, key.at("weight"), dtype)) {}

  Var operator()(const Pass& pass, const Tensor& ids) const {
    const ModuleScope scope(pass);
    return embedding(pass.tape.param(weight), ids);
  }

  template <class F>
  void each(F&& fn) const {
    fn("weight", weight);
  }
};

}  // namespace mf
