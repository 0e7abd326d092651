#pragma once

#include <string>

namespace mf {

/// The unpacked content of a gzip file (dictzip files are gzip too). Throws Error if the file is
/// not gzip, is damaged or cut off, or if this build has no zlib.
std::string read_gzip(const std::string& path);

}  // namespace mf
