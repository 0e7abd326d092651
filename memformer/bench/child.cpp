#include "memformer/bench/child.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>

#include "tensor/error.h"

namespace mf::bench::detail {
namespace {

// What the first byte of a child's answer says of the others.
constexpr char kResult = 'r', kError = 'e';

/// Retries what a signal interrupted.
template <class Call>
ssize_t uninterrupted(const Call& call) {
  for (;;)
    if (const ssize_t result = call(); result >= 0 || errno != EINTR) return result;
}

[[noreturn]] void answer(int pipe, const std::function<std::string()>& work) {
  std::string text;
  try {
    text = kResult + work();
  } catch (const std::exception& error) {
    text = kError + std::string(error.what());
  }
  for (std::size_t sent = 0; sent < text.size();) {
    const ssize_t count =
        uninterrupted([&] { return write(pipe, text.data() + sent, text.size() - sent); });
    if (count < 0) break;
    sent += static_cast<std::size_t>(count);
  }
  _exit(0);  // the parent's buffers and exit handlers are not ours
}

}  // namespace

std::string bytes_from_child(const std::function<std::string()>& work) {
  int ends[2];
  check(pipe(ends) == 0, "bench: no pipe to a child process; {}", std::strerror(errno));
  const pid_t child = fork();
  check(child >= 0, "bench: no child process; {}", std::strerror(errno));
  if (child == 0) {
    close(ends[0]);
    answer(ends[1], work);
  }
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t count;
       (count = uninterrupted([&] { return read(ends[0], part, sizeof part); })) > 0;)
    text.append(part, static_cast<std::size_t>(count));
  close(ends[0]);
  int status = 0;
  uninterrupted([&] { return waitpid(child, &status, 0); });
  if (text.empty() && WIFSIGNALED(status))
    fail("bench: the child process was ended by signal {} ({})", WTERMSIG(status),
         strsignal(WTERMSIG(status)));
  check(!text.empty(), "bench: the child process ended without a result");
  if (text.front() == kError) fail("{}", text.substr(1));
  return text.substr(1);
}

}  // namespace mf::bench::detail
