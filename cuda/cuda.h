#pragma once

namespace mf::cuda {

/// True if this build has the CUDA backend and a device answers.
bool available();
/// Registers the CUDA table so that tensors can live on cuda_device(n). Called by programs, never
/// by static constructors. Throws Error where the backend was not built or no device answers.
void install();
/// Waits for everything queued on the device.
void synchronize();

}  // namespace mf::cuda
