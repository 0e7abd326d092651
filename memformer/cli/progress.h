#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "memformer/audit/report.h"  // readable_bytes
#include "memformer/train/trainer.h"

namespace mf::cli {

/// "1h02m", "3m20s", "12s".
std::string readable_seconds(double seconds);

/// One line per report; on a terminal the line is rewritten in place, elsewhere each stands on its
/// own.
class ProgressLine {
 public:
  ProgressLine(std::int64_t total_steps, std::int64_t first_step, std::int64_t every);
  ~ProgressLine() { finish(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const StepMetrics& metrics);
  /// Ends the line, so that what follows starts on a new one.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  std::int64_t total_;
  std::int64_t first_;
  std::int64_t every_;
  bool terminal_;
  bool open_ = false;
  std::size_t width_ = 0;
  Clock::time_point start_;
  // Between two reports: losses weigh by what they scored.
  double loss_ = 0.0;
  double accuracy_ = 0.0;
  std::int64_t steps_ = 0;
  std::int64_t tokens_before_;
  Clock::time_point since_;
  std::int64_t peak_ = 0;
};

}  // namespace mf::cli
