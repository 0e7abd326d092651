#pragma once

#include "tensor/backend.h"

/// The entries of the table that move and hold bytes.
namespace mf::cuda {

void* allocate(Device device, std::int64_t bytes);
void free_block(Device device, void* data);
std::int64_t free_bytes(Device device);
void upload(Context& context, void* device_data, const void* host, std::int64_t bytes);
void download(Context& context, void* host, const void* device_data, std::int64_t bytes);
void wait(Context& context);

}  // namespace mf::cuda
