#pragma once

#include "autograd/ops/embedding.h"
#include "autograd/pass.h"
#include "nn/init.h"

namespace mf {

/// Row ids_i of a table. ids: i32, any shape; table: [rows, width]. Result: ids.shape + [width].
struct Embedding {
  Parameter weight;  ///< the table, [rows, width]

  /// Without a table; to be assigned to.
  Embedding() = default;
  /// Entries are normal with mean 0 and this deviation.
  Embedding(std::int64_t rows, std::int64_t width, double deviation, RngKey key, DType dtype)
      : weight(normal_parameter({rows, width}, deviation, key.at("weight"), dtype)) {}

  /// Throws Error if an id is outside 0..rows-1; on a device its row is NaN instead.
  Var operator()(const Pass& pass, const Tensor& ids) const {
    const ModuleScope scope(pass);
    return embedding(pass.tape.param(weight), ids);
  }

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("weight", weight);
  }
};

}  // namespace mf
