#include "races.h"

namespace standin {

namespace {

constexpr int kWarp = 32;

bool same_warp(const Access& a, const Access& b) {
  return a.block == b.block && a.thread / kWarp == b.thread / kWarp;
}

bool same_thread(const Access& a, const Access& b) {
  return a.block == b.block && a.thread == b.thread;
}

bool happens_before(const Access& before, const Access& now, const std::uint32_t* clock) {
  if (before.block != now.block) return false;
  if (before.thread == now.thread || before.epoch < now.epoch) return true;
  return same_warp(before, now) && clock[before.thread % kWarp] >= before.tick;
}

bool races(const Access& before, const Access& now, const std::uint32_t* clock) {
  return (before.bytes & now.bytes) != 0 && !(before.strong && now.strong) &&
         !happens_before(before, now, clock);
}

}  // namespace

bool AccessHistory::add(std::uint32_t current, const Access& now, bool is_write,
                        const std::uint32_t* clock, Access& conflict) {
  if (generation != current) {
    *this = AccessHistory{};
    generation = current;
  }
  bool found = false;
  auto test = [&](const Access& before) {
    if (!found && races(before, now, clock)) conflict = before, found = true;
  };
  for (const Access& write : writes) test(write);
  if (is_write) {
    for (const Access& read : reads) test(read);
    if (!same_thread(writes[0], now)) writes[1] = writes[0];
    writes[0] = now;
  } else if (reads[0].bytes == 0 || same_thread(reads[0], now)) {
    reads[0] = now;
  } else {
    if (!same_warp(reads[0], now)) reads[2] = reads[0];
    reads[1] = reads[0];
    reads[0] = now;
  }
  return found;
}

}  // namespace standin
