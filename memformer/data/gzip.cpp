#include "memformer/data/gzip.h"

#include "tensor/error.h"

// MEMFORMER_ZLIB is defined where the build found zlib. Without it only the error remains.
#ifdef MEMFORMER_ZLIB

#include <zlib.h>

#include <memory>
#include <vector>

namespace mf {

std::string read_gzip(const std::string& path) {
  const std::unique_ptr<gzFile_s, decltype(&gzclose_r)> file(gzopen(path.c_str(), "rb"), gzclose_r);
  check(file != nullptr, "gzip: cannot open; {}; check the path and its permissions", path);

  std::string content;
  std::vector<char> part(std::size_t{1} << 20);
  int count = 0;
  while ((count = gzread(file.get(), part.data(), static_cast<unsigned>(part.size()))) > 0)
    content.append(part.data(), static_cast<std::size_t>(count));

  // A file that ends too early is no error of gzread's result, only of the state behind it.
  int code = Z_OK;
  const char* reason = gzerror(file.get(), &code);
  check(code == Z_OK || code == Z_STREAM_END,
        "gzip: the file is damaged or cut off; {}: {}; get it again or check it with gzip -t", path,
        reason);
  check(gzdirect(file.get()) == 0,
        "gzip: the file is not gzip; {}; take the ending .gz or .dz off its name", path);
  return content;
}

}  // namespace mf

#else

namespace mf {

std::string read_gzip(const std::string& path) {
  fail(
      "gzip: this build has no zlib; {}; install zlib1g-dev and configure again, or unpack the "
      "file",
      path);
}

}  // namespace mf

#endif
