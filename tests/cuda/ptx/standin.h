#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

/// Controls of the stand-in for the CUDA runtime and cuBLAS: a test that links it in place of the
/// real libraries runs nvcc's own object files, and launches interpret the PTX inside them.
namespace standin {

/// What a check found.
enum class Kind {
  race,             ///< two unordered accesses to one address, at least one a plain write
  stream_order,     ///< work on two streams touches the same memory with no event between
  uninitialised,    ///< memory read before it was written
  unset_register,   ///< register read before it was written
  out_of_bounds,    ///< outside the allocation, shared or local array, or parameters
  use_after_free,   ///< memory that was freed
  unknown_address,  ///< no device memory: a host pointer, say
  misaligned,       ///< address is no multiple of the access size
  barrier,          ///< barrier that not all threads of the block reach at the same place
  warp_mask,        ///< warp operation whose mask names exited, absent or diverged lanes
  launch,           ///< launch outside the limits of a device
  argument,         ///< wrong argument of a runtime or cuBLAS call
  trap,             ///< trap instruction or failed device assertion
  unsupported,      ///< PTX that the interpreter does not know
  leak              ///< memory, stream, event or handle left at exit
};
const char* name_of(Kind kind);

struct Report {
  Kind kind;
  std::string text;
};

/// Order in which blocks, warps and lanes take turns.
enum class Order { forward, reverse, random };

/// Read at each call or launch; change them between launches. The environment sets the start
/// values: STANDIN_ORDER=forward|reverse|random:SEED, STANDIN_ARCH=75, STANDIN_CHECKS=0,
/// STANDIN_STATISTICS=1 (counters on stderr at exit).
struct Settings {
  Order order = Order::forward;
  std::uint64_t seed = 1;
  int arch = 0;  ///< run the PTX of the highest target up to this one; 0: of the highest
  bool races = true;
  bool uninitialised = true;
  bool lazy = true;   ///< work runs only when something waits for it
  bool leaks = true;  ///< leaks at exit are reports
  bool print = true;  ///< reports go to stderr as they come
  int devices = 1;
  std::size_t device_memory = std::size_t{1} << 30;
  std::uint64_t max_instructions = 20'000'000'000;  ///< of one launch; more counts as endless
};
Settings& settings();

/// The reports since the last call. A program that ends with reports not taken exits with 1.
std::vector<Report> take_reports();

/// The `nth` call from now (1 = the next) of the runtime or cuBLAS function `call` does nothing and
/// returns `code`. One request per function; nth = 0 withdraws it.
void fail(const std::string& call, std::uint64_t nth, int code);

struct Counters {
  std::uint64_t launches = 0;
  std::uint64_t instructions = 0;
};
struct Statistics {
  Counters total;
  std::map<std::string, Counters> kernels;     ///< by demangled name
  std::map<std::string, std::uint64_t> calls;  ///< runtime and cuBLAS functions
};
const Statistics& statistics();
void reset_statistics();

/// What the program holds now.
struct Live {
  std::size_t allocations = 0, bytes = 0, host_allocations = 0;
  std::size_t streams = 0, events = 0, handles = 0;
};
Live live();

/// Clears a sticky error, as a new process would. Memory and handles stay.
void clear_error();

/// For allocators that hand out cached memory again: `bytes` at `data` count as never written and
/// hold NaN bits from now on.
void forget(void* data, std::size_t bytes);

}  // namespace standin
