#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

/// PTX decoded for execution: what the parser makes and the interpreter runs.
namespace standin::ptx {

struct Lane;
struct Instruction;
struct Function;
using Handler = void (*)(Lane&, const Instruction&);
/// Index of a 64-bit cell of a thread's register file. Constants and special registers have cells
/// too, so that every operand is read alike. Cell 0 takes results that nobody wants.
using Slot = std::uint16_t;

/// A register that is read before it was written is recognised by this value.
constexpr std::uint64_t kUnset = 0x7ff4'dead'b0b5'1ed5;

/// Generic addresses of spaces that are not device memory; the low bits are the offset.
constexpr std::uint64_t kWindowMask = 0xff00'0000'0000'0000;
constexpr std::uint64_t kSharedWindow = 0x5100'0000'0000'0000;
constexpr std::uint64_t kLocalWindow = 0x5200'0000'0000'0000;
constexpr std::uint64_t kParamWindow = 0x5300'0000'0000'0000;

enum class Space : std::uint8_t { generic, global, constant, shared, local, param, frame };
enum class Guard : std::uint8_t { none, if_true, if_false };
/// How control and unset values pass through an instruction.
enum class Role : std::uint8_t { ordinary, move, selection, jump };

struct Instruction {
  Handler execute = nullptr;
  std::int64_t offset = 0;   ///< added to the address in `base`; an index for calls and tables
  std::int32_t jump = 0;     ///< distance to the target of a branch
  std::uint32_t option = 0;  ///< meaning depends on the handler
  Slot dst[4] = {};
  Slot src[5] = {};
  Slot base = 0;
  Slot predicate = 0;
  Guard guard = Guard::none;
  Role role = Role::ordinary;
  Space space = Space::generic;
  std::uint8_t count = 1;  ///< elements of a vector access
  bool strong = false;     ///< volatile, relaxed, acquire, release: exempt from the race check
};

/// Where an instruction comes from, for messages.
struct Origin {
  std::string text;  ///< the PTX
  int ptx_line = 0;
  std::string file;  ///< of the CUDA source; empty without -lineinfo
  int line = 0;
};

enum class Special : std::uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  lanemask_eq,
  lanemask_lt,
  lanemask_le,
  lanemask_gt,
  lanemask_ge,
  dynamic_shared,
  dynamic_shared_size,
  local,
  clock
};

/// A cell filled before a function runs: a constant, or a special value plus a constant.
struct Preset {
  Slot slot;
  bool is_special;
  Special special;
  std::uint64_t value;
};

struct Parameter {
  std::string name;
  std::size_t offset, size;
};

struct Function {
  std::string name;
  bool entry = false;
  bool defined = false;
  std::string error;                ///< why it cannot run; empty if it can
  std::size_t first = 0, last = 0;  ///< its instructions in Module::code
  std::size_t slots = 1;
  std::vector<Preset> presets;
  std::vector<Slot> suspects;  ///< registers that some path reads before it writes them
  std::vector<Parameter> parameters;
  std::vector<Parameter> results;
  std::size_t parameter_bytes = 0;  ///< of an entry
  std::size_t frame_bytes = 0;  ///< parameters and results of a function, arguments of its calls
  std::size_t shared_bytes = 0, local_bytes = 0;
  int max_threads = 1024;
  int registers = 0;
};

struct Copy {
  std::size_t caller, callee, size;
};
struct CallSite {
  const Function* function = nullptr;
  std::vector<Copy> arguments, results;
};

struct Variable {
  std::string name;
  bool constant = false;
  std::size_t size = 0;
  std::uint64_t address = 0;
};

struct Module {
  int target = 0;
  std::vector<Instruction> code;
  std::vector<Origin> origins;  ///< parallel to `code`
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::map<std::string, Variable> variables;
  std::vector<CallSite> calls;
  std::vector<std::vector<std::int32_t>> jump_tables;
};

struct ParseError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Decodes one module. Its variables are placed in device memory. A function that uses something
/// unknown keeps the message in Function::error; text that is no PTX throws ParseError.
std::unique_ptr<Module> parse(const std::string& text);

}  // namespace standin::ptx
