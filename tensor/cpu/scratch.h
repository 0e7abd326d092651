#pragma once

#include <cstdint>

#include "tensor/cpu/target.h"
#include "tensor/memory.h"

namespace mf::cpu_kernels::MEMFORMER_ISA {

/// `count` uninitialised elements for the life of the object, from the counted allocator; none for
/// what a kernel does without.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : bytes_(count * static_cast<std::int64_t>(sizeof(T))),
        data_(count > 0 ? static_cast<T*>(detail::allocate(cpu, bytes_, Category::workspace))
                        : nullptr) {}
  ~Scratch() {
    if (data_ != nullptr) detail::deallocate(cpu, data_, bytes_, Category::workspace);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() const { return data_; }

 private:
  std::int64_t bytes_;
  T* data_;
};

}  // namespace mf::cpu_kernels::MEMFORMER_ISA
