#include "tensor/cpu/isa.h"

#include <array>
#include <cstring>

#include "tensor/backend.h"
#include "tensor/cpu/tables.h"
#include "tensor/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace mf {
namespace {

constexpr std::array kAll{Isa::portable, Isa::avx2, Isa::avx512};

bool available(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && available(Isa::avx2);
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    case Isa::portable:
      break;
  }
#endif
  return isa == Isa::portable;
}

const Backend& table_of(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::avx512) return cpu_kernels::avx512::table();
  if (isa == Isa::avx2) return cpu_kernels::avx2::table();
#endif
  return cpu_kernels::portable::table();
}

void require_available(Isa isa) {
  check(available(isa), "isa: this processor ({}) cannot run {}; the widest it can is {}",
        processor_name(), name_of(isa), name_of(available_isas().back()));
}

Isa& current() {
  static Isa isa = available_isas().back();
  return isa;
}

}  // namespace

std::string_view name_of(Isa isa) {
  constexpr std::array<std::string_view, 3> names{"portable", "avx2", "avx512"};
  return names[static_cast<std::size_t>(isa)];
}

Isa isa_named(std::string_view name) {
  for (const Isa isa : kAll)
    if (name == name_of(isa)) return isa;
  fail("isa: '{}' is not one of portable, avx2 and avx512", name);
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : kAll)
    if (available(isa)) isas.push_back(isa);
  return isas;
}

Isa current_isa() { return current(); }

void set_isa(Isa isa) {
  require_available(isa);
  current() = isa;
  register_backend(Device::Kind::cpu, &table_of(isa));
}

IsaTraits traits_of(Isa isa) {
  require_available(isa);
#if defined(__x86_64__)
  if (isa == Isa::avx512) return cpu_kernels::avx512::traits();
  if (isa == Isa::avx2) return cpu_kernels::avx2::traits();
#endif
  return cpu_kernels::portable::traits();
}

FmaLoop fma_loop(DType dtype) {
#if defined(__x86_64__)
  if (current_isa() == Isa::avx512) return cpu_kernels::avx512::fma_loop(dtype);
  if (current_isa() == Isa::avx2) return cpu_kernels::avx2::fma_loop(dtype);
#endif
  return cpu_kernels::portable::fma_loop(dtype);
}

std::string processor_name() {
#if defined(__x86_64__)
  std::array<unsigned, 12> words{};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* const w = words.data() + 4 * static_cast<std::size_t>(i);
    if (__get_cpuid(0x80000002U + i, w, w + 1, w + 2, w + 3) == 0) return "";
  }
  std::array<char, sizeof words + 1> text{};
  std::memcpy(text.data(), words.data(), sizeof words);
  const std::string name = text.data();
  const std::size_t begin = name.find_first_not_of(' ');
  return begin == std::string::npos ? ""
                                    : name.substr(begin, name.find_last_not_of(' ') - begin + 1);
#else
  return "";
#endif
}

const Backend& cpu_backend() { return table_of(current_isa()); }

}  // namespace mf
