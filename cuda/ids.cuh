#pragma once

#include <cstdint>

namespace mf::cuda::device {

/// Whether `id` names one of `count` things. The host does not read ids and targets that are on a
/// device, as that would be a wait for all that is queued: each kernel asks before it follows one.
__device__ inline bool in_range(std::int32_t id, std::int64_t count) {
  return id >= 0 && id < count;
}

}  // namespace mf::cuda::device
