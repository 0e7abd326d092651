#include <algorithm>
#include <bit>

#include "decode.h"
#include "interpreter.h"

/// Loads, stores, atomics and address conversions.
namespace standin::ptx {

namespace {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

template <class T, Space kSpace>
void load(Lane& l, const Instruction& i) {
  const std::byte* from = l.memory<kSpace>(i, sizeof(T) * i.count, false);
  for (u32 n = 0; n < i.count; ++n) {
    T value;
    std::memcpy(&value, from + n * sizeof(T), sizeof value);
    l.set(i.dst[n], value);
  }
}

template <class T, Space kSpace>
void store(Lane& l, const Instruction& i) {
  std::byte* to = l.memory<kSpace>(i, sizeof(T) * i.count, true);
  for (u32 n = 0; n < i.count; ++n) {
    const T value = l.get<T>(i.src[n]);
    std::memcpy(to + n * sizeof(T), &value, sizeof value);
  }
}

template <class T>
Handler access_in(Space space, bool is_load) {
  switch (space) {
    case Space::generic:
      return is_load ? load<T, Space::generic> : store<T, Space::generic>;
    case Space::global:
      return is_load ? load<T, Space::global> : store<T, Space::global>;
    case Space::shared:
      return is_load ? load<T, Space::shared> : store<T, Space::shared>;
    case Space::local:
      return is_load ? load<T, Space::local> : store<T, Space::local>;
    case Space::frame:
      return is_load ? load<T, Space::frame> : store<T, Space::frame>;
    case Space::constant:
      return is_load ? load<T, Space::constant> : nullptr;
    case Space::param:
      return is_load ? load<T, Space::param> : nullptr;
  }
  return nullptr;
}

/// Space from the name; `i.space` from the parser tells parameters of entries from frames.
Space take_space(Opcode& o, const Instruction& i) {
  const bool block = o.take("shared");
  o.take("cta");
  if (block) return Space::shared;
  if (o.take("global")) return Space::global;
  if (o.take("local")) return Space::local;
  if (o.take("const")) return Space::constant;
  if (o.take("param")) return i.space == Space::frame ? Space::frame : Space::param;
  return Space::generic;
}

/// Memory order and cache hints. Orders are honoured by running one thread at a time; they exempt
/// an access from the race check, as atomics are.
bool take_order(Opcode& o) {
  o.take_any("cta", "cluster", "gpu", "sys");
  o.take_any("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc");
  o.take_any("L1::evict_first", "L1::evict_last", "L1::no_allocate", "L1::evict_normal",
             "L1::evict_unchanged");
  o.take_any("L2::64B", "L2::128B", "L2::256B");
  if (o.take("weak")) return false;
  return o.take_any("volatile", "relaxed", "acquire", "release") >= 0;
}

template <bool kIsLoad>
bool decode_access(Opcode& o, Instruction& i) {
  i.space = take_space(o, i);
  i.strong = take_order(o);
  const int vector = o.take_any("v2", "v4");
  if ((vector < 0 ? 1 : vector == 0 ? 2 : 4) != i.count) return false;
  const Type type = o.type() == Type::f32                             ? Type::u32
                    : o.type() == Type::f64                           ? Type::u64
                    : o.type() == Type::f16 || o.type() == Type::bf16 ? Type::u16
                                                                      : o.type();
  i.execute = for_type<std::uint8_t, std::uint16_t, u32, u64, std::int8_t, std::int16_t,
                       std::int32_t, std::int64_t>(
      type, [&]<class T>() -> Handler { return access_in<T>(i.space, kIsLoad); });
  return i.execute != nullptr;
}

// ---- Atomics ----

struct AtomicAdd {
  template <class T>
  static T apply(T old, T b, T) {
    if constexpr (std::is_floating_point_v<T>)
      return old + b;
    else
      return static_cast<T>(static_cast<u64>(old) + static_cast<u64>(b));
  }
};
struct AtomicMin {
  template <class T>
  static T apply(T old, T b, T) {
    return std::min(old, b);
  }
};
struct AtomicMax {
  template <class T>
  static T apply(T old, T b, T) {
    return std::max(old, b);
  }
};
struct AtomicAnd {
  template <class T>
  static T apply(T old, T b, T) {
    return old & b;
  }
};
struct AtomicOr {
  template <class T>
  static T apply(T old, T b, T) {
    return old | b;
  }
};
struct AtomicXor {
  template <class T>
  static T apply(T old, T b, T) {
    return old ^ b;
  }
};
struct AtomicExchange {
  template <class T>
  static T apply(T, T b, T) {
    return b;
  }
};
struct AtomicCompare {
  template <class T>
  static T apply(T old, T b, T c) {
    return old == b ? c : old;
  }
};
struct AtomicIncrement {
  template <class T>
  static T apply(T old, T b, T) {
    return old >= b ? T{0} : old + 1;
  }
};
struct AtomicDecrement {
  template <class T>
  static T apply(T old, T b, T) {
    return old == 0 || old > b ? b : old - 1;
  }
};

template <class T, class F, Space kSpace>
void atomic(Lane& l, const Instruction& i) {
  // First as a read, so that an accumulator that nobody has set is reported.
  l.memory<kSpace>(i, sizeof(T), false);
  std::byte* at = l.memory<kSpace>(i, sizeof(T), true);
  T old;
  std::memcpy(&old, at, sizeof old);
  const T value = F::apply(old, l.get<T>(i.src[0]), l.get<T>(i.src[1]));
  std::memcpy(at, &value, sizeof value);
  l.set(i.dst[0], old);
}

template <class F, class... Ts>
Handler atomic_handler(Type type, Space space) {
  return for_type<Ts...>(type, [&]<class T>() -> Handler {
    switch (space) {
      case Space::global:
        return atomic<T, F, Space::global>;
      case Space::shared:
        return atomic<T, F, Space::shared>;
      case Space::generic:
        return atomic<T, F, Space::generic>;
      default:
        return nullptr;
    }
  });
}

bool decode_atomic(Opcode& o, Instruction& i) {
  using s32 = std::int32_t;
  using s64 = std::int64_t;
  const Space space = i.space = take_space(o, i);
  o.take_any("relaxed", "acquire", "release", "acq_rel");
  o.take_any("cta", "cluster", "gpu", "sys");
  o.take("noftz");
  i.strong = true;
  const Type t = o.type();
  switch (o.take_any("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")) {
    case 0:
      i.execute = atomic_handler<AtomicAdd, u32, s32, u64, float, double>(t, space);
      break;
    case 1:
      i.execute = atomic_handler<AtomicMin, u32, s32, u64, s64>(t, space);
      break;
    case 2:
      i.execute = atomic_handler<AtomicMax, u32, s32, u64, s64>(t, space);
      break;
    case 3:
      i.execute = atomic_handler<AtomicAnd, u32, u64>(t, space);
      break;
    case 4:
      i.execute = atomic_handler<AtomicOr, u32, u64>(t, space);
      break;
    case 5:
      i.execute = atomic_handler<AtomicXor, u32, u64>(t, space);
      break;
    case 6:
      i.execute = atomic_handler<AtomicExchange, u32, u64>(t, space);
      break;
    case 7:
      i.execute = atomic_handler<AtomicCompare, u32, u64>(t, space);
      break;
    case 8:
      i.execute = atomic_handler<AtomicIncrement, u32>(t, space);
      break;
    case 9:
      i.execute = atomic_handler<AtomicDecrement, u32>(t, space);
      break;
    default:
      return false;
  }
  return i.execute != nullptr;
}

// ---- Address conversions ----

u64 window_of(Space space) {
  switch (space) {
    case Space::shared:
      return kSharedWindow;
    case Space::local:
      return kLocalWindow;
    case Space::param:
      return kParamWindow;
    default:
      return 0;
  }
}

void to_generic(Lane& l, const Instruction& i) {
  l.set(i.dst[0], l.registers[i.src[0]] | window_of(i.space));
}
void from_generic(Lane& l, const Instruction& i) {
  const u64 address = l.registers[i.src[0]];
  const u64 window = window_of(i.space);
  if (window != 0 && (address & kWindowMask) != window) {
    l.fault(Kind::unknown_address, i, "the address is of another space");
  }
  l.set(i.dst[0], window == 0 ? address : address & ~kWindowMask);
}

bool decode_cvta(Opcode& o, Instruction& i) {
  i.execute = o.take("to") ? from_generic : to_generic;
  i.space = take_space(o, i);
  return i.space != Space::generic && o.type() == Type::u64;
}

void nothing(Lane&, const Instruction&) {}

}  // namespace

const DecoderTable& memory_decoders() {
  static const DecoderTable kTable = {
      {"ld", decode_access<true>},
      {"ldu", decode_access<true>},
      {"st", decode_access<false>},
      {"atom", decode_atomic},
      {"red", decode_atomic},
      {"cvta", decode_cvta},
      {"prefetch",
       [](Opcode& o, Instruction& i) {
         o.take_any("global", "local");
         o.take_any("L1", "L2");
         return i.execute = nothing, true;
       }},
  };
  return kTable;
}

}  // namespace standin::ptx
