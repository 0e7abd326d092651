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
  static constexpr int kMaxRank = 6;  ///< axes that a tensor may have

  /// Rank 0.
  Shape() { leave_rest_unset(); }
  /// A copy, as by operator=.
  Shape(const Shape& other) noexcept {
    leave_rest_unset();
    *this = other;
  }
  /// Extent by extent: shapes are mostly copied just after they were written, and a processor waits
  /// when it is to load at once, as a vector, what was stored in parts.
  Shape& operator=(const Shape& other) noexcept {
    rank_ = other.rank_;
    switch (rank_) {
      case 6:
        extents_[5] = other.extents_[5];
        [[fallthrough]];
      case 5:
        extents_[4] = other.extents_[4];
        [[fallthrough]];
      case 4:
        extents_[3] = other.extents_[3];
        [[fallthrough]];
      case 3:
        extents_[2] = other.extents_[2];
        [[fallthrough]];
      case 2:
        extents_[1] = other.extents_[1];
        [[fallthrough]];
      case 1:
        extents_[0] = other.extents_[0];
        [[fallthrough]];
      default:
        return *this;
    }
  }
  /// `Shape{2, 3}`. Throws Error as `append` does.
  Shape(std::initializer_list<std::int64_t> extents)
      : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}
  /// The same from extents known at run time.
  explicit Shape(std::span<const std::int64_t> extents) {
    for (const std::int64_t extent : extents) append(extent);
  }

  /// Number of axes.
  int rank() const { return rank_; }
  /// Extent of `axis`; negative axes count from the end. No check: use `resolve_axis` on user
  /// input.
  std::int64_t operator[](int axis) const { return extents_[index(axis)]; }
  /// The same, to be changed.
  std::int64_t& operator[](int axis) { return extents_[index(axis)]; }
  /// Product of the extents, 1 for rank 0. Throws Error if it does not fit 64 bits.
  std::int64_t elements() const {
    std::int64_t count = 1;
    bool too_many = false;
    for (const std::int64_t extent : *this)
      too_many |= __builtin_mul_overflow(count, extent, &count);
    if (too_many) [[unlikely]]
      fail_elements();
    return count;
  }

  /// The first axis's extent: `for (std::int64_t extent : shape)`.
  const std::int64_t* begin() const { return extents_.data(); }
  /// Behind the last axis's extent.
  const std::int64_t* end() const { return extents_.data() + rank_; }

  /// Adds an axis behind the last. Throws Error if it is negative or there are six.
  void append(std::int64_t extent) {
    if (rank_ == kMaxRank || extent < 0) [[unlikely]]
      fail_append(extent);
    extents_[static_cast<std::size_t>(rank_++)] = extent;
  }
  /// This shape without `axis`.
  Shape without(int axis) const;
  /// This shape with the extent of `axis` replaced.
  Shape with(int axis, std::int64_t extent) const;

  /// Equal in rank and extents.
  friend bool operator==(const Shape& a, const Shape& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }

 private:
  [[noreturn]] void fail_elements() const;
  [[noreturn]] void fail_append(std::int64_t extent) const;
  std::size_t index(int axis) const {
    return static_cast<std::size_t>(axis < 0 ? axis + rank_ : axis);
  }

  /// Setting all six to zero first would cost more than a small op's own copies do. Extents beyond
  /// the rank are never read; a compiler that cannot see that would warn, so it is told that the
  /// array has a value (no instruction comes of this).
  void leave_rest_unset() { asm("" : "=m"(extents_)); }

  std::array<std::int64_t, kMaxRank> extents_;
  int rank_ = 0;
};

/// A shape as text: "[2, 3]".
std::string describe(const Shape& shape);

/// Strides, in elements, of a row-major tensor of this shape.
Shape row_major_strides(const Shape& shape);
/// The same into `strides`, without a copy.
void set_row_major(const Shape& shape, Shape& strides);

/// How many pieces of `size` it takes to cover n.
constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }

namespace detail {
[[noreturn]] void fail_axis(int axis, int rank, std::string_view operation);
}

/// `axis` as 0..rank-1. Throws Error "operation: axis 3 is out of range for rank 2 ...".
inline int resolve_axis(int axis, int rank, std::string_view operation) {
  if (axis < -rank || axis >= rank) [[unlikely]]
    detail::fail_axis(axis, rank, operation);
  return axis < 0 ? axis + rank : axis;
}

/// The shape to which both broadcast, NumPy's rule. Throws Error if there is none.
Shape broadcast(const Shape& a, const Shape& b, std::string_view operation);

}  // namespace mf
