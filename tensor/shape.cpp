#include "tensor/shape.h"

#include <algorithm>

namespace mf {

void Shape::fail_elements() const { fail("shape: {} has more elements than fit 64 bits", *this); }

void Shape::fail_append(std::int64_t extent) const {
  check(extent >= 0, "shape: negative extent {}; extents count elements", extent);
  fail("shape: more than {} dimensions; merge some with reshape", kMaxRank);
}

Shape Shape::without(int axis) const {
  Shape result;
  for (int i = 0; i < rank_; ++i)
    if (i != (axis < 0 ? axis + rank_ : axis)) result.append((*this)[i]);
  return result;
}

Shape Shape::with(int axis, std::int64_t extent) const {
  Shape result = *this;
  result[axis] = extent;
  return result;
}

std::string describe(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

void set_row_major(const Shape& shape, Shape& strides) {
  strides = shape;
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    strides[i] = step;
    step *= std::max<std::int64_t>(shape[i], 1);
  }
}

Shape row_major_strides(const Shape& shape) {
  Shape strides;
  set_row_major(shape, strides);
  return strides;
}

void detail::fail_axis(int axis, int rank, std::string_view operation) {
  fail("{}: axis {} is out of range for rank {}; valid axes are {} to {}", operation, axis, rank,
       -rank, rank - 1);
}

Shape broadcast(const Shape& a, const Shape& b, std::string_view operation) {
  const int rank = std::max(a.rank(), b.rank());
  Shape result;
  for (int i = -rank; i < 0; ++i) {
    const std::int64_t x = -i <= a.rank() ? a[i] : 1;
    const std::int64_t y = -i <= b.rank() ? b[i] : 1;
    check(x == y || x == 1 || y == 1,
          "{}: shapes do not broadcast; {} and {} differ at axis {}; extents must be equal or 1",
          operation, a, b, i);
    result.append(x == 1 ? y : x);
  }
  return result;
}

}  // namespace mf
