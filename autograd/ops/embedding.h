#pragma once

#include "autograd/op.h"
#include "tensor/math.h"

namespace mf {

namespace ops {

/// y = rows of `table` at `ids`.
/// table: f32|f64 [rows, width], ids: i32, any shape. Result: ids' shape + [width].
/// Saves: ids. Gradient: gtable has gy added at its ids, in their order; the other rows are 0.
/// Throws Error if an id is outside 0..rows-1; on a device its row is NaN instead.
struct Embedding {
  static constexpr const char* kName = "embedding";
  Saved ids;
  std::int64_t rows = 0;

  Tensor forward(Wants, const Tensor& table) {
    Tensor y = gather_rows(table, ids);
    rows = table.size(0);
    return y;
  }
  void backward(const Tensor& gy, Grads& g) const { g.add(0, scatter_rows(ids, gy, rows)); }
  auto saved() { return std::tie(ids); }
};

}  // namespace ops

/// The rows of `table` [rows, width] at `ids` (i32, any shape): ids.shape + [width]. See
/// ops::Embedding.
inline Var embedding(const Var& table, const Tensor& ids) {
  return record(ops::Embedding{ids}, table);
}

}  // namespace mf
