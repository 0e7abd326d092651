#include "tensor/io.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <set>
#include <span>

#include "tensor/crc32c.h"
#include "tensor/file.h"
#include "tensor/safetensors.h"

namespace mf {
namespace {

using detail::Header;
using detail::HeaderEntry;
using detail::in_quotes;

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

constexpr std::int64_t kLengthBytes = 8;  // what precedes the header
constexpr std::string_view kNoDigits = "00000000";
/// The header's checksum is kept as if it were that of a tensor of this name.
constexpr std::string_view kHeaderName = "header";

std::string checksum_key(std::string_view name) {
  return fmt::format("{}{}", detail::kChecksumPrefix, name);
}

std::string digits(std::uint32_t checksum) { return fmt::format("{:08x}", checksum); }

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// Where the digits of the header's own checksum begin. Quotes inside JSON strings are escaped, so
/// what is found is the entry itself.
std::size_t own_digits(std::string_view header) {
  const std::string key = fmt::format("\"{}\":\"", checksum_key(kHeaderName));
  const std::size_t found = header.find(key);
  return found == header.npos ? found : found + key.size();
}

/// Does `work`, and puts `context` before the text of any Error.
template <class Work>
auto within(const std::string& context, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    throw Error(context + ": " + error.what());
  }
}

// --- Saving -------------------------------------------------------------------------------------

/// That what is saved can be loaded again.
void check_content(const TensorFile& file) {
  check(file.tensors.size() <= detail::kMaxTensors, "too many tensors; {} of at most {}; {}",
        file.tensors.size(), detail::kMaxTensors, "split the file");
  check(file.metadata.size() <= detail::kMaxMetadata,
        "too much metadata; {} of at most {} keys; {}", file.metadata.size(), detail::kMaxMetadata,
        "shorten it");
  std::set<std::string_view> names;
  for (const auto& [name, tensor] : file.tensors) {
    check(name.size() <= detail::kMaxNameBytes, "a name is too long; {}; the limit is {}",
          in_quotes(name), detail::kMaxNameBytes);
    check(name != detail::kMetadataKey && name != kHeaderName,
          "a tensor has a reserved name; {}; rename it", in_quotes(name));
    check(names.insert(name).second, "duplicate tensor name; {}; rename one", in_quotes(name));
    check(tensor.defined(), "a tensor is undefined; {}; give it a value or leave it out",
          in_quotes(name));
  }
  for (const auto& [key, value] : file.metadata) {
    check(key.size() <= detail::kMaxNameBytes, "a metadata key is too long; {}; the limit is {}",
          in_quotes(key), detail::kMaxNameBytes);
    check(!key.starts_with(detail::kChecksumPrefix),
          "a metadata key is reserved; {}; keys of checksums begin with {}", in_quotes(key),
          detail::kChecksumPrefix);
  }
}

/// Header of `file` with zeros for all checksums, which have the same length as the real ones.
Header describe_content(const TensorFile& file) {
  Header header{.entries = {}, .metadata = file.metadata};
  header.metadata[checksum_key(kHeaderName)] = kNoDigits;
  std::int64_t position = 0;
  for (const auto& [name, tensor] : file.tensors) {
    const std::int64_t end = position + tensor.bytes();
    header.entries.push_back(
        {name, &detail::stored_as(tensor.dtype()), tensor.shape(), position, end});
    header.metadata[checksum_key(name)] = kNoDigits;
    position = end;
  }
  return header;
}

void write_tensors(const std::string& path, const TensorFile& file) {
  check_content(file);
  Header header = describe_content(file);
  std::int64_t position = kLengthBytes + std::ssize(detail::format_header(header));

  detail::Replacement replacement(path);
  for (const auto& [name, any_tensor] : file.tensors) {
    const CategoryScope scope(Category::workspace);
    const Tensor tensor = any_tensor.to(cpu).contiguous();
    const std::span bytes(static_cast<const std::byte*>(tensor.raw_data()),
                          static_cast<std::size_t>(tensor.bytes()));
    replacement.write(position, bytes);
    position += tensor.bytes();
    header.metadata[checksum_key(name)] = digits(detail::crc32c(bytes));
  }

  std::string text = detail::format_header(header);
  text.replace(own_digits(text), kNoDigits.size(), digits(detail::crc32c(bytes_of(text))));
  const std::uint64_t length = text.size();
  replacement.write(0, std::as_bytes(std::span(&length, 1)));
  replacement.write(kLengthBytes, bytes_of(text));
  replacement.commit();
}

// --- Loading ------------------------------------------------------------------------------------

std::string read_header(const detail::InputFile& input) {
  check(input.size() >= kLengthBytes, "too short for a safetensors file; {} bytes; at least {}",
        input.size(), kLengthBytes);
  std::uint64_t length = 0;
  input.read(0, std::as_writable_bytes(std::span(&length, 1)));
  check(length <= std::uint64_t{detail::kMaxHeaderBytes},
        "the header is too long; {} of at most {} bytes; the file is damaged or not safetensors",
        length, detail::kMaxHeaderBytes);
  check(static_cast<std::int64_t>(length) <= input.size() - kLengthBytes,
        "the header does not fit the file; {} of {} bytes; the file is cut off or damaged", length,
        input.size());
  std::string header(length, '\0');
  input.read(kLengthBytes, std::as_writable_bytes(std::span(header)));
  return header;
}

/// Compares the checksum stored for `name`, if there is one, with the right one.
void check_checksum(const Header& header, std::string_view name, std::uint32_t right) {
  const auto stored = header.metadata.find(checksum_key(name));
  if (stored == header.metadata.end() || stored->second == digits(right)) return;
  fail("wrong checksum; {} is {} but should be {}; the file is damaged", in_quotes(stored->first),
       in_quotes(stored->second), digits(right));
}

/// Takes `text` by value because its checksum was computed with zeros in place of its digits.
void check_own_checksum(const Header& header, std::string text) {
  if (!header.metadata.contains(checksum_key(kHeaderName))) return;
  const std::size_t place = own_digits(text);
  check(place != text.npos, "unreadable checksum; {} is not written as by save; {}",
        in_quotes(checksum_key(kHeaderName)), "the header was rewritten, remove its checksums");
  text.replace(place, kNoDigits.size(), kNoDigits);
  check_checksum(header, kHeaderName, detail::crc32c(bytes_of(text)));
}

/// That each checksum has its tensor and, where required, the header and each tensor a checksum.
void check_checksum_keys(const Header& header, Checksums checksums) {
  std::set<std::string> known{checksum_key(kHeaderName)};
  for (const HeaderEntry& entry : header.entries) known.insert(checksum_key(entry.name));
  for (const auto& [key, value] : header.metadata)
    check(!key.starts_with(detail::kChecksumPrefix) || known.contains(key),
          "a checksum has no tensor; {}; the header was rewritten", in_quotes(key));
  if (checksums == Checksums::if_present) return;
  for (const std::string& key : known)
    check(header.metadata.contains(key),
          "missing checksum; {} is not in {}; for files of others use Checksums::if_present",
          in_quotes(key), detail::kMetadataKey);
}

/// Reads the bytes at `position`, converts them where the type asks for it, and checks their sum.
Tensor read_tensor(const detail::InputFile& input, const Header& header, const HeaderEntry& entry,
                   std::int64_t position) {
  constexpr std::int64_t kChunk = 1 << 20;  // still in the cache when its checksum is computed
  const detail::StoredType& type = *entry.type;
  Tensor tensor = empty(entry.shape, type.dtype);
  auto* to = static_cast<std::byte*>(tensor.mutable_raw_data());
  std::vector<std::byte> unconverted(type.convert ? kChunk : 0);
  std::uint32_t checksum = 0;
  const std::int64_t bytes = entry.end - entry.begin;
  for (std::int64_t done = 0; done < bytes; done += kChunk) {
    const std::int64_t size = std::min(kChunk, bytes - done);
    const std::span chunk(type.convert ? unconverted.data() : to, static_cast<std::size_t>(size));
    input.read(position + done, chunk);
    checksum = detail::crc32c(chunk, checksum);
    if (type.convert) type.convert(chunk, to);
    to += size / type.bytes * size_of(type.dtype);
  }
  check_checksum(header, entry.name, checksum);
  return tensor;
}

TensorFile read_tensors(const std::string& path, Checksums checksums) {
  const detail::InputFile input(path);
  const std::string text = read_header(input);
  const std::int64_t data_begin = kLengthBytes + std::ssize(text);
  Header header = detail::parse_header(text);
  check_own_checksum(header, text);
  check_checksum_keys(header, checksums);
  detail::arrange_by_data(header, input.size() - data_begin);

  TensorFile file;
  file.tensors.reserve(header.entries.size());
  for (const HeaderEntry& entry : header.entries)
    file.tensors.emplace_back(entry.name, within("tensor " + in_quotes(entry.name), [&] {
                                return read_tensor(input, header, entry, data_begin + entry.begin);
                              }));
  for (auto& [key, value] : header.metadata)
    if (!key.starts_with(detail::kChecksumPrefix)) file.metadata.emplace(key, std::move(value));
  return file;
}

}  // namespace

const Tensor& TensorFile::at(const std::string& name) const {
  for (const auto& [own_name, tensor] : tensors)
    if (own_name == name) return tensor;
  constexpr std::size_t kShown = 10;
  std::string names;
  for (std::size_t i = 0; i < std::min(tensors.size(), kShown); ++i)
    names += (i == 0 ? ": " : ", ") + in_quotes(tensors[i].first);
  fail("at: no tensor is named {}; the file holds {}{}{}; check the name", in_quotes(name),
       tensors.size(), names, tensors.size() > kShown ? ", ..." : "");
}

void save(const std::string& path, const TensorFile& file) {
  within("save: " + path, [&] { write_tensors(path, file); });
}

TensorFile load(const std::string& path, Checksums checksums) {
  return within("load: " + path, [&] { return read_tensors(path, checksums); });
}

std::string read_file(const std::string& path) {
  return within("read_file: " + path, [&] {
    const detail::InputFile input(path);
    std::string content(static_cast<std::size_t>(input.size()), '\0');
    input.read(0, std::as_writable_bytes(std::span(content)));
    return content;
  });
}

void write_file_atomically(const std::string& path, std::string_view content) {
  within("write_file_atomically: " + path, [&] {
    detail::Replacement replacement(path);
    replacement.write(0, bytes_of(content));
    replacement.commit();
  });
}

}  // namespace mf
