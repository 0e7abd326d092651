#include "cuda/table.h"

#include "cuda/context.h"
#include "cuda/kernels.h"
#include "cuda/memory.h"

namespace mf::cuda {
namespace {

Backend make_table() {
  Backend b;
  b.device = "cuda";
  b.allocate = allocate;
  b.free = free_block;
  b.free_bytes = free_bytes;
  b.upload = upload;
  b.download = download;
  b.synchronize = wait;
  b.model_name = model_name;
  fill_table(b);
  return b;
}

}  // namespace

const Backend& table() {
  static const Backend backend = make_table();
  return backend;
}

}  // namespace mf::cuda
