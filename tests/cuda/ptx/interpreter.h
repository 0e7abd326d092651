#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "memory.h"
#include "program.h"
#include "standin.h"

namespace standin::ptx {

using Dim3 = std::array<std::uint32_t, 3>;

struct Launch {
  const Module* module = nullptr;
  const Function* kernel = nullptr;
  Dim3 grid{}, block{};
  std::size_t dynamic_shared = 0;
  std::vector<std::byte> parameters;
  std::uint32_t operation = 0;  ///< see streams.h
};

/// What ends a kernel before its time; already reported.
struct Fault {
  Kind kind;
};

/// Runs all blocks of a launch, one after another, and returns the number of instructions. Throws
/// Fault.
std::uint64_t execute(const Launch& launch);

class Block;

/// Bytes with a flag each that tells whether they were written: shared and local arrays.
struct TrackedBytes {
  std::vector<std::byte> bytes;
  std::vector<std::uint8_t> written;
  void reset(std::size_t size) {
    bytes.assign(size, std::byte{0xff});
    written.assign(size, 0);
  }
  void grow(std::size_t size) {
    bytes.resize(size, std::byte{0xff});
    written.resize(size, 0);
  }
};

enum class State : std::uint8_t { ready, warp, active_mask, barrier, exited };

/// One call of a .func.
struct Frame {
  const Instruction* back = nullptr;
  const CallSite* site = nullptr;
  std::uint64_t* caller_registers = nullptr;
  std::byte* caller_frame = nullptr;
  std::uint64_t caller_local = 0;
  std::vector<std::uint64_t> registers;
  std::vector<std::byte> bytes;
};

/// One thread.
struct Lane {
  std::uint64_t* registers = nullptr;
  const Instruction* next = nullptr;
  State state = State::ready;
  bool carry = false;
  std::uint16_t thread = 0;  ///< linear index in the block
  std::uint32_t epoch = 0;   ///< barriers passed
  std::uint64_t executed = 0;
  Block* block = nullptr;
  std::byte* frame = nullptr;  ///< parameters, results and arguments of the running function
  std::uint64_t local_base = 0;
  TrackedBytes local;
  std::vector<std::byte> entry_frame;
  std::deque<Frame> frames;

  template <class T>
  T get(Slot slot) const {
    if constexpr (std::is_same_v<T, bool>) return (registers[slot] & 1) != 0;
    T value;
    std::memcpy(&value, &registers[slot], sizeof value);
    return value;
  }
  /// Integers are extended to the whole cell, so that an operand of any width reads them right.
  template <class T>
  void set(Slot slot, T value) {
    if constexpr (std::is_signed_v<T> && std::is_integral_v<T>) {
      registers[slot] = static_cast<std::uint64_t>(static_cast<std::int64_t>(value));
    } else if constexpr (std::is_integral_v<T>) {
      registers[slot] = value;
    } else {
      std::uint64_t cell = 0;
      std::memcpy(&cell, &value, sizeof value);
      registers[slot] = cell;
    }
  }

  /// The instruction that suspended the thread.
  const Instruction& suspended_at() const { return next[-1]; }

  /// Runs until the thread has to wait or ends.
  void run();
  /// Where `bytes` bytes of the instruction's address lie, after all checks.
  template <Space kSpace>
  std::byte* memory(const Instruction& i, std::size_t bytes, bool write);
  void call(const CallSite& site);
  /// Ends the thread, or returns to the caller.
  void leave();
  /// Reports and throws Fault.
  [[noreturn]] void fault(Kind kind, const Instruction& i, const std::string& text);
};

/// One block: its threads take turns until all have returned.
class Block {
 public:
  explicit Block(const Launch& launch);

  void run(std::uint32_t linear_index);

  const Launch& launch() const { return launch_; }
  std::uint64_t max_instructions() const { return settings_.max_instructions; }
  std::uint64_t instructions() const;

  std::byte* global(Lane& lane, const Instruction& i, std::uint64_t address, std::size_t bytes,
                    bool write, bool constant);
  std::byte* shared(Lane& lane, const Instruction& i, std::uint64_t offset, std::size_t bytes,
                    bool write);
  std::byte* local(Lane& lane, const Instruction& i, std::uint64_t offset, std::size_t bytes,
                   bool write);
  std::byte* parameter(Lane& lane, const Instruction& i, std::uint64_t offset, std::size_t bytes);

  /// Fills the constants and special registers of a function.
  void preset(Lane& lane, const Function& function, bool only_special);
  void report(Kind kind, const Lane& lane, const Instruction& i, const std::string& text);

 private:
  /// Of shared and local memory.
  std::byte* tracked(TrackedBytes& memory, const char* space, const char* owner, Lane& lane,
                     const Instruction& i, std::uint64_t offset, std::size_t bytes, bool write);
  std::uint64_t special(Special which, const Lane& lane) const;
  std::string where(std::uint32_t block, std::uint32_t thread, std::uint32_t site) const;
  std::uint32_t site_of(const Instruction& i) const {
    return static_cast<std::uint32_t>(&i - launch_.module->code.data());
  }

  void check_race(Lane& lane, const Instruction& i, AccessHistory* history,
                  std::uint32_t generation, std::uint64_t address, std::size_t bytes, bool write,
                  const char* space);
  void run_warp(std::uint32_t warp);
  bool release_warp_operations(std::uint32_t first, std::uint32_t count);
  bool release_active_mask(std::uint32_t first, std::uint32_t count);
  void perform(const Instruction& i, std::uint32_t first, std::uint32_t mask);
  void join_clocks(std::uint32_t first, std::uint32_t mask);
  bool release_barriers();
  [[noreturn]] void report_deadlock();

  const Launch& launch_;
  const Settings settings_ = settings();
  std::uint32_t threads_;
  std::uint32_t index_ = 0;
  Dim3 position_{};
  std::vector<std::uint64_t> registers_;
  std::vector<Lane> lanes_;
  std::vector<std::array<std::uint32_t, 32>> clocks_;  // see races.h
  std::vector<std::uint32_t> warp_order_, lane_order_;
  std::mt19937_64 random_;
  TrackedBytes shared_;
  std::vector<AccessHistory> shared_histories_;
  std::uint32_t shared_generation_ = 0;
  std::vector<const Allocation*> recent_;  // the allocation each instruction used last
};

}  // namespace standin::ptx
