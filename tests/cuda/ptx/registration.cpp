#include <cstring>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "program.h"
#include "runtime.h"

/// What nvcc's host code calls from static constructors: fat binaries, kernels and variables. The
/// PTX inside is parsed when a kernel or variable is first needed.
namespace standin {

namespace {

struct PtxText {
  int target;
  std::string_view text;
};

struct FatBinary {
  std::vector<PtxText> texts;
  bool has_other_code = false;
  std::map<int, std::unique_ptr<ptx::Module>> modules;  // by target

  /// The module of the highest target that the settings allow; nullptr if there is none.
  const ptx::Module* module();
};

struct Registered {
  FatBinary* binary;
  std::string name;
};

struct Registry {
  std::vector<std::unique_ptr<FatBinary>> binaries;
  std::map<const void*, Registered> functions, variables;
};
Registry& registry() {
  static Registry* r = new Registry;  // used before and after the statics of this file live
  return *r;
}

template <class T>
T read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// A fat binary is a header of 16 bytes (its own size at 6, the payload's at 8), then entries: kind
/// at 0 (1 is PTX), header size at 4, payload size at 8, target at 28, flags at 40.
std::unique_ptr<FatBinary> read_fat_binary(const std::byte* data) {
  constexpr std::uint16_t kPtx = 1;
  constexpr std::uint64_t kCompressed = 0x2000;
  auto binary = std::make_unique<FatBinary>();
  const std::byte* at = data + read<std::uint16_t>(data + 6);
  const std::byte* end = at + read<std::uint64_t>(data + 8);
  while (at < end) {
    const auto header = read<std::uint32_t>(at + 4);
    const auto size = read<std::uint64_t>(at + 8);
    const bool compressed = (read<std::uint64_t>(at + 40) & kCompressed) != 0;
    const std::string_view payload(reinterpret_cast<const char*>(at + header), size);
    if (read<std::uint16_t>(at) == kPtx && !compressed) {
      binary->texts.push_back(
          {static_cast<int>(read<std::uint32_t>(at + 28)), payload.substr(0, payload.find('\0'))});
    } else {
      binary->has_other_code = true;
    }
    at += header + size;
  }
  return binary;
}

const ptx::Module* FatBinary::module() {
  const PtxText* best = nullptr;
  const int limit = settings().arch == 0 ? 1'000'000 : settings().arch;
  for (const PtxText& t : texts) {
    if (t.target <= limit && (best == nullptr || t.target > best->target)) best = &t;
  }
  if (best == nullptr) {
    report(Kind::unsupported,
           std::string("the object has no plain PTX for the target asked for") +
               (has_other_code ? "; build with a virtual architecture and --no-compress" : ""));
    return nullptr;
  }
  auto& module = modules[best->target];
  if (module == nullptr) {
    try {
      module = ptx::parse(std::string(best->text));
    } catch (const ptx::ParseError& e) {
      report(Kind::unsupported, e.what());
      module = std::make_unique<ptx::Module>();
    }
  }
  return module.get();
}

struct CallConfiguration {
  dim3 grid, block;
  std::size_t shared;
  cudaStream_t stream;
};
thread_local std::vector<CallConfiguration> configurations;

}  // namespace

bool find_kernel(const void* host, KernelReference& kernel) {
  const auto found = registry().functions.find(host);
  if (found == registry().functions.end()) return false;
  const ptx::Module* module = found->second.binary->module();
  if (module == nullptr) return false;
  const auto function = module->functions.find(found->second.name);
  if (function == module->functions.end()) return false;
  kernel = {module, function->second.get()};
  return true;
}

const ptx::Variable* find_variable(const void* host) {
  const auto found = registry().variables.find(host);
  if (found == registry().variables.end()) return nullptr;
  const ptx::Module* module = found->second.binary->module();
  if (module == nullptr) return nullptr;
  const auto variable = module->variables.find(found->second.name);
  return variable == module->variables.end() ? nullptr : &variable->second;
}

}  // namespace standin

using namespace standin;

// The toolkit declares these only for the code that nvcc generates.
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  const auto* data = read<const std::byte*>(static_cast<const std::byte*>(wrapper) + 8);
  auto& binaries = registry().binaries;
  binaries.push_back(read_fat_binary(data));
  (void)settings();  // its exit handler then runs after all that is registered later
  return reinterpret_cast<void**>(binaries.back().get());
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 1; }

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  registry().functions[host] = {reinterpret_cast<FatBinary*>(binary), name};
}
void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t, int, int) {
  registry().variables[host] = {reinterpret_cast<FatBinary*>(binary), name};
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configurations.empty()) return cudaErrorMissingConfiguration;
  const CallConfiguration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared = c.shared;
  std::memcpy(stream, &c.stream, sizeof c.stream);
  return cudaSuccess;
}

/// Kernel handles are the host pointers themselves.
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
}
