#pragma once

#include <CLI/CLI.hpp>

/// One function per subcommand of the program `memformer`; each adds its options and what it runs.
namespace mf::cli {

void add_train(CLI::App& program);
void add_eval(CLI::App& program);
void add_generate(CLI::App& program);
void add_audit(CLI::App& program);
void add_inspect(CLI::App& program);
void add_bench(CLI::App& program);

}  // namespace mf::cli
