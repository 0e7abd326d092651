#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "memformer/cli/commands.h"
#include "memformer/cli/device.h"
#include "tensor/cpu/isa.h"
#include "tensor/cpu/parallel.h"
#include "tensor/error.h"
#include "tensor/memory.h"

namespace {

/// GNU OpenMP lets waiting threads spin for milliseconds; on a busy machine they then burn the time
/// of the thread they wait for, and a step takes ten times as long. How long they spin is read from
/// the environment when the library is loaded, so the program starts itself once more with a short
/// time.
void keep_waiting_threads_short(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") != nullptr || std::getenv("GOMP_SPINCOUNT") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "2000", 0);
  execv("/proc/self/exe",
        argv);  // returns only where that file is not to be had: then go on as it is
}

int run(int argc, char** argv) {
  CLI::App program{
      "Memformer: a Transformer with an external memory, trained by memory replay "
      "back-propagation"};
  program.require_subcommand(1);
  program.fallthrough();  // --threads and --isa may stand behind the subcommand too
  program.set_version_flag("--version", "memformer 0.1.0");
  int threads = 0;
  program
      .add_option("--threads", threads, "threads of the kernels; default: OMP_NUM_THREADS or all")
      ->check(CLI::Range(1, 1024));
  std::string isa;
  program.add_option("--isa", isa,
                     "instruction set of the kernels: portable, avx2 or avx512; default: the "
                     "widest that the processor has");
  program.parse_complete_callback([&] {
    if (threads > 0) mf::set_threads(threads);
    if (!isa.empty()) mf::set_isa(mf::isa_named(isa));
  });
  mf::cli::add_train(program);
  mf::cli::add_eval(program);
  mf::cli::add_generate(program);
  mf::cli::add_audit(program);
  mf::cli::add_inspect(program);
  mf::cli::add_bench(program);
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return program.exit(error);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  keep_waiting_threads_short(argv);
  mf::keep_freed_memory();
  try {
    const int status = run(argc, argv);
    mf::cli::release_device();
    return status;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "memformer: %s\n", error.what());
    return 1;
  }
}
