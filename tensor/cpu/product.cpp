#include "tensor/cpu/product.h"

#include <algorithm>
#include <cstring>

#include "tensor/cpu/rows.h"
#include "tensor/cpu/scratch.h"
#include "tensor/cpu/tile.h"

// The matrix product in the manner of Goto and van de Geijn (2008): the depth is cut into blocks, b
// is packed into panels as wide as a tile, and groups of rows of a, small enough for the L2 cache,
// meet all panels. Results depend on the depth blocks alone, and those on K alone.
namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

using Index = std::int64_t;

constexpr Index kDepth = 512;      // longest depth block: a group of rows stays in the L2 cache
constexpr Index kGroupPanels = 8;  // row panels in a group

/// Part `index` of n things cut into `parts` nearly equal parts.
struct Part {
  Index begin, size;
  Part(Index n, Index parts, Index index)
      : begin(index * n / parts), size((index + 1) * n / parts - begin) {}
};

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

/// to [depth][width] = transpose of from [count][depth], rows `stride` apart; zeros beyond count.
template <class T>
void pack_transposed(const T* from, Index stride, Index count, Index depth, Index width, T* to) {
  constexpr Index kSize = kVector<T>;
  for (Index first = 0; first < width; first += kSize) {
    const Index rows = std::clamp<Index>(count - first, 0, kSize);
    Index k = 0;
    for (; k + kSize <= depth; k += kSize) {
      Vector<T> block[static_cast<std::size_t>(kSize)];
#pragma GCC unroll 16
      for (Index r = 0; r < kSize; ++r)
        block[r] = r < rows ? load(from + (first + r) * stride + k) : Vector<T>{};
      transpose(block);
#pragma GCC unroll 16
      for (Index r = 0; r < kSize; ++r) store(to + (k + r) * width + first, block[r]);
    }
    for (; k < depth; ++k)
      for (Index r = 0; r < kSize; ++r)
        to[k * width + first + r] = r < rows ? from[(first + r) * stride + k] : T{0};
  }
}

/// to [depth][width] = from [depth][count], rows `stride` apart; zeros beyond count.
template <class T>
void pack_rows(const T* from, Index stride, Index count, Index depth, Index width, T* to) {
  if (count == kTileColumns<T> && width == count) {
    for (Index k = 0; k < depth; ++k, from += stride, to += width) {
#pragma GCC unroll 2
      for (int j = 0; j < kTileVectors; ++j)
        store(to + j * kVector<T>, load(from + j * kVector<T>));
    }
    return;
  }
  for (Index k = 0; k < depth; ++k, from += stride, to += width) {
    std::copy_n(from, count, to);
    std::fill(to + count, to + width, T{0});
  }
}

/// One product: what is cut how. Rows are cut into panels of a tile's height, evenly, so that none
/// is thin; columns into panels of a tile's width.
template <class T>
class Product {
 public:
  Product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const ProductOptions<T>& options)
      : a_(a),
        b_(b),
        c_(c),
        options_(options),
        row_panels(ceil_div(c.rows, kTileRows)),
        column_panels(ceil_div(c.columns, kTileColumns<T>)),
        depth_blocks(std::max<Index>(1, ceil_div(a.columns, kDepth))),
        a_rows_lie_(a.column_stride == 1 || a.columns == 1),
        b_rows_lie_(b.column_stride == 1 || b.columns == 1),
        // With one row panel each element of b is used once: packing would only copy it.
        packs_b(!(b_rows_lie_ && row_panels == 1)) {}

 private:
  const Matrix<const T> a_, b_;
  const Matrix<T> c_;
  const ProductOptions<T>& options_;

 public:
  const Index row_panels, column_panels, depth_blocks;

 private:
  const bool a_rows_lie_, b_rows_lie_;

 public:
  const bool packs_b;

  /// Elements of b's packed form.
  Index packed_size() const { return packs_b ? column_panels * kTileColumns<T> * a_.columns : 0; }

  /// Packs column panel `panel` of all depth blocks.
  void pack_b(Index panel, T* packed) const {
    constexpr Index kWidth = kTileColumns<T>;
    const Index column = panel * kWidth;
    const Index columns = std::min(kWidth, c_.columns - column);
    for (Index block = 0; block < depth_blocks; ++block) {
      const Part depth(a_.columns, depth_blocks, block);
      T* const to = packed_panel(packed, depth, panel);
      const T* const from = b_.data + depth.begin * b_.row_stride + column * b_.column_stride;
      if (b_rows_lie_) {
        pack_rows(from, b_.row_stride, columns, depth.size, kWidth, to);
      } else {
        pack_transposed(from, b_.column_stride, columns, depth.size, kWidth, to);
      }
    }
  }

  /// The tiles of these row and column panels. `packed` is all of b, packed.
  void run(Part rows, Part columns, T* packed) const {
    const bool packs_a = columns.size > 2 && (!a_rows_lie_ || is_far_apart());
    const Scratch<T> packed_a(packs_a ? rows.size * kPackedPanel : 0);
    for (Index block = 0; block < depth_blocks; ++block) {
      const Part depth(a_.columns, depth_blocks, block);
      if (packs_a) {
        for (Index i = 0; i < rows.size; ++i)
          pack_a(rows.begin + i, depth, packed_a.data() + i * kPackedPanel);
      }
      for (Index j = columns.begin; j < columns.begin + columns.size; ++j) {
        for (Index i = 0; i < rows.size; ++i) {
          const T* const own = packs_a ? packed_a.data() + i * kPackedPanel : nullptr;
          tile(rows.begin + i, j, depth, block == 0, own, packed);
        }
      }
    }
  }

  /// c = base + bias: what is left of a product of depth 0.
  void write_without_product() const {
    for (Index i = 0; i < c_.rows; ++i)
      for (Index j = 0; j < c_.columns; ++j) {
        const T base = options_.base ? options_.base[i * options_.base_stride + j] : T{0};
        c_.data[i * c_.row_stride + j] = options_.bias ? base + options_.bias[j] : base;
      }
  }

 private:
  // A packed row panel: rows that lie, kRowStride apart, or columns of kTileRows.
  static constexpr Index kRowStride = kDepth + kVector<T>;
  static constexpr Index kCover = (kTileRows + kVector<T> - 1) / kVector<T> * kVector<T>;
  static constexpr Index kPackedPanel = kTileRows * kRowStride + kCover;

  /// Rows a multiple of a page apart fall into the same few sets of the L1 cache.
  bool is_far_apart() const {
    return a_.row_stride * static_cast<Index>(sizeof(T)) % 2048 == 0 && a_.columns > 64;
  }

  T* packed_panel(T* packed, const Part& depth, Index panel) const {
    constexpr Index kWidth = kTileColumns<T>;
    return packed + column_panels * kWidth * depth.begin + panel * kWidth * depth.size;
  }

  void pack_a(Index panel, const Part& depth, T* to) const {
    const Part rows(c_.rows, row_panels, panel);
    const T* const from = a_.data + rows.begin * a_.row_stride + depth.begin * a_.column_stride;
    if (a_rows_lie_) {
      for (Index i = 0; i < rows.size; ++i)
        std::copy_n(from + i * a_.row_stride, depth.size, to + i * kRowStride);
    } else if (rows.begin + kCover <= c_.rows) {
      // Whole vectors; what they write beyond the panel's rows is overwritten by the next column.
      for (Index k = 0; k < depth.size; ++k) {
#pragma GCC unroll 4
        for (Index r = 0; r < kCover; r += kVector<T>)
          store(to + k * kTileRows + r, load(from + k * a_.column_stride + r));
      }
    } else {
      for (Index k = 0; k < depth.size; ++k)
        std::copy_n(from + k * a_.column_stride, rows.size, to + k * kTileRows);
    }
  }

  void tile(Index row_panel, Index column_panel, const Part& depth, bool first, const T* packed_a,
            T* packed_b) const {
    constexpr Index kWidth = kTileColumns<T>;
    const Part rows(c_.rows, row_panels, row_panel);
    const Index column = column_panel * kWidth;
    const Index columns = std::min(kWidth, c_.columns - column);

    const T* a = a_.data + rows.begin * a_.row_stride + depth.begin * a_.column_stride;
    Index a_stride = a_rows_lie_ ? a_.row_stride : a_.column_stride;
    if (packed_a) {
      a = packed_a;
      a_stride = a_rows_lie_ ? kRowStride : kTileRows;
    }
    alignas(kVectorBytes) T edge[kTileRows * kTileColumns<T>];
    const T* b = b_.data + depth.begin * b_.row_stride + column;
    Index b_stride = b_.row_stride;
    if (packs_b) {
      b = packed_panel(packed_b, depth, column_panel);
      b_stride = kWidth;
    }

    T* const c = c_.data + rows.begin * c_.row_stride + column;
    TileTarget<T> target{c, c_.row_stride, options_.alpha, c, c_.row_stride, nullptr};
    if (first) {
      target.base =
          options_.base ? options_.base + rows.begin * options_.base_stride + column : nullptr;
      target.base_stride = options_.base_stride;
      target.bias = options_.bias ? options_.bias + column : nullptr;
    }
    const auto multiply = [&](const TileTarget<T>& to) {
      const auto run = [&](const auto& functions) {
        functions[static_cast<std::size_t>(rows.size - 1)](depth.size, a, a_stride, b, b_stride,
                                                           to);
      };
      const bool narrow = columns <= kVector<T>;
      if (a_rows_lie_) {
        narrow ? run(kTileFunctions<T, kTileRows, 1, TileLayout::row_major>)
               : run(kTileFunctions<T, kTileRows, kTileVectors, TileLayout::row_major>);
      } else {
        narrow ? run(kTileFunctions<T, kTileRows, 1, TileLayout::column_major>)
               : run(kTileFunctions<T, kTileRows, kTileVectors, TileLayout::column_major>);
      }
    };
    if (columns == kWidth || columns == kVector<T>) return multiply(target);

    // A ragged edge is made beside c, with b's rows copied where they are not packed with zeros.
    const Scratch<T> copied(packs_b ? 0 : depth.size * kWidth);
    if (!packs_b) {
      pack_rows(b, b_stride, columns, depth.size, kWidth, copied.data());
      b = copied.data();
      b_stride = kWidth;
    }
    multiply({edge, kWidth, options_.alpha, nullptr, 0, nullptr});
    for (Index i = 0; i < rows.size; ++i)
      for (Index j = 0; j < columns; ++j) {
        T value = edge[i * kWidth + j];
        if (target.base) value += target.base[i * target.base_stride + j];
        if (target.bias) value += target.bias[j];
        c[i * c_.row_stride + j] = value;
      }
  }
};

}  // namespace

template <class T>
void product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const ProductOptions<T>& options) {
  if (c.rows == 0 || c.columns == 0) return;
  const Product<T> whole(a, b, c, options);
  if (a.columns == 0) return whole.write_without_product();
  const Scratch<T> packed(whole.packed_size());
  if (whole.packs_b)
    for (Index j = 0; j < whole.column_panels; ++j) whole.pack_b(j, packed.data());
  const Index groups = ceil_div(whole.row_panels, kGroupPanels);
  for (Index group = 0; group < groups; ++group)
    whole.run(Part(whole.row_panels, groups, group), Part(whole.column_panels, 1, 0),
              packed.data());
}

template <class T>
void parallel_product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c,
                      const ProductOptions<T>& options) {
  constexpr Index kWorthThreads = Index{1} << 18;  // multiply-adds
  const Index work = c.rows * c.columns * a.columns;
  if (threads() == 1 || work < kWorthThreads) return product(a, b, c, options);

  const Product<T> whole(a, b, c, options);
  const Scratch<T> packed(whole.packed_size());
  if (whole.packs_b) {
    for_chunks(whole.column_panels, 2 * a.columns * kTileColumns<T>, [&](Index begin, Index end) {
      for (Index j = begin; j < end; ++j) whole.pack_b(j, packed.data());
    });
  }
  // Jobs of about equal size, a multiple of the threads; bits do not depend on them.
  const Index team = threads();
  const Index needed = ceil_div(whole.row_panels, kGroupPanels);
  const Index groups = std::min(whole.row_panels, ceil_div(needed, team) * team);
  const Index across = groups >= team ? 1 : std::min(whole.column_panels, ceil_div(team, groups));
  for_chunks(groups * across, work / (groups * across), [&](Index begin, Index end) {
    for (Index job = begin; job < end; ++job)
      whole.run(Part(whole.row_panels, groups, job / across),
                Part(whole.column_panels, across, job % across), packed.data());
  });
}

template void product(Matrix<const float>, Matrix<const float>, Matrix<float>,
                      const ProductOptions<float>&);
template void product(Matrix<const double>, Matrix<const double>, Matrix<double>,
                      const ProductOptions<double>&);
template void parallel_product(Matrix<const float>, Matrix<const float>, Matrix<float>,
                               const ProductOptions<float>&);
template void parallel_product(Matrix<const double>, Matrix<const double>, Matrix<double>,
                               const ProductOptions<double>&);

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
