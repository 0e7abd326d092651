#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/grad_check.h"
#include "memformer/model/config.h"
#include "memformer/replay/window.h"

namespace mf {

/// A layer, or a model over a window, with one choice of its switches: small enough for a gradient
/// check at every coordinate of its inputs and parameters. f64, training mode, parameters moved
/// away from special values.
struct LayerCase {
  std::string layer;                  ///< name of its type; of the pass, for a window
  std::string variant;                ///< "causal, with a bias"
  GradFunction function;              ///< the layer or the pass; it keeps its model alive
  std::vector<Tensor> inputs;         ///< of `function`, checked
  std::vector<Parameter> parameters;  ///< of the layer or model, checked too; may be none
};

/// Every layer of nn and of the model, with each of its switches.
std::vector<LayerCase> layer_cases();

/// The mean loss of a window of three segments (padding, a document that starts inside, a segment
/// that is not scored) as a function of its entry memory. The value is computed without recording;
/// the gradients are those of `pass`.
LayerCase window_case(std::string name, std::string variant, const ModelConfig& config,
                      WindowPass pass);
/// Two models, whose switches differ, by each exact pass.
std::vector<LayerCase> window_cases();

/// The model of `window_cases`, at its default switches.
ModelConfig window_model();

}  // namespace mf
