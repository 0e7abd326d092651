#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "autograd/grad_check.h"
#include "autograd/ops.h"

/// One row per op: what the tests and the audit of gradients follow from. To test a new op, add a
/// row.
namespace mf {

/// What the saved-bytes formula of a row may depend on.
struct SavedQuery {
  std::span<const Tensor> inputs;  ///< of the op
  std::span<const bool> wants;     ///< which inputs are on the tape
  const Tensor& result;            ///< its value
};

/// One op, or one choice of its options.
struct OpRow {
  std::string name{};     ///< of the public function
  std::string variant{};  ///< what sets it apart from other rows of the same function
  std::string header{};   ///< in autograd/ops
  /// Shapes of the inputs. The first set is the base; the others cover broadcasting, 1 and 0.
  std::vector<std::vector<Shape>> shapes{};
  /// The op, with masks, ids and the like made from the shapes: it must be repeatable.
  std::function<Var(std::span<const Var>)> build{};
  /// Bytes on the tape after `build`, as docs/ops.md says.
  std::function<std::int64_t(const SavedQuery&)> saved_bytes{};
  double low = -1.5;                   ///< smallest value of the inputs
  double high = 1.5;                   ///< up to which they go
  std::function<bool(double)> kink{};  ///< values where the derivative does not exist
  bool needs_row_major = false;        ///< refuses strided inputs, as documented
};

/// "softmax (axis 0)".
std::string title(const OpRow& row);
/// Every op of autograd/ops, in the order of its headers' kinds.
const std::vector<OpRow>& op_table();

/// f64 values in the row's range, a function of the row and `which` only.
Tensor values(const OpRow& row, const Shape& shape, int which);
/// A tensor for each shape, `which` counted from 0.
std::vector<Tensor> values(const OpRow& row, std::span<const Shape> shapes);

/// Ids 0..bound-1 in an irregular order with repetitions; all of them valid, also for bound 1.
Tensor some_ids(const Shape& shape, std::int64_t bound, Device device = cpu);
/// A u8 mask with both values in an irregular order.
Tensor some_bits(const Shape& shape, Device device = cpu);

/// One gradient check that follows from a row. It refers to the row.
struct OpCase {
  std::string label;           ///< what sets it apart from the row's other cases
  GradFunction function;       ///< the row's `build`, with what the case changes around it
  std::vector<Tensor> inputs;  ///< of `function`, checked
};
/// The base; strided inputs; strided gradients; repeated inputs; each other set of shapes.
std::vector<OpCase> cases(const OpRow& row);

}  // namespace mf
