#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace mf {

/// Named tensors in order, and free text metadata: what one safetensors file holds.
struct TensorFile {
  std::vector<std::pair<std::string, Tensor>> tensors;  ///< by name; names are distinct
  std::map<std::string, std::string> metadata;          ///< what `__metadata__` holds

  /// The tensor of this name. Throws Error naming what is missing and what is there.
  const Tensor& at(const std::string& name) const;
};

/// What `load` asks of a file's CRC32C sums.
enum class Checksums {
  required,    ///< our files: the header and every tensor must carry its right CRC32C
  if_present,  ///< foreign files: verified where there, not asked for
};

/// Writes `file` as one safetensors file: to a temporary beside `path`, synced and renamed over it,
/// so that `path` holds either the old or the new content whatever happens. Same content, same
/// bytes.
/// `__metadata__` gets "crc32c.header" (of the header, its own eight digits taken as zeros) and a
/// "crc32c.NAME" for each tensor; so "crc32c." may begin no metadata key of yours, and no tensor
/// may be named "header". Views and tensors of other devices are written as row-major tensors.
/// Throws Error naming the path and the system's reason; the old file is then intact and no
/// temporary is left.
void save(const std::string& path, const TensorFile& file);

/// Reads a safetensors file: tensors on the cpu in the order of their data, metadata without the
/// checksums. F32, F64, I32 and U8 are read as they are; BF16 and F16 become f32, I64 becomes i32
/// if every value fits. Every size is checked against the file before a tensor is allocated;
/// hostile or damaged files give an Error that names the path, the field and the values.
TensorFile load(const std::string& path, Checksums checksums = Checksums::required);

/// The whole content of a regular file. Throws Error naming the path and the system's reason.
std::string read_file(const std::string& path);

/// Replaces the content of `path` in the same all-or-nothing way.
void write_file_atomically(const std::string& path, std::string_view content);

}  // namespace mf
