#pragma once

#include "tensor/backend.h"

namespace mf::cuda {

/// The CUDA backend's table: every entry is filled.
const Backend& table();

}  // namespace mf::cuda
