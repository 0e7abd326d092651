#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "memformer/audit/mrbp_audit.h"
#include "memformer/cli/commands.h"
#include "memformer/cli/device.h"
#include "memformer/cli/progress.h"
#include "memformer/train/checkpoint.h"
#include "nn/parameters.h"
#include "tensor/backend.h"

namespace mf::cli {
namespace {

using Json = nlohmann::ordered_json;

struct AuditArguments {
  std::string run;
  std::string config;
  std::string dtype;
  std::string plant;
  AuditOptions options;
  bool json = false;
  Device device;
};

/// The model to audit: a run's with its weights, a configuration's or the small one, in any dtype.
std::unique_ptr<Memformer> audited_model(const AuditArguments& arguments) {
  TrainedModel trained;
  ModelConfig config = audit_model();
  if (!arguments.run.empty()) {
    trained = load_trained(arguments.run);
    config = trained.config.model;
  } else if (!arguments.config.empty()) {
    config = read_run_config(arguments.config).model;
  }
  if (!arguments.dtype.empty()) config.dtype = arguments.dtype == "f64" ? DType::f64 : DType::f32;
  auto model = std::make_unique<Memformer>(config, RngKey{arguments.options.seed}.at("weights"));
  if (trained.model) {
    const std::vector<Parameter> sources = trained.model->parameters();
    std::vector<Parameter> targets = model->parameters();
    for (std::size_t i = 0; i < targets.size(); ++i)
      targets[i].value().copy_(sources[i].value().to(config.dtype));
  }
  move_to(arguments.device, model->parameters());
  return model;
}

Json to_json(const AuditedPass& pass) {
  return {{"peak_bytes", pass.peak_bytes},
          {"seconds", pass.seconds},
          {"bit_identical", pass.differing.empty()},
          {"largest_relative_error", pass.largest_relative_error},
          {"cosine", pass.cosine}};
}

void print_json(const AuditReport& report, const Memformer& model, const AuditOptions& options) {
  Json json{{"model", Json::parse(mf::to_json(model.config()))},
            {"batch", options.batch},
            {"seed", options.seed},
            {"device", full_name(model.device())},
            {"state_bytes", report.state_bytes},
            {"bit_identical", report.identical()},
            {"windows", Json::array()}};
  for (std::size_t i = 0; i < report.windows.size(); ++i) {
    const AuditedWindow& window = report.windows[i];
    Json row{{"segments", window.segments},
             {"bptt", to_json(window.bptt)},
             {"mrbp", to_json(window.mrbp)},
             {"truncated", Json::array()}};
    row["mrbp"]["differing"] = window.mrbp.differing;
    if (i > 0) row["mrbp"]["growth_per_segment"] = report.mrbp_growth(i);
    for (const TruncatedPass& truncated : window.truncated) {
      Json entry = to_json(truncated.pass);
      entry["length"] = truncated.length;
      row["truncated"].push_back(entry);
    }
    json["windows"].push_back(row);
  }
  std::printf("%s\n", json.dump().c_str());
}

std::string exact_bytes(double bytes) { return fmt::format("{:.0f} B", bytes); }

void print_table(const AuditReport& report, const Memformer& model, const AuditOptions& options) {
  const ModelConfig& config = model.config();
  std::printf(
      "width %lld, %lld + %lld layers, segment %lld, %lld slots, batch %lld, %s, %s, dropout "
      "%g\n\n",
      static_cast<long long>(config.width), static_cast<long long>(config.encoder_layers),
      static_cast<long long>(config.decoder_layers), static_cast<long long>(config.segment),
      static_cast<long long>(config.slots), static_cast<long long>(options.batch),
      std::string(name_of(config.dtype)).c_str(), full_name(model.device()).c_str(),
      config.dropout);
  std::printf(
      "segments  BPTT peak  MRBP peak  MRBP growth per segment  state bytes  time ratio  "
      "bit-identical\n");
  for (std::size_t i = 0; i < report.windows.size(); ++i) {
    const AuditedWindow& window = report.windows[i];
    std::printf(
        "%8lld  %9s  %9s  %23s  %11s  %10.2f  %13s\n", static_cast<long long>(window.segments),
        readable_bytes(window.bptt.peak_bytes).c_str(),
        readable_bytes(window.mrbp.peak_bytes).c_str(),
        i == 0 ? "-" : exact_bytes(report.mrbp_growth(i)).c_str(),
        exact_bytes(static_cast<double>(report.state_bytes)).c_str(),
        window.mrbp.seconds / window.bptt.seconds, window.mrbp.differing.empty() ? "yes" : "NO");
  }
  std::printf(
      "MRBP grows by one state a segment from 3 segments on, when every parameter has its "
      "gradient.\n");
  std::printf("\nsegments  truncated to  peak       largest relative error  cosine with BPTT\n");
  for (const AuditedWindow& window : report.windows)
    for (const auto& [length, pass] : window.truncated)
      std::printf("%8lld  %12lld  %-9s  %22.2e  %16.6f\n", static_cast<long long>(window.segments),
                  static_cast<long long>(length), readable_bytes(pass.peak_bytes).c_str(),
                  pass.largest_relative_error, pass.cosine);
  std::printf("\n");
  for (const AuditedWindow& window : report.windows) {
    if (window.mrbp.differing.empty()) continue;
    std::printf("%lld segments: largest relative error %.2e, cosine %.6f; these differ:\n",
                static_cast<long long>(window.segments), window.mrbp.largest_relative_error,
                window.mrbp.cosine);
    for (const std::string& name : window.mrbp.differing) std::printf("  %s\n", name.c_str());
  }
  std::printf("verdict: MRBP is %s\n",
              report.identical() ? "bit-identical to BPTT" : "NOT bit-identical to BPTT");
}

void audit_mrbp_command(const AuditArguments& arguments) {
  AuditOptions options = arguments.options;
  if (arguments.plant == "drop-state-seed") options.fault = PlantedFault::drop_state_seed;
  const std::unique_ptr<Memformer> model = audited_model(arguments);
  const AuditReport report = audit_mrbp(*model, options);
  if (arguments.json) {
    print_json(report, *model, options);
  } else {
    print_table(report, *model, options);
  }
  if (!report.identical()) throw CLI::RuntimeError(1);
}

}  // namespace

void add_audit(CLI::App& program) {
  CLI::App* audit = program.add_subcommand("audit", "claims that can be run");
  audit->require_subcommand(1);
  CLI::App* command = audit->add_subcommand(
      "mrbp",
      "same weights, tokens and dropout through BPTT, MRBP and truncated BPTT; fails unless "
      "MRBP's gradients are BPTT's bit for bit");
  const auto arguments = std::make_shared<AuditArguments>();
  CLI::Option* run = command->add_option("--run", arguments->run, "folder of a run; its weights");
  command
      ->add_option("--config", arguments->config, "configuration of a run; default: a small model")
      ->excludes(run);
  command->add_option("--dtype", arguments->dtype, "f32 or f64; default: the model's")
      ->check(CLI::IsMember({"f32", "f64"}));
  command->add_option("--plant", arguments->plant, "a mistake that the audit must find")
      ->check(CLI::IsMember({"drop-state-seed"}));
  command->option_defaults()->always_capture_default();
  command->add_option("--segments", arguments->options.segments, "window lengths, growing")
      ->delimiter(',')
      ->check(CLI::PositiveNumber);
  command->add_option("--batch", arguments->options.batch, "rows")->check(CLI::PositiveNumber);
  command->add_option("--seed", arguments->options.seed, "of tokens, memory and dropout");
  command->add_option("--repeats", arguments->options.repeats, "passes; the fastest is reported")
      ->check(CLI::PositiveNumber);
  command->add_flag("--json", arguments->json, "one JSON object");
  add_device(*command, arguments->device);
  command->callback([arguments] { audit_mrbp_command(*arguments); });
}

}  // namespace mf::cli
