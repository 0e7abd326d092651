#include "tensor/cpu/product.h"

#include <algorithm>

#include "tensor/cpu/panels.h"
#include "tensor/cpu/rows.h"

// The matrix product in the manner of Goto and van de Geijn (2008): a block of b, as many columns
// at a time as stay in the L2 cache, is packed into panels as wide as a tile; groups of rows of a
// meet all its panels. Results depend on the depth of the blocks alone, and that on K alone.
namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

using Index = std::int64_t;

constexpr Index kDepth = 512;           // longest depth of a block
constexpr Index kBlockBytes = 1 << 20;  // of a packed block of b
constexpr Index kGroupPanels = 8;       // row panels in a group
constexpr Index kPackedPanels = 4;      // of b, packed together

/// What of b is packed at a time: some column panels over a part of the depth.
struct Block {
  Part panels, depth;
  bool first, last;  ///< of the depth
};

/// One product: what is cut how. Rows are cut into panels of at most TileRows, evenly, so that none
/// is thin; columns into panels of TileVectors vectors.
template <class T, int TileRows = kTileRows, int TileVectors = kTileVectors>
class Product {
 public:
  Product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const ProductOptions<T>& options)
      : a_(a),
        b_(b),
        c_(c),
        options_(options),
        row_panels_(ceil_div(c.rows, TileRows)),
        column_panels_(ceil_div(c.columns, kWidth)),
        depth_blocks_(ceil_div(a.columns, kDepth)),
        column_blocks_(ceil_div(column_panels_ * kWidth *
                                    ceil_div(a.columns, std::max<Index>(1, depth_blocks_)) *
                                    static_cast<Index>(sizeof(T)),
                                kBlockBytes)),
        a_rows_lie_(a.rows_lie()),
        // With one row panel each element of b is used once: packing would only copy it.
        packs_b_(!(b.rows_lie() && row_panels_ == 1)) {}

  /// Runs the product. `for_each(n, cost, fn)` calls fn(i) for i < n, on whichever threads; the
  /// rows are shared out in about `jobs` jobs.
  template <class ForEach>
  void run(Index jobs, const ForEach& for_each) const {
    const Index groups = std::min(row_panels_, jobs);
    const Index longest = ceil_div(column_panels_, column_blocks_);
    const Scratch<T> packed(packs_b_ ? longest * kWidth * std::min(a_.columns, kDepth) : 0);
    for (Index i = 0; i < column_blocks_; ++i) {
      const Part panels = part(column_panels_, column_blocks_, i);
      const Index across = std::clamp<Index>(jobs / groups, 1, panels.size);
      for (Index k = 0; k < depth_blocks_; ++k) {
        const Block block{panels, part(a_.columns, depth_blocks_, k), k == 0,
                          k + 1 == depth_blocks_};
        const Index packings = ceil_div(panels.size, kPackedPanels);
        if (packs_b_)
          for_each(packings, 2 * kPackedPanels * kWidth * block.depth.size,
                   [&](Index j) { pack_b(block, part(panels.size, packings, j), packed.data()); });
        const Index work = c_.rows * panels.size * kWidth * block.depth.size;
        for_each(groups * across, work / (groups * across), [&](Index job) {
          const Part rows = part(row_panels_, groups, job / across);
          multiply(block, rows, part(panels.size, across, job % across), packed.data());
        });
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
    if (options_.after) (*options_.after)(0, c_.rows, 0, c_.columns);
  }

 private:
  static constexpr Index kWidth = TileVectors * kVector<T>;
  // A packed row panel: rows that lie, kRowStride apart, or columns of TileRows.
  static constexpr Index kRowStride = kDepth + kVector<T>;
  static constexpr Index kCover = (TileRows + kVector<T> - 1) / kVector<T> * kVector<T>;
  static constexpr Index kPackedPanel = TileRows * kRowStride + kCover;

  /// Packs some of the block's panels.
  void pack_b(const Block& block, const Part& panels, T* packed) const {
    const Index column = (block.panels.begin + panels.begin) * kWidth;
    const Index columns = std::min(panels.size * kWidth, c_.columns - column);
    pack_panels<TileVectors>(
        b_.row_block(block.depth.begin, block.depth.size).column_block(column, columns), kWidth,
        packed + panels.begin * kWidth * block.depth.size);
  }

  /// Rows that lie are read where they are, unless they are a multiple of a page apart: then they
  /// fall into the same sets of the L1 cache, which a wide product pays for again and again.
  bool is_far_apart() const {
    return a_.row_stride * static_cast<Index>(sizeof(T)) % 4096 == 0 && a_.columns > 64 &&
           c_.columns >= 1024;
  }

  /// Packs row panels, kPackedPanel apart.
  void pack_a(const Part& panels, const Part& depth, T* to) const {
    const auto rows_of = [&](Index i) { return part(c_.rows, row_panels_, panels.begin + i); };
    const T* from = a_.data + depth.begin * a_.column_stride;
    if (a_rows_lie_) {
      for (Index i = 0; i < panels.size; ++i) {
        const Part rows = rows_of(i);
        for (Index r = 0; r < rows.size; ++r)
          std::copy_n(from + (rows.begin + r) * a_.row_stride, depth.size,
                      to + i * kPackedPanel + r * kRowStride);
      }
      return;
    }
    const Index first = rows_of(0).begin;
    const Index count = rows_of(panels.size - 1).begin + rows_of(panels.size - 1).size - first;
    for (Index k = 0; k < depth.size; ++k, from += a_.column_stride, to += TileRows) {
      prefetch(from + kPrefetchRows * a_.column_stride + first, count);
      for (Index i = 0; i < panels.size; ++i) {
        const Part rows = rows_of(i);
        T* const column = to + i * kPackedPanel;
        if (rows.begin + kCover <= c_.rows) {
          // Whole vectors; what they write beyond the panel is overwritten by the next column.
#pragma GCC unroll 4
          for (Index r = 0; r < kCover; r += kVector<T>)
            store(column + r, load(from + rows.begin + r));
        } else {
          std::copy_n(from + rows.begin, rows.size, column);
        }
      }
    }
  }

  /// The tiles where these row panels meet these of the block's column panels, group after group.
  void multiply(const Block& block, const Part& rows, const Part& columns, const T* packed) const {
    const Index groups = ceil_div(rows.size, kGroupPanels);
    const bool packs_a = columns.size > 2 && (!a_rows_lie_ || is_far_apart());
    const Scratch<T> packed_a(packs_a ? ceil_div(rows.size, groups) * kPackedPanel : 0);
    for (Index g = 0; g < groups; ++g) {
      const Part within = part(rows.size, groups, g);
      const Part group{rows.begin + within.begin, within.size};
      if (packs_a) pack_a(group, block.depth, packed_a.data());
      for (Index j = columns.begin; j < columns.begin + columns.size; ++j)
        for (Index i = 0; i < group.size; ++i)
          tile(block, group.begin + i, j, packs_a ? packed_a.data() + i * kPackedPanel : nullptr,
               packed);
      if (!options_.after || !block.last) continue;
      const Index row = row_of(group.begin);
      const Index column = (block.panels.begin + columns.begin) * kWidth;
      const Index end = std::min(c_.columns, column + columns.size * kWidth);
      (*options_.after)(row, row_of(group.begin + group.size) - row, column, end - column);
    }
  }

  /// First row of a row panel.
  Index row_of(Index panel) const { return panel * c_.rows / row_panels_; }

  void tile(const Block& block, Index row_panel, Index column_panel, const T* packed_a,
            const T* packed_b) const {
    const Part rows = part(c_.rows, row_panels_, row_panel);
    const Part& depth = block.depth;
    const Index column = (block.panels.begin + column_panel) * kWidth;
    const Index columns = std::min(kWidth, c_.columns - column);

    const T* a = a_.data + rows.begin * a_.row_stride + depth.begin * a_.column_stride;
    Index a_row_stride = a_.row_stride, a_column_stride = a_.column_stride;
    if (packed_a) {
      a = packed_a;
      a_row_stride = a_rows_lie_ ? kRowStride : 1;
      a_column_stride = a_rows_lie_ ? 1 : TileRows;
    }
    const T* b = b_.data + depth.begin * b_.row_stride + column;
    Index b_stride = b_.row_stride;
    if (packs_b_) {
      b = packed_b + column_panel * kWidth * depth.size;
      b_stride = kWidth;
    }

    T* const c = c_.data + rows.begin * c_.row_stride + column;
    TileTarget<T> target{c, c_.row_stride, options_.alpha, c, c_.row_stride, nullptr};
    if (block.first) {
      target.base =
          options_.base ? options_.base + rows.begin * options_.base_stride + column : nullptr;
      target.base_stride = options_.base_stride;
      target.bias = options_.bias ? options_.bias + column : nullptr;
    }
    const auto multiply_into = [&](const TileTarget<T>& to) {
      multiply_tile<T, TileRows, TileVectors>(rows.size, columns, depth.size, a, a_row_stride,
                                              a_column_stride, b, b_stride, to);
    };
    if (columns == kWidth || columns == kVector<T>) return multiply_into(target);

    // A ragged edge is made beside c, with b's rows copied where they are not packed with zeros.
    const Scratch<T> copied(packs_b_ ? 0 : depth.size * kWidth);
    if (!packs_b_) {
      pack_rows(b, b_stride, columns, depth.size, kWidth, copied.data());
      b = copied.data();
      b_stride = kWidth;
    }
    alignas(kVectorBytes) T edge[static_cast<std::size_t>(TileRows * kWidth)];
    multiply_into({edge, kWidth, options_.alpha, nullptr, 0, nullptr});
    for (Index i = 0; i < rows.size; ++i)
      for (Index j = 0; j < columns; ++j) {
        T value = edge[i * kWidth + j];
        if (target.base) value += target.base[i * target.base_stride + j];
        if (target.bias) value += target.bias[j];
        c[i * c_.row_stride + j] = value;
      }
  }

  const Matrix<const T> a_, b_;
  const Matrix<T> c_;
  const ProductOptions<T>& options_;
  const Index row_panels_, column_panels_, depth_blocks_, column_blocks_;
  const bool a_rows_lie_, packs_b_;
};

}  // namespace

namespace {

/// Calls fn(b, c, options) for the product's columns first .. first + count - 1.
template <class T, class F>
void for_columns(Index first, Index count, Matrix<const T> b, Matrix<T> c,
                 const ProductOptions<T>& options, const F& fn) {
  ProductOptions<T> own = options;
  if (own.base) own.base += first;
  if (own.bias) own.bias += first;
  AfterBlock after;
  if (options.after) {
    after = [&](Index row, Index rows, Index column, Index columns) {
      (*options.after)(row, rows, first + column, columns);
    };
    own.after = &after;
  }
  fn(b.column_block(first, count), c.column_block(first, count), own);
}

// With so few rows each element of b is used about once, and a product runs as fast as b is read:
// wide tiles read its rows in longer stretches, and nothing is packed.
constexpr Index kFewRows = 3;
constexpr int kWideVectors = kVectorBytes == 64 ? 8 : 4;

template <class T, class ForEach>
void run(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const ProductOptions<T>& options,
         Index jobs, const ForEach& for_each) {
  constexpr Index kWidth = kWideVectors * kVector<T>;
  const Index wide = c.columns / kWidth * kWidth;
  if (c.rows > kFewRows || b.column_stride != 1 || wide == 0)
    return Product<T>(a, b, c, options).run(jobs, for_each);
  for_columns(0, wide, b, c, options, [&](const auto&... of) {
    Product<T, kFewRows, kWideVectors>(a, of...).run(jobs, for_each);
  });
  if (wide == c.columns) return;
  for_columns(wide, c.columns - wide, b, c, options,
              [&](const auto&... of) { Product<T>(a, of...).run(1, for_each); });
}

/// Whether threads share the columns of c rather than its rows. Each then packs its own part of b,
/// and none waits; but each reads all of a, and packs it where its rows do not lie: it should not
/// be much larger than b. There must be some panels for each.
template <class T>
bool shares_columns(const Matrix<const T>& a, const Matrix<T>& c) {
  constexpr Index kPanels = 4;
  const Index most = a.rows_lie() ? 2 : 1;  // rows over columns
  return c.rows > kFewRows && c.rows <= most * c.columns &&
         c.columns / kTileColumns<T> >= kPanels * threads();
}

}  // namespace

template <class T>
void product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c, const ProductOptions<T>& options) {
  if (c.rows == 0 || c.columns == 0) return;
  if (a.columns == 0) return Product<T>(a, b, c, options).write_without_product();
  run<T>(a, b, c, options, 1, [](Index n, Index, const auto& fn) {
    for (Index i = 0; i < n; ++i) fn(i);
  });
}

template <class T>
void parallel_product(Matrix<const T> a, Matrix<const T> b, Matrix<T> c,
                      const ProductOptions<T>& options) {
  constexpr Index kWorthThreads = Index{1} << 18;  // multiply-adds
  if (threads() == 1 || c.rows * c.columns * a.columns < kWorthThreads)
    return product(a, b, c, options);
  if (shares_columns(a, c)) {
    const Index panels = ceil_div(c.columns, kTileColumns<T>), parts = threads();
    for_chunks(parts, c.rows * c.columns / parts * a.columns, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Part own = part(panels, parts, i);
        const Index first = own.begin * kTileColumns<T>;
        const Index count = std::min<Index>(own.size * kTileColumns<T>, c.columns - first);
        for_columns(first, count, b, c, options, [&](const auto&... of) { product<T>(a, of...); });
      }
    });
    return;
  }
  run<T>(a, b, c, options, threads(), [](Index n, Index cost, const auto& fn) {
    for_chunks(n, cost, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) fn(i);
    });
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
