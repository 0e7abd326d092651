#pragma once

#include <cstdint>

namespace standin {

/// One access of one thread, with as much of the thread's logical time as is needed to decide
/// whether a later access of the same launch is ordered after it.
struct Access {
  std::uint32_t block = 0;
  std::uint32_t epoch = 0;  ///< barriers the thread has passed
  std::uint32_t tick = 0;   ///< the thread's own entry in its warp clock
  std::uint32_t site = 0;   ///< index of the instruction
  std::uint16_t thread = 0;
  std::uint8_t bytes = 0;  ///< bit i: byte i of the word; 0: no access
  bool strong = false;     ///< atomic, volatile or with memory order
};

/// What has happened to one word since the launch began (or the block, for shared memory): the last
/// write and the last of another thread before it, the last two reads, and one read of another warp
/// than these. A race with an access that is no longer kept is missed; other thread orders keep
/// others.
struct AccessHistory {
  std::uint32_t generation = 0;  ///< older generations are forgotten
  Access writes[2], reads[3];

  /// Adds `now`. True if an earlier access races with it: then `conflict` is that access. `clock`
  /// is the warp clock of the accessing thread: for each lane, the tick up to which its accesses
  /// are ordered before this one.
  bool add(std::uint32_t current, const Access& now, bool is_write, const std::uint32_t* clock,
           Access& conflict);
};

}  // namespace standin
