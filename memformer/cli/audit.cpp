#include "memformer/cli/audit_shared.h"
#include "memformer/cli/commands.h"

namespace mf::cli {

void add_audit(CLI::App& program) {
  CLI::App* audit = program.add_subcommand(
      "audit", "claims that can be run: each prints its facts and fails unless the claim holds");
  audit->require_subcommand(1);
  add_audit_gradients(*audit);
  add_audit_mrbp(*audit);
  add_audit_trace(*audit);
  add_audit_tape(*audit);
  add_audit_memory(*audit);
  add_audit_slots(*audit);
  add_audit_determinism(*audit);
}

}  // namespace mf::cli
