#include <algorithm>
#include <memory>

#include "memformer/audit/mrbp_audit.h"
#include "memformer/audit/slots.h"
#include "memformer/cli/audit_shared.h"
#include "memformer/data/bytes.h"
#include "memformer/data/corpus.h"
#include "memformer/data/synthetic.h"
#include "memformer/data/text_stream.h"
#include "memformer/train/checkpoint.h"

namespace mf::cli {
namespace {

constexpr const char* kSentence =
    "A slot that keeps what it holds attends to itself. A slot that takes up what the segment "
    "brings attends to the tokens. In between, it mixes both; and what no slot refreshes turns, "
    "step by step, back to where it began. ";

struct SlotsArguments {
  AuditedModel model;
  AuditOutput output;
  std::string text;  // a file
  std::int64_t segments = 6;
};

/// What to read: a file, else what the run was trained on (its test split, or a new window of its
/// task), else a sentence.
std::vector<Segment> segments_of(const SlotsArguments& arguments, const Memformer& model) {
  RunConfig config;
  config.data.source.clear();
  if (!arguments.model.run.empty()) config = load_trained(arguments.model.run).config;
  if (!arguments.model.config.empty()) config = read_run_config(arguments.model.config);
  const bool from_run = arguments.text.empty() && !config.data.source.empty();
  if (from_run && config.data.is_task()) {
    const auto task =
        make_task(config.data.task(), {.difficulty = static_cast<int>(config.data.max_difficulty),
                                       .segment_length = config.data.task_segment});
    return task->window(RngKey{arguments.model.seed}.at("slots"), 1);
  }
  check(
      model.config().vocabulary == kByteVocabulary,
      "audit slots: the model has a vocabulary of {}, text needs {}; give --run or --config of the "
      "run it belongs to, without --text",
      model.config().vocabulary, kByteVocabulary);
  std::vector<std::string> documents{kSentence};
  if (from_run)
    documents = split_corpus(load_corpus(config.data.source), config.data.train_fraction,
                             config.data.valid_fraction)
                    .test;
  if (!arguments.text.empty()) documents = load_corpus("file:" + arguments.text).documents;
  TextStream stream(documents,
                    {.batch = 1, .segment_length = model.config().segment, .wrap = false});
  std::vector<Segment> segments;
  while (static_cast<std::int64_t>(segments.size()) < arguments.segments)
    if (std::optional<Segment> segment = stream.next()) {
      segments.push_back(*segment);
    } else {
      break;
    }
  return segments;
}

/// A token as a label: the byte if it can be seen, else its number.
std::string label_of(std::int32_t token, bool is_text) {
  if (!is_text) return std::to_string(token);
  if (token == ' ') return "␣";
  if (token == '\n') return "↵";
  if (token > ' ' && token < 127) return std::string(1, static_cast<char>(token));
  return fmt::format("{:02x}", token);
}

std::vector<std::string> token_labels(const SlotsAtSegment& segment, bool is_text) {
  std::vector<std::string> labels;
  for (const std::int32_t token : segment.tokens) labels.push_back(label_of(token, is_text));
  return labels;
}

std::vector<std::string> slot_names(std::size_t count) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) names.push_back("slot " + std::to_string(i));
  return names;
}

Table over_time(const SlotsReport& audit) {
  Table table{{{"segment"},
               {"keepers"},
               {"mixers"},
               {"writers"},
               {"mean weight on itself"},
               {"mean turn, degrees"},
               {"from M_0, degrees"},
               {"cosine between slots"},
               {"mean |m'|"},
               {"write error"},
               {"read error"}},
              {}};
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0.0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  for (std::size_t t = 0; t < audit.segments.size(); ++t) {
    const SlotsAtSegment& segment = audit.segments[t];
    const SlotKinds kinds = kinds_of(segment);
    table.rows.push_back(
        {std::to_string(t), std::to_string(kinds.keepers), std::to_string(kinds.mixers),
         std::to_string(kinds.writers), fmt::format("{:.3f}", mean(own_weights(segment))),
         fmt::format("{:.1f}", mean(segment.turned)),
         fmt::format("{:.1f}", mean(segment.from_start)),
         fmt::format("{:.3f}", segment.between_slots),
         fmt::format("{:.2f}", mean(segment.written_norm)),
         fmt::format("{:.1e}", segment.write_error), fmt::format("{:.1e}", segment.read_error)});
  }
  return table;
}

Table forgetting(const SlotsReport& audit) {
  Table table{{{"slot"}, {"|v|"}, {"|v| / radius"}}, {}};
  for (std::size_t i = 0; i < audit.forgetting_norms.size(); ++i)
    table.rows.push_back({std::to_string(i), fmt::format("{:.4f}", audit.forgetting_norms[i]),
                          fmt::format("{:.4f}", audit.forgetting_norms[i] / audit.radius)});
  return table;
}

void add_figures(Report& report, const SlotsReport& audit, bool is_text) {
  const std::size_t slots = audit.forgetting_norms.size();
  const std::vector<std::string> names = slot_names(slots);
  HeatMap own{"Weight of each slot on itself", "slot", "segment", names, {}, {}, 0.0, 1.0};
  for (std::size_t t = 0; t < audit.segments.size(); ++t) own.columns.push_back(std::to_string(t));
  own.values.resize(slots * own.columns.size());
  for (std::size_t t = 0; t < own.columns.size(); ++t) {
    const std::vector<double> weights = own_weights(audit.segments[t]);
    for (std::size_t i = 0; i < slots; ++i) own.values[i * own.columns.size() + t] = weights[i];
  }
  report.heading("Keeping and writing over time");
  report.figure(heat_map(own, "1: the slot keeps what it holds; 0: it is all new."));
  for (std::size_t t = 0; t < audit.segments.size(); ++t) {
    const SlotsAtSegment& segment = audit.segments[t];
    const std::vector<std::string> tokens = token_labels(segment, is_text);
    report.heading(fmt::format("Segment {}", t));
    const std::vector<double> weights = segment.write.to_vector<double>();
    HeatMap write{"Write: what each slot attends to",
                  "slot",
                  "itself, then the tokens",
                  names,
                  {"itself"},
                  weights,
                  0.0,
                  *std::ranges::max_element(weights)};
    write.columns.insert(write.columns.end(), tokens.begin(), tokens.end());
    report.figure(heat_map(write, "Mean over the heads; each row sums to 1."));
    const std::vector<double> read = segment.read.transpose().contiguous().to_vector<double>();
    const HeatMap reading{
        "Read: what each token attends to", "slot", "token", names, tokens, read, 0.0,
        *std::ranges::max_element(read)};
    report.figure(heat_map(reading, "Mean over layers and heads; each column sums to 1."));
  }
}

Json to_json(const SlotsReport& audit) {
  Json json{{"radius", audit.radius},
            {"forgetting_norms", audit.forgetting_norms},
            {"segments", Json::array()}};
  for (const SlotsAtSegment& segment : audit.segments) {
    const SlotKinds kinds = kinds_of(segment);
    json["segments"].push_back({{"tokens", segment.tokens},
                                {"keepers", kinds.keepers},
                                {"mixers", kinds.mixers},
                                {"writers", kinds.writers},
                                {"write_shape", {segment.write.size(0), segment.write.size(1)}},
                                {"write", segment.write.to_vector<double>()},
                                {"read_shape", {segment.read.size(0), segment.read.size(1)}},
                                {"read", segment.read.to_vector<double>()},
                                {"written_norms", segment.written_norm},
                                {"turned_degrees", segment.turned},
                                {"degrees_from_start", segment.from_start},
                                {"cosine_between_slots", segment.between_slots},
                                {"write_error", segment.write_error},
                                {"read_error", segment.read_error}});
  }
  return json;
}

void run(const SlotsArguments& arguments) {
  const std::unique_ptr<Memformer> model = load(arguments.model);
  const SlotsReport audit =
      audit_slots(*model, segments_of(arguments, *model),
                  arguments.output.plant.empty() ? SlotsFault::none : SlotsFault::no_temperature);
  const bool is_text = model->config().vocabulary == kByteVocabulary;

  Report report("What the memory does",
                "The weights shown are those that the model used: from them come the memory it "
                "wrote and what its readers read.");
  report.paragraph(describe(*model) + (arguments.model.run.empty()
                                           ? "; its weights are drawn, not trained: give --run"
                                           : "; weights of " + arguments.model.run));
  report.table(over_time(audit));
  report.paragraph(fmt::format(
      "A keeper gives itself {:g} of its weight or more, a writer {:g} or less (our limits; the "
      "kinds are the paper's). The paper found 60 to 80 % keepers and 5 to 10 % writers in the "
      "middle of a document, and nearly all writers in its first steps.",
      kKeeperFrom, kWriterUpTo));
  report.paragraph(
      "Where the cosine between slots is near 1 they are copies of each other: all see the same "
      "tokens "
      "through the same projections, and only their own content and forgetting vectors tell them "
      "apart (chapter 9 of the walkthrough).");
  report.heading("Forgetting vectors");
  report.table(forgetting(audit), fmt::format("slots have length {:.3g}", audit.radius));
  add_figures(report, audit, is_text);
  report.verdict(audit.reproduced(),
                 fmt::format("{} (tolerance {:g}, relative)",
                             audit.reproduced() ? "the weights reproduce what was written and read"
                                                : "the weights do NOT reproduce what was written "
                                                  "and read",
                             audit.tolerance));
  deliver(arguments.output, report, to_json(audit));
}

}  // namespace

void add_audit_slots(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand(
      "slots",
      "what each memory slot attends to when it is written and read, segment by segment; fails "
      "unless these weights reproduce the model's memory");
  const auto arguments = std::make_shared<SlotsArguments>();
  add_audited_model(*command, arguments->model);
  command->add_option("--text", arguments->text,
                      "a file to read; default: what the run is tested on");
  command->add_option("--segments", arguments->segments, "how many to read; a task gives its own")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  add_audit_output(*command, arguments->output, {"no-temperature"});
  command->callback([arguments] { run(*arguments); });
}

}  // namespace mf::cli
