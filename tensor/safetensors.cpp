#include "tensor/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

namespace mf::detail {
namespace {

using Bytes = std::span<const std::byte>;

float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

float from_f16(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t fraction = bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  const std::uint32_t wide = exponent == 0x1f ? 0xffu : exponent + 127 - 15;
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

std::int32_t from_i64(std::int64_t value) {
  const auto narrow = static_cast<std::int32_t>(value);
  check(narrow == value, "an I64 value does not fit i32; {}; store smaller numbers or F64", value);
  return narrow;
}

template <auto convert, class From, class To>
void convert_all(Bytes from, std::byte* to) {
  for (; !from.empty(); from = from.subspan(sizeof(From)), to += sizeof(To)) {
    From value;
    std::memcpy(&value, from.data(), sizeof(From));
    const To converted = convert(value);
    std::memcpy(to, &converted, sizeof(To));
  }
}

constexpr std::array kStoredTypes{
    StoredType{"F32", 4, DType::f32, nullptr},
    StoredType{"F64", 8, DType::f64, nullptr},
    StoredType{"I32", 4, DType::i32, nullptr},
    StoredType{"U8", 1, DType::u8, nullptr},
    StoredType{"BF16", 2, DType::f32, convert_all<from_bf16, std::uint16_t, float>},
    StoredType{"F16", 2, DType::f32, convert_all<from_f16, std::uint16_t, float>},
    StoredType{"I64", 8, DType::i32, convert_all<from_i64, std::int64_t, std::int32_t>},
};

/// Builds a Header from the events of the JSON parser and refuses whatever the format has no place
/// for; so nothing nests deeper than three levels, and no tree is built of what a file claims.
class HeaderParser : public nlohmann::json_sax<nlohmann::json> {
 public:
  Header take() { return std::move(header_); }

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a truth value"); }
  bool number_integer(std::int64_t value) override {
    unexpected(fmt::format("a negative number ({})", value));
  }
  bool number_float(double, const std::string& text) override {
    unexpected(fmt::format("no 64-bit integer ({})", in_quotes(text)));
  }
  bool binary(binary_t&) override { unexpected("binary"); }

  bool number_unsigned(std::uint64_t value) override {
    if (place_ != Place::shape && place_ != Place::offsets) unexpected("a number");
    if (value > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
      fail("header: a number is too large; {} in {}; the limit is 2^63 - 1", value, where());
    const auto number = static_cast<std::int64_t>(value);
    HeaderEntry& entry = header_.entries.back();
    if (place_ == Place::shape) {
      if (entry.shape.rank() == Shape::kMaxRank)
        fail("header: too many dimensions; {} has more than {}; merge some before saving", where(),
             Shape::kMaxRank);
      entry.shape.append(number);
    } else {
      if (offsets_ == 2)
        fail("header: too many numbers; {} has more than 2; {}", where(), kDamaged);
      (offsets_++ == 0 ? entry.begin : entry.end) = number;
    }
    return true;
  }

  bool string(std::string& value) override {
    if (place_ == Place::metadata) {
      header_.metadata[key_] = std::move(value);
    } else if (place_ == Place::tensor && key_ == "dtype") {
      const auto* type = std::ranges::find(kStoredTypes, value, &StoredType::name);
      if (type == kStoredTypes.end())
        fail("header: dtype is not supported; {} is {}; {}", where(), in_quotes(value),
             "store F32, F64, I32 or U8 (BF16, F16 and I64 are converted)");
      header_.entries.back().type = type;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::root;
    } else if (place_ != Place::root) {
      unexpected("an object");
    } else if (key_ == kMetadataKey) {
      place_ = Place::metadata;
    } else {
      place_ = Place::tensor;
      fields_.clear();
      header_.entries.emplace_back().name = key_;
    }
    return true;
  }

  bool key(std::string& key) override {
    key_ = std::move(key);
    if (place_ == Place::root) {
      name_key();
    } else if (place_ == Place::metadata) {
      metadata_key();
    } else {
      field_key();
    }
    return true;
  }

  bool end_object() override {
    if (place_ == Place::tensor && fields_.size() < kFields.size())
      fail("header: a field is missing; tensor {} has {} of {}; {}",
           in_quotes(header_.entries.back().name), fmt::join(fields_, ", "),
           fmt::join(kFields, ", "), kDamaged);
    place_ = place_ == Place::root ? Place::outside : Place::root;
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || key_ == "dtype") unexpected("an array");
    place_ = key_ == "shape" ? Place::shape : Place::offsets;
    offsets_ = 0;
    return true;
  }

  bool end_array() override {
    if (place_ == Place::offsets && offsets_ < 2)
      fail("header: too few numbers; {} has {} of 2; {}", where(), offsets_, kDamaged);
    place_ = Place::tensor;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // "[class.id] parse error at line 1, column 7: reason; last read: 'bytes of the file'"
    std::string_view reason = error.what();
    reason = reason.substr(0, reason.find("; last read"));
    if (const auto colon = reason.find(": "); colon != reason.npos) reason.remove_prefix(colon + 2);
    constexpr std::size_t kShown = 160;
    fail("header: not valid JSON; {} at byte {}; {}", reason.substr(0, kShown), position, kDamaged);
  }

 private:
  enum class Place { outside, root, metadata, tensor, shape, offsets };
  static constexpr std::array<std::string_view, 3> kFields{"dtype", "shape", "data_offsets"};
  static constexpr std::string_view kDamaged = "the file is damaged or not safetensors";

  void name_key() {
    if (key_.size() > kMaxNameBytes)
      fail("header: a name is too long; {}; the limit is {}", in_quotes(key_), kMaxNameBytes);
    if (!names_.insert(key_).second)
      fail("header: duplicate key; {}; {}", in_quotes(key_), kDamaged);
    if (key_ != kMetadataKey && header_.entries.size() == kMaxTensors)
      fail("header: too many tensors; more than {}; split the file", kMaxTensors);
  }

  void metadata_key() {
    constexpr std::size_t kMaxKeyBytes = kChecksumPrefix.size() + kMaxNameBytes;
    constexpr std::size_t kMaxKeys = kMaxMetadata + kMaxTensors + 1;
    if (key_.size() > kMaxKeyBytes)
      fail("header: a metadata key is too long; {}; the limit is {}", in_quotes(key_),
           kMaxKeyBytes);
    if (!header_.metadata.emplace(key_, "").second)
      fail("header: duplicate key; {}; {}", where(), kDamaged);
    if (header_.metadata.size() > kMaxKeys)
      fail("header: too much metadata; more than {} keys; shorten it", kMaxKeys);
  }

  void field_key() {
    const auto* field = std::ranges::find(kFields, key_);
    if (field == kFields.end())
      fail("header: unknown field; {}; a tensor has {}", where(), fmt::join(kFields, ", "));
    if (!fields_.insert(*field).second) fail("header: duplicate key; {}; {}", where(), kDamaged);
  }

  std::string where() const {
    if (place_ == Place::outside) return "the outermost value";
    if (place_ == Place::root) return in_quotes(key_);
    if (place_ == Place::metadata) return fmt::format("{}, {}", kMetadataKey, in_quotes(key_));
    return fmt::format("tensor {}, {}", in_quotes(header_.entries.back().name), in_quotes(key_));
  }

  std::string_view wanted() const {
    if (place_ == Place::outside || place_ == Place::root) return "an object";
    if (place_ == Place::metadata) return "a string";
    if (place_ == Place::tensor) return key_ == "dtype" ? "a string" : "an array";
    return "a number from 0 on";
  }

  [[noreturn]] void unexpected(std::string_view what) const {
    fail("header: wrong kind of value; {} is {}, not {}; {}", where(), what, wanted(), kDamaged);
  }

  Header header_;
  Place place_ = Place::outside;
  std::string key_;
  std::set<std::string> names_;
  std::set<std::string_view> fields_;  // of the tensor being read
  int offsets_ = 0;                    // read so far
};

std::string json_string(std::string_view text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    fail("a text is not valid UTF-8; {}; names and metadata must be", in_quotes(text));
  }
}

/// What the shape says. Throws Error on overflow.
std::int64_t stored_bytes(const HeaderEntry& entry) {
  // Also what it becomes must fit 64 bits, and the strides of an empty tensor: 0 counts as 1 here.
  std::int64_t bytes = std::max(entry.type->bytes, size_of(entry.type->dtype));
  for (const std::int64_t extent : entry.shape)
    if (__builtin_mul_overflow(bytes, std::max<std::int64_t>(extent, 1), &bytes))
      fail("header: tensor {} is too large; {}{}; its bytes must fit 64 bits",
           in_quotes(entry.name), entry.type->name, entry.shape);
  return entry.shape.elements() * entry.type->bytes;
}

}  // namespace

std::string in_quotes(std::string_view name) {
  constexpr std::size_t kShown = 80;
  std::size_t shown = std::min(name.size(), kShown);
  const auto inside_character = [&] { return (name[shown] & 0xc0) == 0x80; };  // of UTF-8
  while (shown > 0 && shown < name.size() && inside_character()) --shown;
  std::string text = "'";
  for (const char c : name.substr(0, shown)) {
    const auto code = static_cast<unsigned char>(c);
    text += code < 0x20 || code == 0x7f ? fmt::format("\\x{:02x}", code) : std::string(1, c);
  }
  return text + (shown < name.size() ? fmt::format("...' ({} bytes)", name.size()) : "'");
}

const StoredType& stored_as(DType dtype) {
  return *std::ranges::find(kStoredTypes, dtype, &StoredType::dtype);  // the first is unconverted
}

std::string format_header(const Header& header) {
  std::string text = fmt::format("{{{}:{{", json_string(kMetadataKey));
  std::string_view separator;
  for (const auto& [key, value] : header.metadata) {
    text += fmt::format("{}{}:{}", separator, json_string(key), json_string(value));
    separator = ",";
  }
  text += '}';
  for (const HeaderEntry& entry : header.entries)
    text += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                        json_string(entry.name), entry.type->name, fmt::join(entry.shape, ","),
                        entry.begin, entry.end);
  text += '}';
  while (text.size() % 8 != 0) text += ' ';
  check(std::ssize(text) <= kMaxHeaderBytes, "the header is too long; {} of at most {} bytes; {}",
        text.size(), kMaxHeaderBytes, "shorten the metadata");
  return text;
}

Header parse_header(const std::string& text) {
  check(text.starts_with('{'), "header: does not start with '{{'; {}; not a safetensors file",
        in_quotes(text.substr(0, 1)));
  // The parser would take a NUL for the end of the text and ignore what follows it.
  const std::size_t nul = text.find('\0');
  check(nul == text.npos, "header: not valid JSON; NUL at byte {}; the file is damaged", nul);
  HeaderParser parser;
  nlohmann::json::sax_parse(text, &parser);
  return parser.take();
}

void arrange_by_data(Header& header, std::int64_t data_bytes) {
  std::ranges::stable_sort(header.entries, {},
                           [](const HeaderEntry& e) { return std::pair(e.begin, e.end); });
  std::int64_t position = 0;
  for (const HeaderEntry& entry : header.entries) {
    const auto refuse = [&](std::string_view fact, const std::string& expected) {
      fail("header: tensor {} {}; data_offsets [{}, {}], {}; the file is damaged",
           in_quotes(entry.name), fact, entry.begin, entry.end, expected);
    };
    const auto begin = [&] { return fmt::format("should begin at {}", position); };
    if (entry.begin < position) refuse("overlaps the one before", begin());
    if (entry.begin > position) refuse("leaves a hole before it", begin());
    if (entry.end < entry.begin) refuse("ends before it begins", begin());
    const std::int64_t bytes = stored_bytes(entry);
    if (entry.end - entry.begin != bytes)
      refuse("has not the size of its shape",
             fmt::format("{}{} is {} bytes", entry.type->name, describe(entry.shape), bytes));
    position = entry.end;
  }
  check(position <= data_bytes, "the data are cut off; {} of {} bytes; the file is incomplete",
        data_bytes, position);
  check(position == data_bytes, "bytes follow the data; {} instead of {}; the file is damaged",
        data_bytes, position);
}

}  // namespace mf::detail
