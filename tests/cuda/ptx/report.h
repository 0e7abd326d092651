#pragma once

#include <cstdint>
#include <string>

#include "standin.h"

namespace standin {

void report(Kind kind, const std::string& text);
/// True the first time this pair of places meets: one report for a race, not one for each thread.
bool first_of_pair(const void* module, std::uint32_t a, std::uint32_t b);
std::string demangle(const std::string& name);
std::string hex(std::uint64_t value);

}  // namespace standin
