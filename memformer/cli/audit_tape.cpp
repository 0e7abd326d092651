#include <cstdio>
#include <memory>

#include "memformer/audit/graphviz.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/audit/tape_audit.h"
#include "memformer/cli/audit_shared.h"
#include "tensor/io.h"

namespace mf::cli {
namespace {

struct TapeArguments {
  AuditedModel model;
  AuditOutput output;
  TapeAuditOptions options;
  int depth = 0;  // 0: not given
  bool all = false;
  std::string dot;
};

constexpr int kEveryLevel = 99;

Json numbers(const Shape& shape) { return std::vector<std::int64_t>(shape.begin(), shape.end()); }

Json to_json(const TapeAudit& audit, const Memformer& model, const TapeArguments& arguments) {
  Json json{{"model", Json::parse(mf::to_json(model.config()))},
            {"batch", arguments.options.batch},
            {"seed", arguments.options.seed},
            {"saved_bytes", audit.recorded.saved_bytes},
            {"saved_bytes_after", audit.swept.saved_bytes},
            {"seeds", Json::array()},
            {"claims", Json::array()},
            {"entries", Json::array()},
            {"inputs", Json::array()},
            {"parameters", Json::array()}};
  for (const auto& [name, id] : audit.seeds) json["seeds"].push_back({{"name", name}, {"id", id}});
  for (const TapeClaim& claim : audit.claims)
    json["claims"].push_back({{"claim", claim.text}, {"violations", claim.violations}});
  for (std::size_t i = 0; i < audit.swept.rows.size(); ++i) {
    const TapeReport::Row& row = audit.swept.rows[i];
    Json entry{{"op", row.op},
               {"module", row.module},
               {"inputs", row.inputs},
               {"given", row.given},
               {"output", row.output},
               {"shapes", Json::array()},
               {"received", row.received},
               {"saved_bytes", audit.recorded.rows[i].saved_bytes},
               {"visit", row.visit}};
    for (const Shape& shape : row.shapes) entry["shapes"].push_back(numbers(shape));
    json["entries"].push_back(std::move(entry));
  }
  for (const TapeReport::Leaf& leaf : audit.swept.leaves)
    if (!leaf.parameter)
      json["inputs"].push_back({{"name", leaf.name},
                                {"id", leaf.id},
                                {"shape", numbers(leaf.shape)},
                                {"received", leaf.received},
                                {"gradient_norm", or_null(leaf.gradient_norm)}});
  for (const SweptParameter& parameter : audit.parameters)
    json["parameters"].push_back({{"name", parameter.name},
                                  {"shape", numbers(parameter.shape)},
                                  {"leaf", parameter.leaf},
                                  {"received", parameter.received},
                                  {"before", or_null(parameter.before)},
                                  {"after", or_null(parameter.after)}});
  return json;
}

/// Adds the drawing to a page if Graphviz is there; else says how to get it.
void add_graph(Report& report, const std::string& text, int depth) {
  const std::string dot = program_on_path("dot");
  if (dot.empty()) {
    report.paragraph("Graphviz is not installed (no dot on PATH), so the page has no drawing.");
    return;
  }
  try {
    report.figure(graphviz(
        dot, text, "The tape as a graph",
        fmt::format("Values flow along the arrows; the sweep goes against them. Modules {} levels "
                    "deep are one bold box each. Parameters are left out; a dashed box was not "
                    "visited. The table of entries says the same in words.",
                    depth)));
  } catch (const Error& error) {
    std::fprintf(stderr, "memformer: %s\n", error.what());
    report.paragraph("Graphviz could not draw the tape.");
  }
}

void audit_tape_command(const TapeArguments& arguments) {
  TapeAuditOptions options = arguments.options;
  options.seed = arguments.model.seed;
  if (arguments.output.plant == "forgotten-input")
    options.fault = PlantedTapeFault::forgotten_input;
  if (arguments.output.plant == "drop-state-seed")
    options.fault = PlantedTapeFault::drop_state_seed;
  const std::unique_ptr<Memformer> model = load(arguments.model);
  const TapeAudit audit = audit_tape(*model, options);
  const int rows = arguments.all ? kEveryLevel : std::max(1, arguments.depth);
  Report report =
      report_of(audit, fmt::format("{}, batch {}", describe(*model), options.batch), rows);
  const int drawn = arguments.depth > 0 ? arguments.depth : readable_depth(audit);
  const std::string dot = dot_of(audit, drawn);
  if (!arguments.dot.empty()) write_file_atomically(arguments.dot, dot);
  if (!arguments.output.html.empty()) add_graph(report, dot, drawn);
  deliver(arguments.output, report, to_json(audit, *model, arguments));
}

}  // namespace

void add_audit_tape(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand(
      "tape",
      "the tape of one segment by module, before and after the sweep; fails unless every gradient "
      "that is owed arrives, in order, and all that was saved is freed");
  const auto arguments = std::make_shared<TapeArguments>();
  add_audited_model(*command, arguments->model);
  add_audit_output(*command, arguments->output, {"forgotten-input", "drop-state-seed"});
  command->add_option("--batch", arguments->options.batch, "rows")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--depth", arguments->depth,
                   "levels of modules to unfold, in the table and in the graph; default: 1, and as "
                   "many as keep the graph readable")
      ->check(CLI::PositiveNumber);
  command->add_flag("--all", arguments->all, "every entry in the table");
  command->add_option("--dot", arguments->dot, "also write the graph to this file, for Graphviz");
  command->callback([arguments] { audit_tape_command(*arguments); });
}

}  // namespace mf::cli
