#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "tensor/error.h"

namespace mf {

/// Up to six extents, stored inline. Rank 0 is a scalar with one element.
class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  /// Extent of `axis`; negative axes count from the end. No check: use `resolve_axis` on user
  /// input.
  std::int64_t operator[](int axis) const { return extents_[index(axis)]; }
  std::int64_t& operator[](int axis) { return extents_[index(axis)]; }
  std::int64_t elements() const;

  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }

  void append(std::int64_t extent);
  /// This shape without `axis`.
  Shape without(int axis) const;
  /// This shape with the extent of `axis` replaced.
  Shape with(int axis, std::int64_t extent) const;

  friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::size_t index(int axis) const {
    return static_cast<std::size_t>(axis < 0 ? axis + rank_ : axis);
  }

  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// "[2, 3]".
std::string describe(const Shape& shape);

/// Strides, in elements, of a row-major tensor of this shape.
Shape row_major_strides(const Shape& shape);

/// `axis` as 0..rank-1. Throws Error "operation: axis 3 is out of range for rank 2 ...".
int resolve_axis(int axis, int rank, std::string_view operation);

/// The shape to which both broadcast, NumPy's rule. Throws Error if there is none.
Shape broadcast(const Shape& a, const Shape& b, std::string_view operation);

}  // namespace mf
