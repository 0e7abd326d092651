#include "memformer/cli/audit_shared.h"

#include <cstdio>

#include "memformer/audit/mrbp_audit.h"
#include "memformer/cli/device.h"
#include "memformer/train/checkpoint.h"
#include "nn/parameters.h"
#include "tensor/backend.h"
#include "tensor/io.h"

namespace mf::cli {

void add_audited_model(CLI::App& command, AuditedModel& source) {
  CLI::Option* run = command.add_option("--run", source.run, "folder of a run; its weights");
  command.add_option("--config", source.config, "configuration of a run; default: a small model")
      ->excludes(run);
  command.add_option("--dtype", source.dtype, "f32 or f64; default: the model's")
      ->check(CLI::IsMember({"f32", "f64"}));
  command
      .add_option("--seed", source.seed, "of weights that no run gives, tokens, memory, dropout")
      ->capture_default_str();
  add_device(command, source.device);
}

std::unique_ptr<Memformer> load(const AuditedModel& source) {
  TrainedModel trained;
  ModelConfig config = audit_model();
  if (!source.run.empty()) {
    trained = load_trained(source.run);
    config = as_memformer(*trained.model, "audit").config();
  } else if (!source.config.empty()) {
    const RunConfig run = read_run_config(source.config);
    check(!run.baseline, "audit: {} describes a {}; audits look into a Memformer", source.config,
          model_name(run));
    config = run.model;
  }
  if (!source.dtype.empty()) config.dtype = source.dtype == "f64" ? DType::f64 : DType::f32;
  auto model = std::make_unique<Memformer>(config, RngKey{source.seed}.at("weights"));
  if (trained.model) {
    const std::vector<Parameter> sources = trained.model->parameters();
    std::vector<Parameter> targets = model->parameters();
    for (std::size_t i = 0; i < targets.size(); ++i)
      targets[i].value().copy_(sources[i].value().to(config.dtype));
  }
  move_to(source.device, model->parameters());
  return model;
}

std::string describe(const Memformer& model) {
  const ModelConfig& config = model.config();
  const std::string layers =
      config.architecture == Architecture::encoder_decoder
          ? fmt::format("{} + {} layers", config.encoder_layers, config.decoder_layers)
          : fmt::format("{} encoder layers", config.encoder_layers);
  return fmt::format("width {}, {}, segment {}, {} slots, dropout {:g}, {}, {}", config.width,
                     layers, config.segment, config.slots, config.dropout, name_of(config.dtype),
                     full_name(model.device()));
}

void add_audit_output(CLI::App& command, AuditOutput& output,
                      const std::vector<std::string>& faults) {
  command.add_flag("--json", output.json, "one JSON object instead of text");
  command.add_option("--html", output.html, "also write the report as a page to this file");
  CLI::Option* plant =
      command.add_option("--plant", output.plant, "a mistake that the audit must find");
  if (!faults.empty()) plant->check(CLI::IsMember(faults));
}

void deliver(const AuditOutput& output, const Report& report, Json json) {
  if (!output.html.empty()) write_file_atomically(output.html, report.html());
  if (output.json) {
    json["holds"] = report.holds();
    std::printf("%s\n", json.dump().c_str());
  } else {
    std::printf("%s", report.text().c_str());
    if (!output.html.empty()) std::printf("page: %s\n", output.html.c_str());
  }
  if (!report.holds()) throw CLI::RuntimeError(1);
}

}  // namespace mf::cli
