#include "memformer/train/trainer.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <set>

#include "memformer/train/evaluate.h"
#include "tensor/cpu/isa.h"
#include "tensor/io.h"
#include "tests/file_size_limit.h"
#include "tests/support.h"

using namespace mf;
using doctest::Contains;
using Json = nlohmann::ordered_json;

namespace fs = std::filesystem;

namespace {

/// A folder for one test, gone afterwards.
class TestFolder {
 public:
  TestFolder()
      : path_(fs::temp_directory_path() / ("memformer_trainer_" + std::to_string(getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~TestFolder() { fs::remove_all(path_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string at(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// Words of a few letters, so that there is something to learn.
std::string text_of(std::size_t bytes, std::uint64_t key = 1) {
  std::string text;
  for (std::uint64_t i = 0; text.size() < bytes; ++i)
    text +=
        std::string(1 + RngKey{key}.below(3, i), static_cast<char>('a' + RngKey{key}.below(5, i))) +
        " ";
  return text.substr(0, bytes);
}

std::string corpus_in(const TestFolder& folder, std::size_t bytes = 3000) {
  const std::string path = folder.at("corpus.txt");
  write_text(path, text_of(bytes));
  return "file:" + path;
}

RunConfig small_config(const std::string& source) {
  RunConfig config;
  config.model.width = 16;
  config.model.heads = 2;
  config.model.encoder_layers = 1;
  config.model.decoder_layers = 1;
  config.model.feed_forward = 16;
  config.model.segment = 8;
  config.model.slots = 3;
  config.model.dropout = 0.1;
  config.data.source = source;
  config.data.batch = 2;
  config.train.steps = 20;
  config.train.horizon = 4;
  config.train.stride = 4;
  config.train.warmup = 3;
  config.train.log_every = 1;
  config.train.checkpoint_every = 1000;
  return config;
}

RunConfig task_config() {
  RunConfig config = small_config("task:remember");
  config.model.vocabulary = 34;
  config.data.max_difficulty = 3;
  config.data.promote_at = 0.001;  // promoted by chance alone
  config.data.batch = 24;
  return config;
}

std::vector<std::string> lines_of(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

/// metrics.jsonl without what depends on the clock.
std::vector<std::string> metrics_of(const std::string& folder) {
  std::vector<std::string> lines;
  for (const std::string& line : lines_of(metrics_path(folder))) {
    Json json = Json::parse(line);
    CHECK(json.erase("seconds") == 1);
    CHECK(json.erase("tokens_per_second") == 1);
    lines.push_back(json.dump());
  }
  return lines;
}

void take_steps(Trainer& trainer, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) trainer.step();
}

/// What a run of 20 steps leaves that is a function of its configuration: the checkpoint (weights,
/// optimizer, memory, data position, counters) and the metrics.
struct Remains {
  std::string checkpoint;
  std::vector<std::string> metrics;
};

Remains remains_of(const std::string& folder) {
  return {read_file(checkpoint_path(folder)), metrics_of(folder)};
}

Remains uninterrupted(const RunConfig& config, const std::string& folder) {
  Trainer trainer = Trainer::start(config, folder);
  trainer.run([](const StepMetrics&) {});
  return remains_of(folder);
}

std::vector<Tensor> weights_of(const Recurrence& model) {
  std::vector<Tensor> weights;
  for (const Parameter& parameter : model.parameters())
    weights.push_back(parameter.value().clone());
  return weights;
}

bool identical(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::ranges::equal(a, b,
                            [](const Tensor& x, const Tensor& y) { return test::identical(x, y); });
}

bool leaves_no_temporary(const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(folder))
    if (!std::set<std::string>{"config.json", "manifest.json", "metrics.jsonl",
                               "checkpoint.safetensors", "lock"}
             .contains(entry.path().filename().string()))
      return false;
  return true;
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE(
    "trainer: every configuration of examples, and every row of the results, can be started") {
  const fs::path root(MEMFORMER_SOURCE_DIR);
  std::vector<std::pair<std::string, std::vector<std::string>>> rows;  // file and settings
  for (const auto& entry : fs::directory_iterator(root / "examples"))
    if (entry.path().extension() == ".json")
      rows.emplace_back(entry.path().string(), std::vector<std::string>{});
  CHECK(rows.size() > 10);
  const Json plan = Json::parse(read_file(root / "tests" / "results" / "plan.json"));
  for (const Json& row : plan.at("experiments"))
    if (row.contains("config"))
      rows.emplace_back((root / row.at("config").get<std::string>()).string(),
                        row.value("set", std::vector<std::string>{}));
  CHECK(rows.size() > 60);

  const TestFolder folder;
  const std::string corpus = corpus_in(folder, 200000);
  for (const auto& [file, settings] : rows) {
    CAPTURE(file);
    CAPTURE(settings);
    RunConfig config = with_settings(read_run_config(file), settings);
    if (!config.data.is_task()) config.data.source = corpus;  // that of the file may not be here
    CHECK_NOTHROW(Trainer::start(config, ""));
  }
}

TEST_CASE("trainer: text metrics are one JSON object a line with the numbers of the step") {
  const TestFolder folder;
  RunConfig config = small_config(corpus_in(folder));
  config.train.eval_every = 5;
  config.train.steps = 10;
  uninterrupted(config, folder.at("run"));
  const std::vector<std::string> lines = lines_of(metrics_path(folder.at("run")));
  REQUIRE(lines.size() == 10);
  double epoch = 0.0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const Json line = Json::parse(lines[i]);
    const auto step = static_cast<std::int64_t>(i) + 1;
    CHECK(line["step"] == step);
    CHECK(line["loss"].get<double>() > 0.0);
    CHECK(line["bits_per_byte"].get<double>() ==
          doctest::Approx(line["loss"].get<double>() / std::numbers::ln2));
    CHECK(line["gradient_norm"].get<double>() > 0.0);
    CHECK(line["learning_rate"].get<double>() == config.train.schedule().at(step - 1));
    CHECK(line["tokens"] == step * 4 * 2 * 8);  // horizon x batch x segment
    CHECK(line["epoch"].get<double>() > epoch);
    CHECK(line.contains("valid_bits_per_byte") == (step % 5 == 0));
    CHECK(line["peak_bytes"].get<std::int64_t>() > line["active_bytes"].get<std::int64_t>());
    CHECK(line["seconds"].get<double>() > 0.0);
    CHECK(line["tokens_per_second"].get<double>() > 0.0);
    CHECK_FALSE(line.contains("accuracy"));
    epoch = line["epoch"].get<double>();
  }
}

TEST_CASE("trainer: task metrics follow the curriculum") {
  const TestFolder folder;
  uninterrupted(task_config(), folder.at("run"));
  std::int64_t hardest = 0;
  bool easier = false;
  for (const std::string& text : lines_of(metrics_path(folder.at("run")))) {
    const Json line = Json::parse(text);
    const double accuracy = line["accuracy"].get<double>();
    CHECK((accuracy >= 0.0 && accuracy <= 1.0));
    CHECK(line.contains("running_accuracy"));
    const auto difficulty = line["difficulty"].get<std::int64_t>();
    CHECK((difficulty >= 1 && difficulty <= 3));
    easier |= difficulty < hardest;
    hardest = std::max(hardest, difficulty);
  }
  CHECK(hardest == 3);
  CHECK(easier);
}

TEST_CASE("trainer: a stride of 0, the default, is the horizon") {
  CHECK(TrainConfig{}.stride == 0);
  const TestFolder folder;
  RunConfig config = small_config(corpus_in(folder));
  config.train.steps = 6;
  std::vector<std::vector<std::string>> metrics;
  for (const std::int64_t stride : {0, 4, 2}) {
    config.train.stride = stride;
    metrics.push_back(uninterrupted(config, folder.at(std::to_string(stride))).metrics);
  }
  CHECK(metrics[0] == metrics[1]);
  CHECK(metrics[0] != metrics[2]);
}

TEST_CASE("trainer: log_every thins the metrics out, but the last step is always there") {
  const TestFolder folder;
  RunConfig config = small_config(corpus_in(folder));
  config.train.steps = 8;
  config.train.log_every = 3;
  uninterrupted(config, folder.at("run"));
  std::string steps;
  for (const std::string& line : lines_of(metrics_path(folder.at("run"))))
    steps += Json::parse(line)["step"].dump() + " ";
  CHECK(steps == "3 6 8 ");
}

TEST_CASE("trainer: a run stopped at any step and resumed is the run that was never stopped") {
  const TestFolder folder;
  const std::string source = corpus_in(folder);
  const auto with = [&](std::vector<std::string> settings) {
    return with_settings(small_config(source), settings);
  };
  const std::vector<std::pair<const char*, RunConfig>> variants{
      {"stride = horizon", with({"train.stride=0"})},
      {"stride < horizon", with({"train.stride=1", "train.detach_every=2"})},
      {"bptt, stride 3 of 4", with({"train.method=bptt", "train.stride=3"})},
      {"truncated", with({"train.method=truncated", "train.truncation=2"})},
      {"sgd", with({"train.optimizer=sgd", "train.learning_rate=0.01", "train.loss=sum"})},
      {"weight decay, first segment scored",
       with({"train.weight_decay=0.1", "data.score_first_segment=true", "train.eval_every=7"})},
      {"no memory", with({"model.slots=0"})},
      {"curriculum", task_config()}};
  for (const auto& variant : variants) {
    const auto& [title, config] = variant;
    const std::string name = title;
    CAPTURE(name);
    const Remains whole = uninterrupted(config, folder.at(name + " whole"));
    const std::string run = folder.at(name);
    for (const std::int64_t stop : {1, 10}) {
      fs::remove_all(run);
      {
        Trainer trainer = Trainer::start(config, run);
        take_steps(trainer, stop);
        trainer.checkpoint();
      }
      {
        Trainer trainer = Trainer::resume(run);
        CHECK(trainer.progress().step == stop);
        take_steps(trainer, 20 - stop);
        CHECK(trainer.done());
      }
      const Remains resumed = remains_of(run);
      CHECK(resumed.metrics == whole.metrics);
      CHECK((resumed.checkpoint == whole.checkpoint));
    }
  }
}

TEST_CASE("trainer: every model stopped and resumed is the run that was never stopped") {
  const TestFolder folder;
  const std::string source = corpus_in(folder);
  std::vector<std::pair<std::string, std::vector<std::string>>> models{
      {"compressive", {"model.cache=8", "model.compressed=5", "model.task_gradient=true"}},
      {"rmt",
       {"model.memory=3", "model.vocabulary=34", "data.source=task:remember", "data.batch=24"}},
      {"lstm", {"model.replay_tokens=3"}},
      // Stopped after one step, while the cache still grows.
      {"transformer-xl", {"model.cache=50", "model.pre_norm=false", "train.detach_every=1"}}};
  for (const std::string& name : baseline_names()) models.push_back({name, {}});
  for (const auto& [name, more] : models) {
    CAPTURE(name);
    std::vector<std::string> settings{"model.name=" + name, "model.width=16",    "model.layers=2",
                                      "model.segment=8",    "model.dropout=0.1", "train.stride=3",
                                      "train.steps=12"};
    if (name != "lstm") settings.push_back("model.feed_forward=16");
    settings.insert(settings.end(), more.begin(), more.end());
    const RunConfig config = with_settings(small_config(source), settings);
    const std::string at = folder.at(name + std::to_string(more.size()));
    const Remains whole = uninterrupted(config, at + " whole");
    const auto resumed = [&](std::int64_t stop, const std::function<void()>& tamper) {
      fs::remove_all(at);
      {
        Trainer trainer = Trainer::start(config, at);
        take_steps(trainer, stop);
        trainer.checkpoint();
      }
      tamper();
      Trainer trainer = Trainer::resume(at);
      CHECK(trainer.progress().step == stop);
      take_steps(trainer, config.train.steps - stop);
      CHECK(trainer.done());
      return remains_of(at);
    };
    for (const std::int64_t stop : {1, 7}) {
      const Remains remains = resumed(stop, [] {});
      CHECK(remains.metrics == whole.metrics);
      CHECK((remains.checkpoint == whole.checkpoint));
    }
    // Negative control: another state in the checkpoint is another run. A task begins afresh.
    if (config.data.is_task()) continue;
    bool changed = false;
    const Remains other = resumed(7, [&] {
      TensorFile file = load(checkpoint_path(at), Checksums::required);
      for (auto& [tensor, value] : file.tensors) {
        if (!tensor.starts_with("state.") || !is_float(value.dtype())) continue;
        value = affine(value, 1.0, 0.5);
        changed = true;
      }
      save(checkpoint_path(at), file);
    });
    CHECK(changed == (name != "transformer"));
    CHECK((other.checkpoint == whole.checkpoint) == !changed);
  }
}

TEST_CASE("trainer: after a crash each step stands in the metrics once") {
  const TestFolder folder;
  RunConfig config = small_config(corpus_in(folder));
  config.train.checkpoint_every = 4;
  const Remains whole = uninterrupted(config, folder.at("whole"));
  const std::string run = folder.at("run");
  for (const std::string& cut :
       {std::string(), std::string("{\"step\":11,\"lo"), std::string("17\n"),
        std::string("{\"step\":\"x\"}\n"), std::string("\0\0\0\0", 4)}) {
    fs::remove_all(run);
    {
      Trainer trainer = Trainer::start(config, run);
      take_steps(trainer, 10);  // the last checkpoint is that of step 8
    }
    std::ofstream(metrics_path(run), std::ios::app | std::ios::binary) << cut;
    {
      Trainer trainer = Trainer::resume(run);
      CHECK(trainer.progress().step == 8);
      CHECK(lines_of(metrics_path(run)).size() == 8);
      trainer.run([](const StepMetrics&) {});
    }
    CHECK(remains_of(run).metrics == whole.metrics);
    CHECK((remains_of(run).checkpoint == whole.checkpoint));
  }
}

TEST_CASE(
    "trainer: a run that was stopped checkpoints its last step; more steps may be asked for") {
  const TestFolder folder;
  RunConfig config = small_config(corpus_in(folder));
  const std::string run = folder.at("run");
  {
    Trainer trainer = Trainer::start(config, run);
    std::int64_t steps = 0;
    trainer.run([&](const StepMetrics& metrics) { steps = metrics.step; },
                [&] { return steps == 7; });
    CHECK_FALSE(trainer.done());
  }
  config.train.steps = 9;
  config.train.log_every = 2;
  Trainer trainer = Trainer::resume(run, config);
  CHECK(trainer.progress().step == 7);
  take_steps(trainer, 2);
  CHECK(trainer.done());
  CHECK(run_config_from_json(read_file(config_path(run))) == config);
}

TEST_CASE("trainer: nothing is kept on disk without a folder") {
  const TestFolder folder;
  Trainer trainer = Trainer::start(small_config(corpus_in(folder)), "");
  take_steps(trainer, 2);
  CHECK_THROWS_WITH_AS(trainer.checkpoint(), Contains("without a folder"), Error);
}

TEST_CASE("trainer: folders that hold a run, hold none or are in use are refused") {
  const TestFolder folder;
  const RunConfig config = small_config(corpus_in(folder));
  const std::string run = folder.at("run");
  CHECK_THROWS_WITH_AS(Trainer::resume(run), Contains("nothing to resume"), Error);
  {
    const Trainer trainer = Trainer::start(config, run);
    CHECK_THROWS_WITH_AS(Trainer::start(config, run), Contains("in use by another process"), Error);
    CHECK_THROWS_WITH_AS(Trainer::resume(run), Contains("in use by another process"), Error);
  }
  CHECK_THROWS_WITH_AS(Trainer::start(config, run), Contains("holds a run already"), Error);
  CHECK(Trainer::resume(run).progress().step == 0);
  write_text(folder.at("file"), "x");
  CHECK_THROWS_WITH_AS(Trainer::start(config, folder.at("file")),
                       Contains("cannot make the folder"), Error);
}

TEST_CASE("trainer: a checkpoint of another configuration or of other data is refused") {
  const TestFolder folder;
  const std::string source = corpus_in(folder);
  const RunConfig config = small_config(source);
  const std::string run = folder.at("run");
  {
    Trainer trainer = Trainer::start(config, run);
    take_steps(trainer, 2);
    trainer.checkpoint();
  }
  const std::string before = read_file(checkpoint_path(run));
  for (const std::string key : {"train.learning_rate=0.5", "model.width=32", "data.batch=3",
                                "train.optimizer=sgd", "model.dropout=0"}) {
    const RunConfig other = with_settings(config, {key});
    const std::string quoted = fmt::format("'{}' differs", key.substr(0, key.find('=')));
    CHECK_THROWS_WITH_AS(Trainer::resume(run, other), Contains(quoted.c_str()), Error);
  }
  write_text(folder.at("corpus.txt"), text_of(2999) + "!");
  CHECK_THROWS_WITH_AS(Trainer::resume(run), Contains("have changed since the checkpoint"), Error);
  fs::remove(folder.at("corpus.txt"));
  CHECK_THROWS_AS(Trainer::resume(run), Error);
  corpus_in(folder);
  CHECK((read_file(checkpoint_path(run)) == before));
  CHECK(Trainer::resume(run).progress().step == 2);
}

TEST_CASE("trainer: a damaged checkpoint is refused, wherever the damage is") {
  const TestFolder folder;
  const std::string run = folder.at("run");
  { Trainer::start(small_config(corpus_in(folder)), run); }
  const std::string whole = read_file(checkpoint_path(run));
  const auto refused = [&](const std::string& content) {
    write_text(checkpoint_path(run), content);
    CHECK_THROWS_WITH_AS(Trainer::resume(run), Contains("checkpoint.safetensors"), Error);
    CHECK_THROWS_AS(load_trained(run), Error);
  };
  for (std::size_t i = 0; i < 20; ++i) refused(whole.substr(0, whole.size() * i / 20));
  for (std::uint64_t i = 0; i < 20; ++i) {
    std::string flipped = whole;
    const std::size_t at = i < 8 ? i : RngKey{1}.below(whole.size(), i);
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << RngKey{2}.below(8, i)));
    refused(flipped);
  }
  write_text(checkpoint_path(run), whole);
  CHECK(Trainer::resume(run).progress().step == 0);
}

TEST_CASE("trainer: configurations and data that cannot work are errors that say what to change") {
  const TestFolder folder;
  const std::string source = corpus_in(folder, 300);
  write_text(folder.at("empty.txt"), "");
  const auto refused = [&](const std::string& setting, const char* message) {
    CAPTURE(setting);
    CHECK_THROWS_WITH_AS(
        Trainer::start(with_settings(small_config(source), {setting}), folder.at("run")),
        Contains(message), Error);
    CHECK_FALSE(fs::exists(folder.at("run")));
  };
  refused("data.source=file:" + folder.at("missing.txt"), "missing.txt");
  refused("data.source=file:" + folder.at("empty.txt"), "empty");
  refused("data.source=nonsense", "nonsense");
  refused("data.source=task:nonsense", "nonsense");
  refused("data.source=task:remember", "set model.vocabulary=34");
  refused("model.segment=200", "too little text");
  refused("data.batch=100", "too little text");
  refused("model.vocabulary=256", "set model.vocabulary=257");
  refused("model.heads=3", "does not divide model.width 16");
  refused("model.architecture=encoder_only", "needs a decoder");
  refused("train.stride=5", "train.stride is 5; it must lie in 1..4");
  refused("train.steps=0", "train.steps is 0");
  refused("train.learning_rate=-1", "train.learning_rate");
  refused("model.dropout=1", "model.dropout");
  refused("model.widht=16", "unknown key 'model.widht'");
  refused("widht=16", "unknown key 'widht'");
  refused("model.width.deep=16", "unknown key 'model.width.deep'");
  refused("model=16", "'model' must be an object");
  refused("model.width=big", "'model.width' must be a whole number");
  refused("model.width=1.5", "'model.width' must be a whole number");
  refused("model.tie_output=1", "'model.tie_output' must be true or false");
  refused("train.method=magic", "known values are mrbp, bptt, truncated");
  refused("train.steps", "is not a setting");
  refused("=5", "is not a setting");
  CHECK_THROWS_WITH_AS(run_config_from_json("{\"trian\": {}}"), Contains("unknown key 'trian'"),
                       Error);
  CHECK_THROWS_WITH_AS(run_config_from_json("{\"train\": "), Contains("not valid JSON"), Error);
  CHECK_THROWS_WITH_AS(run_config_from_json("[]"), Contains("must be an object"), Error);
  CHECK_THROWS_WITH_AS(read_run_config(folder.at("none.json")), Contains("none.json"), Error);
  RunConfig hard = task_config();
  hard.data.max_difficulty = 1000;
  CHECK_THROWS_WITH_AS(Trainer::start(hard, ""), Contains("data.max_difficulty is 1000"), Error);
}

TEST_CASE("trainer: configurations survive a round trip through text") {
  RunConfig config = task_config();
  config.train.learning_rate = 1.0 / 3.0;
  config.train.loss = LossScale::sum;
  CHECK(run_config_from_json(to_json(config)) == config);
  CHECK(first_difference(config, config) == "");
  RunConfig other = config;
  other.train.clip = 7.0;
  CHECK(first_difference(config, other) == "train.clip");
}

TEST_CASE("trainer: a loss that is not finite names its first op and changes nothing") {
  const TestFolder folder;
  const std::string source = corpus_in(folder);
  for (const char* method : {"mrbp", "bptt", "truncated"}) {
    CAPTURE(method);
    const std::string run = folder.at(method);
    const RunConfig config = with_settings(
        small_config(source),
        {"train.optimizer=sgd", "train.learning_rate=1e20", "train.clip=0", "train.warmup=0",
         "train.checkpoint_every=1", std::string("train.method=") + method});
    Trainer trainer = Trainer::start(config, run);
    std::vector<Tensor> weights;
    Remains remains;
    const auto until_it_breaks = [&] {
      for (int i = 0; i < 5; ++i) {
        weights = weights_of(trainer.model());
        remains = remains_of(run);
        trainer.step();
      }
    };
    CHECK_THROWS_WITH_AS(until_it_breaks(), Contains("first cause: "), Error);
    std::string message;
    try {
      trainer.step();
    } catch (const Error& error) {
      message = error.what();
    }
    CAPTURE(message);
    CHECK(message.find("NaN or infinite values") != std::string::npos);
    CHECK(message.find("encoder/") != std::string::npos);
    CHECK(identical(weights_of(trainer.model()), weights));
    CHECK((read_file(checkpoint_path(run)) == remains.checkpoint));
    CHECK(metrics_of(run) == remains.metrics);
  }
}

TEST_CASE("trainer: anomaly mode names step, segment, op, module, shapes and ranges") {
  const TestFolder folder;
  const std::string source = corpus_in(folder);
  for (const char* method : {"mrbp", "bptt", "truncated"})
    for (const char* replayed : {"false", "true"}) {
      CAPTURE(method);
      CAPTURE(replayed);
      const RunConfig config = with_settings(
          small_config(source),
          {std::string("train.method=") + method, std::string("model.layer_replay=") + replayed});
      Trainer plain = Trainer::start(config, ""), watched = Trainer::start(config, "");
      watched.check_finite(true);
      CHECK(plain.step().loss == watched.step().loss);
      for (const Parameter& parameter : watched.model().parameters())
        if (parameter.name() == "encoder.layers.0.feed_forward.up.weight") {
          Tensor weight = parameter.value();
          weight.slice(0, 0, 1).fill_(std::numeric_limits<double>::infinity());
        }
      std::string message;
      try {
        watched.step();
      } catch (const Error& error) {
        message = error.what();
      }
      CAPTURE(message);
      CHECK(message.starts_with("train: step 2: "));
      CHECK(message.find("in segment 0/encoder/layers.0") != std::string::npos);
      CHECK(message.find("replay in") == std::string::npos);
      CHECK(message.find("the forward pass made ") != std::string::npos);
      CHECK(message.find(" in [") != std::string::npos);
      CHECK(message.find(" not finite") != std::string::npos);
    }
}

TEST_CASE("trainer: a full disk is an error, and the old checkpoint still loads") {
  const TestFolder folder;
  const std::string run = folder.at("run");
  {
    Trainer trainer = Trainer::start(small_config(corpus_in(folder)), run);
    take_steps(trainer, 3);
    trainer.checkpoint();
    trainer.step();
    {
      const test::FileSizeLimit limit(8192);
      CHECK_THROWS_WITH_AS(trainer.checkpoint(), Contains("checkpoint.safetensors"), Error);
    }
    {
      const test::FileSizeLimit limit(fs::file_size(metrics_path(run)) + 20);
      CHECK_THROWS_WITH_AS(trainer.step(), Contains("is the disk full?"), Error);
    }
  }
  CHECK(leaves_no_temporary(run));
  Trainer trainer = Trainer::resume(run);
  CHECK(trainer.progress().step == 3);
  CHECK(lines_of(metrics_path(run)).size() == 3);
}

TEST_CASE("checkpoint: the instruction set is recorded, and another one may go on") {
  const TestFolder folder;
  const std::string run = folder.at("run");
  const Isa before = current_isa();
  const std::string widest(name_of(before));
  const RunConfig config = small_config(corpus_in(folder));
  {
    Trainer trainer = Trainer::start(config, run);
    CHECK(trainer.progress().isa.empty());
    take_steps(trainer, 2);
    trainer.checkpoint();
  }
  CHECK(load_trained(run).isa == widest);
  set_isa(Isa::portable);
  {
    Trainer trainer = Trainer::resume(run);
    CHECK(trainer.progress().isa == widest);
    take_steps(trainer, 1);
    trainer.checkpoint();
  }
  set_isa(before);
  CHECK(load_trained(run).isa == "portable");

  // Checkpoints from before this was recorded.
  TensorFile file = load(checkpoint_path(run), Checksums::required);
  CHECK(file.metadata.erase("isa") == 1);
  save(checkpoint_path(run), file);
  CHECK(load_trained(run).isa.empty());
  CHECK(Trainer::resume(run).progress().isa.empty());
}

TEST_CASE("checkpoint: a trained model and its weights can be had from the folder of its run") {
  const TestFolder folder;
  const std::string run = folder.at("run");
  CHECK_THROWS_WITH_AS(load_trained(run), Contains("does not exist"), Error);
  RunConfig config = small_config(corpus_in(folder));
  std::vector<Tensor> weights;
  {
    Trainer trainer = Trainer::start(config, run);
    take_steps(trainer, 2);
    trainer.checkpoint();
    weights = weights_of(trainer.model());
  }
  const TrainedModel trained = load_trained(run);
  CHECK(trained.step == 2);
  CHECK(trained.config == config);
  CHECK(checkpoint_config(checkpoint_path(run)) == config);
  CHECK(identical(weights_of(*trained.model), weights));

  Memformer ours(config.model, RngKey{99});
  import_weights(checkpoint_path(run), ours);
  CHECK(identical(weights_of(ours), weights));

  TensorFile foreign;  // without prefix
  for (const Parameter& parameter : trained.model->parameters())
    foreign.tensors.emplace_back(parameter.name(), parameter.value());
  save(folder.at("foreign.safetensors"), foreign);
  Memformer theirs(config.model, RngKey{98});
  import_weights(folder.at("foreign.safetensors"), theirs);
  CHECK(identical(weights_of(theirs), weights));

  foreign.tensors.pop_back();
  save(folder.at("foreign.safetensors"), foreign);
  Memformer untouched(config.model, RngKey{97});
  const std::vector<Tensor> before = weights_of(untouched);
  CHECK_THROWS_WITH_AS(import_weights(folder.at("foreign.safetensors"), untouched),
                       Contains("has no tensor 'decoder.norm.bias'"), Error);
  CHECK(identical(weights_of(untouched), before));
  config.model.feed_forward = 32;
  Memformer wider(config.model, RngKey{96});
  CHECK_THROWS_WITH_AS(import_weights(checkpoint_path(run), wider), Contains("is expected"), Error);
}

namespace {

const std::vector<std::string> kDocuments{text_of(203, 2), text_of(64, 3), text_of(150, 4)};

Memformer small_model() { return {small_config("").model, RngKey{5}}; }

EvaluateOptions one_row() {
  EvaluateOptions options;
  options.batch = 1;
  options.segment_length = 8;
  return options;
}

}  // namespace

TEST_CASE("evaluate: one row is the plain loop over a document's segments") {
  // Of the Memformers only one without decoder has an output for every token it reads.
  ModelConfig without_decoder = small_config("").model;
  without_decoder.architecture = Architecture::encoder_only;
  for (const bool score_first : {false, true}) {
    for (const Prediction prediction : {Prediction::next_segment, Prediction::next_token}) {
      const Memformer model = prediction == Prediction::next_segment
                                  ? small_model()
                                  : Memformer(without_decoder, RngKey{5});
      EvaluateOptions options = one_row();
      options.prediction = prediction;
      options.score_first_segment = score_first;
      double loss = 0.0;
      std::int64_t scored = 0;
      for (const std::string& document : kDocuments) {
        TextStream stream(std::vector{document}, {.batch = 1,
                                                  .segment_length = 8,
                                                  .prediction = prediction,
                                                  .score_first_segment = score_first,
                                                  .wrap = false});
        LiveState state = constants_of(model.initial_state(1));
        while (const auto segment = stream.next()) {
          Tape off = Tape::off();
          const StepResult step = model.step(Pass{off, {}, Mode::eval, {}}, *segment, state);
          loss += step.loss.value.item();
          scored += segment->scored;
          state = step.next;
        }
      }
      const Evaluation result = evaluate(model, kDocuments, options);
      CHECK(result.scored == scored);
      CHECK(result.scored == (203 + 64 + 150) - (score_first ? 0 : 3 * 8));
      CHECK(result.loss_sum == loss);
      CHECK(result.bits_per_byte() ==
            doctest::Approx(loss / static_cast<double>(scored) / std::numbers::ln2));
    }
  }
}

TEST_CASE("evaluate: memory reset at every segment is each segment alone") {
  const Memformer model = small_model();
  const std::string& text = kDocuments[0];
  double loss = 0.0;
  for (std::size_t begin = 0; begin + 8 < text.size(); begin += 8)
    loss += evaluate(model, std::vector{text.substr(begin, 16)}, one_row()).loss_sum;
  EvaluateOptions options = one_row();
  options.reset_every_segment = true;
  const Evaluation reset = evaluate(model, std::vector{text}, options);
  CHECK(reset.loss_sum == loss);
  const Evaluation with_memory = evaluate(model, std::vector{text}, one_row());
  CHECK(with_memory.scored == reset.scored);
  CHECK(with_memory.loss_sum != reset.loss_sum);
}

TEST_CASE("evaluate: max_bytes reads the head of the text, across documents") {
  const Memformer model = small_model();
  EvaluateOptions options = one_row();
  const auto of_head = [&](std::int64_t bytes) {
    options.max_bytes = bytes;
    return evaluate(model, kDocuments, options).loss_sum;
  };
  const auto of = [&](const std::vector<std::string>& documents) {
    return evaluate(model, documents, one_row()).loss_sum;
  };
  CHECK(of_head(100) == of({kDocuments[0].substr(0, 100)}));
  CHECK(of_head(203) == of({kDocuments[0]}));
  CHECK(of_head(240) == of({kDocuments[0], kDocuments[1].substr(0, 37)}));
  CHECK(of_head(100000) == of(kDocuments));
}

TEST_CASE("evaluate: max_bytes reads whole documents where all have one length") {
  const Memformer model = small_model();
  const std::vector<std::string> images{text_of(20, 2), text_of(20, 3), text_of(20, 4)};
  EvaluateOptions options = one_row();
  for (const auto& [max_bytes, scored] : {std::pair{0, 36}, {59, 24}, {40, 24}, {19, 11}}) {
    options.max_bytes = max_bytes;
    CHECK(evaluate(model, images, options).scored == scored);
  }
}

TEST_CASE("evaluate: rows are shares of the text, read at the same time") {
  const Memformer model = small_model();
  const std::string text = text_of(400, 6);
  EvaluateOptions options = one_row();
  options.batch = 4;
  const Evaluation rows = evaluate(model, std::vector{text}, options);
  double loss = 0.0;
  for (std::size_t row = 0; row < 4; ++row)
    loss += evaluate(model, std::vector{text.substr(row * 100, 100)}, one_row()).loss_sum;
  CHECK(rows.scored == 400 - 4 * 8);
  CHECK(rows.loss_sum == doctest::Approx(loss).epsilon(1e-5));
}

TEST_CASE("evaluate: a long text takes no more memory than a short one") {
  const Memformer model = small_model();
  const auto peak_of = [&](std::size_t bytes) {
    const PeakScope peak;
    evaluate(model, std::vector{text_of(bytes)}, one_row());
    return peak.growth();
  };
  CHECK(peak_of(400) == peak_of(4000));
}

TEST_CASE("evaluate: a text in which nothing can be scored is an error") {
  const Memformer model = small_model();
  CHECK_THROWS_WITH_AS(evaluate(model, std::vector{text_of(8)}, one_row()),
                       Contains("too little text"), Error);
  CHECK_THROWS_WITH_AS(Evaluation{}.bits_per_byte(), Contains("nothing was scored"), Error);
}

TEST_SUITE_END();
