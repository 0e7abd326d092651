#include "memformer/train/generate.h"

#include <unistd.h>

#include <cstdio>
#include <memory>

#include "memformer/cli/commands.h"
#include "memformer/cli/device.h"
#include "memformer/train/checkpoint.h"
#include "tensor/io.h"

namespace mf::cli {
namespace {

struct GenerateArguments {
  std::string run;
  std::string prompt = "\n";
  std::string prompt_file;
  std::int64_t bytes = 400;
  SamplingOptions sampling;
  std::uint64_t seed = 1;
  Device device;
};

void generate(const GenerateArguments& arguments) {
  const std::string prompt =
      arguments.prompt_file.empty() ? arguments.prompt : read_file(arguments.prompt_file);
  const TrainedModel trained = load_trained(arguments.run, arguments.device);
  Generator generator(as_memformer(*trained.model, "generate"), prompt, arguments.sampling,
                      RngKey{arguments.seed});
  for (std::int64_t i = 0; i < arguments.bytes; ++i) {
    std::fputc(static_cast<unsigned char>(generator.next()), stdout);
    check(std::fflush(stdout) == 0, "generate: cannot write to the standard output; is it full?");
  }
  if (isatty(STDOUT_FILENO) == 1) std::printf("\n");
}

}  // namespace

void add_generate(CLI::App& program) {
  CLI::App* command = program.add_subcommand(
      "generate", "continue a text; writes the new bytes, and only them, to the standard output");
  const auto arguments = std::make_shared<GenerateArguments>();
  command->add_option("--run", arguments->run, "folder of the run")->required();
  CLI::Option* prompt =
      command->add_option("--prompt", arguments->prompt, "text to continue; default: one newline");
  command->add_option("--prompt-file", arguments->prompt_file, "file with the text to continue")
      ->excludes(prompt);
  command->option_defaults()->always_capture_default();
  command->add_option("--bytes", arguments->bytes, "bytes to generate")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--temperature", arguments->sampling.temperature,
                      "divides the logits; 0: always the most likely byte");
  command->add_option("--top-k", arguments->sampling.top_k, "only the k most likely; 0: all");
  command->add_option("--top-p", arguments->sampling.top_p,
                      "only the most likely that together reach this probability");
  command->add_option("--seed", arguments->seed, "same seed, same bytes");
  add_device(*command, arguments->device);
  command->callback([arguments] { generate(*arguments); });
}

}  // namespace mf::cli
