#include "memformer/data/corpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "memformer/data/gzip.h"
#include "memformer/data/idx.h"
#include "memformer/data/sha256.h"
#include "tensor/error.h"

namespace mf {
namespace {

namespace fs = std::filesystem;

struct KnownFile {
  std::string_view name;
  std::int64_t bytes;
  std::string_view sha256;
};

constexpr KnownFile kKnownFiles[] = {
    {"King James Bible (bible-kjv)", 4'404'412,
     "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d"},
    {"enwik8", 100'000'000, "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8"},
    {"tiny-shakespeare", 1'115'394,
     "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    {"Fashion-MNIST", 54'880'000,
     "0fbbfcb392782b3b702472ead3688778e1509e8cf40f5c24d9d3303618b193ab"}};

std::string known_name(const Corpus& corpus) {
  for (const KnownFile& known : kKnownFiles)
    if (known.bytes == corpus.bytes && known.sha256 == corpus.sha256)
      return "known file: " + std::string(known.name);
  return "unknown file";
}

/// Drops empty documents, counts and hashes the others.
Corpus finish(std::string name, std::vector<std::string> documents) {
  std::erase_if(documents, [](const std::string& document) { return document.empty(); });
  Corpus corpus{
      .name = std::move(name), .documents = std::move(documents), .sha256 = {}, .note = {}};
  Sha256 hash;
  for (const std::string& document : corpus.documents) {
    hash.update(document);
    corpus.bytes += static_cast<std::int64_t>(document.size());
  }
  corpus.sha256 = hash.hex();
  return corpus;
}

std::string read_file(const fs::path& path) {
  const std::string ending = path.extension().string();
  if (ending == ".gz" || ending == ".dz") return read_gzip(path.string());
  std::ifstream file(path, std::ios::binary);
  check(file.good(), "load_corpus: cannot read the file; {}; check the path and its permissions",
        path.string());
  std::string content{std::istreambuf_iterator<char>(file), {}};
  check(!file.bad(),
        "load_corpus: reading stopped with an error; {} after {} bytes; check the disk",
        path.string(), content.size());
  return content;
}

/// All regular files below `folder`, sorted by relative path, so that every machine has one order.
std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::ranges::sort(files, {}, [&](const fs::path& file) {
    return file.lexically_relative(folder).generic_string();
  });
  return files;
}

/// What `command` prints, or an empty text if it fails.
std::string output_of(const char* command) {
  std::string output;
  FILE* pipe = popen(command, "r");
  check(pipe != nullptr, "load_corpus: cannot start a shell; {}; are too many files open?",
        command);
  char part[1 << 16];
  while (const std::size_t count = std::fread(part, 1, sizeof part, pipe))
    output.append(part, count);
  return pclose(pipe) == 0 ? output : "";
}

Corpus load_kjv() {
  // Debian puts games where PATH may not look.
  std::string text = output_of(
      "PATH=\"$PATH:/usr/games\"; export PATH; bible -f 'gen1:1-rev22:21' </dev/null 2>/dev/null");
  check(!text.empty(),
        "load_corpus: kjv needs the program bible and its text; `bible -f gen1:1-rev22:21` printed "
        "nothing; install the Debian packages bible-kjv and bible-kjv-text");
  Corpus corpus = finish("kjv", {std::move(text)});
  const KnownFile& expected = kKnownFiles[0];
  if (corpus.bytes != expected.bytes)
    corpus.note = fmt::format("{} bytes where {} were expected: figures will differ", corpus.bytes,
                              expected.bytes);
  else if (corpus.sha256 != expected.sha256)
    corpus.note = "other text of the expected size: figures will differ";
  else
    corpus.note = expected.name;
  return corpus;
}

Corpus load_system_headers() {
  const fs::path root = "/usr/include/c++";
  std::string newest;
  int newest_number = 0;
  if (fs::is_directory(root)) {
    for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
      const int number = std::atoi(entry.path().filename().c_str());
      if (entry.is_directory() && number > newest_number)
        newest_number = number, newest = entry.path().filename();
    }
  }
  check(newest_number > 0,
        "load_corpus: system:cxx needs the libstdc++ headers; no version below {}; install g++",
        root.string());
  std::vector<std::string> documents;
  for (const fs::path& file : files_below(root / newest))
    documents.emplace_back(without_licence(read_file(file)));
  Corpus corpus = finish("system:cxx", std::move(documents));
  corpus.note = fmt::format("libstdc++ {}, {} files, licence comments stripped", newest,
                            corpus.documents.size());
  return corpus;
}

Corpus load_path(const fs::path& path) {
  check(fs::exists(path), "load_corpus: no such file or folder; {}; check the path", path.string());
  std::vector<std::string> documents;
  if (fs::is_directory(path)) {
    for (const fs::path& file : files_below(path)) documents.push_back(read_file(file));
  } else {
    documents.push_back(read_file(path));
  }
  Corpus corpus = finish(path.string(), std::move(documents));
  check(corpus.bytes > 0, "load_corpus: there is no text; {} holds 0 bytes; give a file with text",
        path.string());
  corpus.note = known_name(corpus);
  return corpus;
}

/// The images of one part, "train" or "t10k".
IdxImages load_idx_part(const fs::path& folder, std::string_view part) {
  for (const char* name : {"-images-idx3-ubyte", "-images.idx3-ubyte"}) {
    for (const char* packed : {"", ".gz"}) {
      const fs::path path = folder / fmt::format("{}{}{}", part, name, packed);
      if (fs::exists(path)) return parse_idx_images(read_file(path), path.string());
    }
  }
  fail(
      "load_corpus: a file of images is missing; {} has no {}-images-idx3-ubyte, nor one with a "
      "dot before idx3 or .gz behind; put it there",
      folder.string(), part);
}

Corpus load_idx(std::string name, const fs::path& folder) {
  check(fs::is_directory(folder), "load_corpus: no such folder; {}; give one with IDX files",
        folder.string());
  IdxImages train = load_idx_part(folder, "train"), test = load_idx_part(folder, "t10k");
  check(train.rows == test.rows && train.columns == test.columns,
        "load_corpus: the images of {} differ in size; train {} x {}, t10k {} x {}; give two files "
        "of one data set",
        folder.string(), train.rows, train.columns, test.rows, test.columns);
  std::string note = fmt::format("{} + {} images of {} x {} pixels", train.pixels.size(),
                                 test.pixels.size(), train.rows, train.columns);
  std::ranges::move(test.pixels, std::back_inserter(train.pixels));
  Corpus corpus = finish(std::move(name), std::move(train.pixels));
  corpus.note = note + ", " + known_name(corpus);
  return corpus;
}

Corpus load_fashion_mnist() {
  const fs::path folder = "/usr/share/datasets/fashion-mnist";
  check(fs::exists(folder),
        "load_corpus: fashion-mnist needs its images; no folder {}; install the Debian package "
        "dataset-fashion-mnist",
        folder.string());
  return load_idx("fashion-mnist", folder);
}

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace

std::string_view without_licence(std::string_view code) {
  std::size_t kept = 0;
  for (std::size_t at = 0; at < code.size();) {
    if (is_blank(code[at])) {
      ++at;
      continue;
    }
    const bool line = code.substr(at).starts_with("//");
    if (!line && !code.substr(at).starts_with("/*")) break;
    const std::string_view close = line ? "\n" : "*/";
    const std::size_t found = code.find(close, at + 2);
    const std::size_t end = found == code.npos ? code.size() : found + close.size();
    const std::string_view comment = code.substr(at, end - at);
    for (const std::string_view word : {"opyright", "icense", "arranty", "ARRANTY"})
      if (comment.find(word) != comment.npos) kept = end;
    at = end;
  }
  if (kept == 0) return code;
  while (kept < code.size() && is_blank(code[kept])) ++kept;
  return code.substr(kept);
}

Corpus load_corpus(const std::string& source) try {
  if (source == "kjv") return load_kjv();
  if (source == "system:cxx") return load_system_headers();
  if (source == "fashion-mnist") return load_fashion_mnist();
  if (source.starts_with("idx:")) return load_idx(source, source.substr(4));
  if (source.starts_with("file:")) return load_path(source.substr(5));
  check(
      !source.empty() && fs::exists(source),
      "load_corpus: unknown source `{}`; known are kjv, system:cxx, fashion-mnist, idx:FOLDER and "
      "file:PATH; give one of them or a path that exists",
      source);
  return load_path(source);
} catch (const fs::filesystem_error& error) {
  fail("load_corpus: the file system refuses; {}: {}; check the path and its permissions", source,
       error.code().message());
}

std::int64_t common_length(std::span<const std::string> documents) {
  if (documents.empty()) return 0;
  const std::size_t length = documents.front().size();
  const bool common = std::ranges::all_of(
      documents, [&](const std::string& document) { return document.size() == length; });
  return common ? static_cast<std::int64_t>(length) : 0;
}

Split split_corpus(const Corpus& corpus, double train, double valid) {
  check(train >= 0 && valid >= 0 && train + valid <= 1 + 1e-9,
        "split_corpus: fractions must be in [0, 1] and sum to at most 1; train {}, valid {}; the "
        "rest "
        "is the test part",
        train, valid);
  const std::int64_t length = common_length(corpus.documents);
  const auto holds_documents = [&](double part) {
    const double documents = part * static_cast<double>(corpus.documents.size());
    return documents < 1e-6 || documents > 1 - 1e-6;  // none or some; the fractions are rounded
  };
  const bool whole = length > 0 && holds_documents(train) && holds_documents(valid) &&
                     holds_documents(1 - train - valid);
  const std::int64_t unit = whole ? length : 1;
  const auto border = [&](double fraction) {
    // Rounded, because 0.9 + 0.05 is not exactly 0.95.
    const double units = static_cast<double>(corpus.bytes) / static_cast<double>(unit);
    return static_cast<std::size_t>(std::llround(units * std::min(1.0, fraction)) * unit);
  };
  const std::size_t train_end = border(train), valid_end = border(train + valid);

  Split split;
  std::size_t begin = 0;  // of this document in the concatenation
  for (const std::string& document : corpus.documents) {
    const std::string_view text = document;
    const std::size_t a = std::clamp(train_end, begin, begin + text.size()) - begin;
    const std::size_t b = std::clamp(valid_end, begin, begin + text.size()) - begin;
    if (a > 0) split.train.emplace_back(text.substr(0, a));
    if (b > a) split.valid.emplace_back(text.substr(a, b - a));
    if (b < text.size()) split.test.emplace_back(text.substr(b));
    begin += text.size();
  }
  return split;
}

}  // namespace mf
