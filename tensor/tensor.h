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

namespace mf {

/// A strided view of a reference-counted block. Copying a Tensor copies the reference; views share
/// the block and never copy. Knows nothing of gradients.
class Tensor {
 public:
  Tensor() {}  // not `= default`: then Tensor{} would set extents to zero that are never read

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  /// Elements between neighbours along each axis; 0 along an expanded axis.
  const Shape& strides() const { return strides_; }
  int rank() const { return shape_.rank(); }
  std::int64_t size(int axis) const;
  std::int64_t elements() const { return shape_.elements(); }
  std::int64_t bytes() const { return elements() * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const {
    require_defined("device");
    return storage_->device;
  }
  bool is_contiguous() const;

  /// View with another shape, at most one extent -1 (deduced). Throws Error where only a copy would
  /// do, naming contiguous().
  Tensor reshape(std::initializer_list<std::int64_t> extents) const;
  Tensor reshape(const Shape& shape) const;
  /// View with axes reordered: axis i of the result is axis order[i] of this.
  Tensor permute(std::span<const int> order) const;
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
  /// On another device; this tensor itself if already there.
  Tensor to(Device device) const;

  /// Pointer to the first element; the tensor must hold T and be on the cpu. The mutable form
  /// counts as a write. The raw forms are for backends: they give the device's pointer.
  template <class T>
  const T* data() const;
  template <class T>
  T* mutable_data();
  const void* raw_data() const {
    require_defined("data");
    return static_cast<const char*>(storage_->data) + offset_ * size_of(dtype_);
  }
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

  /// In place: every element becomes `value` / the elements of `source` (same shape, dtype,
  /// device).
  void fill_(double value);
  void copy_(const Tensor& source);

  /// True if both views share one block.
  bool shares_storage(const Tensor& other) const { return storage_ == other.storage_; }
  /// True if no other Tensor shares the block, so that it may be written in place unseen.
  bool sole_owner() const { return storage_.use_count() == 1; }
  /// Bytes of the whole block (not of this view) and an identity for it.
  std::int64_t storage_bytes() const { return storage_ ? storage_->bytes : 0; }
  const void* storage_id() const { return storage_.get(); }
  /// Books the whole block under another category of the memory ledger.
  void set_category(Category category);
  /// Grows with each write in place.
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

/// Uninitialised / zero / constant tensors.
Tensor empty(const Shape& shape, DType dtype, Device device = cpu);
Tensor zeros(const Shape& shape, DType dtype, Device device = cpu);
Tensor full(const Shape& shape, double value, DType dtype, Device device = cpu);
/// Uninitialised tensor with the shape, dtype and device of `like`.
Tensor empty_like(const Tensor& like);
Tensor zeros_like(const Tensor& like);
/// A copy of host values, row-major.
template <class T>
Tensor from_host(std::span<const T> values, const Shape& shape, Device device = cpu);
template <class T>
Tensor from_host(std::initializer_list<T> values, const Shape& shape, Device device = cpu) {
  return from_host(std::span<const T>(values.begin(), values.size()), shape, device);
}
template <class T>
Tensor from_host(const std::vector<T>& values, const Shape& shape, Device device = cpu) {
  return from_host(std::span<const T>(values), shape, device);
}
/// 0-d tensor.
Tensor scalar(double value, DType dtype, Device device = cpu);

/// Row-major index of the first element whose bits differ, or -1. Shapes and dtypes must agree.
std::int64_t first_difference(const Tensor& a, const Tensor& b);

}  // namespace mf
