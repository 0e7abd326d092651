// The backend of a build without CUDA.

#include "cuda/cuda.h"
#include "tensor/error.h"

namespace mf::cuda {

bool available() { return false; }

void install() { fail("cuda: not built; configure with MEMFORMER_CUDA=ON, or use the cpu"); }

void allow_tf32(bool) {}
void release(int) {}

}  // namespace mf::cuda
