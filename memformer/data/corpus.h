#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mf {

/// Text, or images as bytes, to learn from, and what a run's manifest says about it.
struct Corpus {
  std::string name;                    ///< the source, as `load_corpus` takes it
  std::vector<std::string> documents;  ///< none is empty
  std::string sha256;                  ///< of all documents one after the other
  std::int64_t bytes = 0;              ///< of all documents
  std::string note;                    ///< what it is, or what is unusual about it
};

/// Loads a corpus; nothing is downloaded. Sources:
///   kjv            the King James Bible as Debian's program `bible` prints it, one document
///   system:cxx     this machine's libstdc++ headers without their licence comments, a document a
///                  file
///   fashion-mnist  the images of Debian's package dataset-fashion-mnist, as idx:FOLDER
///   idx:FOLDER     the images of FOLDER's train-images-idx3-ubyte (MNIST), then those of
///                  t10k-images-idx3-ubyte: a document an image, its pixels row by row. Also with
///                  a dot before idx3, and packed with .gz behind.
///   file:PATH      a file as one document, or a folder with a document per file below it, sorted
///                  by path; `file:` may be left out where the path exists. Names ending in .gz or
///                  .dz are unpacked first.
/// Throws Error where the source is unknown, missing or empty, saying what to install or give.
Corpus load_corpus(const std::string& source);

/// `code` without the comments at its top, up to the last one that speaks of copyright or licence.
std::string_view without_licence(std::string_view code);

/// A corpus cut at two byte offsets of its concatenated documents.
struct Split {
  std::vector<std::string> train,  ///< documents of the first part, none empty
      valid,                       ///< of the second
      test;                        ///< of the rest
};

/// The length that all documents have, in bytes, or 0 where they differ or there are none.
std::int64_t common_length(std::span<const std::string> documents);

/// The first `train` of the bytes, the next `valid`, and the rest. A document across a border is
/// cut there, unless all have one length (images) and every part is to hold one or more: then the
/// nearest document border is taken, so that rounded fractions cut exactly too. Throws Error unless
/// the fractions are in [0, 1] and sum to at most 1.
Split split_corpus(const Corpus& corpus, double train = 0.90, double valid = 0.05);

}  // namespace mf
