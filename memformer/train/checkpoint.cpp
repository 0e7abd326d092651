#include "memformer/train/checkpoint.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "nn/parameters.h"
#include "tensor/backend.h"
#include "tensor/cpu/isa.h"
#include "tensor/io.h"

namespace mf {
namespace {

constexpr const char* kModelPrefix = "model.";
constexpr const char* kStatePrefix = "state.";

std::string join(const std::vector<std::int64_t>& values) {
  std::string text;
  for (const std::int64_t value : values) {
    if (!text.empty()) text += ' ';
    text += std::to_string(value);
  }
  return text;
}

/// A metadata field; Error if it is missing or is no number where one is expected.
class Metadata {
 public:
  Metadata(const TensorFile& file, const std::string& path) : file_(file), path_(path) {}

  const std::string& text(const std::string& key) const {
    const auto found = file_.metadata.find(key);
    check(found != file_.metadata.end(),
          "checkpoint: {} has no metadata '{}'; it is not a checkpoint of this program", path_,
          key);
    return found->second;
  }
  /// "" where the field is missing.
  std::string text_if_present(const std::string& key) const {
    const auto found = file_.metadata.find(key);
    return found == file_.metadata.end() ? "" : found->second;
  }
  std::vector<std::int64_t> integers(const std::string& key) const {
    std::istringstream words(text(key));
    std::vector<std::int64_t> values;
    for (std::int64_t value = 0; words >> value;) values.push_back(value);
    check(words.eof(), "checkpoint: {} has '{}' in metadata '{}'; whole numbers are expected",
          path_, text(key), key);
    return values;
  }
  std::int64_t integer(const std::string& key) const {
    const std::vector<std::int64_t> values = integers(key);
    check(values.size() == 1, "checkpoint: {} has '{}' in metadata '{}'; one number is expected",
          path_, text(key), key);
    return values[0];
  }
  double real(const std::string& key) const {
    try {
      return std::stod(text(key));
    } catch (const std::exception&) {
      fail("checkpoint: {} has '{}' in metadata '{}'; a number is expected", path_, text(key), key);
    }
  }

 private:
  const TensorFile& file_;
  const std::string& path_;
};

/// Where a stored tensor goes. All are checked before the first is copied.
struct Destination {
  std::string name;
  Tensor target;
};

/// The tensor of this name; null if there is none.
const Tensor* find_tensor(const TensorFile& file, const std::string& name) {
  const auto found = std::find_if(file.tensors.begin(), file.tensors.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  return found == file.tensors.end() ? nullptr : &found->second;
}

void copy_all(const TensorFile& file, const std::string& path,
              std::vector<Destination> destinations) {
  std::vector<Tensor> sources;
  for (const Destination& destination : destinations) {
    const Tensor* const found = find_tensor(file, destination.name);
    check(found != nullptr, "checkpoint: {} has no tensor '{}'; {} is expected", path,
          destination.name, destination.target);
    check(found->shape() == destination.target.shape() &&
              found->dtype() == destination.target.dtype(),
          "checkpoint: {} has {} as '{}'; {} is expected; was it made with another configuration?",
          path, *found, destination.name, destination.target);
    sources.push_back(*found);
  }
  for (std::size_t i = 0; i < sources.size(); ++i)
    destinations[i].target.copy_(sources[i].to(destinations[i].target.device()));
}

/// Room for a stored tensor of the carried state, which may have grown; `fresh` itself where that
/// has the right extents, or where the stored one is none of its kind.
Tensor room_for(const TensorFile& file, const std::string& name, const Tensor& fresh) {
  const Tensor* const stored = find_tensor(file, name);
  const bool grown = stored != nullptr && stored->shape() != fresh.shape() &&
                     stored->dtype() == fresh.dtype() && stored->rank() == fresh.rank() &&
                     stored->size(0) == fresh.size(0);
  if (!grown) return fresh;
  const CategoryScope category(Category::state);
  return empty(stored->shape(), stored->dtype(), fresh.device());
}

std::vector<Destination> weight_destinations(const Recurrence& model, const std::string& prefix) {
  std::vector<Destination> destinations;
  for (const Parameter& parameter : model.parameters())
    destinations.push_back({prefix + parameter.name(), parameter.value()});
  return destinations;
}

/// What may differ between a checkpoint and the run that goes on from it.
RunConfig comparable(RunConfig config) {
  const TrainConfig defaults;
  config.train.steps = defaults.steps;
  config.train.log_every = defaults.log_every;
  config.train.eval_every = defaults.eval_every;
  config.train.eval_bytes = defaults.eval_bytes;
  config.train.checkpoint_every = defaults.checkpoint_every;
  return config;
}

}  // namespace

std::string config_path(const std::string& folder) { return folder + "/config.json"; }
std::string checkpoint_path(const std::string& folder) {
  return folder + "/checkpoint.safetensors";
}
std::string metrics_path(const std::string& folder) { return folder + "/metrics.jsonl"; }

void save_checkpoint(const std::string& path, const RunConfig& config, const Recurrence& model,
                     const Optimizer& optimizer, const State& state, const Progress& progress) {
  TensorFile file;
  for (const Parameter& parameter : model.parameters())
    file.tensors.emplace_back(kModelPrefix + parameter.name(), parameter.value());
  for (auto& entry : optimizer.state()) file.tensors.push_back(std::move(entry));
  for (const auto& entry : state) file.tensors.emplace_back(kStatePrefix + entry.name, entry.value);
  file.metadata = {{"format", "memformer checkpoint 1"},
                   {"config", to_json(config)},
                   {"step", std::to_string(progress.step)},
                   {"optimizer_steps", std::to_string(optimizer.steps())},
                   {"tokens", std::to_string(progress.tokens)},
                   {"stream_position", join(progress.stream_position)},
                   {"difficulty", std::to_string(progress.difficulty)},
                   {"running_accuracy", fmt::format("{:.17g}", progress.running_accuracy)},
                   {"data_sha256", progress.data_sha256},
                   {"isa", std::string(name_of(current_isa()))},
                   {"device", full_name(model.device())}};
  save(path, file);
}

Progress load_checkpoint(const std::string& path, const RunConfig& config, Recurrence& model,
                         Optimizer& optimizer, State& state) {
  const TensorFile file = load(path, Checksums::required);
  const Metadata metadata(file, path);
  const RunConfig stored = run_config_from_json(metadata.text("config"));
  const std::string difference = first_difference(comparable(stored), comparable(config));
  check(difference.empty(),
        "checkpoint: {} was made with another configuration; '{}' differs; use the configuration "
        "of the "
        "run, or start a new run",
        path, difference);
  Progress progress;
  progress.step = metadata.integer("step");
  progress.tokens = metadata.integer("tokens");
  progress.stream_position = metadata.integers("stream_position");
  progress.difficulty = metadata.integer("difficulty");
  progress.running_accuracy = metadata.real("running_accuracy");
  progress.data_sha256 = metadata.text("data_sha256");
  progress.isa = metadata.text_if_present("isa");
  progress.device = metadata.text_if_present("device");
  const std::int64_t optimizer_steps = metadata.integer("optimizer_steps");

  std::vector<Destination> destinations = weight_destinations(model, kModelPrefix);
  for (auto& [name, tensor] : optimizer.state()) destinations.push_back({name, tensor});
  State stored_state = state;
  for (auto& entry : stored_state) {
    entry.value = room_for(file, kStatePrefix + entry.name, entry.value);
    destinations.push_back({kStatePrefix + entry.name, entry.value});
  }
  copy_all(file, path, std::move(destinations));
  state = std::move(stored_state);
  optimizer.set_steps(optimizer_steps);
  return progress;
}

RunConfig checkpoint_config(const std::string& path) {
  const TensorFile file = load(path, Checksums::required);
  return run_config_from_json(Metadata(file, path).text("config"));
}

TrainedModel load_trained(const std::string& folder, Device device) {
  const std::string path = checkpoint_path(folder);
  check(std::filesystem::exists(path),
        "run: {} does not exist; give the folder of a run made by 'memformer train --out FOLDER'",
        path);
  const TensorFile file = load(path, Checksums::required);
  const Metadata metadata(file, path);
  TrainedModel trained;
  trained.config = run_config_from_json(metadata.text("config"));
  trained.model = make_model(trained.config, RngKey{0});
  trained.step = metadata.integer("step");
  trained.isa = metadata.text_if_present("isa");
  move_to(device, trained.model->parameters());
  copy_all(file, path, weight_destinations(*trained.model, kModelPrefix));
  return trained;
}

const Memformer& as_memformer(const Recurrence& model, std::string_view command) {
  const auto* const memformer = dynamic_cast<const Memformer*>(&model);
  check(memformer != nullptr,
        "{}: this run's model is a baseline; only a Memformer can do that; give the run of one",
        command);
  return *memformer;
}

void import_weights(const std::string& path, Memformer& model) {
  const TensorFile file = load(path, Checksums::if_present);
  const bool ours = file.metadata.contains("format");
  copy_all(file, path, weight_destinations(model, ours ? kModelPrefix : ""));
}

}  // namespace mf
