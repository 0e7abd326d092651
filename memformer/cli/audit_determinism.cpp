#include <memory>

#include "memformer/audit/determinism.h"
#include "memformer/cli/audit_shared.h"
#include "memformer/cli/device.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"

namespace mf::cli {
namespace {

struct DeterminismArguments {
  std::string config;
  std::int64_t steps = 10;
  std::int64_t seed = 1;
  Device device = cpu;
  AuditOutput output;
};

void run(const DeterminismArguments& arguments) {
  RunConfig config =
      arguments.config.empty() ? determinism_run() : read_run_config(arguments.config);
  config.train.seed = arguments.seed;
  const DeterminismReport audit = audit_determinism(
      config, arguments.steps, arguments.device,
      arguments.output.plant.empty() ? DeterminismFault::none : DeterminismFault::other_draws);

  const std::string isa(name_of(current_isa()));
  Report report(
      "Determinism of training",
      "The same build, seed and data give the same losses, gradient norms and weights, bit "
      "for bit: again, on any number of threads, after a resume, and by full unrolling.");
  report.paragraph(fmt::format(
      "{} steps on {}, width {}, batch {}, dropout {:g}, {}, kernels for {}, {}", audit.steps,
      config.data.source, config.model.width, config.data.batch, config.model.dropout,
      name_of(config.model.dtype), isa, full_name(arguments.device)));
  Table table{
      {{"run", false}, {"losses"}, {"gradient norms"}, {"weights"}, {"first difference", false}},
      {{"1 thread (the reference)", "-", "-", "-", ""}}};
  Json rows = Json::array();
  const auto word = [](bool same) { return std::string(same ? "same bits" : "DIFFER"); };
  for (const DeterminismRow& row : audit.rows) {
    table.rows.push_back({row.name, word(row.losses), word(row.gradient_norms), word(row.weights),
                          row.first_difference});
    rows.push_back({{"run", row.name},
                    {"losses", row.losses},
                    {"gradient_norms", row.gradient_norms},
                    {"weights", row.weights},
                    {"first_difference", row.first_difference}});
  }
  report.table(std::move(table));
  LineChart losses{"Loss of the reference run", "step", "nats per target", false, false, false, {}};
  Series series{"loss", {}};
  for (std::size_t i = 0; i < audit.losses.size(); ++i)
    series.points.emplace_back(static_cast<double>(i + 1), audit.losses[i]);
  losses.series.push_back(std::move(series));
  report.figure(line_chart(losses, "It trains: runs that stood still would also be the same."));
  report.paragraph(
      "In each run MRBP compared every replayed memory with the one of its first pass; a bit that "
      "differed would have ended it. Another instruction set (--isa) may give other last bits.");
  report.verdict(audit.identical(),
                 audit.identical() ? "all runs have the same bits" : "runs DIFFER");
  deliver(arguments.output, report,
          {{"steps", audit.steps},
           {"isa", isa},
           {"device", full_name(arguments.device)},
           {"losses", audit.losses},
           {"runs", rows}});
}

}  // namespace

void add_audit_determinism(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand("determinism",
                                           "trains a few steps again, on 1, 2 and 4 threads, "
                                           "resumed, and by BPTT; fails unless all runs "
                                           "have the same bits");
  const auto arguments = std::make_shared<DeterminismArguments>();
  command->add_option("--config", arguments->config,
                      "configuration of a run; default: a small one");
  command->add_option("--steps", arguments->steps, "optimizer steps")
      ->check(CLI::Range(2, 1000000))
      ->capture_default_str();
  command->add_option("--seed", arguments->seed, "of the run")->capture_default_str();
  add_device(*command, arguments->device);
  add_audit_output(*command, arguments->output, {"other-draws"});
  command->callback([arguments] { run(*arguments); });
}

}  // namespace mf::cli
