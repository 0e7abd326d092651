#include "interpreter.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <set>
#include <string>

#include "report.h"
#include "streams.h"
#include "warp.h"

namespace standin::ptx {

namespace {

constexpr std::uint32_t kWarp = 32;
std::uint32_t generations = 0;  // of shared memory: one for each block ever run

std::string position(std::uint32_t linear, const Dim3& extent) {
  return "(" + std::to_string(linear % extent[0]) + "," +
         std::to_string(linear / extent[0] % extent[1]) + "," +
         std::to_string(linear / extent[0] / extent[1]) + ")";
}

void put_in_order(std::vector<std::uint32_t>& order, Order kind, std::mt19937_64& random) {
  std::iota(order.begin(), order.end(), 0u);
  if (kind == Order::reverse) std::reverse(order.begin(), order.end());
  if (kind == Order::random) std::shuffle(order.begin(), order.end(), random);
}

}  // namespace

std::uint64_t execute(const Launch& launch) {
  const std::uint64_t blocks = std::uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
  std::vector<std::uint32_t> order(blocks);
  std::mt19937_64 random(settings().seed);
  put_in_order(order, settings().order, random);
  Block block(launch);
  for (const std::uint32_t index : order) block.run(index);
  return block.instructions();
}

// ---- Lane ----

void Lane::run() {
  const std::uint64_t limit = block->max_instructions();
  while (state == State::ready) {
    const Instruction& i = *next++;
    if (++executed > limit) fault(Kind::launch, i, "the kernel does not end");
    if (i.guard != Guard::none) {
      if (((registers[i.predicate] & 1) != 0) != (i.guard == Guard::if_true)) continue;
    }
    i.execute(*this, i);
  }
}

void Lane::fault(Kind kind, const Instruction& i, const std::string& text) {
  block->report(kind, *this, i, text);
  throw Fault{kind};
}

void Lane::call(const CallSite& site) {
  const Function& callee = *site.function;
  if (!callee.defined || !callee.error.empty()) {
    fault(callee.name == "__assertfail" ? Kind::trap : Kind::unsupported, suspended_at(),
          callee.defined ? callee.error : "call of " + callee.name + ", which has no body");
  }
  Frame& f = frames.emplace_back(Frame{next, &site, registers, frame, local_base, {}, {}});
  f.registers.assign(callee.slots, kUnset);
  f.bytes.assign(callee.frame_bytes, std::byte{0xff});
  for (const Copy& c : site.arguments) {
    std::memcpy(f.bytes.data() + c.callee, frame + c.caller, c.size);
  }
  local_base = local.bytes.size();
  local.grow(local_base + callee.local_bytes);
  registers = f.registers.data();
  frame = f.bytes.data();
  block->preset(*this, callee, false);
  next = block->launch().module->code.data() + callee.first;
}

void Lane::leave() {
  if (frames.empty()) {
    state = State::exited;
    return;
  }
  const Frame& f = frames.back();
  for (const Copy& c : f.site->results) {
    std::memcpy(f.caller_frame + c.caller, f.bytes.data() + c.callee, c.size);
  }
  local.grow(local_base);
  next = f.back;
  registers = f.caller_registers;
  frame = f.caller_frame;
  local_base = f.caller_local;
  frames.pop_back();
}

// ---- Block: memory ----

std::string Block::where(std::uint32_t block, std::uint32_t thread, std::uint32_t site) const {
  const Origin& o = launch_.module->origins[site];
  std::string text = "block " + position(block, launch_.grid) + ", thread " +
                     position(thread, launch_.block) + ", ";
  text += o.file.empty() ? "PTX line " + std::to_string(o.ptx_line)
                         : o.file + ":" + std::to_string(o.line);
  return text + " `" + o.text + "`";
}

void Block::report(Kind kind, const Lane& lane, const Instruction& i, const std::string& text) {
  standin::report(kind, "kernel " + demangle(launch_.kernel->name) + ", " +
                            where(index_, lane.thread, site_of(i)) + ": " + text);
}

namespace {

std::string access_text(std::size_t bytes, bool write, const char* space, std::uint64_t address) {
  return std::string(write ? "write of " : "read of ") + std::to_string(bytes) + " bytes at " +
         space + " address " + hex(address);
}

}  // namespace

void Block::check_race(Lane& lane, const Instruction& i, AccessHistory* history,
                       std::uint32_t generation, std::uint64_t address, std::size_t bytes,
                       bool write, const char* space) {
  const auto& clock = clocks_[lane.thread];
  Access now{index_, lane.epoch, clock[lane.thread % kWarp], site_of(i), lane.thread, 0, i.strong};
  Access before;
  const std::uint64_t end = address + bytes;
  for (std::uint64_t at = address; at < end; at = at / 4 * 4 + 4, ++history) {
    const std::uint64_t in_word = std::min(end, at / 4 * 4 + 4) - at;
    now.bytes = static_cast<std::uint8_t>(((1u << in_word) - 1) << (at % 4));
    if (!history->add(generation, now, write, clock.data(), before)) continue;
    if (!first_of_pair(launch_.module, before.site, now.site)) continue;
    report(Kind::race, lane, i,
           access_text(bytes, write, space, address) + " is unordered with the access of " +
               where(before.block, before.thread, before.site));
  }
}

std::byte* Block::global(Lane& lane, const Instruction& i, std::uint64_t address, std::size_t bytes,
                         bool write, bool constant) {
  DeviceMemory& memory = device_memory();
  const Allocation*& recent = recent_[site_of(i)];
  const auto text = [&] { return access_text(bytes, write, "global", address); };
  if (recent == nullptr || !recent->contains(address, bytes)) {
    recent = memory.find(address);
    if (!memory.in_range(address) || recent == nullptr) {
      lane.fault(Kind::unknown_address, i, text() + ", which is no device memory");
    }
    if (!recent->contains(address, bytes)) {
      const auto past = static_cast<std::int64_t>(address - recent->begin - recent->size);
      lane.fault(Kind::out_of_bounds, i,
                 text() + ", " + std::to_string(past) + " bytes past the end of " +
                     std::to_string(recent->size) + " bytes at " + hex(recent->begin));
    }
  }
  if (!recent->live) lane.fault(Kind::use_after_free, i, text() + ", which was freed");
  if (constant && write) lane.fault(Kind::out_of_bounds, i, text() + " of constant memory");
  const std::size_t element = bytes / i.count;
  if (settings_.uninitialised) {
    for (std::size_t at = 0; at < bytes; at += element) {
      if (write) {
        memory.set_element_written(address + at, element);
      } else if (!memory.element_written(address + at, element)) {
        if (first_of_pair(launch_.module, site_of(i), site_of(i))) {
          report(Kind::uninitialised, lane, i, text() + ", which was never written");
        }
        break;
      }
    }
  }
  if (settings_.races && !recent->variable) {
    auto& granule = memory.granule(address);
    if ((write ? granule.writer : granule.reader) != launch_.operation) {
      const std::uint32_t other = touch_granule(granule, launch_.operation, write);
      if (other != 0) {
        report(Kind::stream_order, lane, i, text() + " is unordered with " + describe(other));
      }
    }
    check_race(lane, i, &memory.history(address), launch_.operation, address, bytes, write,
               "global");
  }
  return memory.view(address);
}

std::byte* Block::tracked(TrackedBytes& memory, const char* space, const char* owner, Lane& lane,
                          const Instruction& i, std::uint64_t offset, std::size_t bytes,
                          bool write) {
  const auto text = [&] { return access_text(bytes, write, space, offset); };
  const std::size_t size = memory.bytes.size();
  if (bytes > size || offset > size - bytes) {
    lane.fault(Kind::out_of_bounds, i, text() + "; the " + owner + " has " + std::to_string(size));
  }
  const auto flags = memory.written.begin() + static_cast<std::ptrdiff_t>(offset);
  const auto flags_end = flags + static_cast<std::ptrdiff_t>(bytes);
  if (write) {
    std::fill(flags, flags_end, std::uint8_t{1});
  } else if (settings_.uninitialised && std::find(flags, flags_end, 0) != flags_end &&
             first_of_pair(launch_.module, site_of(i), site_of(i))) {
    report(Kind::uninitialised, lane, i, text() + ", which was never written");
  }
  return memory.bytes.data() + offset;
}

std::byte* Block::shared(Lane& lane, const Instruction& i, std::uint64_t offset, std::size_t bytes,
                         bool write) {
  std::byte* const data = tracked(shared_, "shared", "block", lane, i, offset, bytes, write);
  if (settings_.races) {
    check_race(lane, i, &shared_histories_[offset / 4], shared_generation_, offset, bytes, write,
               "shared");
  }
  return data;
}

std::byte* Block::local(Lane& lane, const Instruction& i, std::uint64_t offset, std::size_t bytes,
                        bool write) {
  return tracked(lane.local, "local", "thread", lane, i, offset, bytes, write);
}

std::byte* Block::parameter(Lane& lane, const Instruction& i, std::uint64_t offset,
                            std::size_t bytes) {
  const auto& parameters = launch_.parameters;
  if (bytes > parameters.size() || offset > parameters.size() - bytes) {
    lane.fault(Kind::out_of_bounds, i, "read past the kernel's parameters");
  }
  // Only reads get here; handlers share one pointer type.
  return const_cast<std::byte*>(parameters.data()) + offset;
}

template <Space kSpace>
std::byte* Lane::memory(const Instruction& i, std::size_t bytes, bool write) {
  const std::uint64_t address = registers[i.base] + static_cast<std::uint64_t>(i.offset);
  if constexpr (kSpace == Space::frame) {
    return frame + i.offset;  // the parser has placed it
  } else {
    if (address % bytes != 0) {
      fault(Kind::misaligned, i,
            "address " + hex(address) + " is no multiple of " + std::to_string(bytes));
    }
    if constexpr (kSpace == Space::global) {
      return block->global(*this, i, address, bytes, write, false);
    } else if constexpr (kSpace == Space::constant) {
      return block->global(*this, i, address, bytes, write, true);
    } else if constexpr (kSpace == Space::shared) {
      // Shared and local addresses have 32 bits; a negative index may reach here as 64.
      return block->shared(*this, i, static_cast<std::uint32_t>(address), bytes, write);
    } else if constexpr (kSpace == Space::local) {
      return block->local(*this, i, static_cast<std::uint32_t>(address), bytes, write);
    } else if constexpr (kSpace == Space::param) {
      return block->parameter(*this, i, address, bytes);
    } else {
      const std::uint64_t offset = address & ~kWindowMask;
      switch (address & kWindowMask) {
        case kSharedWindow:
          return block->shared(*this, i, offset, bytes, write);
        case kLocalWindow:
          return block->local(*this, i, offset, bytes, write);
        case kParamWindow:
          return block->parameter(*this, i, offset, bytes);
        default:
          return block->global(*this, i, address, bytes, write, false);
      }
    }
  }
}

template std::byte* Lane::memory<Space::generic>(const Instruction&, std::size_t, bool);
template std::byte* Lane::memory<Space::global>(const Instruction&, std::size_t, bool);
template std::byte* Lane::memory<Space::constant>(const Instruction&, std::size_t, bool);
template std::byte* Lane::memory<Space::shared>(const Instruction&, std::size_t, bool);
template std::byte* Lane::memory<Space::local>(const Instruction&, std::size_t, bool);
template std::byte* Lane::memory<Space::param>(const Instruction&, std::size_t, bool);
template std::byte* Lane::memory<Space::frame>(const Instruction&, std::size_t, bool);

// ---- Block: threads ----

Block::Block(const Launch& launch)
    : launch_(launch),
      threads_(launch.block[0] * launch.block[1] * launch.block[2]),
      registers_(threads_ * launch.kernel->slots, kUnset),
      lanes_(threads_),
      clocks_(threads_),
      warp_order_((threads_ + kWarp - 1) / kWarp),
      lane_order_(kWarp),
      random_(settings_.seed ^ launch.operation),
      recent_(launch.module->code.size(), nullptr) {
  const Function& kernel = *launch.kernel;
  for (std::uint32_t t = 0; t < threads_; ++t) {
    Lane& lane = lanes_[t];
    lane.block = this;
    lane.thread = static_cast<std::uint16_t>(t);
    lane.registers = registers_.data() + t * kernel.slots;
    lane.entry_frame.resize(kernel.frame_bytes);
    lane.frame = lane.entry_frame.data();
    preset(lane, kernel, false);
  }
  shared_.reset(kernel.shared_bytes + launch.dynamic_shared);
  shared_histories_.resize(shared_.bytes.size() / 4 + 1);
}

std::uint64_t Block::instructions() const {
  std::uint64_t sum = 0;
  for (const Lane& lane : lanes_) sum += lane.executed;
  return sum;
}

std::uint64_t Block::special(Special which, const Lane& lane) const {
  const auto& [nx, ny, nz] = launch_.block;
  const std::uint32_t t = lane.thread;
  const std::uint32_t eq = 1u << (t % kWarp), lt = eq - 1;
  const std::uint64_t values[] = {// in the order of Special
                                  t % nx,
                                  t / nx % ny,
                                  t / nx / ny,
                                  nx,
                                  ny,
                                  nz,
                                  position_[0],
                                  position_[1],
                                  position_[2],
                                  launch_.grid[0],
                                  launch_.grid[1],
                                  launch_.grid[2],
                                  t % kWarp,
                                  t / kWarp,
                                  warp_order_.size(),
                                  eq,
                                  lt,
                                  eq | lt,
                                  ~(eq | lt),
                                  ~lt,
                                  launch_.kernel->shared_bytes,
                                  launch_.dynamic_shared,
                                  lane.local_base,
                                  0};
  return values[static_cast<std::size_t>(which)];
}

void Block::preset(Lane& lane, const Function& function, bool only_special) {
  for (const Preset& p : function.presets) {
    if (p.is_special) {
      lane.registers[p.slot] = special(p.special, lane) + p.value;
    } else if (!only_special) {
      lane.registers[p.slot] = p.value;
    }
  }
}

void Block::run(std::uint32_t linear_index) {
  const Function& kernel = *launch_.kernel;
  index_ = linear_index;
  position_ = {index_ % launch_.grid[0], index_ / launch_.grid[0] % launch_.grid[1],
               index_ / launch_.grid[0] / launch_.grid[1]};
  shared_generation_ = ++generations;
  shared_.reset(shared_.bytes.size());
  for (Lane& lane : lanes_) {
    lane.next = launch_.module->code.data() + kernel.first;
    lane.state = State::ready;
    lane.epoch = 0;
    if (kernel.local_bytes != 0) lane.local.reset(kernel.local_bytes);
    for (const Slot s : kernel.suspects) lane.registers[s] = kUnset;
    preset(lane, kernel, true);
    ++clocks_[lane.thread][lane.thread % kWarp];
  }
  for (;;) {
    put_in_order(warp_order_, settings_.order, random_);
    for (const std::uint32_t warp : warp_order_) run_warp(warp);
    const auto is = [](State s) { return [s](const Lane& lane) { return lane.state == s; }; };
    if (std::all_of(lanes_.begin(), lanes_.end(), is(State::exited))) return;
    if (std::any_of(lanes_.begin(), lanes_.end(), is(State::ready))) continue;
    if (!release_barriers()) report_deadlock();
  }
}

void Block::run_warp(std::uint32_t warp) {
  const std::uint32_t first = warp * kWarp, count = std::min(kWarp, threads_ - first);
  bool moved = true;
  while (moved) {
    moved = false;
    put_in_order(lane_order_, settings_.order, random_);
    for (const std::uint32_t l : lane_order_) {
      if (l >= count || lanes_[first + l].state != State::ready) continue;
      lanes_[first + l].run();
      moved = true;
    }
    moved |= release_warp_operations(first, count) || release_active_mask(first, count);
    if (settings_.order == Order::random) return;  // let other warps overtake
  }
}

// ---- Block: warp operations and barriers ----

/// Every thread named in the mask has to arrive at the same instruction with the same mask; for
/// bar.warp.sync the same mask is enough, and threads that are gone do not count.
bool Block::release_warp_operations(std::uint32_t first, std::uint32_t count) {
  bool released = false;
  for (std::uint32_t l = 0; l < count; ++l) {
    const Lane& lane = lanes_[first + l];
    if (lane.state != State::warp) continue;
    const Instruction& i = lane.suspended_at();
    const auto mask = lane.get<std::uint32_t>(i.src[4]);
    if ((mask >> l & 1) == 0) {
      lanes_[first + l].fault(Kind::warp_mask, i, "mask " + hex(mask) + " does not name its lane");
    }
    const bool is_barrier = i.option == static_cast<std::uint32_t>(WarpOperation::barrier);
    std::uint32_t present = 0;
    for (std::uint32_t m = 0; m < kWarp; ++m) {
      if ((mask >> m & 1) == 0) continue;
      if (m >= count || lanes_[first + m].state == State::exited) {
        if (is_barrier) continue;
        lanes_[first + l].fault(
            Kind::warp_mask, i,
            "mask " + hex(mask) + " names lane " + std::to_string(m) +
                (m >= count ? ", which the block does not have" : ", which has returned"));
      }
      const Lane& other = lanes_[first + m];
      const bool arrived =
          other.state == State::warp &&
          (is_barrier ? other.suspended_at().option == i.option : &other.suspended_at() == &i) &&
          other.get<std::uint32_t>(other.suspended_at().src[4]) == mask;
      if (!arrived) {
        present = 0;
        break;
      }
      present |= 1u << m;
    }
    if (present == 0) continue;
    if (is_barrier) {
      join_clocks(first, present);
    } else {
      perform(i, first, present);
    }
    for (std::uint32_t m = 0; m < count; ++m) {
      if ((present >> m & 1) != 0) lanes_[first + m].state = State::ready;
    }
    released = true;
  }
  return released;
}

/// Threads that ask which others run with them are taken together as late as possible: when no
/// thread of the warp can do anything else.
bool Block::release_active_mask(std::uint32_t first, std::uint32_t count) {
  const Instruction* site = nullptr;
  std::uint32_t mask = 0;
  for (std::uint32_t l = 0; l < count; ++l) {
    const Lane& lane = lanes_[first + l];
    if (lane.state == State::ready) return false;
    if (lane.state != State::active_mask) continue;
    if (site == nullptr) site = &lane.suspended_at();
    if (site == &lane.suspended_at()) mask |= 1u << l;
  }
  for (std::uint32_t l = 0; l < count; ++l) {
    if ((mask >> l & 1) == 0) continue;
    lanes_[first + l].set(site->dst[0], mask);
    lanes_[first + l].state = State::ready;
  }
  return mask != 0;
}

void Block::join_clocks(std::uint32_t first, std::uint32_t mask) {
  std::array<std::uint32_t, kWarp> joined{};
  for (std::uint32_t l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const auto& clock = clocks_[first + l];
    for (std::uint32_t k = 0; k < kWarp; ++k) joined[k] = std::max(joined[k], clock[k]);
  }
  for (std::uint32_t l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    clocks_[first + l] = joined;
    ++clocks_[first + l][l];
  }
}

void Block::perform(const Instruction& i, std::uint32_t first, std::uint32_t mask) {
  const auto operation = static_cast<WarpOperation>(i.option & ~kNegatedInput);
  const std::uint64_t negate = (i.option & kNegatedInput) != 0 ? 1 : 0;
  std::array<WarpInput, kWarp> in{};
  for (std::uint32_t l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    const Lane& lane = lanes_[first + l];
    const std::uint64_t value = lane.registers[i.src[0]] ^ negate;
    in[l] = {i.count == 8 ? value : value & 0xffff'ffff, lane.get<std::uint32_t>(i.src[1]),
             lane.get<std::uint32_t>(i.src[2])};
  }
  for (std::uint32_t l = 0; l < kWarp; ++l) {
    if ((mask >> l & 1) == 0) continue;
    Lane& lane = lanes_[first + l];
    const WarpResult result = warp_result(operation, in, mask, l);
    if (!result.defined) {
      lane.fault(Kind::warp_mask, i,
                 "reads lane " + std::to_string(result.value) + ", which mask " + hex(mask) +
                     " does not name");
    }
    lane.registers[i.dst[0]] = result.value;
    lane.registers[i.dst[1]] = result.flag;
  }
}

bool Block::release_barriers() {
  bool released = false;
  const auto exited = static_cast<std::uint32_t>(std::count_if(
      lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.state == State::exited; }));
  for (std::uint32_t id = 0; id < 16; ++id) {
    std::vector<Lane*> waiting;
    for (Lane& lane : lanes_) {
      if (lane.state == State::barrier &&
          lane.get<std::uint32_t>(lane.suspended_at().src[0]) == id) {
        waiting.push_back(&lane);
      }
    }
    if (waiting.empty()) continue;
    const Instruction& i = waiting[0]->suspended_at();
    const std::uint32_t expected =
        i.src[1] == 0 ? threads_ : waiting[0]->get<std::uint32_t>(i.src[1]);
    const bool missing_returned = waiting.size() + exited >= expected;
    if (waiting.size() < expected && !missing_returned) continue;
    if (waiting.size() < expected) {
      report(Kind::barrier, *waiting[0], i,
             std::to_string(exited) + " threads of the block have returned before this barrier");
    }
    for (const Lane* lane : waiting) {
      if (&lane->suspended_at() == &i) continue;
      report(
          Kind::barrier, *lane, lane->suspended_at(),
          "other threads wait at the barrier of " + where(index_, waiting[0]->thread, site_of(i)));
      break;
    }
    std::uint32_t trues = 0, epoch = 0;
    for (const Lane* lane : waiting) {
      const Instruction& at = lane->suspended_at();
      trues += (lane->registers[at.src[2]] & 1) != (at.option >> 8);
      epoch = std::max(epoch, lane->epoch);
    }
    for (Lane* lane : waiting) {
      const Instruction& at = lane->suspended_at();
      switch (static_cast<BarrierReduction>(at.option & 0xff)) {
        case BarrierReduction::none:
          break;
        case BarrierReduction::count:
          lane->set(at.dst[0], trues);
          break;
        case BarrierReduction::all:
          lane->set(at.dst[0], trues == waiting.size());
          break;
        case BarrierReduction::any:
          lane->set(at.dst[0], trues != 0);
          break;
      }
      lane->epoch = epoch + 1;
      lane->state = State::ready;
    }
    released = true;
  }
  return released;
}

void Block::report_deadlock() {
  Lane* stuck = nullptr;
  for (Lane& lane : lanes_) {
    const bool better =
        lane.state == State::warp || (lane.state == State::barrier && stuck == nullptr);
    if (better && (stuck == nullptr || stuck->state != State::warp)) stuck = &lane;
  }
  const Instruction& i = stuck->suspended_at();
  if (stuck->state == State::warp) {
    stuck->fault(Kind::warp_mask, i,
                 "mask " + hex(stuck->get<std::uint32_t>(i.src[4])) +
                     " names lanes that have taken another path and do not come here");
  }
  stuck->fault(Kind::barrier, i, "not all threads of the block reach this barrier");
}

}  // namespace standin::ptx
