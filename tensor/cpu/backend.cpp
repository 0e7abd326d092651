#include "tensor/backend.h"

#include <cstdlib>
#include <cstring>

#include "tensor/cpu/kernels.h"

namespace mf {
namespace {

constexpr std::int64_t kAlignment = 64;  // a cache line, and the widest vector

void* allocate(Device, std::int64_t bytes) {
  const std::int64_t rounded = (bytes / kAlignment + 1) * kAlignment;
  return std::aligned_alloc(static_cast<std::size_t>(kAlignment),
                            static_cast<std::size_t>(rounded));
}

void free_block(Device, void* data) { std::free(data); }

void copy_bytes(Context&, void* to, const void* from, std::int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

void synchronize(Context&) {}

Backend make_cpu_backend() {
  Backend b;
  b.device = "cpu";
  b.allocate = allocate;
  b.free = free_block;
  b.upload = copy_bytes;
  b.download = copy_bytes;
  b.synchronize = synchronize;

  b.copy.function = cpu_kernels::copy;
  b.fill.function = cpu_kernels::fill;
  b.uniform.function = cpu_kernels::uniform;
  b.normal.function = cpu_kernels::normal;
  b.map.function = cpu_kernels::map;
  b.map_backward.function = cpu_kernels::map_backward;
  b.combine.function = cpu_kernels::combine;
  b.affine.function = cpu_kernels::affine;
  b.accumulate.function = cpu_kernels::accumulate;
  b.select.function = cpu_kernels::select;
  b.dropout.function = cpu_kernels::dropout;
  b.sum.function = cpu_kernels::sum;
  b.max.function = cpu_kernels::max;
  b.sum_of_squares.function = cpu_kernels::sum_of_squares;
  b.count_nonfinite.function = cpu_kernels::count_nonfinite;
  b.matmul.function = cpu_kernels::matmul;
  b.softmax.function = cpu_kernels::softmax;
  b.softmax_backward.function = cpu_kernels::softmax_backward;
  b.log_softmax.function = cpu_kernels::log_softmax;
  b.log_softmax_backward.function = cpu_kernels::log_softmax_backward;
  b.logsumexp.function = cpu_kernels::logsumexp;
  b.layer_norm.function = cpu_kernels::layer_norm;
  b.layer_norm_backward.function = cpu_kernels::layer_norm_backward;
  b.normalize.function = cpu_kernels::normalize;
  b.normalize_backward.function = cpu_kernels::normalize_backward;
  b.gather_rows.function = cpu_kernels::gather_rows;
  b.scatter_rows.function = cpu_kernels::scatter_rows;
  b.gather.function = cpu_kernels::gather;
  b.scatter.function = cpu_kernels::scatter;
  b.attention.function = cpu_kernels::attention;
  b.attention_backward.function = cpu_kernels::attention_backward;
  b.cross_entropy.function = cpu_kernels::cross_entropy;
  b.cross_entropy_backward.function = cpu_kernels::cross_entropy_backward;
  b.adam.function = cpu_kernels::adam;
  b.sgd.function = cpu_kernels::sgd;
  return b;
}

}  // namespace

const Backend& cpu_backend() {
  static const Backend backend = make_cpu_backend();
  return backend;
}

}  // namespace mf
