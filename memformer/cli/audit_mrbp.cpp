#include <algorithm>
#include <memory>

#include "memformer/audit/mrbp_audit.h"
#include "memformer/cli/audit_shared.h"

namespace mf::cli {
namespace {

struct MrbpArguments {
  AuditedModel model;
  AuditOutput output;
  AuditOptions options;
};

/// One way through a window, by its name.
struct NamedPass {
  std::string name;
  const AuditedPass& pass;
};

std::vector<NamedPass> passes_of(const AuditedWindow& window) {
  std::vector<NamedPass> passes{
      {"BPTT", window.bptt}, {"MRBP", window.mrbp}, {"checkpointed", window.checkpointed}};
  for (const auto& [length, pass] : window.truncated)
    passes.push_back({fmt::format("truncated to {}", length), pass});
  return passes;
}

std::string bytes_or_dash(const std::optional<std::int64_t>& bytes) {
  return bytes ? readable_bytes(*bytes) : "-";
}

std::string times(double ratio) { return fmt::format("{:.2f}", ratio); }

double work_ratio(const AuditReport& audit, const AuditedWindow& window, const AuditedPass& pass) {
  return static_cast<double>(pass.runs.work(audit.multiply_adds, window.segments)) /
         static_cast<double>(window.bptt.runs.work(audit.multiply_adds, window.segments));
}

Table overview(const AuditReport& audit) {
  Table table{{{"segments"},
               {"BPTT peak"},
               {"MRBP peak"},
               {"growth per segment"},
               {"one state"},
               {"MRBP/BPTT time"},
               {"bit-identical"}},
              {}};
  for (std::size_t i = 0; i < audit.windows.size(); ++i) {
    const AuditedWindow& window = audit.windows[i];
    table.rows.push_back({std::to_string(window.segments), readable_bytes(window.bptt.peak_bytes),
                          readable_bytes(window.mrbp.peak_bytes),
                          i == 0 ? "-" : fmt::format("{:.0f} B", audit.mrbp_growth(i)),
                          fmt::format("{} B", audit.state_bytes),
                          times(window.mrbp.seconds / window.bptt.seconds),
                          window.mrbp.differing.empty() ? "yes" : "NO"});
  }
  return table;
}

Table all_passes(const AuditReport& audit) {
  Table table{{{"segments"},
               {"pass", false},
               {"peak"},
               {"of the process"},
               {"seconds"},
               {"time ratio"},
               {"forward runs: memory path + rest"},
               {"work ratio"},
               {"largest relative error"},
               {"cosine"},
               {"bit-identical"}},
              {}};
  for (const AuditedWindow& window : audit.windows)
    for (const auto& [name, pass] : passes_of(window))
      table.rows.push_back(
          {std::to_string(window.segments), name, readable_bytes(pass.peak_bytes),
           bytes_or_dash(pass.process_peak_bytes), fmt::format("{:.4f}", pass.seconds),
           times(pass.seconds / window.bptt.seconds),
           fmt::format("{} + {}", pass.runs.memory_path, pass.runs.prediction),
           times(work_ratio(audit, window, pass)),
           fmt::format("{:.2e}", pass.largest_relative_error), fmt::format("{:.6f}", pass.cosine),
           pass.differing.empty() ? "yes" : "no"});
  return table;
}

/// What was measured over what the cost model says, less one.
std::string deviation(double measured, double model) {
  return fmt::format("{:+.1f} %", 100.0 * (measured / model - 1.0));
}

Table against_model(const AuditReport& audit, const CostModel& model) {
  Table table{{{"segments"},
               {"BPTT model"},
               {"deviation"},
               {"MRBP model"},
               {"deviation"},
               {"MRBP work model"},
               {"time's deviation"}},
              {}};
  for (const AuditedWindow& window : audit.windows) {
    const std::int64_t count = window.segments;
    table.rows.push_back(
        {std::to_string(count), readable_bytes(model.bptt_bytes(count)),
         deviation(static_cast<double>(window.bptt.peak_bytes),
                   static_cast<double>(model.bptt_bytes(count))),
         readable_bytes(model.replay_bytes(count)),
         deviation(static_cast<double>(window.mrbp.peak_bytes),
                   static_cast<double>(model.replay_bytes(count))),
         fmt::format("{:.3f}", model.mrbp_work(count)),
         deviation(window.mrbp.seconds / window.bptt.seconds, model.mrbp_work(count))});
  }
  return table;
}

/// Table 3 of the paper beside the window of the same horizon.
Table beside_the_paper(const AuditedWindow& window) {
  struct Row {
    std::string name;
    double megabytes, speed;
    const AuditedPass& pass;
  };
  const Row rows[] = {{"BPTT", 16177, 1.00, window.bptt},
                      {"checkpointed", 9885, 0.48, window.checkpointed},
                      {"MRBP", 7229, 0.90, window.mrbp}};
  Table table{{{"pass", false},
               {"paper: MB"},
               {"over MRBP"},
               {"speed"},
               {"here: peak"},
               {"over MRBP"},
               {"speed"}},
              {}};
  for (const Row& row : rows)
    table.rows.push_back({row.name, fmt::format("{:.0f}", row.megabytes),
                          times(row.megabytes / rows[2].megabytes), times(row.speed),
                          readable_bytes(row.pass.peak_bytes),
                          times(static_cast<double>(row.pass.peak_bytes) /
                                static_cast<double>(window.mrbp.peak_bytes)),
                          times(window.bptt.seconds / row.pass.seconds)});
  return table;
}

Table parameters_table(const AuditedPass& pass) {
  Table table{{{"parameter", false},
               {"largest absolute error"},
               {"relative"},
               {"cosine"},
               {"bit-identical"}},
              {}};
  for (const AuditedParameter& parameter : pass.parameters)
    table.rows.push_back({parameter.name, fmt::format("{:.2e}", parameter.absolute_error),
                          fmt::format("{:.2e}", parameter.relative_error),
                          fmt::format("{:.6f}", parameter.cosine),
                          parameter.identical ? "yes" : "no"});
  return table;
}

/// One value of each window, by its number of segments.
template <class Value>
Series over_windows(std::string name, const AuditReport& audit, Value&& value) {
  Series series{std::move(name), {}};
  for (const AuditedWindow& window : audit.windows)
    series.points.emplace_back(static_cast<double>(window.segments),
                               static_cast<double>(value(window)));
  return series;
}

void add_figures(Report& report, const AuditReport& audit) {
  const CostModel model = cost_model(audit);
  LineChart bytes{"Peak bytes above weights and inputs",
                  "segments in the window",
                  "bytes",
                  true,
                  true,
                  true,
                  {}};
  bytes.series = {
      over_windows("BPTT", audit, [](const auto& w) { return w.bptt.peak_bytes; }),
      over_windows("MRBP", audit, [](const auto& w) { return w.mrbp.peak_bytes; }),
      over_windows("checkpointed", audit, [](const auto& w) { return w.checkpointed.peak_bytes; }),
      over_windows("BPTT, model", audit,
                   [&](const auto& w) { return model.bptt_bytes(w.segments); }),
      over_windows("MRBP, model", audit,
                   [&](const auto& w) { return model.replay_bytes(w.segments); })};
  report.figure(
      line_chart(bytes,
                 "Both axes are logarithmic. MRBP and checkpointing nearly coincide: both "
                 "keep the states and one segment's activations."));
  LineChart work{"Time over BPTT's", "segments in the window", "ratio", true, false, false, {}};
  work.series = {
      over_windows("MRBP", audit, [](const auto& w) { return w.mrbp.seconds / w.bptt.seconds; }),
      over_windows("checkpointed", audit,
                   [](const auto& w) { return w.checkpointed.seconds / w.bptt.seconds; }),
      over_windows("MRBP, model", audit,
                   [&](const auto& w) { return model.mrbp_work(w.segments); }),
      over_windows("checkpointed, model", audit, [](const auto&) { return 4.0 / 3.0; })};
  report.figure(
      line_chart(work, "The shortest of the repeated passes each; the model counts work."));
}

Report report_of(const AuditReport& audit, const Memformer& model, const AuditOptions& options) {
  Report report("Memory replay back-propagation against full back-propagation through time",
                "With the same weights, tokens and dropout, MRBP gives BPTT's losses, memories and "
                "gradients bit for bit, and its peak grows by one memory a segment.");
  report.paragraph(fmt::format("{}, batch {}", describe(model), options.batch));
  report.table(overview(audit));
  report.paragraph(
      "MRBP grows by one state a segment from 3 segments on, when every parameter has its "
      "gradient.");

  report.heading("Every pass");
  report.table(all_passes(audit),
               "peak: active bytes above weights and inputs; of the process: what the system sees");
  if (audit.windows.size() > 1) {
    const CostModel costs = cost_model(audit);
    add_figures(report, audit);
    report.heading("Beside the cost model");
    report.table(
        against_model(audit, costs),
        fmt::format("bytes: gradients {} + H x activations {} (BPTT), + H x state {} + activations "
                    "(MRBP); work: 1 + f (H - 1) / (3 H), f = {:.3f}",
                    readable_bytes(costs.gradients), readable_bytes(costs.activations),
                    readable_bytes(costs.state), costs.memory_share));
    report.paragraph(
        "Why they differ: a sweep holds gradients of activations for a moment, the widest of them "
        "at the logits, which the model leaves out and which weighs most in short windows, for "
        "BPTT "
        "as for MRBP; at one or two segments some parameters have no gradient yet. Work counts "
        "products alone, time also what moves bytes; BPTT of a long window leaves the caches, MRBP "
        "stays in them.");
  }
  const auto four = std::ranges::find(audit.windows, 4, &AuditedWindow::segments);
  if (four != audit.windows.end()) {
    report.heading("Beside the paper: a horizon of 4");
    report.table(beside_the_paper(*four));
    report.paragraph(
        "The paper's figures (its Table 3) are of another model, 12 layers of width 512 with 32 "
        "slots, on a GPU, weights and all; speed is BPTT's time over the pass's. Its checkpointing "
        "ran at 0.48; one more forward pass costs 0.75.");
  }
  const AuditedWindow& longest = audit.windows.back();
  report.heading(fmt::format("Each parameter's gradient, {} segments", longest.segments));
  for (const auto& [name, pass] : passes_of(longest))
    report.folded_table(name + " against BPTT", parameters_table(pass));

  for (const AuditedWindow& window : audit.windows)
    for (const auto* pass : {&window.mrbp, &window.checkpointed}) {
      if (pass->differing.empty()) continue;
      std::string names;
      for (const std::string& name : pass->differing) names += "  " + name + "\n";
      report.paragraph(
          fmt::format("{}, {} segments: largest relative error {:.2e}, cosine {:.6f}; "
                      "these differ:",
                      pass == &window.mrbp ? "MRBP" : "checkpointed", window.segments,
                      pass->largest_relative_error, pass->cosine));
      report.listing(names);
    }
  report.verdict(audit.identical(), audit.identical() ? "MRBP is bit-identical to BPTT"
                                                      : "MRBP is NOT bit-identical to BPTT");
  return report;
}

Json to_json(const AuditReport& audit, const AuditedWindow& window, const AuditedPass& pass) {
  Json json{{"peak_bytes", pass.peak_bytes},
            {"process_peak_bytes", nullptr},
            {"seconds", pass.seconds},
            {"memory_path_runs", pass.runs.memory_path},
            {"prediction_runs", pass.runs.prediction},
            {"work_ratio", work_ratio(audit, window, pass)},
            {"bit_identical", pass.differing.empty()},
            {"largest_relative_error", pass.largest_relative_error},
            {"cosine", pass.cosine},
            {"differing", pass.differing},
            {"parameters", Json::array()}};
  if (pass.process_peak_bytes) json["process_peak_bytes"] = *pass.process_peak_bytes;
  for (const AuditedParameter& parameter : pass.parameters)
    json["parameters"].push_back({{"name", parameter.name},
                                  {"bit_identical", parameter.identical},
                                  {"absolute_error", parameter.absolute_error},
                                  {"relative_error", parameter.relative_error},
                                  {"cosine", parameter.cosine}});
  return json;
}

Json to_json(const AuditReport& audit, const Memformer& model, const AuditOptions& options) {
  Json json{{"model", Json::parse(mf::to_json(model.config()))},
            {"batch", options.batch},
            {"seed", options.seed},
            {"device", full_name(model.device())},
            {"state_bytes", audit.state_bytes},
            {"parameter_bytes", audit.parameter_bytes},
            {"bit_identical", audit.identical()},
            {"windows", Json::array()}};
  if (audit.windows.size() > 1) {
    const CostModel costs = cost_model(audit);
    json["cost_model"] = {{"activation_bytes_per_segment", costs.activations},
                          {"memory_share_of_work", costs.memory_share}};
  }
  for (std::size_t i = 0; i < audit.windows.size(); ++i) {
    const AuditedWindow& window = audit.windows[i];
    Json row{{"segments", window.segments},
             {"bptt", to_json(audit, window, window.bptt)},
             {"mrbp", to_json(audit, window, window.mrbp)},
             {"checkpointed", to_json(audit, window, window.checkpointed)},
             {"truncated", Json::array()}};
    if (i > 0) row["mrbp"]["growth_per_segment"] = audit.mrbp_growth(i);
    for (const TruncatedPass& truncated : window.truncated) {
      Json entry = to_json(audit, window, truncated.pass);
      entry["length"] = truncated.length;
      row["truncated"].push_back(entry);
    }
    json["windows"].push_back(row);
  }
  return json;
}

void run(const MrbpArguments& arguments) {
  AuditOptions options = arguments.options;
  options.seed = arguments.model.seed;
  if (arguments.output.plant == "drop-state-seed") options.fault = PlantedFault::drop_state_seed;
  const std::unique_ptr<Memformer> model = load(arguments.model);
  const AuditReport audit = audit_mrbp(*model, options);
  deliver(arguments.output, report_of(audit, *model, options), to_json(audit, *model, options));
}

}  // namespace

void add_audit_mrbp(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand(
      "mrbp",
      "same weights, tokens and dropout through BPTT, MRBP, checkpointed and truncated BPTT; fails "
      "unless MRBP's gradients are BPTT's bit for bit");
  const auto arguments = std::make_shared<MrbpArguments>();
  add_audited_model(*command, arguments->model);
  command->option_defaults()->always_capture_default();
  command->add_option("--segments", arguments->options.segments, "window lengths, growing")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command->add_option("--batch", arguments->options.batch, "rows")->check(CLI::PositiveNumber);
  command->add_option("--repeats", arguments->options.repeats, "passes; the fastest is reported")
      ->check(CLI::PositiveNumber);
  command->option_defaults()->always_capture_default(false);
  add_audit_output(*command, arguments->output, {"drop-state-seed"});
  command->callback([arguments] { run(*arguments); });
}

}  // namespace mf::cli
