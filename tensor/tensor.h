#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/device.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"
#include "tensor/storage.h"

/// The library. mf::ops holds the ops as structs, mf::cuda the second backend, mf::formulas and
/// mf::updates the arithmetic that all devices share. mf::detail is private: what stands there may
/// change without notice.
namespace mf {

/// A strided view of a reference-counted block. Copying a Tensor copies the reference; views share
/// the block and never copy. Knows nothing of gradients.
class Tensor {
 public:
  /// Undefined: no block, no shape.
  Tensor() {}  // not `= default`: then Tensor{} would set extents to zero that are never read

  /// False for Tensor{}, which stands for "not given" in arguments and "not made" in results.
  bool defined() const { return storage_ != nullptr; }
  /// Extents; rank 0 for an undefined tensor.
  const Shape& shape() const { return shape_; }
  /// Elements between neighbours along each axis; 0 along an expanded axis.
  const Shape& strides() const { return strides_; }
  /// Number of axes.
  int rank() const { return shape_.rank(); }
  /// Extent of `axis`; negative axes count from the end. Throws Error if it is out of range.
  std::int64_t size(int axis) const;
  /// Product of the extents.
  std::int64_t elements() const { return shape_.elements(); }
  /// Bytes of the elements, as if stored once each: an expanded view has more than its block.
  std::int64_t bytes() const { return elements() * size_of(dtype_); }
  /// Type of the elements; f32 for an undefined tensor.
  DType dtype() const { return dtype_; }
  /// Where the block is. Throws Error if the tensor is undefined.
  Device device() const {
    require_defined("device");
    return storage_->device;
  }
  /// True if the elements lie in row-major order without gaps.
  bool is_contiguous() const;

  /// View with another shape, at most one extent -1 (deduced). Throws Error where only a copy would
  /// do, naming contiguous().
  Tensor reshape(std::initializer_list<std::int64_t> extents) const;
  /// The same with all extents given.
  Tensor reshape(const Shape& shape) const;
  /// View with axes reordered: axis i of the result is axis order[i] of this.
  Tensor permute(std::span<const int> order) const;
  /// The same: `x.permute({0, 2, 1})`.
  Tensor permute(std::initializer_list<int> order) const;
  /// View with two axes exchanged.
  Tensor transpose(int a = -2, int b = -1) const;
  /// View of elements begin..end-1 along `axis`.
  Tensor slice(int axis, std::int64_t begin, std::int64_t end) const;
  /// View that repeats axes of extent 1 (and new leading axes) without copying.
  Tensor expand(const Shape& shape) const;

  /// This tensor if row-major already, else a row-major copy.
  Tensor contiguous() const;
  /// A row-major copy with storage of its own.
  Tensor clone() const;
  /// Converted elements; this tensor itself if the dtype is already so.
  Tensor to(DType dtype) const;
  /// On another device; this tensor itself if already there. To the cpu: waits until the values are
  /// there. Throws Error between two devices of which none is the cpu.
  Tensor to(Device device) const;

  /// Pointer to the first element; the others follow by strides(). Throws Error unless the tensor
  /// holds T and is on the cpu.
  template <class T>
  const T* data() const;
  /// The same for writing, which counts as a write in place (version()).
  template <class T>
  T* mutable_data();
  /// The device's pointer to the first element, for backends.
  const void* raw_data() const {
    require_defined("data");
    return static_cast<const char*>(storage_->data) + offset_ * size_of(dtype_);
  }
  /// The same for writing, which counts as a write in place.
  void* mutable_raw_data() {
    require_defined("mutable_data");
    ++storage_->version;
    return static_cast<char*>(storage_->data) + offset_ * size_of(dtype_);
  }

  /// All elements in row-major order, on the host.
  template <class T>
  std::vector<T> to_vector() const;
  /// The one element of a tensor of one element, as double.
  double item() const;

  /// In place: every element becomes `value`, rounded to the dtype. Throws Error on an expanded
  /// view.
  void fill_(double value);
  /// In place: the elements become those of `source`. Throws Error unless shape, dtype and device
  /// agree, on an expanded view, and where `source` is another view of the same elements.
  void copy_(const Tensor& source);

  /// True if both views share one block.
  bool shares_storage(const Tensor& other) const { return storage_ == other.storage_; }
  /// True if no other Tensor shares the block, so that it may be written in place unseen.
  bool sole_owner() const { return storage_.use_count() == 1; }
  /// Bytes of the whole block, not of this view; 0 if undefined.
  std::int64_t storage_bytes() const { return storage_ ? storage_->bytes : 0; }
  /// The same pointer for all views of one block, to tell blocks apart.
  const void* storage_id() const { return storage_.get(); }
  /// Books the whole block under another category of the memory ledger.
  void set_category(Category category);
  /// Grows with each write in place to the block, through whichever view; 0 if undefined.
  std::uint64_t version() const { return storage_ ? storage_->version : 0; }

 private:
  friend Tensor empty(const Shape&, DType, Device);
  Tensor view(const Shape& shape, const Shape& strides, std::int64_t offset) const;
  void require_defined(std::string_view operation) const {
    if (!defined()) [[unlikely]]
      fail_undefined(operation);
  }
  [[noreturn]] static void fail_undefined(std::string_view operation);
  void require_readable(std::string_view operation, DType dtype) const;

  std::shared_ptr<detail::Storage> storage_;
  std::int64_t offset_ = 0;
  DType dtype_ = DType::f32;
  Shape shape_;
  Shape strides_;
};

/// "f32[2, 3]", with the device where it is not the cpu; "undefined" for Tensor{}.
std::string describe(const Tensor& tensor);

/// A row-major tensor with a block of its own, whose elements are whatever was there.
Tensor empty(const Shape& shape, DType dtype, Device device = cpu);
/// Every element 0.
Tensor zeros(const Shape& shape, DType dtype, Device device = cpu);
/// Every element `value`, rounded to the dtype.
Tensor full(const Shape& shape, double value, DType dtype, Device device = cpu);
/// Uninitialised tensor with the shape, dtype and device of `like`.
Tensor empty_like(const Tensor& like);
/// Zeros with the shape, dtype and device of `like`.
Tensor zeros_like(const Tensor& like);
/// A copy of host values, which are in row-major order; T is float, double, std::int32_t or
/// std::uint8_t. Throws Error if there are more or fewer than the shape has elements.
template <class T>
Tensor from_host(std::span<const T> values, const Shape& shape, Device device = cpu);
/// The same: `from_host<float>({1, 2}, {2})`.
template <class T>
Tensor from_host(std::initializer_list<T> values, const Shape& shape, Device device = cpu) {
  return from_host(std::span<const T>(values.begin(), values.size()), shape, device);
}
/// The same from a vector.
template <class T>
Tensor from_host(const std::vector<T>& values, const Shape& shape, Device device = cpu) {
  return from_host(std::span<const T>(values), shape, device);
}
/// A tensor of rank 0.
Tensor scalar(double value, DType dtype, Device device = cpu);

/// Row-major index of the first element whose bits differ, or -1. Shapes and dtypes must agree.
std::int64_t first_difference(const Tensor& a, const Tensor& b);

}  // namespace mf
