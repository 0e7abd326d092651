#include "memformer/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <numbers>

namespace mf::cli {

std::string readable_seconds(double seconds) {
  const auto whole = static_cast<std::int64_t>(seconds + 0.5);
  if (whole >= 3600) return fmt::format("{}h{:02}m", whole / 3600, whole % 3600 / 60);
  if (whole >= 60) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  return fmt::format("{}s", whole);
}

ProgressLine::ProgressLine(std::int64_t total_steps, std::int64_t first_step, std::int64_t every)
    : total_(total_steps),
      first_(first_step),
      every_(every),
      terminal_(isatty(STDOUT_FILENO) == 1),
      start_(Clock::now()),
      tokens_before_(-1),
      since_(start_) {}

void ProgressLine::show(const StepMetrics& m) {
  if (tokens_before_ < 0)
    tokens_before_ = m.tokens - static_cast<std::int64_t>(m.tokens_per_second * m.seconds + 0.5);
  loss_ += m.loss;
  accuracy_ += m.accuracy.value_or(0.0);
  ++steps_;
  peak_ = std::max(peak_, m.peak_bytes);
  if (m.step % every_ != 0 && m.step != total_ && !m.valid_bits_per_byte) return;

  const auto now = Clock::now();
  const double interval = std::chrono::duration<double>(now - since_).count();
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left =
      elapsed / static_cast<double>(m.step - first_) * static_cast<double>(total_ - m.step);
  const double loss = loss_ / static_cast<double>(steps_);
  std::string line = fmt::format("step {}/{}  loss {:.4f}", m.step, total_, loss);
  if (m.accuracy) {
    line += fmt::format("  accuracy {:.3f}  difficulty {}", accuracy_ / static_cast<double>(steps_),
                        *m.difficulty);
  } else {
    line += fmt::format("  {:.4f} bits/byte", loss / std::numbers::ln2);
  }
  if (m.valid_bits_per_byte) line += fmt::format("  valid {:.4f}", *m.valid_bits_per_byte);
  line +=
      fmt::format("  {:.0f} tokens/s  ETA {}  active {}  peak {}",
                  static_cast<double>(m.tokens - tokens_before_) / interval, readable_seconds(left),
                  readable_bytes(m.active_bytes), readable_bytes(peak_));
  if (terminal_ && !m.valid_bits_per_byte) {
    const std::size_t width = line.size();
    line.resize(std::max(width, width_), ' ');
    width_ = width;
    std::printf("\r%s", line.c_str());
    open_ = true;
  } else {
    finish();
    std::printf("%s\n", line.c_str());
  }
  std::fflush(stdout);
  loss_ = 0.0;
  accuracy_ = 0.0;
  steps_ = 0;
  tokens_before_ = m.tokens;
  since_ = now;
}

void ProgressLine::finish() {
  if (!open_) return;
  std::printf("\n");
  std::fflush(stdout);
  open_ = false;
  width_ = 0;
}

}  // namespace mf::cli
