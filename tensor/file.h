#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

namespace mf::detail {

/// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor() = default;
  /// As open(2); is_open() tells whether it worked.
  Descriptor(const std::string& path, int flags, unsigned mode = 0);
  ~Descriptor() { close(); }
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }

  bool is_open() const { return number_ != -1; }
  int number() const { return number_; }
  /// False if the system reports that something written is lost.
  bool close();

 private:
  int number_ = -1;
};

/// A regular file to read from any position. Throws Error with the system's reason.
class InputFile {
 public:
  explicit InputFile(const std::string& path);
  std::int64_t size() const { return size_; }
  void read(std::int64_t position, std::span<std::byte> to) const;

 private:
  Descriptor file_;
  std::int64_t size_ = 0;
};

/// New content for a regular file, which appears there all at once with commit() or not at all.
/// Throws Error with the system's reason; the destructor removes what was not committed.
class Replacement {
 public:
  explicit Replacement(const std::string& path);
  ~Replacement();
  Replacement(const Replacement&) = delete;
  Replacement& operator=(const Replacement&) = delete;

  void write(std::int64_t position, std::span<const std::byte> bytes);
  void commit();

 private:
  void create_temporary();

  std::string target_;
  std::string temporary_;  // empty: nothing to remove
  Descriptor folder_;
  Descriptor file_;
};

}  // namespace mf::detail
