#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "memformer/baselines/compressive.h"
#include "memformer/baselines/lstm.h"
#include "memformer/baselines/rmt.h"
#include "memformer/baselines/transformer.h"
#include "memformer/baselines/transformer_xl.h"

namespace mf {

/// The baselines: every model besides Memformer that `train` and `bench` know. A further one is a
/// configuration with `kName`, `Model`, `each_field`, `validate` and `multiply_adds`, a model that
/// is made from it and a key, and its name in this list.
using BaselineConfig =
    std::variant<TransformerConfig, TransformerXlConfig, CompressiveConfig, RmtConfig, LstmConfig>;

/// Their names, in the order of the list.
std::vector<std::string> baseline_names();
/// The defaults of the one of this name. Throws Error with all names if there is none.
BaselineConfig baseline_config(const std::string& name);
/// The name of the one that is described.
std::string name_of(const BaselineConfig& config);
/// What all of them have.
const TokenModelConfig& shared(const BaselineConfig& config);
/// Throws Error naming the first impossible value and what it could be.
void validate(const BaselineConfig& config);
/// Of the model that this configuration describes.
MultiplyAdds multiply_adds(const BaselineConfig& config);
/// The model. Throws Error if the configuration is impossible.
std::unique_ptr<Recurrence> make_baseline(const BaselineConfig& config, RngKey key);

}  // namespace mf
