#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "memformer/audit/summary.h"
#include "memformer/cli/commands.h"
#include "memformer/cli/progress.h"
#include "memformer/train/checkpoint.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/io.h"

namespace mf::cli {
namespace {

using Json = nlohmann::ordered_json;

struct InspectArguments {
  std::string run;
  std::string config;
  std::string file;
  bool cpu = false;
  bool json = false;
};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

NamedTensors weights_of(const Recurrence& model) {
  NamedTensors weights;
  for (const Parameter& parameter : model.parameters())
    weights.emplace_back(parameter.name(), parameter.value());
  return weights;
}

struct Totals {
  std::int64_t elements = 0, bytes = 0, not_finite = 0;
};

/// Statistics are left out where weights are only drawn, not trained.
Json describe_tensors(const NamedTensors& tensors, bool with_statistics) {
  Json rows = Json::array();
  for (const auto& [name, tensor] : tensors) {
    Json row{{"name", name},
             {"dtype", name_of(tensor.dtype())},
             {"shape", std::vector<std::int64_t>(tensor.shape().begin(), tensor.shape().end())},
             {"elements", tensor.elements()},
             {"bytes", tensor.bytes()}};
    if (with_statistics) {
      const Statistics statistics = statistics_of(tensor);
      row["mean"] = statistics.mean;
      row["std"] = statistics.deviation;
      row["min"] = statistics.minimum;
      row["max"] = statistics.maximum;
      row["nan"] = statistics.nan;
      row["inf"] = statistics.infinite;
    }
    rows.push_back(row);
  }
  return rows;
}

Totals totals_of(const Json& rows) {
  Totals totals;
  for (const Json& row : rows) {
    totals.elements += row["elements"].get<std::int64_t>();
    totals.bytes += row["bytes"].get<std::int64_t>();
    totals.not_finite += row.value("nan", std::int64_t{0}) + row.value("inf", std::int64_t{0});
  }
  return totals;
}

void print_tensors(const NamedTensors& tensors, const Json& rows) {
  std::size_t width = 4;
  for (const auto& [name, tensor] : tensors) width = std::max(width, name.size());
  const bool with_statistics = !rows.empty() && rows[0].contains("mean");
  std::string head =
      fmt::format("{:<{}}  {:<16} {:>10} {:>10}", "name", width, "shape", "elements", "bytes");
  if (with_statistics)
    head += fmt::format(" {:>10} {:>10} {:>10} {:>10} {:>6} {:>6}", "mean", "std", "min", "max",
                        "NaN", "Inf");
  std::printf("%s\n", head.c_str());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, tensor] = tensors[i];
    const Json& row = rows[i];
    std::string line = fmt::format("{:<{}}  {:<16} {:>10} {:>10}", name, width, describe(tensor),
                                   tensor.elements(), tensor.bytes());
    if (with_statistics) {
      for (const char* key : {"mean", "std", "min", "max"})
        line += fmt::format(" {:>10.4g}", row[key].get<double>());
      line += fmt::format(" {:>6} {:>6}", row["nan"].get<std::int64_t>(),
                          row["inf"].get<std::int64_t>());
    }
    std::printf("%s\n", line.c_str());
  }
  const Totals totals = totals_of(rows);
  std::printf("%zu tensors, %lld elements, %s\n", tensors.size(),
              static_cast<long long>(totals.elements), readable_bytes(totals.bytes).c_str());
  if (totals.not_finite > 0)
    std::printf("%lld elements are NaN or infinite\n", static_cast<long long>(totals.not_finite));
}

void inspect_file(const InspectArguments& arguments) {
  const TensorFile file = load(arguments.file, Checksums::if_present);
  const Json rows = describe_tensors(file.tensors, true);
  if (arguments.json) {
    const Json json{{"file", arguments.file}, {"metadata", file.metadata}, {"tensors", rows}};
    std::printf("%s\n", json.dump().c_str());
    return;
  }
  print_tensors(file.tensors, rows);
  for (const auto& [key, value] : file.metadata)
    std::printf("%s: %s\n", key.c_str(), value.c_str());
}

void inspect_model(const InspectArguments& arguments) {
  const bool trained = !arguments.run.empty();
  TrainedModel run;
  if (trained) {
    run = load_trained(arguments.run);
  } else {
    run.config = read_run_config(arguments.config);
    run.model = make_model(run.config, RngKey{0});
  }
  const RunConfig& config = run.config;
  const NamedTensors weights = weights_of(*run.model);
  const Json rows = describe_tensors(weights, trained);
  const MultiplyAdds counts = multiply_adds(config);
  const auto per_token = [&](std::int64_t count) {
    return static_cast<double>(count) / static_cast<double>(segment_of(config));
  };
  if (arguments.json) {
    Json json;
    if (trained) json["run"] = arguments.run;
    if (trained) json["step"] = run.step;
    if (trained && !run.isa.empty()) json["isa"] = run.isa;
    json["config"] = Json::parse(to_json(run.config));
    json["parameters"] = totals_of(rows).elements;
    json["parameter_bytes"] = totals_of(rows).bytes;
    if (!config.baseline) json["memory_bytes_per_row"] = memory_bytes_per_row(config.model);
    json["multiply_adds_per_token"] = {{"memory_path", per_token(counts.memory_path)},
                                       {"prediction", per_token(counts.prediction)}};
    json["replay_work_ratio"] = counts.replay_ratio();
    json["tensors"] = rows;
    std::printf("%s\n", json.dump().c_str());
    return;
  }
  print_tensors(weights, rows);
  if (trained)
    std::printf("weights of step %lld%s\n", static_cast<long long>(run.step),
                run.isa.empty() ? "" : (", made with " + run.isa).c_str());
  if (!config.baseline)
    std::printf("memory of one row: %lld slots of %lld, %s\n",
                static_cast<long long>(config.model.slots),
                static_cast<long long>(config.model.width),
                readable_bytes(memory_bytes_per_row(config.model)).c_str());
  std::printf("multiply-adds per token, forward: %.0f memory path%s, %.0f prediction%s\n",
              per_token(counts.memory_path), config.baseline ? "" : " (encoder, writer)",
              per_token(counts.prediction), config.baseline ? "" : " (decoder, head)");
  std::printf("work of a training step, MRBP over BPTT: %.3f in a long window\n",
              counts.replay_ratio());
}

/// What results and speed depend on, besides the build.
void inspect_cpu(const InspectArguments& arguments) {
  std::vector<std::string> available;
  for (const Isa isa : available_isas()) available.emplace_back(name_of(isa));
  const std::string used(name_of(current_isa()));
  const IsaTraits traits = traits_of(current_isa());
  const std::string pages = huge_page_policy();
  if (arguments.json) {
    const Json json{{"processor", processor_name()},
                    {"isa", used},
                    {"available", available},
                    {"threads", threads()},
                    {"vector_bytes", traits.vector_bytes},
                    {"tile_rows", traits.tile_rows},
                    {"tile_columns_f32", traits.tile_columns_f32},
                    {"tile_columns_f64", traits.tile_columns_f64},
                    {"huge_pages", pages}};
    std::printf("%s\n", json.dump().c_str());
    return;
  }
  std::printf("processor: %s\n", processor_name().empty() ? "unknown" : processor_name().c_str());
  std::printf("instruction set: %s (available: %s)\n", used.c_str(),
              CLI::detail::join(available, ", ").c_str());
  std::printf("threads: %d\n", threads());
  std::printf("vectors: %d bytes, %d f32 or %d f64\n", traits.vector_bytes, traits.vector_bytes / 4,
              traits.vector_bytes / 8);
  std::printf("tile of the matrix product: %d x %d in f32, %d x %d in f64\n", traits.tile_rows,
              traits.tile_columns_f32, traits.tile_rows, traits.tile_columns_f64);
  std::printf("huge pages: %s\n", pages.empty() ? "unknown" : pages.c_str());
}

void inspect(const InspectArguments& arguments) {
  if (arguments.cpu) {
    inspect_cpu(arguments);
  } else if (!arguments.file.empty()) {
    inspect_file(arguments);
  } else {
    inspect_model(arguments);
  }
}

}  // namespace

void add_inspect(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "inspect",
      "list the tensors, sizes and costs of a model, the content of a safetensors file, or what "
      "the kernels run on");
  const auto arguments = std::make_shared<InspectArguments>();
  CLI::Option_group* source = command->add_option_group("source", "what to look at");
  source->add_option("--run", arguments->run, "folder of a run: its checkpoint");
  source->add_option("--config", arguments->config,
                     "configuration of a run: no weights are needed");
  source->add_option("--file", arguments->file, "any safetensors file");
  source->add_flag("--cpu", arguments->cpu, "the processor and what the kernels make of it");
  source->require_option(1);
  command->add_flag("--json", arguments->json, "one JSON object");
  command->callback([arguments] { inspect(*arguments); });
}

}  // namespace mf::cli
