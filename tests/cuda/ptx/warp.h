#pragma once

#include <array>
#include <cstdint>

/// Operations in which the threads of a warp exchange values.
namespace standin::ptx {

enum class WarpOperation : std::uint32_t {
  barrier,
  shuffle_idx,
  shuffle_up,
  shuffle_down,
  shuffle_xor,
  ballot,
  any,
  all,
  uniform,
  match_any,
  match_all,
  reduce_add,
  reduce_min_u32,
  reduce_max_u32,
  reduce_min_s32,
  reduce_max_s32,
  reduce_and,
  reduce_or,
  reduce_xor
};

enum class BarrierReduction : std::uint32_t { none, count, all, any };

/// Added to the operation in Instruction::option: the predicate is negated.
constexpr std::uint32_t kNegatedInput = 256;

/// What a thread brings: its value (of a vote: the predicate); for shuffles also the lane operand
/// and the packed segment mask and clamp.
struct WarpInput {
  std::uint64_t value = 0;
  std::uint32_t b = 0, c = 0;
};

struct WarpResult {
  std::uint64_t value = 0;
  bool flag = false;    ///< second result: shuffle in range, all values match
  bool defined = true;  ///< false: `value` is the lane that would be read but does not take part
};

/// The result of lane `lane` when the lanes of `mask` have arrived.
WarpResult warp_result(WarpOperation operation, const std::array<WarpInput, 32>& in,
                       std::uint32_t mask, std::uint32_t lane);

}  // namespace standin::ptx
