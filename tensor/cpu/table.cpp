#include "tensor/cpu/kernels.h"
#include "tensor/cpu/tables.h"
#include "tensor/cpu/tile.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {
namespace {

Backend make_table() {
  Backend b = memory_functions();
  fill_table(b);
  return b;
}

}  // namespace

const Backend& table() {
  static const Backend backend = make_table();
  return backend;
}

IsaTraits traits() {
  return {static_cast<int>(kVectorBytes), kTileRows, kTileColumns<float>, kTileColumns<double>};
}

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
