#include "memformer/bench/generation.h"

#include <nlohmann/json.hpp>

#include "memformer/data/bytes.h"
#include "memformer/train/generate.h"
#include "nn/parameters.h"
#include "tensor/backend.h"
#include "tensor/cpu/parallel.h"
#include "tensor/memory.h"

namespace mf::bench {

double GenerationReport::tokens_per_second() const {
  return static_cast<double>(options.tokens) / times.wall;
}

GenerationReport bench_generation(const GenerationOptions& options) {
  check(options.tokens > 0, "bench generate: tokens is {}; it must be positive", options.tokens);
  check(options.prompt >= 0, "bench generate: prompt is {}; it must not be negative",
        options.prompt);
  GenerationReport report;
  report.options = options;
  report.options.model.vocabulary = kByteVocabulary;
  report.threads = threads();
  const ModelConfig config = config_of(report.options.model);
  const RngKey key{options.seed};
  const Memformer model(config, key.at("weights"));
  move_to(options.device, model.parameters());
  const std::int64_t length = options.prompt > 0 ? options.prompt : config.segment;
  std::string prompt;
  for (std::int64_t i = 0; i < length; ++i)
    prompt += static_cast<char>(key.at("prompt").below(256, static_cast<std::uint64_t>(i)));

  const PeakScope scope(options.device);
  const Stopwatch reading;
  Generator generator(model, prompt, {}, key.at("draws"));
  synchronize(options.device);
  report.prompt_seconds = reading.elapsed().wall;
  std::vector<double> tokens;
  const Stopwatch writing;
  for (std::int64_t i = 0; i < options.tokens; ++i) {
    const Stopwatch stopwatch;
    generator.next();
    tokens.push_back(stopwatch.elapsed().wall);
  }
  report.times = writing.elapsed();
  report.token_seconds = spread_of(tokens);
  report.peak_bytes = scope.peak();
  report.peak_resident_mb = peak_resident_mb();
  return report;
}

std::string to_json(const GenerationReport& report) {
  const ModelShape& model = report.options.model;
  return nlohmann::ordered_json{{"dim", model.width},
                                {"enc", model.encoder_layers},
                                {"dec", model.decoder_layers},
                                {"heads", model.heads},
                                {"seg", model.segment},
                                {"slots", model.slots},
                                {"device", full_name(report.options.device)},
                                {"threads", report.threads},
                                {"dtype", name_of(model.dtype)},
                                {"tokens", report.options.tokens},
                                {"tokens_per_s", report.tokens_per_second()},
                                {"seconds", report.times.wall},
                                {"cpu_s", report.times.cpu},
                                {"prompt_s", report.prompt_seconds},
                                {"token_s", report.token_seconds.median},
                                {"token_s_p10", report.token_seconds.low},
                                {"token_s_p90", report.token_seconds.high},
                                {"peak_rss_mb", report.peak_resident_mb},
                                {"active_peak_bytes", report.peak_bytes}}
      .dump();
}

}  // namespace mf::bench
