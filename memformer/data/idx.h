#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mf {

/// Grey images of one size.
struct IdxImages {
  std::int64_t rows = 0;            ///< of pixels
  std::int64_t columns = 0;         ///< of pixels
  std::vector<std::string> pixels;  ///< of each image, a byte each, row by row
};

/// The images in the content of an IDX file of unsigned bytes with three axes (idx3-ubyte),
/// unpacked:
///   00 00 08 03 | images, rows, columns (u32, big-endian) | images * rows * columns bytes
/// Throws Error, naming `path`, on anything else: another magic number, an axis of length 0, or
/// more or fewer bytes than the axes say. Source: the MNIST page of LeCun, Cortes and Burges.
IdxImages parse_idx_images(std::string_view content, const std::string& path);

}  // namespace mf
