#include "memformer/train/evaluate.h"

#include <numbers>
#include <utility>

#include "memformer/data/corpus.h"
#include "memformer/data/text_stream.h"

namespace mf {
namespace {

/// The first `max_bytes` of the documents, as EvaluateOptions has it.
std::vector<std::string> head(std::span<const std::string> documents, std::int64_t max_bytes) {
  const std::int64_t length = common_length(documents);
  if (length > 0 && max_bytes > length) max_bytes -= max_bytes % length;
  std::vector<std::string> kept;
  std::int64_t left = max_bytes;
  for (const std::string& document : documents) {
    if (max_bytes > 0 && left <= 0) break;
    kept.push_back(max_bytes > 0 ? document.substr(0, static_cast<std::size_t>(left)) : document);
    left -= static_cast<std::int64_t>(kept.back().size());
  }
  return kept;
}

}  // namespace

double Evaluation::bits_per_byte() const {
  check(scored > 0, "evaluate: nothing was scored; give a text longer than two segments a row");
  return loss_sum / static_cast<double>(scored) / std::numbers::ln2;
}

Evaluation evaluate(const Recurrence& model, std::span<const std::string> documents,
                    const EvaluateOptions& options) {
  const std::vector<std::string> text = head(documents, options.max_bytes);
  TextStream stream(text, {.batch = options.batch,
                           .segment_length = options.segment_length,
                           .prediction = options.prediction,
                           .score_first_segment = options.score_first_segment,
                           .wrap = false});
  const Device device = model.device();
  State state = model.initial_state(options.batch);
  Evaluation result;
  while (std::optional<Segment> segment = stream.next()) {
    if (options.reset_every_segment) segment->reset = full({options.batch}, 1.0, DType::u8);
    StepValues step = evaluate_step(model, segment->to(device), state);
    if (step.loss.defined()) result.loss_sum += step.loss.item();
    result.scored += segment->scored;
    state = std::move(step.next);
  }
  return result;
}

}  // namespace mf
