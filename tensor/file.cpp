#include "tensor/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "tensor/error.h"

namespace mf::detail {
namespace {

constexpr std::string_view kIntact = "the old content is untouched";

/// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(const Call& call) {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

[[noreturn]] void fail_system(std::string_view action, std::string_view advice) {
  fail("cannot {}; {}; {}", action, std::generic_category().message(errno), advice);
}

}  // namespace

Descriptor::Descriptor(const std::string& path, int flags, unsigned mode)
    : number_(uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); })) {}

bool Descriptor::close() {
  if (!is_open()) return true;
  // The number is free again even when a signal interrupts the call, so it is not repeated.
  return ::close(std::exchange(number_, -1)) == 0 || errno == EINTR;
}

// O_NONBLOCK: a pipe must be refused, not waited for.
InputFile::InputFile(const std::string& path) : file_(path, O_RDONLY | O_NONBLOCK) {
  if (!file_.is_open()) fail_system("open", "check the path");
  struct stat info {};
  if (::fstat(file_.number(), &info) == -1) fail_system("ask for its size", "check the path");
  check(S_ISREG(info.st_mode), "not a regular file; mode {:o}; copy it into one", info.st_mode);
  size_ = info.st_size;
}

void InputFile::read(std::int64_t position, std::span<std::byte> to) const {
  while (!to.empty()) {
    const ssize_t got =
        uninterrupted([&] { return ::pread(file_.number(), to.data(), to.size(), position); });
    if (got == -1) fail_system("read", "check the disk");
    check(got > 0, "the file shrank while it was read; it ends at byte {} of {}; read it again",
          position, size_);
    position += got;
    to = to.subspan(static_cast<std::size_t>(got));
  }
}

Replacement::Replacement(const std::string& path) : target_(path) {
  // A symbolic link stays one: what it points to is replaced.
  std::error_code missing;
  const std::filesystem::path existing = std::filesystem::canonical(path, missing);
  if (!missing) target_ = existing.string();
  struct stat old {};
  const bool exists = ::stat(target_.c_str(), &old) == 0;
  check(!exists || S_ISREG(old.st_mode), "not a regular file; mode {:o}; choose another name",
        old.st_mode);

  const std::filesystem::path folder = std::filesystem::path(target_).parent_path();
  folder_ = Descriptor(folder.empty() ? "." : folder.string(), O_RDONLY | O_DIRECTORY);
  if (!folder_.is_open()) fail_system("open its folder", "create it or choose another");
  create_temporary();
  // A file kept from others stays so; where the system refuses, the usual mode remains.
  if (exists) static_cast<void>(::fchmod(file_.number(), old.st_mode & 0777));
}

Replacement::~Replacement() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void Replacement::create_temporary() {
  // Another thread, or a crashed process of the same number, may hold the first names.
  constexpr int kAttempts = 1000;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::string name = fmt::format("{}.tmp-{}", target_, ::getpid());
    if (attempt > 0) name += fmt::format("-{}", attempt);
    file_ = Descriptor(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (file_.is_open()) {
      temporary_ = std::move(name);
      return;
    }
    if (errno != EEXIST) break;
  }
  fail_system("create a temporary file beside it", "check the folder and its permissions");
}

void Replacement::write(std::int64_t position, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = uninterrupted(
        [&] { return ::pwrite(file_.number(), bytes.data(), bytes.size(), position); });
    if (written == -1) fail_system("write", kIntact);
    position += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void Replacement::commit() {
  if (uninterrupted([&] { return ::fsync(file_.number()); }) == -1) fail_system("sync", kIntact);
  if (!file_.close()) fail_system("close", kIntact);
  if (::rename(temporary_.c_str(), target_.c_str()) == -1) fail_system("rename", kIntact);
  temporary_.clear();
  // Some file systems cannot sync a folder and say so with EINVAL.
  if (uninterrupted([&] { return ::fsync(folder_.number()); }) == -1 && errno != EINVAL)
    fail_system("sync its folder", "the new content is there but may not outlive a power failure");
}

}  // namespace mf::detail
