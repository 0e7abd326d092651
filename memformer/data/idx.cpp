#include "memformer/data/idx.h"

#include "tensor/error.h"

namespace mf {
namespace {

constexpr std::size_t kHeader = 16;
constexpr std::uint32_t kUnsignedBytesThreeAxes = 0x00000803;
/// Of one image; keeps the number of all pixels far from overflow.
constexpr std::int64_t kMostPixels = 1 << 24;

std::uint32_t big_endian_word(std::string_view content, std::size_t at) {
  std::uint32_t word = 0;
  for (const char byte : content.substr(at, 4)) word = word << 8 | static_cast<unsigned char>(byte);
  return word;
}

}  // namespace

IdxImages parse_idx_images(std::string_view content, const std::string& path) {
  check(content.size() >= kHeader,
        "idx: the file ends in its header; {} has {} bytes, the header {}; get it again", path,
        content.size(), kHeader);
  const std::uint32_t magic = big_endian_word(content, 0);
  check(magic == kUnsignedBytesThreeAxes,
        "idx: not a file of images; {} begins with {:#010x}, images with {:#010x}; give the "
        "idx3-ubyte file, and let only packed ones end in .gz",
        path, magic, kUnsignedBytesThreeAxes);
  const std::int64_t count = big_endian_word(content, 4);
  IdxImages images{
      .rows = big_endian_word(content, 8), .columns = big_endian_word(content, 12), .pixels = {}};
  check(count > 0 && images.rows > 0 && images.columns > 0 &&
            images.rows <= kMostPixels / images.columns,
        "idx: implausible size; {} declares {} images of {} x {} pixels; none may be 0, nor an "
        "image have more than {} pixels; is the file damaged?",
        path, count, images.rows, images.columns, kMostPixels);
  const std::int64_t pixels = images.rows * images.columns;
  const auto given = static_cast<std::int64_t>(content.size() - kHeader);
  check(given == count * pixels,
        "idx: the file is {}; {} declares {} images of {} x {} pixels, {} bytes, and has {}; get "
        "it again",
        given < count * pixels ? "cut off" : "too long", path, count, images.rows, images.columns,
        count * pixels, given);
  for (std::size_t at = kHeader; at < content.size(); at += static_cast<std::size_t>(pixels))
    images.pixels.emplace_back(content.substr(at, static_cast<std::size_t>(pixels)));
  return images;
}

}  // namespace mf
