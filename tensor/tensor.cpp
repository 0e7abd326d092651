#include "tensor/tensor.h"

#include <algorithm>
#include <cstring>

#include "tensor/backend.h"
#include "tensor/small_blocks.h"
#include "tensor/view.h"

namespace mf {
namespace {

/// Axes as they are met when extents of 1 are dropped: strides of such axes mean nothing.
bool row_major(const Shape& shape, const Shape& strides) {
  std::int64_t expected = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] == 0) return true;
    if (shape[i] != 1 && strides[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

}  // namespace

void Tensor::fail_undefined(std::string_view operation) {
  fail("{}: the tensor is undefined; make it with empty, zeros or from_host", operation);
}

void Tensor::require_readable(std::string_view operation, DType dtype) const {
  require_defined(operation);
  check(dtype_ == dtype, "{}: {} does not hold {}; convert with to()", operation, *this, dtype);
  check(storage_->device == cpu, "{}: {} is out of the host's reach; copy it with to(cpu)",
        operation, *this);
}

std::int64_t Tensor::size(int axis) const { return shape_[resolve_axis(axis, rank(), "size")]; }

bool Tensor::is_contiguous() const { return row_major(shape_, strides_); }

Tensor Tensor::view(const Shape& shape, const Shape& strides, std::int64_t offset) const {
  Tensor result;
  result.storage_ = storage_;
  result.offset_ = offset;
  result.dtype_ = dtype_;
  result.shape_ = shape;
  result.strides_ = strides;
  return result;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> extents) const {
  Shape shape;
  int deduced = -1;
  std::int64_t known = 1;
  for (const std::int64_t extent : extents) {
    if (extent == -1) {
      check(deduced < 0, "reshape: more than one extent is -1; give all but one");
      deduced = shape.rank();
    } else {
      known *= extent;
    }
    shape.append(extent == -1 ? 1 : extent);
  }
  if (deduced >= 0) {
    check(known > 0 && elements() % known == 0,
          "reshape: {} has {} elements, which {} does not divide; give extents whose product fits",
          *this, elements(), known);
    shape[deduced] = elements() / known;
  }
  return reshape(shape);
}

Tensor Tensor::reshape(const Shape& shape) const {
  require_defined("reshape");
  check(shape.elements() == elements(), "reshape: {} has {} elements, {} has {}", *this, elements(),
        shape, shape.elements());
  if (is_contiguous()) return view(shape, row_major_strides(shape), offset_);
  // Each run of result axes must tile one run of axes of this tensor that is itself row-major.
  Shape strides = shape;
  int axis = rank() - 1;
  for (int i = shape.rank() - 1; i >= 0;) {
    while (axis >= 0 && shape_[axis] == 1) --axis;
    if (axis < 0) {  // only extents of 1 are left
      strides[i--] = 1;
      continue;
    }
    std::int64_t run = shape_[axis];
    const std::int64_t step = strides_[axis];
    --axis;
    std::int64_t covered = 1;
    while (i >= 0 && (covered < run || shape[i] == 1)) {
      strides[i] = step * covered;
      covered *= shape[i];
      --i;
      while (covered > run && axis >= 0 && strides_[axis] == step * run) run *= shape_[axis--];
    }
    check(covered == run,
          "reshape: {} with strides {} has no view of shape {}; call contiguous() first", *this,
          strides_, shape);
  }
  return view(shape, strides, offset_);
}

Tensor Tensor::permute(std::initializer_list<int> order) const {
  return permute(std::span<const int>(order.begin(), order.size()));
}

Tensor Tensor::permute(std::span<const int> order) const {
  require_defined("permute");
  check(static_cast<int>(order.size()) == rank(),
        "permute: {} axes given for {}; name each axis once", order.size(), *this);
  Shape shape;
  Shape strides;
  unsigned seen = 0;
  for (const int given : order) {
    const int axis = resolve_axis(given, rank(), "permute");
    check((seen >> axis & 1U) == 0, "permute: axis {} is named twice; name each axis once", axis);
    seen |= 1U << axis;
    shape.append(shape_[axis]);
    strides.append(strides_[axis]);
  }
  return view(shape, strides, offset_);
}

Tensor Tensor::transpose(int a, int b) const {
  require_defined("transpose");
  const int x = resolve_axis(a, rank(), "transpose");
  const int y = resolve_axis(b, rank(), "transpose");
  Shape shape = shape_;
  Shape strides = strides_;
  std::swap(shape[x], shape[y]);
  std::swap(strides[x], strides[y]);
  return view(shape, strides, offset_);
}

Tensor Tensor::slice(int axis, std::int64_t begin, std::int64_t end) const {
  require_defined("slice");
  const int i = resolve_axis(axis, rank(), "slice");
  check(0 <= begin && begin <= end && end <= shape_[i],
        "slice: {}..{} does not lie in axis {} of {}; give 0 <= begin <= end <= {}", begin, end, i,
        *this, shape_[i]);
  return view(shape_.with(i, end - begin), strides_, offset_ + begin * strides_[i]);
}

Tensor Tensor::expand(const Shape& shape) const {
  require_defined("expand");
  if (shape == shape_) return *this;
  check(shape.rank() >= rank(), "expand: {} has more axes than {}", *this, shape);
  Shape strides = shape;
  for (int i = 0; i < shape.rank(); ++i) {
    const int axis = i - (shape.rank() - rank());
    const std::int64_t own = axis < 0 ? 1 : shape_[axis];
    check(own == shape[i] || own == 1, "expand: {} does not broadcast to {}; axis {} is {}, not 1",
          *this, shape, i, own);
    strides[i] = axis < 0 || (own == 1 && shape[i] != 1) ? 0 : strides_[axis];
  }
  return view(shape, strides, offset_);
}

Tensor Tensor::contiguous() const {
  require_defined("contiguous");
  return is_contiguous() ? *this : clone();
}

Tensor Tensor::clone() const {
  require_defined("clone");
  Tensor result = empty(shape_, dtype_, device());
  result.copy_(*this);
  return result;
}

Tensor Tensor::to(DType dtype) const {
  require_defined("to");
  if (dtype == dtype_) return *this;
  Tensor result = empty(shape_, dtype, device());
  backend_for(device()).copy(context_for(device()), detail::view(*this), detail::mut_view(result));
  return result;
}

Tensor Tensor::to(Device target) const {
  require_defined("to");
  if (target == device()) return *this;
  check(target == cpu || device() == cpu, "to: no direct copy from {} to {}; go through cpu",
        device(), target);
  const Tensor source = contiguous();
  Tensor result = empty(shape_, dtype_, target);
  if (target == cpu) {
    backend_for(device()).download(context_for(device()), result.mutable_raw_data(),
                                   source.raw_data(), source.bytes());
  } else {
    backend_for(target).upload(context_for(target), result.mutable_raw_data(), source.raw_data(),
                               source.bytes());
  }
  return result;
}

template <class T>
const T* Tensor::data() const {
  require_readable("data", dtype_of<T>());
  return static_cast<const T*>(raw_data());
}

template <class T>
T* Tensor::mutable_data() {
  require_readable("mutable_data", dtype_of<T>());
  return static_cast<T*>(mutable_raw_data());
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor host = to(cpu).contiguous();
  const T* values = host.data<T>();
  return std::vector<T>(values, values + host.elements());
}

double Tensor::item() const {
  check(defined() && elements() == 1, "item: {} does not have exactly one element", *this);
  const Tensor host = to(cpu);
  return visit_any(dtype_,
                   [&](auto zero) { return static_cast<double>(*host.data<decltype(zero)>()); });
}

namespace detail {
namespace {

/// Bytes from the first element to behind the last one.
std::int64_t span_of(const Tensor& x) {
  std::int64_t last = 0;
  for (int i = 0; i < x.rank(); ++i) last += (x.size(i) - 1) * x.strides()[i];
  return (last + 1) * size_of(x.dtype());
}

}  // namespace

void require_writable(std::string_view operation, const Tensor& destination, const Tensor& source) {
  if (destination.elements() == 0) return;
  for (int i = 0; i < destination.rank(); ++i)
    check(destination.size(i) == 1 || destination.strides()[i] != 0,
          "{}: {} is expanded, several of its elements are one place; write into a clone()",
          operation, destination);
  if (!source.defined() || source.elements() == 0 || !destination.shares_storage(source)) return;
  const auto* const to = static_cast<const char*>(destination.raw_data());
  const auto* const from = static_cast<const char*>(source.raw_data());
  const bool same = to == from && destination.shape() == source.shape() &&
                    destination.strides() == source.strides();
  const bool apart = to + span_of(destination) <= from || from + span_of(source) <= to;
  const auto gapless = [](const Tensor& x) { return span_of(x) == x.bytes(); };
  check(same || apart || !gapless(destination) || !gapless(source),
        "{}: {} and the operand {} are different views of the same elements; give a clone() of the "
        "operand",
        operation, destination, source);
}

}  // namespace detail

void Tensor::fill_(double value) {
  require_defined("fill_");
  detail::require_writable("fill_", *this);
  backend_for(device()).fill(context_for(device()), detail::mut_view(*this), value);
}

void Tensor::copy_(const Tensor& source) {
  require_defined("copy_");
  check(source.defined() && source.shape() == shape_ && source.dtype() == dtype_ &&
            source.device() == device(),
        "copy_: {} cannot take the elements of {}; shape, dtype and device must be equal", *this,
        source);
  detail::require_writable("copy_", *this, source);
  backend_for(device()).copy(context_for(device()), detail::view(source), detail::mut_view(*this));
}

void Tensor::set_category(Category category) {
  require_defined("set_category");
  detail::move_category(storage_->device, storage_->data, storage_->bytes, storage_->category,
                        category);
  storage_->category = category;
}

std::string describe(const Tensor& tensor) {
  if (!tensor.defined()) return "undefined";
  std::string text = describe(tensor.dtype()) + describe(tensor.shape());
  if (tensor.device() != cpu) text += " on " + describe(tensor.device());
  return text;
}

Tensor empty(const Shape& shape, DType dtype, Device device) {
  Tensor result;
  const std::int64_t count = shape.elements();
  std::int64_t bytes = 0;
  check(!__builtin_mul_overflow(count, size_of(dtype), &bytes),
        "empty: {} of {} has more bytes than fit 64 bits", shape, dtype);
  result.storage_ = std::allocate_shared<detail::Storage>(detail::SmallAllocator<detail::Storage>{},
                                                          device, bytes);
  result.shape_ = shape;
  set_row_major(shape, result.strides_);
  result.dtype_ = dtype;
  return result;
}

Tensor zeros(const Shape& shape, DType dtype, Device device) {
  return full(shape, 0.0, dtype, device);
}

Tensor full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor result = empty(shape, dtype, device);
  result.fill_(value);
  return result;
}

Tensor empty_like(const Tensor& like) { return empty(like.shape(), like.dtype(), like.device()); }
Tensor zeros_like(const Tensor& like) { return zeros(like.shape(), like.dtype(), like.device()); }
Tensor scalar(double value, DType dtype, Device device) { return full({}, value, dtype, device); }

template <class T>
Tensor from_host(std::span<const T> values, const Shape& shape, Device device) {
  check(static_cast<std::int64_t>(values.size()) == shape.elements(),
        "from_host: {} values given for shape {}, which has {} elements", values.size(), shape,
        shape.elements());
  Tensor result = empty(shape, dtype_of<T>(), cpu);
  if (!values.empty()) std::memcpy(result.mutable_raw_data(), values.data(), values.size_bytes());
  return result.to(device);
}

std::int64_t first_difference(const Tensor& a, const Tensor& b) {
  check(a.defined() && b.defined() && a.shape() == b.shape() && a.dtype() == b.dtype(),
        "first_difference: {} and {} must have equal shape and dtype", a, b);
  const Tensor x = a.to(cpu).contiguous();
  const Tensor y = b.to(cpu).contiguous();
  if (x.elements() == 0) return -1;
  const auto* left = static_cast<const char*>(x.raw_data());
  const auto* right = static_cast<const char*>(y.raw_data());
  if (std::memcmp(left, right, static_cast<std::size_t>(x.bytes())) == 0) return -1;
  const auto [l, r] = std::mismatch(left, left + x.bytes(), right);
  return (l - left) / size_of(a.dtype());
}

template const float* Tensor::data<float>() const;
template const double* Tensor::data<double>() const;
template const std::int32_t* Tensor::data<std::int32_t>() const;
template const std::uint8_t* Tensor::data<std::uint8_t>() const;
template float* Tensor::mutable_data<float>();
template double* Tensor::mutable_data<double>();
template std::int32_t* Tensor::mutable_data<std::int32_t>();
template std::uint8_t* Tensor::mutable_data<std::uint8_t>();
template std::vector<float> Tensor::to_vector<float>() const;
template std::vector<double> Tensor::to_vector<double>() const;
template std::vector<std::int32_t> Tensor::to_vector<std::int32_t>() const;
template std::vector<std::uint8_t> Tensor::to_vector<std::uint8_t>() const;
template Tensor from_host(std::span<const float>, const Shape&, Device);
template Tensor from_host(std::span<const double>, const Shape&, Device);
template Tensor from_host(std::span<const std::int32_t>, const Shape&, Device);
template Tensor from_host(std::span<const std::uint8_t>, const Shape&, Device);

}  // namespace mf
