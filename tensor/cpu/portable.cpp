// The kernels for any processor of the architecture.
#define MEMFORMER_ISA portable
#define MEMFORMER_VECTOR_BYTES 16
#include "tensor/cpu/kernels.inc"
