#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace mf {

/// Instruction sets that the CPU's kernels are compiled for. Results are the same bits for any
/// number of threads, but not for two instruction sets: wider vectors add in another order, and
/// only avx2 and avx512 have the fused multiply-add.
enum class Isa {
  portable,  ///< what every processor of the architecture has (x86-64: SSE2)
  avx2,      ///< AVX2 and FMA, 256-bit vectors
  avx512     ///< AVX-512 F, BW, CD, DQ, VL, 512-bit vectors
};

/// "portable", "avx2" or "avx512".
std::string_view name_of(Isa isa);
/// The set of this name. Throws Error naming the sets that there are.
Isa isa_named(std::string_view name);

/// What this processor and this build can run, narrowest first.
std::vector<Isa> available_isas();
/// The set in use: at first the widest available one.
Isa current_isa();
/// Forces a set. Throws Error if the processor lacks it. To be called while no kernel runs.
void set_isa(Isa isa);

/// The processor's name as it gives it, "" where it does not.
std::string processor_name();

/// How the kernels of a set work, for reports.
struct IsaTraits {
  int vector_bytes = 0;      ///< width of a vector register
  int tile_rows = 0,         ///< of the matrix product's tile, which is held in registers
      tile_columns_f32 = 0,  ///< its columns for f32
      tile_columns_f64 = 0;  ///< its columns for f64
};
/// Those of a set. Throws Error if the processor lacks the set.
IsaTraits traits_of(Isa isa);

/// Multiply-adds that never leave registers, as the kernels of a set do them: how fast it could be.
struct FmaLoop {
  /// Runs `rounds` rounds and returns a number that depends on all of them, so that none is left
  /// out.
  double (*run)(std::int64_t rounds) = nullptr;
  int flops_per_round = 0;  ///< floating-point operations; a multiply-add counts as two
};
/// The loop of the set in use, for f32 or f64.
FmaLoop fma_loop(DType dtype);

}  // namespace mf
