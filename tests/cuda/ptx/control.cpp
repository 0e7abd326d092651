#include <utility>

#include "decode.h"
#include "interpreter.h"
#include "warp.h"

/// Branches, calls, barriers and operations of a warp.
namespace standin::ptx {

namespace {

using u32 = std::uint32_t;

void branch(Lane& l, const Instruction& i) { l.next = &i + i.jump; }

void branch_indexed(Lane& l, const Instruction& i) {
  const auto& table = l.block->launch().module->jump_tables[static_cast<std::size_t>(i.offset)];
  const u32 index = l.get<u32>(i.src[0]);
  if (index >= table.size()) l.fault(Kind::out_of_bounds, i, "no such branch target");
  l.next = &i + table[index];
}

void call(Lane& l, const Instruction& i) {
  l.call(l.block->launch().module->calls[static_cast<std::size_t>(i.offset)]);
}
void leave(Lane& l, const Instruction&) { l.leave(); }
void exit_thread(Lane& l, const Instruction&) { l.state = State::exited; }
void trap(Lane& l, const Instruction& i) { l.fault(Kind::trap, i, "trap"); }
void nothing(Lane&, const Instruction&) {}

void wait_for_warp(Lane& l, const Instruction&) { l.state = State::warp; }
void wait_for_active_mask(Lane& l, const Instruction&) { l.state = State::active_mask; }
void wait_at_barrier(Lane& l, const Instruction&) { l.state = State::barrier; }

template <Handler kHandler, Role kRole = Role::ordinary>
bool decode_plain(Opcode& o, Instruction& i) {
  o.take("uni");
  i.execute = kHandler;
  i.role = kRole;
  return true;
}

/// Operands: src[0] the barrier, src[1] the number of threads, src[2] the predicate of a reduction.
bool decode_barrier(Opcode& o, Instruction& i) {
  const bool negated = i.option != 0;
  if (o.take("warp")) {
    if (!o.take("sync")) return false;
    i.src[4] = std::exchange(i.src[0], Slot{0});
    i.option = static_cast<u32>(WarpOperation::barrier);
    i.execute = wait_for_warp;
    return true;
  }
  o.take("cta"), o.take("aligned");
  i.execute = wait_at_barrier;
  if (o.take("sync")) {
    i.option = static_cast<u32>(BarrierReduction::none);
    return true;
  }
  if (!o.take("red")) return false;
  const int which = o.take("popc") ? 0 : o.take_any("and", "or") + 1;
  if (which == 0 && o.type() != Type::u32) return false;
  if (i.src[2] == 0) i.src[2] = std::exchange(i.src[1], Slot{0});  // the count is optional
  i.option = static_cast<u32>(which + 1) | (negated ? 1u << 8 : 0u);
  return true;
}

/// Operands: src[0..2] as WarpInput, src[4] the mask; Instruction::count the bytes of the value.
bool warp_operation(Instruction& i, WarpOperation operation) {
  i.option = static_cast<u32>(operation);
  i.execute = wait_for_warp;
  return true;
}

bool decode_shfl(Opcode& o, Instruction& i) {
  static constexpr WarpOperation kModes[] = {WarpOperation::shuffle_idx, WarpOperation::shuffle_up,
                                             WarpOperation::shuffle_down,
                                             WarpOperation::shuffle_xor};
  const int mode = o.take_any("idx", "up", "down", "bfly");
  if (!o.take("sync") || mode < 0 || o.type() != Type::u32) return false;
  i.src[4] = i.src[3];
  return warp_operation(i, kModes[mode]);
}

bool decode_vote(Opcode& o, Instruction& i) {
  static constexpr WarpOperation kModes[] = {WarpOperation::ballot, WarpOperation::any,
                                             WarpOperation::all, WarpOperation::uniform};
  const bool negated = i.option != 0;
  const int mode = o.take_any("ballot", "any", "all", "uni");
  if (!o.take("sync") || mode < 0) return false;
  i.src[4] = std::exchange(i.src[1], Slot{0});
  warp_operation(i, kModes[mode]);
  if (negated) i.option |= kNegatedInput;
  return true;
}

bool decode_match(Opcode& o, Instruction& i) {
  const int mode = o.take_any("any", "all");
  if (!o.take("sync") || mode < 0) return false;
  i.src[4] = std::exchange(i.src[1], Slot{0});
  i.count = static_cast<std::uint8_t>(size_of(o.type()));
  return warp_operation(i, mode == 0 ? WarpOperation::match_any : WarpOperation::match_all);
}

bool decode_redux(Opcode& o, Instruction& i) {
  const bool is_signed = o.type() == Type::s32;
  if (!o.take("sync") || size_of(o.type()) != 4) return false;
  i.src[4] = std::exchange(i.src[1], Slot{0});
  switch (o.take_any("add", "min", "max", "and", "or", "xor")) {
    case 0:
      return warp_operation(i, WarpOperation::reduce_add);
    case 1:
      return warp_operation(
          i, is_signed ? WarpOperation::reduce_min_s32 : WarpOperation::reduce_min_u32);
    case 2:
      return warp_operation(
          i, is_signed ? WarpOperation::reduce_max_s32 : WarpOperation::reduce_max_u32);
    case 3:
      return warp_operation(i, WarpOperation::reduce_and);
    case 4:
      return warp_operation(i, WarpOperation::reduce_or);
    case 5:
      return warp_operation(i, WarpOperation::reduce_xor);
    default:
      return false;
  }
}

/// Fences order nothing that running one thread at a time has not ordered already.
bool decode_fence(Opcode& o, Instruction& i) {
  o.take_any("sc", "acq_rel");
  o.take_any("cta", "gl", "sys", "gpu", "cluster");
  i.execute = nothing;
  return true;
}

}  // namespace

const DecoderTable& control_decoders() {
  static const DecoderTable kTable = {
      {"bra", decode_plain<branch, Role::jump>},
      {"brx",
       [](Opcode& o, Instruction& i) {
         return o.take("idx") && decode_plain<branch_indexed, Role::jump>(o, i);
       }},
      {"call", decode_plain<call>},
      {"ret", decode_plain<leave, Role::jump>},
      {"exit", decode_plain<exit_thread, Role::jump>},
      {"trap", decode_plain<trap, Role::jump>},
      {"brkpt", decode_plain<nothing>},
      {"nanosleep", decode_plain<nothing>},
      {"bar", decode_barrier},
      {"barrier", decode_barrier},
      {"membar", decode_fence},
      {"fence", decode_fence},
      {"shfl", decode_shfl},
      {"vote", decode_vote},
      {"match", decode_match},
      {"redux", decode_redux},
      {"activemask", decode_plain<wait_for_active_mask>},
  };
  return kTable;
}

}  // namespace standin::ptx
