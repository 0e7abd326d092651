#pragma once

/// The CUDA backend as programs see it. Everything else is a Tensor on cuda_device(n).
namespace mf::cuda {

/// True if this build has the CUDA backend and a device answers.
bool available();
/// Registers the CUDA table so that tensors can live on cuda_device(n). Called by programs, never
/// by static constructors. Throws Error where the backend was not built or no device answers.
void install();
/// Lets products of f32 round their operands to TF32 (10 bits of mantissa, many times faster on
/// devices that have it). Off at first; for products that are queued from now on.
void allow_tf32(bool allowed);
/// Waits for cuda_device(index), then gives its cached blocks, stream and cuBLAS handle back. The
/// next use makes new ones. For tests that look for leaks; a program need not call it.
void release(int index = 0);

}  // namespace mf::cuda
