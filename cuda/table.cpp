#include "cuda/table.h"

#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace mf::cuda {
namespace {

Backend make_table() {
  Backend b;
  b.device = "cuda";
  b.allocate = allocate;
  b.free = free_block;
  b.upload = upload;
  b.download = download;
  b.synchronize = wait;

  b.copy.function = copy;
  b.fill.function = fill;
  b.uniform.function = uniform;
  b.normal.function = normal;
  b.map.function = map;
  b.map_backward.function = map_backward;
  b.combine.function = combine;
  b.affine.function = affine;
  b.accumulate.function = accumulate;
  b.select.function = select;
  b.dropout.function = dropout;
  b.sum.function = sum;
  b.max.function = max;
  b.sum_of_squares.function = sum_of_squares;
  b.count_nonfinite.function = count_nonfinite;
  b.matmul.function = matmul;
  b.matmul_map.function = matmul_map;
  b.matmul_map_backward.function = matmul_map_backward;
  b.softmax.function = softmax;
  b.softmax_backward.function = softmax_backward;
  b.log_softmax.function = log_softmax;
  b.log_softmax_backward.function = log_softmax_backward;
  b.logsumexp.function = logsumexp;
  b.layer_norm.function = layer_norm;
  b.layer_norm_backward.function = layer_norm_backward;
  b.normalize.function = normalize;
  b.normalize_backward.function = normalize_backward;
  b.gather_rows.function = gather_rows;
  b.scatter_rows.function = scatter_rows;
  b.gather.function = gather;
  b.scatter.function = scatter;
  b.attention.function = attention;
  b.attention_backward.function = attention_backward;
  b.cross_entropy.function = cross_entropy;
  b.cross_entropy_backward.function = cross_entropy_backward;
  b.adam.function = adam;
  b.sgd.function = sgd;
  return b;
}

}  // namespace

const Backend& table() {
  static const Backend backend = make_table();
  return backend;
}

}  // namespace mf::cuda
