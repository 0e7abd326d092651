#include <algorithm>
#include <memory>

#include "memformer/audit/trace.h"
#include "memformer/cli/audit_shared.h"

namespace mf::cli {
namespace {

struct TraceArguments {
  AuditedModel model;
  AuditOutput output;
  TraceOptions options;
};

bool hands_gradient_out(const TraceRow& row) {
  return row.line == ReplayLine::hand_back || row.line == ReplayLine::hand_out;
}

std::string norm_text(const std::optional<double>& norm) {
  return norm ? fmt::format("{:.4g}", *norm) : "-";
}
/// Absent is not zero.
std::string gradient_text(const TraceRow& row, bool out) {
  if (!row.knows_gradient || hands_gradient_out(row) != out) return "-";
  const std::optional<double>& norm = out ? row.gradient_out : row.gradient_in;
  return norm ? norm_text(norm) : "absent";
}
std::string bits_text(const TraceRow& row) {
  return !row.same_bits ? "-" : *row.same_bits ? "same" : "DIFFER";
}
std::string kept_text(const TraceRow& row) {
  return row.kept == 1 ? "M_0" : fmt::format("M_0..M_{}", row.kept - 1);
}

Table moment_table(const WindowTrace& trace) {
  Table table{{{"#"},
               {"line", false},
               {"segment"},
               {"kept"},
               {"tape"},
               {"saved"},
               {"live"},
               {"peak"},
               {"|M_t|"},
               {"|M_t+1|"},
               {"bits"},
               {"loss"},
               {"|G| in"},
               {"|G| out"}},
              {}};
  for (std::size_t i = 0; i < trace.rows.size(); ++i) {
    const TraceRow& row = trace.rows[i];
    table.rows.push_back({std::to_string(i + 1), name_of(row.line), std::to_string(row.segment),
                          kept_text(row), row.has_tape ? std::to_string(row.entries) : "-",
                          row.has_tape ? std::to_string(row.saved_bytes) : "-",
                          std::to_string(row.live_bytes), std::to_string(row.peak_bytes),
                          norm_text(row.state_in), norm_text(row.state_out), bits_text(row),
                          row.loss ? fmt::format("{:.4f}", *row.loss) : "-",
                          gradient_text(row, false), gradient_text(row, true)});
  }
  return table;
}

/// Which entries of the tapes the first pass ran too. Segments of which the same is so share a row.
Table part_table(const WindowTrace& trace) {
  Table table{{{"part", false},
               {"entries"},
               {"saved bytes"},
               {"in the first pass", false},
               {"segments", false},
               {"ops", false}},
              {}};
  constexpr std::size_t kSegments = 4;  // the column
  for (const TraceRow& row : trace.rows)
    for (const TapePart& part : row.parts) {
      const char* again = !part.memory_path ? "no: new"
                          : row.same_bits   ? "yes: recomputed"
                                            : "no: the last one's runs here first";
      std::vector<std::string> cells{
          part.name, std::to_string(part.entries), std::to_string(part.saved_bytes), again, "",
          part.ops};
      const auto same = std::ranges::find_if(table.rows, [&](std::vector<std::string> other) {
        other[kSegments].clear();
        return other == cells;
      });
      cells[kSegments] = std::to_string(row.segment);
      if (same == table.rows.end()) {
        table.rows.push_back(std::move(cells));
      } else {
        (*same)[kSegments] += " " + cells[kSegments];
      }
    }
  return table;
}

Table check_table(const WindowTrace& trace) {
  Table table{{{"holds", false}, {"claim", false}, {"first seen not to", false}}, {}};
  for (const TraceCheck& check : trace.checks)
    table.rows.push_back({check.failure.empty() ? "yes" : "NO", check.claim, check.failure});
  return table;
}

std::string text_of(const TraceRow& row) {
  const auto t = row.segment;
  switch (row.line) {
    case ReplayLine::keep_entry:
      return "The buffer holds the memory that enters the window.";
    case ReplayLine::write_memory:
      return fmt::format(
          "Encoder and writer ran on segment {}, nothing was recorded, and all but M_{} is freed.",
          t, t + 1);
    case ReplayLine::absent_gradient:
      return "All memories but the last are there. No loss lies behind it, so G is absent, which "
             "is not a gradient of zero.";
    case ReplayLine::fresh_leaf:
      return fmt::format("A new tape, empty; M_{} is its leaf. The tape before it is gone.", t);
    case ReplayLine::recompute:
      return row.same_bits
                 ? fmt::format(
                       "The step ran again, now with decoder and loss, and is recorded. "
                       "The first pass's M_{} {}.",
                       t + 1,
                       *row.same_bits ? "came out again, bit for bit" : "did NOT come out again")
                 : fmt::format(
                       "The step ran, with decoder and loss, and is recorded. Its M_{} is "
                       "the window's last and is kept.",
                       t + 1);
    case ReplayLine::sweep:
      return row.gradient_in ? fmt::format(
                                   "One sweep from the loss and from M_{} with gradient G; "
                                   "each entry was freed as it was passed.",
                                   t + 1)
                             : "One sweep from the loss alone; each entry was freed as it was "
                               "passed.";
    case ReplayLine::hand_back:
      return fmt::format("G is now the gradient at M_{}, the seed of the segment before.", t);
    case ReplayLine::hand_out:
      return "The result: all memories, and the gradient at the memory that entered.";
  }
  return "";
}

Table facts_of(const TraceRow& row) {
  Table table{{{"now", false}, {"", false}}, {}};
  const auto add = [&](const std::string& name, const std::string& value) {
    if (value != "-") table.rows.push_back({name, value});
  };
  add("kept memories", kept_text(row));
  if (row.reset_rows > 0) add("rows that start a document here", std::to_string(row.reset_rows));
  add("|M_t|, the memory read", norm_text(row.state_in));
  add("|M_t+1|, the memory written", norm_text(row.state_out));
  add("bits of M_t+1, against the kept one", bits_text(row));
  add("loss, summed over the segment", row.loss ? fmt::format("{:.6f}", *row.loss) : "-");
  add("|G| coming in", gradient_text(row, false));
  add("|G| handed out", gradient_text(row, true));
  if (row.has_tape)
    add("tape", fmt::format("{} entries, {} saved", row.entries, readable_bytes(row.saved_bytes)));
  for (const TapePart& part : row.parts)
    add(fmt::format("entries of {}", part.name),
        fmt::format("{}{}, {} saved: {}", part.entries,
                    !part.memory_path ? " (new)"
                    : row.same_bits   ? " (recomputed)"
                                      : "",
                    readable_bytes(part.saved_bytes), part.ops));
  add("live bytes", fmt::format("{}; at most {} since the step before",
                                readable_bytes(row.live_bytes), readable_bytes(row.peak_bytes)));
  for (std::size_t c = 0; c < row.by_category.size(); ++c)
    if (row.by_category[c] != 0)
      add(fmt::format("of them {}", name_of(static_cast<Category>(c))),
          readable_bytes(row.by_category[c]));
  return table;
}

/// The listing and the steps through it.
void add_steps(Report& report, const WindowTrace& trace) {
  std::vector<std::string> listing;
  for (const ListingLine& line : algorithm_listing())
    listing.push_back(line.code ? std::string("    ") + line.text : line.text);
  std::vector<Step> steps;
  for (const TraceRow& row : trace.rows) {
    Step step{fmt::format("Line {}, segment {}", name_of(row.line), row.segment),
              text_of(row),
              {},
              facts_of(row)};
    std::size_t number = 0;
    for (const ListingLine& line : algorithm_listing()) {
      if (ran(line, row)) step.lines.push_back(number);
      ++number;
    }
    steps.push_back(std::move(step));
  }
  report.steps("Step by step", std::move(listing), std::move(steps));
}

Figure live_chart(const WindowTrace& trace) {
  LineChart chart;
  chart.title = "Live bytes above those before the window";
  chart.x_label = "moment, the first column of the table";
  chart.y_label = "bytes";
  chart.y_is_bytes = true;
  chart.series = {{"live", {}}, {"most since the moment before", {}}};
  for (std::size_t i = 0; i < trace.rows.size(); ++i) {
    const auto x = static_cast<double>(i + 1);
    chart.series[0].points.emplace_back(x, static_cast<double>(trace.rows[i].live_bytes));
    chart.series[1].points.emplace_back(x, static_cast<double>(trace.rows[i].peak_bytes));
  }
  return line_chart(chart,
                    "A tape grows when a segment is recomputed and is freed in its sweep; what "
                    "stays are memories and the parameters' gradients.");
}

/// |G| where each segment handed it back, if any did.
void add_gradient_chart(Report& report, const WindowTrace& trace) {
  LineChart chart;
  chart.title = "Gradient at the memories";
  chart.x_label = "t of M_t";
  chart.y_label = "|G| at M_t";
  Series series{"|G|", {}};
  for (const TraceRow& row : trace.rows)
    if (row.line == ReplayLine::hand_back && row.gradient_out)
      series.points.emplace_back(static_cast<double>(row.segment), *row.gradient_out);
  if (series.points.empty()) return;
  std::ranges::reverse(series.points);
  chart.series = {std::move(series)};
  report.figure(line_chart(chart, "From right to left, as the gradient is handed back."));
}

Report trace_report(const WindowTrace& trace, const Memformer& model, const TraceOptions& options) {
  Report report(
      "Trace: one window of memory replay back-propagation",
      "Every segment is recomputed once, newest first, on a tape of its own, with the bits of the "
      "first pass; G is handed from segment to segment; no other tape is ever alive.");
  report.paragraph(describe(model));
  report.paragraph(fmt::format(
      "{} segments, batch {}. Bytes are above the {} that were live before the window: weights, "
      "inputs and the results of a run that nobody watched. Norms are over all rows. kept: the "
      "replay buffer. tape: entries of the segment's tape, and bytes that "
      "it holds. peak: the most bytes since the moment before.",
      options.segments, options.batch, readable_bytes(trace.before_bytes)));
  add_steps(report, trace);
  report.heading("Moments");
  report.table(moment_table(trace));
  report.figure(live_chart(trace));
  add_gradient_chart(report, trace);
  report.heading("What is recomputed");
  report.table(part_table(trace));
  report.heading("What must be so");
  report.table(check_table(trace));
  const auto failed = std::ranges::count_if(
      trace.checks, [](const TraceCheck& check) { return !check.failure.empty(); });
  report.verdict(trace.holds(),
                 trace.holds()
                     ? fmt::format("all {} claims hold", trace.checks.size())
                     : fmt::format("NOT so: {} of {} claims fail", failed, trace.checks.size()));
  return report;
}

Json to_json(const WindowTrace& trace, const Memformer& model, const TraceOptions& options) {
  Json json{{"model", Json::parse(mf::to_json(model.config()))},
            {"segments", options.segments},
            {"batch", options.batch},
            {"seed", options.seed},
            {"device", full_name(model.device())},
            {"before_bytes", trace.before_bytes},
            {"moments", Json::array()},
            {"claims", Json::array()}};
  for (const TraceRow& row : trace.rows) {
    Json moment{{"line", name_of(row.line)},
                {"segment", row.segment},
                {"kept_memories", row.kept},
                {"reset_rows", row.reset_rows},
                {"live_bytes", row.live_bytes},
                {"peak_bytes", row.peak_bytes},
                {"tape_entries", row.entries},
                {"tape_saved_bytes", row.saved_bytes},
                {"state_norm_in", or_null(row.state_in)},
                {"state_norm_out", or_null(row.state_out)},
                {"loss", or_null(row.loss)},
                {"gradient_norm_in", or_null(row.gradient_in)},
                {"gradient_norm_out", or_null(row.gradient_out)},
                {"same_bits", row.same_bits ? Json(*row.same_bits) : Json()},
                {"parts", Json::array()}};
    for (const TapePart& part : row.parts)
      moment["parts"].push_back({{"name", part.name},
                                 {"memory_path", part.memory_path},
                                 {"entries", part.entries},
                                 {"saved_bytes", part.saved_bytes}});
    json["moments"].push_back(std::move(moment));
  }
  for (const TraceCheck& check : trace.checks)
    json["claims"].push_back(
        {{"claim", check.claim}, {"holds", check.failure.empty()}, {"failure", check.failure}});
  return json;
}

void audit_trace_command(const TraceArguments& arguments) {
  const std::unique_ptr<Memformer> model = load(arguments.model);
  TraceOptions options = arguments.options;
  options.seed = arguments.model.seed;
  options.wrong_replay_key = arguments.output.plant == "replay-key";
  const WindowTrace trace = trace_mrbp(*model, options);
  deliver(arguments.output, trace_report(trace, *model, options), to_json(trace, *model, options));
}

}  // namespace

void add_audit_trace(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand(
      "trace",
      "one window of MRBP step by step: what is live, norms of memory and gradient, loss, bytes, "
      "what is recomputed; fails unless each replay repeats the first pass on a tape of its own");
  const auto arguments = std::make_shared<TraceArguments>();
  add_audited_model(*command, arguments->model);
  add_audit_output(*command, arguments->output, {"replay-key"});
  command->option_defaults()->always_capture_default();
  command->add_option("--segments", arguments->options.segments, "of the window")
      ->check(CLI::PositiveNumber);
  command->add_option("--batch", arguments->options.batch, "rows")->check(CLI::PositiveNumber);
  command->callback([arguments] { audit_trace_command(*arguments); });
}

}  // namespace mf::cli
