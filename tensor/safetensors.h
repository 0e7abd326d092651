#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"
#include "tensor/shape.h"

/// The header of a safetensors file as text and as a struct. Does not touch files or tensors.
namespace mf::detail {

inline constexpr std::int64_t kMaxHeaderBytes = 100'000'000;
inline constexpr std::size_t kMaxTensors = 100'000;
inline constexpr std::size_t kMaxMetadata = 100'000;  // besides the checksums
inline constexpr std::size_t kMaxNameBytes = 4096;

inline constexpr std::string_view kMetadataKey = "__metadata__";
inline constexpr std::string_view kChecksumPrefix = "crc32c.";

/// An element type of the format: how it is called, its size in the file and what it becomes here.
struct StoredType {
  std::string_view name;
  std::int64_t bytes;
  DType dtype;
  void (*convert)(std::span<const std::byte> from, std::byte* to);  // null: the bytes are the same
};

/// The element type that holds `dtype` as it is.
const StoredType& stored_as(DType dtype);

struct HeaderEntry {
  std::string name;
  const StoredType* type = nullptr;
  Shape shape;
  std::int64_t begin = 0;  // of its bytes, counted from the end of the header
  std::int64_t end = 0;
};

struct Header {
  std::vector<HeaderEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// The text of `header`, padded with spaces so that the data after it are aligned to 8 bytes.
std::string format_header(const Header& header);

/// The header that `text` describes. Throws Error for whatever the format or our limits do not
/// allow.
Header parse_header(const std::string& text);

/// Orders the entries by their data. Throws Error unless these fill `data_bytes` exactly, without
/// hole or overlap, each as its shape says.
void arrange_by_data(Header& header, std::int64_t data_bytes);

/// A name as messages show it: harmless on a terminal and not too long.
std::string in_quotes(std::string_view name);

}  // namespace mf::detail
