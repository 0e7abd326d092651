#include "tensor/io.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <thread>

#include "tensor/crc32c.h"
#include "tests/file_size_limit.h"

namespace {

namespace fs = std::filesystem;
using namespace mf;

/// A folder of this process, removed at its end.
const fs::path& folder() {
  struct Folder {
    fs::path path = fs::temp_directory_path() / fmt::format("memformer-io-{}", ::getpid());
    Folder() { fs::create_directories(path); }
    ~Folder() {
      std::error_code ignored;
      fs::remove_all(path, ignored);
    }
  };
  static const Folder own;
  return own.path;
}

std::string path_of(const std::string& name) { return (folder() / name).string(); }

std::string read_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const std::string& path, std::string_view bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// A safetensors file from its parts.
std::string assemble(std::string_view header, std::string_view data = "") {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes.append(header).append(data);
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// The text of the Error that `work` throws; "" if it throws none.
template <class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::string load_error(std::string_view bytes, Checksums checksums = Checksums::if_present) {
  const std::string path = path_of("hostile");
  write_bytes(path, bytes);
  return error_of([&] { load(path, checksums); });
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

void require_same(const TensorFile& a, const TensorFile& b) {
  CHECK(a.metadata == b.metadata);
  REQUIRE(a.tensors.size() == b.tensors.size());
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    CAPTURE(a.tensors[i].first);
    CHECK(a.tensors[i].first == b.tensors[i].first);
    CHECK(b.tensors[i].second.is_contiguous());
    CHECK(first_difference(a.tensors[i].second, b.tensors[i].second) == -1);
  }
}

TensorFile small_checkpoint() {
  return {.tensors = {{"w", from_host<float>({1.5f, -2.0f, 3.25f}, {3})},
                      {"steps", from_host<std::int32_t>({7}, {})}},
          .metadata = {{"kind", "checkpoint"}}};
}

TensorFile checkpoint_of_every_kind() {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {.tensors = {{"mask", from_host<std::uint8_t>({0, 1, 255}, {3})},
                      {"values", from_host<float>({-0.0f, 1e-40f, nan, INFINITY}, {2, 2})},
                      {"", from_host<double>({1.0 / 3, -1e300}, {2, 1, 1, 1, 1, 1})},
                      {"ids", from_host<std::int32_t>({-2147483647 - 1, 2147483647}, {1, 2})},
                      {"empty", empty({0, 5}, DType::f32)},
                      {"scalar", scalar(2.5, DType::f64)},
                      {"quote\" back\\slash \n \xc3\xa9", empty({0}, DType::u8)}},
          .metadata = {{"config", "{\"layers\": 4}"}, {"", ""}, {"k\xc3\xa9y", "crc32c.header"}}};
}

std::vector<std::string> names_in_folder() {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(folder())) names.push_back(item.path().filename());
  return names;
}

bool leaves_no_temporary() {
  for (const std::string& name : names_in_folder())
    if (contains(name, ".tmp-")) return false;
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("tensor");

TEST_CASE("io: crc32c gives the published check value and continues over parts") {
  const std::string digits = "123456789";
  const auto bytes = std::as_bytes(std::span(digits));
  CHECK(detail::crc32c(bytes) == 0xe3069283);
  CHECK(detail::crc32c({}) == 0);
  for (std::size_t cut = 0; cut <= digits.size(); ++cut)
    CHECK(detail::crc32c(bytes.subspan(cut), detail::crc32c(bytes.first(cut))) == 0xe3069283);
  const std::vector<std::byte> zeros(32);  // RFC 3720, B.4
  CHECK(detail::crc32c(zeros) == 0x8a9136aa);
}

TEST_CASE("io: every dtype, empty, 0-d and odd names come back as they were") {
  const TensorFile file = checkpoint_of_every_kind();
  const std::string path = path_of("all");
  save(path, file);
  require_same(file, load(path));
  require_same(file, load(path, Checksums::if_present));
}

TEST_CASE("io: a file without tensors or metadata comes back") {
  const std::string path = path_of("nothing");
  save(path, {});
  require_same({}, load(path));
}

TEST_CASE("io: strided views are saved as the row-major tensors they show") {
  const Tensor base = from_host<float>({0, 1, 2, 3, 4, 5}, {2, 3});
  const TensorFile views{.tensors = {{"transposed", base.transpose()},
                                     {"column", base.slice(1, 1, 2)},
                                     {"row", base.slice(0, 1, 2)},
                                     {"repeated", base.slice(1, 0, 1).expand({2, 4})}},
                         .metadata = {}};
  const std::string path = path_of("views");
  save(path, views);
  const TensorFile loaded = load(path);
  require_same(views, loaded);
  CHECK(loaded.at("transposed").to_vector<float>() == std::vector<float>{0, 3, 1, 4, 2, 5});
  CHECK(loaded.at("row").to_vector<float>() == std::vector<float>{3, 4, 5});
}

TEST_CASE("io: tensors larger than the reading chunk come back") {
  std::vector<std::int32_t> values(700'001);
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<std::int32_t>(i * i % 997);
  const TensorFile file{.tensors = {{"odd", from_host<std::uint8_t>({1}, {1})},
                                    {"large", from_host(values, {700'001})}},
                        .metadata = {}};
  const std::string path = path_of("large");
  save(path, file);
  require_same(file, load(path));
}

TEST_CASE("io: the same content gives the same bytes, with the data aligned to 8") {
  const std::string a = path_of("a");
  const std::string b = path_of("b");
  save(a, checkpoint_of_every_kind());
  save(b, load(a));
  const std::string bytes = read_bytes(a);
  CHECK(bytes == read_bytes(b));
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  CHECK(length % 8 == 0);
  CHECK(bytes[8] == '{');
}

TEST_CASE("io: the bytes of a file follow the format to the letter") {
  const std::string path = path_of("exact");
  save(path, {.tensors = {{"w", from_host<std::uint8_t>({1, 2}, {2})}}, .metadata = {{"a", "b"}}});
  const std::string bytes = read_bytes(path);
  const std::string header =
      R"({"__metadata__":{"a":"b","crc32c.header":"########","crc32c.w":"03f89f52"},)"
      R"("w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})";
  const std::size_t digits = bytes.find("header\":\"") + 9;
  std::string expected = assemble(header + std::string(8 - header.size() % 8, ' '), "\x01\x02");
  expected.replace(expected.find('#'), 8, bytes.substr(digits, 8));
  CHECK(bytes == expected);
}

TEST_CASE("io: at() names what is missing and what is there") {
  const TensorFile file = small_checkpoint();
  CHECK(file.at("steps").item() == 7);
  CHECK(error_of([&] { file.at("bias"); }) ==
        "at: no tensor is named 'bias'; the file holds 2: 'w', 'steps'; check the name");
}

TEST_CASE("io: bf16 and f16 are read as f32, i64 as i32") {
  const std::vector<std::uint16_t> bf16{0x3fc0, 0xc000, 0x7f80, 0x0001};
  const std::vector<std::int64_t> i64{-2147483648LL, 2147483647LL};
  const std::string path = path_of("foreign");
  write_bytes(path, assemble(R"({"b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]},)"
                             R"("i":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})",
                             bytes_of(i64) + bytes_of(bf16)));
  const TensorFile file = load(path, Checksums::if_present);
  REQUIRE(file.tensors.size() == 2);
  CHECK(file.tensors[0].first == "i");  // in the order of the data
  CHECK(file.at("i").to_vector<std::int32_t>() ==
        std::vector<std::int32_t>{-2147483647 - 1, 2147483647});
  CHECK(file.at("b").to_vector<float>() ==
        std::vector<float>{1.5f, -2.0f, INFINITY, std::bit_cast<float>(0x00010000)});
}

TEST_CASE("io: every f16 is read as the number it stands for") {
  std::vector<std::uint16_t> patterns(65536);
  for (std::size_t i = 0; i < patterns.size(); ++i) patterns[i] = static_cast<std::uint16_t>(i);
  const std::string path = path_of("f16");
  write_bytes(path, assemble(R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})",
                             bytes_of(patterns)));
  const auto values = load(path, Checksums::if_present).at("h").to_vector<float>();
  REQUIRE(values.size() == patterns.size());
  int wrong = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int exponent = static_cast<int>(i >> 10 & 31);
    const double fraction = static_cast<double>(i & 1023);
    double expected =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) expected = fraction > 0 ? std::nan("") : HUGE_VAL;
    const auto value = static_cast<double>(values[i]);
    const bool same = std::isnan(expected) ? std::isnan(value) : std::abs(value) == expected;
    if (!same || std::signbit(value) != (i >= 32768)) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("io: a file without checksums is refused unless they are optional") {
  const std::string path = path_of("foreign");
  const std::string header = R"({ "w" : {"shape":[1], "dtype":"U8", "data_offsets":[0,1]} })";
  write_bytes(path, assemble(header + "\n\t ", "x"));
  CHECK(load(path, Checksums::if_present).at("w").item() == 'x');
  const std::string text = error_of([&] { load(path); });
  CHECK(text == "load: " + path +
                    ": missing checksum; 'crc32c.header' is not in __metadata__; for files of "
                    "others use Checksums::if_present");
}

TEST_CASE("io: hostile files are rejected, each by its own named error") {
  struct Hostile {
    std::string_view what;
    std::string bytes;
    std::string_view error;
  };
  const std::string length_only(8, '\xff');
  const auto tensor = [](std::string_view fields, std::string_view data = "") {
    return assemble(fmt::format(R"({{"w":{{{}}}}})", fields), data);
  };
  const auto u8 = [&](std::string_view shape, std::string_view offsets,
                      std::string_view data = "") {
    return tensor(fmt::format(R"("dtype":"U8","shape":{},"data_offsets":{})", shape, offsets),
                  data);
  };
  const auto two = [](std::string_view first, std::string_view second, std::string_view data) {
    constexpr std::string_view kPattern = R"({{"a":{{"dtype":"U8","shape":[2],"data_offsets":{}}},)"
                                          R"("b":{{"dtype":"U8","shape":[2],"data_offsets":{}}}}})";
    return assemble(fmt::format(kPattern, first, second), data);
  };
  const auto metadata = [](std::string_view value) {
    return assemble(fmt::format(R"({{"__metadata__":{}}})", value));
  };
  std::string many = "{";
  for (int i = 0; i <= 100'000; ++i)
    many += fmt::format(R"({}"{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                        i == 0 ? "" : ",", i);
  std::string much = R"({"__metadata__":{)";
  for (int i = 0; i <= 200'001; ++i) much += fmt::format(R"({}"{}":"")", i == 0 ? "" : ",", i);
  const std::string long_name(4097, 'n');
  std::string longer_than_file = assemble("{}");
  longer_than_file[0] = 3;
  std::string over_limit = assemble("{}");
  over_limit.replace(0, 4, bytes_of(std::vector<std::int32_t>{100'000'001}));

  const std::vector<Hostile> files{
      {"empty file", "", "too short for a safetensors file; 0 bytes"},
      {"seven bytes", std::string(7, '\0'), "too short for a safetensors file; 7 bytes"},
      {"header 2^64-1", length_only, "the header is too long; 18446744073709551615 of"},
      {"header 2^63", std::string(7, '\0') + '\x80', "is too long; 9223372036854775808 of"},
      {"header over the limit", over_limit, "is too long; 100000001 of at most 100000000"},
      {"header past the file", longer_than_file, "does not fit the file; 3 of 10 bytes"},
      {"empty header", assemble(""), "does not start with '{'; ''"},
      {"array", assemble("[]"), "does not start with '{'; '['"},
      {"leading space", assemble(" {}"), "does not start with '{'; ' '"},
      {"byte order mark", assemble("\xef\xbb\xbf{}"), "does not start with '{'"},
      {"open object", assemble("{"), "not valid JSON; syntax error"},
      {"trailing text", assemble("{} x"), "not valid JSON; syntax error while parsing value"},
      {"two values", assemble("{}{}"), "expected end of input"},
      {"comment", assemble("{/**/}"), "not valid JSON"},
      {"trailing comma", metadata(R"({"a":"b",})"), "not valid JSON"},
      {"NUL and more", assemble(std::string("{}\0{", 4)), "not valid JSON; NUL at byte 2"},
      {"bad UTF-8 in a key", assemble("{\"\xff\":{}}"), "ill-formed UTF-8 byte"},
      {"overlong UTF-8", metadata("{\"a\":\"\xc0\xaf\"}"), "ill-formed UTF-8 byte"},
      {"half a surrogate", metadata(R"({"a":"\ud800"})"), "must be followed by U+DC00..U+DFFF"},
      {"control character", metadata("{\"a\":\"\x01\"}"), "must be escaped"},
      {"duplicate tensor",
       assemble(R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                R"("w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})"),
       "duplicate key; 'w'"},
      {"duplicate by escape",
       assemble(R"({"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0077":{}})"),
       "duplicate key; 'w'"},
      {"duplicate metadata", assemble(R"({"__metadata__":{},"__metadata__":{}})"),
       "duplicate key; '__metadata__'"},
      {"duplicate metadata key", metadata(R"({"a":"b","a":"c"})"),
       "duplicate key; __metadata__, 'a'"},
      {"duplicate field", tensor(R"("dtype":"U8","dtype":"F32")"),
       "duplicate key; tensor 'w', 'dtype'"},
      {"100,001 tensors", assemble(many + "}"), "too many tensors; more than 100000"},
      {"200,002 metadata keys", assemble(much + "}}"), "too much metadata; more than 200001 keys"},
      {"long name", assemble("{\"" + long_name + "\":{}}"), "a name is too long; 'nnn"},
      {"long metadata key", metadata("{\"crc32c." + long_name + "\":\"\"}"),
       "a metadata key is too long; 'crc32c.nnn"},
      {"deep arrays", assemble(R"({"w":{"shape":)" + std::string(100'000, '[')),
       "tensor 'w', 'shape' is an array, not a number from 0 on"},
      {"deep objects", metadata(R"({"a":{"a":{"a":{"a":{}}}}})"),
       "__metadata__, 'a' is an object, not a string"},
      {"deep fields", tensor(R"("dtype":{"dtype":{"dtype":{}}})"),
       "'dtype' is an object, not a string"},
      {"metadata is text", metadata(R"("a")"), "'__metadata__' is a string, not an object"},
      {"metadata is a number", metadata(R"({"a":1})"),
       "__metadata__, 'a' is a number, not a string"},
      {"metadata is null", metadata(R"({"a":null})"), "__metadata__, 'a' is null, not a string"},
      {"metadata is true", metadata(R"({"a":true})"), "'a' is a truth value, not a string"},
      {"tensor is a number", assemble(R"({"w":1})"), "'w' is a number, not an object"},
      {"tensor is an array", assemble(R"({"w":[]})"), "'w' is an array, not an object"},
      {"unknown field", tensor(R"("dtypes":"U8")"), "unknown field; tensor 'w', 'dtypes'"},
      {"no offsets", tensor(R"("dtype":"U8","shape":[0])"), "tensor 'w' has dtype, shape of dtype"},
      {"no fields", tensor(""), "a field is missing; tensor 'w' has  of"},
      {"unknown dtype", tensor(R"("dtype":"F8_E4M3")"),
       "dtype is not supported; tensor 'w', 'dtype' is 'F8_E4M3'"},
      {"lower-case dtype", tensor(R"("dtype":"f32")"),
       "dtype is not supported; tensor 'w', 'dtype' is 'f32'"},
      {"dtype is a list", tensor(R"("dtype":["U8"])"), "'dtype' is an array, not a string"},
      {"shape is a number", tensor(R"("shape":3)"), "'shape' is a number, not an array"},
      {"shape is text", tensor(R"("shape":"3")"), "'shape' is a string, not an array"},
      {"text in the shape", tensor(R"("shape":["3"])"), "'shape' is a string, not a number"},
      {"rank 7", u8("[1,1,1,1,1,1,1]", "[0,1]", "x"), "tensor 'w', 'shape' has more than 6"},
      {"negative extent", u8("[-1]", "[0,1]", "x"), "'shape' is a negative number (-1)"},
      {"float extent", u8("[1.0]", "[0,1]", "x"), "'shape' is no 64-bit integer ('1.0')"},
      {"extent 2^64", u8("[18446744073709551616]", "[0,0]"),
       "no 64-bit integer ('18446744073709551616')"},
      {"extent 2^63", u8("[9223372036854775808]", "[0,0]"),
       "too large; 9223372036854775808 in tensor 'w', 'shape'"},
      {"extent 1e999", u8("[1e999]", "[0,0]"), "number overflow"},
      {"negative offset", u8("[1]", "[-1,0]", "x"), "'data_offsets' is a negative number (-1)"},
      {"float offset", u8("[1]", "[0,1.5]", "x"), "'data_offsets' is no 64-bit integer ('1.5')"},
      {"exponent offset", u8("[1]", "[0,1e0]", "x"), "'data_offsets' is no 64-bit integer ('1e0')"},
      {"one offset", u8("[1]", "[0]", "x"),
       "too few numbers; tensor 'w', 'data_offsets' has 1 of 2"},
      {"three offsets", u8("[1]", "[0,1,1]", "x"), "too many numbers; tensor 'w', 'data_offsets'"},
      {"2^42+1 squared times 2^20", u8("[4398046511105,4398046511105,1048576]", "[0,4]", "data"),
       "too large; U8[4398046511105, 4398046511105, 1048576]"},
      {"product wraps to 0", u8("[4294967296,4294967296]", "[0,0]"),
       "too large; U8[4294967296, 4294967296]"},
      {"bytes overflow",
       tensor(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0])"),
       "too large; F64[2305843009213693952]"},
      {"converted bytes overflow",
       tensor(
           R"("dtype":"BF16","shape":[4611686018427387903],"data_offsets":[0,9223372036854775806])"),
       "too large; BF16[4611686018427387903]"},
      {"strides of an empty tensor overflow", u8("[0,4294967296,4294967296]", "[0,0]"),
       "too large; U8[0, 4294967296, 4294967296]"},
      {"one extent larger than the file", u8("[4398046511105]", "[0,4398046511105]", "x"),
       "the data are cut off; 1 of 4398046511105 bytes"},
      {"size unlike the shape", u8("[3]", "[0,2]", "xx"), "[0, 2], U8[3] is 3 bytes"},
      {"end before begin", two("[0,2]", "[2,1]", "xx"),
       "'b' ends before it begins; data_offsets [2, 1]"},
      {"end far past the file", u8("[9223372036854775807]", "[0,9223372036854775807]", "x"),
       "the data are cut off; 1 of 9223372036854775807"},
      {"overlap", two("[0,2]", "[1,3]", "xxx"),
       "'b' overlaps the one before; data_offsets [1, 3], should begin at 2"},
      {"shared data", two("[0,2]", "[0,2]", "xx"),
       "'b' overlaps the one before; data_offsets [0, 2]"},
      {"hole", two("[0,2]", "[3,5]", "xxxxx"),
       "'b' leaves a hole before it; data_offsets [3, 5], should begin at 2"},
      {"hole at the start", u8("[1]", "[1,2]", "xx"), "'w' leaves a hole before it"},
      {"data missing", u8("[2]", "[0,2]", "x"), "the data are cut off; 1 of 2 bytes"},
      {"tail bytes", u8("[2]", "[0,2]", "xxx"), "bytes follow the data; 3 instead of 2"},
      {"tail without tensors", assemble("{}", "x"), "bytes follow the data; 1 instead of 0"},
      {"i64 too large for i32",
       tensor(R"("dtype":"I64","shape":[1],"data_offsets":[0,8])",
              bytes_of(std::vector<std::int64_t>{2147483648LL})),
       "tensor 'w': an I64 value does not fit i32; 2147483648"},
      {"wrong header checksum", metadata(R"({"crc32c.header":"00000000"})"),
       "wrong checksum; 'crc32c.header' is '00000000' but should be "},
      {"short header checksum", metadata(R"({"crc32c.header":""})"),
       "wrong checksum; 'crc32c.header' is ''"},
      {"rewritten header", metadata(R"({"crc32c.header" : "00000000"})"),
       "unreadable checksum; 'crc32c.header'"},
      {"wrong tensor checksum",
       assemble(R"({"__metadata__":{"crc32c.w":"00000000"},)"
                R"("w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
                "\x01\x02"),
       "tensor 'w': wrong checksum; 'crc32c.w' is '00000000' but should be 03f89f52"},
      {"checksum without tensor", metadata(R"({"crc32c.gone":"00000000"})"),
       "a checksum has no tensor; 'crc32c.gone'"},
      {"terminal escapes in a name", assemble("{\"\\u001b[2J\":1}"), "'\\x1b[2J' is a number"},
  };
  CHECK(files.size() >= 40);
  const std::string prefix = "load: " + path_of("hostile") + ": ";
  for (const Hostile& file : files) {
    CAPTURE(file.what);
    const std::string text = load_error(file.bytes);
    CHECK_MESSAGE(contains(text, file.error), text);
    CHECK(text.starts_with(prefix));
    CHECK(text.size() < 500);
    CHECK(load_error(file.bytes, Checksums::required) != "");
  }
}

TEST_CASE("io: a checksum that is missing for one tensor is named") {
  const std::string path = path_of("partial");
  std::string header = R"({"__metadata__":{"crc32c.header":"00000000"},)"
                       R"("w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
  const std::uint32_t right = detail::crc32c(std::as_bytes(std::span(header)));
  header.replace(header.find("00000000"), 8, fmt::format("{:08x}", right));
  write_bytes(path, assemble(header));
  CHECK(contains(error_of([&] { load(path); }), "missing checksum; 'crc32c.w' is not in"));
  CHECK(load(path, Checksums::if_present).at("w").elements() == 0);
}

TEST_CASE("io: a file cut off at any byte is rejected") {
  const std::string path = path_of("truncated");
  save(path, small_checkpoint());
  const auto size = static_cast<off_t>(fs::file_size(path));
  int accepted = 0;
  for (off_t length = size - 1; length >= 0; --length) {
    REQUIRE(::truncate(path.c_str(), length) == 0);
    for (const Checksums checksums : {Checksums::required, Checksums::if_present})
      if (error_of([&] { load(path, checksums); }).empty()) ++accepted;
  }
  CHECK(accepted == 0);
}

TEST_CASE("io: a file with any one bit flipped is rejected") {
  const std::string path = path_of("flipped");
  save(path, small_checkpoint());
  const std::string bytes = read_bytes(path);
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  REQUIRE(file != -1);
  int accepted = 0;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      const char flipped = static_cast<char>(bytes[at] ^ (1 << bit));
      REQUIRE(::pwrite(file, &flipped, 1, static_cast<off_t>(at)) == 1);
      if (error_of([&] { load(path); }).empty()) ++accepted;
    }
    REQUIRE(::pwrite(file, &bytes[at], 1, static_cast<off_t>(at)) == 1);
  }
  ::close(file);
  CHECK(accepted == 0);
  require_same(small_checkpoint(), load(path));
}

TEST_CASE("io: what could not be loaded again is not saved") {
  const std::string path = path_of("refused");
  const Tensor one = scalar(1, DType::f32);
  const auto refusal = [&](const TensorFile& file) { return error_of([&] { save(path, file); }); };
  const auto refusal_of_name = [&](const std::string& name) {
    return refusal({.tensors = {{name, one}}, .metadata = {}});
  };
  CHECK(refusal({.tensors = {{"a", one}, {"a", one}}, .metadata = {}}) ==
        "save: " + path + ": duplicate tensor name; 'a'; rename one");
  CHECK(contains(refusal({.tensors = {{"a", Tensor()}}, .metadata = {}}), "undefined; 'a'"));
  CHECK(contains(refusal_of_name("__metadata__"), "reserved name; '__metadata__'"));
  CHECK(contains(refusal_of_name("header"), "reserved name; 'header'"));
  CHECK(contains(refusal_of_name("\xff"), "not valid UTF-8"));
  CHECK(contains(refusal_of_name(std::string(4097, 'n')), "a name is too long"));
  CHECK(contains(refusal({.tensors = {}, .metadata = {{"crc32c.w", ""}}}), "reserved; 'crc32c.w'"));
  CHECK(contains(refusal({.tensors = {}, .metadata = {{"a", "\xff"}}}), "not valid UTF-8"));
  CHECK(contains(refusal({.tensors = {}, .metadata = {{std::string(4097, 'k'), ""}}}), "too long"));
  const TensorFile many{.tensors = {100'001, {"a", one}}, .metadata = {}};
  CHECK(contains(refusal(many), "too many tensors; 100001 of at most 100000"));
  CHECK(contains(refusal({.tensors = {}, .metadata = {{"a", std::string(100'000'000, 'x')}}}),
                 "the header is too long"));
  CHECK(!fs::exists(path));
  CHECK(leaves_no_temporary());
}

TEST_CASE("io: a write that fails leaves the old file and no temporary") {
  const std::string path = path_of("kept");
  save(path, small_checkpoint());
  const std::string before = read_bytes(path);
  const TensorFile large{.tensors = {{"x", zeros({100'000}, DType::f32)}}, .metadata = {}};
  std::string saving;
  std::string writing;
  {
    const test::FileSizeLimit limit(10'000);  // some writes succeed, one is short, then EFBIG
    saving = error_of([&] { save(path, large); });
    writing = error_of([&] { write_file_atomically(path, std::string(20'000, 'x')); });
  }
  CHECK(saving == "save: " + path + ": cannot write; File too large; the old content is untouched");
  CHECK(writing == "write_file_atomically: " + path +
                       ": cannot write; File too large; the old content is untouched");
  CHECK(read_bytes(path) == before);
  CHECK(leaves_no_temporary());
}

TEST_CASE("io: a missing folder, a folder and a device are refused as targets") {
  const std::string missing = path_of("no/such/file");
  CHECK(error_of([&] { save(missing, {}); }) ==
        "save: " + missing +
            ": cannot open its folder; No such file or directory; create it or choose another");
  CHECK(contains(error_of([&] { save(folder().string(), {}); }), "not a regular file"));
  CHECK(contains(error_of([&] { write_file_atomically("/dev/null", "x"); }), "not a regular file"));
  CHECK(fs::is_character_file("/dev/null"));
  CHECK(
      contains(error_of([&] { save(path_of(std::string(255, 'n')), {}); }), "File name too long"));
  CHECK(contains(error_of([&] { save("", {}); }), "cannot rename; No such file or directory"));
  CHECK(leaves_no_temporary());
}

// Skipped for root, whom a read-only folder does not stop.
TEST_CASE("io: a read-only folder leaves the old file" * doctest::skip(::geteuid() == 0)) {
  const fs::path closed = folder() / "closed";
  fs::create_directory(closed);
  const std::string path = (closed / "file").string();
  write_bytes(path, "old");
  fs::permissions(closed, fs::perms::owner_read | fs::perms::owner_exec);
  CHECK(contains(error_of([&] { write_file_atomically(path, "new"); }), "Permission denied"));
  CHECK(read_bytes(path) == "old");
  fs::permissions(closed, fs::perms::owner_all);
}

TEST_CASE("io: what is not a readable file is named as such") {
  const std::string missing = path_of("missing");
  CHECK(error_of([&] { load(missing); }) ==
        "load: " + missing + ": cannot open; No such file or directory; check the path");
  CHECK(contains(error_of([&] { load(folder().string()); }), "not a regular file"));
  const std::string pipe = path_of("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(contains(error_of([&] { load(pipe); }), "not a regular file"));
}

TEST_CASE("io: write_file_atomically replaces the content and keeps links and permissions") {
  const std::string path = path_of("text");
  const std::string link = path_of("link");
  write_file_atomically(path, "first");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("text", link);
  write_file_atomically(link, "");
  CHECK(fs::is_symlink(link));
  CHECK(fs::file_size(path) == 0);
  CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(leaves_no_temporary());
}

TEST_CASE("io: a leftover temporary of a crashed process does not stop a save") {
  const std::string path = path_of("crashed");
  const std::string leftover = fmt::format("{}.tmp-{}", path, ::getpid());
  write_bytes(leftover, "half");
  save(path, small_checkpoint());
  require_same(small_checkpoint(), load(path));
  CHECK(read_bytes(leftover) == "half");
  fs::remove(leftover);
}

TEST_CASE("io: two threads that save one path leave one whole file") {
  const std::string path = path_of("contested");
  const auto repeat = [&](double value) {
    const TensorFile file{.tensors = {{"x", full({5000}, value, DType::f32)}}, .metadata = {}};
    for (int i = 0; i < 10; ++i) save(path, file);
  };
  std::thread other(repeat, 1.0);
  repeat(2.0);
  other.join();
  const auto values = load(path).at("x").to_vector<float>();
  CHECK((values == std::vector<float>(5000, 1.0f) || values == std::vector<float>(5000, 2.0f)));
  CHECK(leaves_no_temporary());
}

TEST_SUITE_END();
