#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tensor/cpu/rows.h"
#include "tensor/cpu/target.h"

/// Elementwise loops over views with any strides.
namespace mf::cpu_kernels::MEMFORMER_ISA {

/// The common index space of K operands: axes of extent 1 dropped, neighbouring axes merged where
/// every operand steps through them evenly. At least one axis remains.
template <std::size_t K>
class IndexSpace {
 public:
  using Offsets = std::array<std::int64_t, K>;

  IndexSpace(const Shape& shape, const std::array<const Shape*, K>& strides)
      : elements_(shape.elements()) {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis] == 1) continue;
      Offsets step;
      for (std::size_t k = 0; k < K; ++k) step[k] = (*strides[k])[axis];
      add_axis(shape[axis], step);
    }
    if (rank_ == 0) add_axis(1, Offsets{});
  }

  std::int64_t elements() const { return elements_; }
  bool is_one_run() const { return rank_ == 1; }
  std::int64_t run_length() const { return extents_[rank_ - 1]; }
  const Offsets& run_strides() const { return strides_[rank_ - 1]; }

  /// Walks over runs (the last axis) in row-major order.
  class Cursor {
   public:
    Cursor(const IndexSpace& space, std::int64_t run) : space_(space) {
      for (std::size_t axis = space.rank_ - 1; axis-- > 0;) {
        index_[axis] = run % space.extents_[axis];
        run /= space.extents_[axis];
        move(axis, index_[axis]);
      }
    }
    const Offsets& offsets() const { return offsets_; }
    void next() {
      for (std::size_t axis = space_.rank_ - 1; axis-- > 0;) {
        move(axis, 1);
        if (++index_[axis] < space_.extents_[axis]) return;
        move(axis, -index_[axis]);
        index_[axis] = 0;
      }
    }

   private:
    void move(std::size_t axis, std::int64_t steps) {
      for (std::size_t k = 0; k < K; ++k) offsets_[k] += steps * space_.strides_[axis][k];
    }
    const IndexSpace& space_;
    std::array<std::int64_t, Shape::kMaxRank> index_{};
    Offsets offsets_{};
  };

 private:
  void add_axis(std::int64_t extent, const Offsets& step) {
    if (rank_ > 0) {
      bool even = true;
      for (std::size_t k = 0; k < K; ++k) even &= strides_[rank_ - 1][k] == step[k] * extent;
      if (even) {
        extents_[rank_ - 1] *= extent;
        strides_[rank_ - 1] = step;
        return;
      }
    }
    extents_[rank_] = extent;
    strides_[rank_++] = step;
  }

  std::int64_t elements_;
  std::size_t rank_ = 0;  // of the arrays as much is set
  std::array<std::int64_t, Shape::kMaxRank> extents_;
  std::array<Offsets, Shape::kMaxRank> strides_;
};

/// Calls fn(offsets, n) for stretches of at most kStretch elements along the last axis, in parallel
/// where the work is worth it.
template <std::size_t K, class F>
void for_stretches(const IndexSpace<K>& space, std::int64_t cost_per_element, const F& fn) {
  constexpr std::int64_t kStretch = 16 * 1024;
  if (space.elements() == 0) return;
  const std::int64_t length = space.run_length();
  if (space.is_one_run() && length <= kStretch)
    return fn(typename IndexSpace<K>::Offsets{}, length);
  const std::int64_t per_run = ceil_div(length, kStretch);
  const std::int64_t stretches = space.elements() / length * per_run;
  for_chunks(stretches, std::min(length, kStretch) * cost_per_element,
             [&](std::int64_t begin, std::int64_t end) {
               typename IndexSpace<K>::Cursor cursor(space, begin / per_run);
               std::int64_t part = begin % per_run;
               for (std::int64_t item = begin; item < end; ++item) {
                 auto offsets = cursor.offsets();
                 const std::int64_t first = part * kStretch;
                 for (std::size_t k = 0; k < K; ++k) offsets[k] += first * space.run_strides()[k];
                 fn(offsets, std::min(kStretch, length - first));
                 if (++part == per_run) {
                   part = 0;
                   cursor.next();
                 }
               }
             });
}

// How a run reads one operand.
template <class T>
struct Contiguous {
  const T* data;
  T operator[](std::int64_t i) const { return data[i]; }
};
template <class T>
struct Repeated {
  T value;
  T operator[](std::int64_t) const { return value; }
};
template <class T>
struct Strided {
  const T* data;
  std::int64_t stride;
  T operator[](std::int64_t i) const { return data[i * stride]; }
};

template <class T, class F, class... In>
void apply_run(const F& f, std::int64_t n, T* out, const In&... in) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) out[i] = f(in[i]...);
}

template <class T, class F, class... In>
void apply_strided_run(const F& f, std::int64_t n, T* out, std::int64_t out_stride,
                       const In&... in) {
  for (std::int64_t i = 0; i < n; ++i) out[i * out_stride] = f(in[i]...);
}

/// y = f(x) elementwise.
template <class Out, class In, class F>
void apply(const F& f, std::int64_t cost, const MutView& y, const View& x) {
  const IndexSpace<2> space(y.shape, {&y.strides, &x.strides});
  const auto [sy, sx] = space.run_strides();
  for_stretches(space, cost, [&, sy = sy, sx = sx](const auto& offsets, std::int64_t n) {
    Out* const out = y.as<Out>() + offsets[0];
    const In* const in = x.as<In>() + offsets[1];
    if (sy == 1 && sx == 1) return apply_run(f, n, out, Contiguous<In>{in});
    if (sy == 1 && sx == 0) return apply_run(f, n, out, Repeated<In>{*in});
    apply_strided_run(f, n, out, sy, Strided<In>{in, sx});
  });
}

/// y = f(a, b) elementwise.
template <class T, class F>
void apply(const F& f, std::int64_t cost, const MutView& y, const View& a, const View& b) {
  const IndexSpace<3> space(y.shape, {&y.strides, &a.strides, &b.strides});
  const auto [sy, sa, sb] = space.run_strides();
  for_stretches(space, cost, [&, sy = sy, sa = sa, sb = sb](const auto& offsets, std::int64_t n) {
    T* const out = y.as<T>() + offsets[0];
    const T* const x = a.as<T>() + offsets[1];
    const T* const z = b.as<T>() + offsets[2];
    if (sy == 1 && sa == 1 && sb == 1)
      return apply_run(f, n, out, Contiguous<T>{x}, Contiguous<T>{z});
    if (sy == 1 && sa == 1 && sb == 0)
      return apply_run(f, n, out, Contiguous<T>{x}, Repeated<T>{*z});
    if (sy == 1 && sa == 0 && sb == 1)
      return apply_run(f, n, out, Repeated<T>{*x}, Contiguous<T>{z});
    apply_strided_run(f, n, out, sy, Strided<T>{x, sa}, Strided<T>{z, sb});
  });
}

/// y = f(a, b, c) elementwise, where a may be of another type.
template <class T, class A, class F>
void apply(const F& f, std::int64_t cost, const MutView& y, const View& a, const View& b,
           const View& c) {
  const IndexSpace<4> space(y.shape, {&y.strides, &a.strides, &b.strides, &c.strides});
  const auto strides = space.run_strides();
  for_stretches(space, cost, [&](const auto& offsets, std::int64_t n) {
    T* const out = y.as<T>() + offsets[0];
    const A* const first = a.as<A>() + offsets[1];
    const T* const second = b.as<T>() + offsets[2];
    const T* const third = c.as<T>() + offsets[3];
    if (strides == std::array<std::int64_t, 4>{1, 1, 1, 1})
      return apply_run(f, n, out, Contiguous<A>{first}, Contiguous<T>{second},
                       Contiguous<T>{third});
    apply_strided_run(f, n, out, strides[0], Strided<A>{first, strides[1]},
                      Strided<T>{second, strides[2]}, Strided<T>{third, strides[3]});
  });
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
