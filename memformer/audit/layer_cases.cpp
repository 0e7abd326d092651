#include "memformer/audit/layer_cases.h"

#include <memory>

#include "autograd/op.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/replay/mrbp.h"
#include "nn/parameters.h"

namespace mf {
namespace {

using Inputs = std::span<const Var>;

const RngKey kWeights{61}, kInputs{62}, kDraws{63};
constexpr std::int64_t kBatch = 2, kLength = 3, kWidth = 4, kHeads = 2, kSlots = 2;
const Shape kTokens{kBatch, kLength, kWidth}, kMemory{kBatch, kSlots, kWidth};

ModelConfig small_model() {
  ModelConfig config;
  config.vocabulary = 7;
  config.width = kWidth;
  config.heads = kHeads;
  config.encoder_layers = 1;
  config.decoder_layers = 1;
  config.feed_forward = 6;
  config.segment = kLength;
  config.slots = kSlots;
  config.relative_buckets = 4;
  config.relative_max_distance = 8;
  config.forgetting_initial_norm = 0.5;
  config.dtype = DType::f64;
  return config;
}

template <class Change>
ModelConfig changed(const Change& change) {
  ModelConfig config = small_model();
  change(config);
  return config;
}

Tensor some_tokens() { return from_host<std::int32_t>({4, 0, 4, 6, 2, 2}, {kBatch, kLength}); }
/// The second row ends one token early.
Tensor some_padding() { return from_host<std::uint8_t>({1, 1, 1, 1, 1, 0}, {kBatch, kLength}); }

/// A layer without parameters.
struct Nothing {
  void each(const auto&) const {}
};

class Cases {
 public:
  /// `call(layer, pass, inputs)` runs the layer on leaves of these shapes.
  template <class Layer, class Call>
  void add(std::string name, std::string variant, const Layer& layer,
           const std::vector<Shape>& shapes, const Call& call) {
    LayerCase one{std::move(name), std::move(variant), {}, {}, parameters(layer)};
    perturb(one.parameters, kWeights);
    for (std::size_t i = 0; i < shapes.size(); ++i)
      one.inputs.push_back(normal(shapes[i], kInputs.at(i), 0.0, 1.0, DType::f64));
    one.function = [layer, call](Tape& tape, Inputs x) {
      return call(layer, Pass{tape, kDraws, Mode::train, {}}, x);
    };
    list_.push_back(std::move(one));
  }
  /// A layer of one input.
  template <class Layer>
  void add(std::string name, std::string variant, const Layer& layer, const Shape& shape) {
    add(std::move(name), std::move(variant), layer, {shape},
        [](const Layer& own, const Pass& pass, Inputs x) { return own(pass, x[0]); });
  }
  std::vector<LayerCase> take() { return std::move(list_); }

 private:
  std::vector<LayerCase> list_;
};

void add_small_layers(Cases& cases) {
  for (const bool bias : {true, false})
    cases.add("Linear", bias ? "bias" : "no bias", Linear(4, 3, bias, kWeights, DType::f64),
              kTokens);
  cases.add("Linear", "bias and residual", Linear(4, 3, true, kWeights, DType::f64),
            {kTokens, {kBatch, kLength, 3}},
            [](const Linear& own, const Pass& pass, Inputs x) { return own(pass, x[0], x[1]); });
  cases.add(
      "Embedding", "rows used twice, and not at all",
      Embedding(7, kWidth, 1.0, kWeights, DType::f64), {},
      [](const Embedding& own, const Pass& pass, Inputs) { return own(pass, some_tokens()); });
  cases.add("LayerNorm", "", LayerNorm(kWidth, 1e-5, DType::f64), kTokens);
  for (const auto& [name, activation] : {std::pair{"gelu", Activation::gelu},
                                         {"relu", Activation::relu},
                                         {"silu", Activation::silu}})
    for (const double probability : {0.0, 0.3}) {
      const FeedForward layer(kWidth, 6, activation, probability, kWeights, DType::f64);
      const std::string variant = probability > 0.0 ? fmt::format("{}, dropout", name) : name;
      cases.add("FeedForward", variant, layer, kTokens);
      cases.add(
          "FeedForward", variant + ", residual", layer, {kTokens, kTokens},
          [](const FeedForward& own, const Pass& pass, Inputs x) { return own(pass, x[0], x[1]); });
    }
  cases.add("dropout", "", Nothing{}, {kTokens},
            [](const Nothing&, const Pass& pass, Inputs x) { return dropout(pass, x[0], 0.4); });
  for (const bool two_sided : {true, false})
    cases.add("RelativeBias", two_sided ? "two-sided" : "one-sided",
              RelativeBias(4, 8, two_sided, kHeads, kWeights, DType::f64), {},
              [](const RelativeBias& own, const Pass& pass, Inputs) { return own(pass, 5, 7); });
}

void add_attention(Cases& cases) {
  const auto layer = [](double dropout_probability, bool bias = true) {
    return MultiHeadAttention(kWidth, kHeads, bias, dropout_probability, kWeights, DType::f64);
  };
  const auto self = [](bool causal, bool masked) {
    return [=](const MultiHeadAttention& own, const Pass& pass, Inputs x) {
      AttentionScope seen;
      seen.causal = causal;
      if (masked) seen.mask = key_mask(some_padding());
      if (x.size() > 1) seen.bias = x[1];
      return own(pass, x[0], x[0], seen);
    };
  };
  cases.add("MultiHeadAttention", "self", layer(0.0), {kTokens}, self(false, false));
  cases.add("MultiHeadAttention", "self, causal, no biases", layer(0.0, false), {kTokens},
            self(true, false));
  cases.add("MultiHeadAttention", "self, masked, added bias, dropout", layer(0.3),
            {kTokens, {kHeads, kLength, kLength}}, self(false, true));
  cases.add("MultiHeadAttention", "cross, with residual", layer(0.0), {kTokens, kMemory, kTokens},
            [](const MultiHeadAttention& own, const Pass& pass, Inputs x) {
              return own(pass, x[0], x[1], {}, x[2]);
            });
  for (const bool causal : {true, false}) {
    MultiHeadAttention relative = layer(causal ? 0.0 : 0.3);
    relative.use_relative_positions(kLength, kWeights, DType::f64);
    cases.add("MultiHeadAttention",
              causal ? "relative table, causal" : "relative table, masked, dropout", relative,
              {kTokens}, self(causal, !causal));
  }
}

void add_memory_layers(Cases& cases) {
  for (const auto& [name, norm] : {std::pair{"one norm for both", ReadNorm::shared},
                                   {"own norm", ReadNorm::own},
                                   {"slots as they are", ReadNorm::none}}) {
    ModelConfig config = small_model();
    config.memory_read_norm = norm;
    cases.add(
        "MemoryReader", name, MemoryReader(config, kWeights), {kTokens, kMemory},
        [](const MemoryReader& own, const Pass& pass, Inputs x) { return own(pass, x[0], x[1]); });
  }

  const auto add_writer = [&](const char* variant, const ModelConfig& config) {
    cases.add("MemoryWriter", variant, MemoryWriter(config, kWeights), {kMemory, kTokens},
              [](const MemoryWriter& own, const Pass& pass, Inputs x) {
                return own(pass, x[0], x[1], some_padding());
              });
  };
  add_writer("default", small_model());
  add_writer("own slot key", changed([](ModelConfig& c) { c.writer_shared_key = false; }));
  add_writer("projected slot value",
             changed([](ModelConfig& c) { c.writer_project_value = true; }));
  add_writer("output projection",
             changed([](ModelConfig& c) { c.writer_output_projection = true; }));
  add_writer("temperature", changed([](ModelConfig& c) { c.temperature = 0.4; }));

  for (const auto& [name, norm] : {std::pair{"l2", MemoryNorm::l2},
                                   {"layer_norm", MemoryNorm::layer_norm},
                                   {"none", MemoryNorm::none}}) {
    ModelConfig config = small_model();
    config.memory_norm = norm;
    const Memory memory(config, kWeights);
    cases.add(
        "Memory", fmt::format("{}: initial", name), memory, {},
        [](const Memory& own, const Pass& pass, Inputs) { return own.initial(pass, kBatch); });
    cases.add(
        "Memory", fmt::format("{}: advance", name), memory, {kMemory},
        [](const Memory& own, const Pass& pass, Inputs x) { return own.advance(pass, x[0]); });
  }
  cases.add("Memory", "without forgetting: advance",
            Memory(changed([](ModelConfig& c) { c.forgetting = false; }), kWeights), {kMemory},
            [](const Memory& own, const Pass& pass, Inputs x) { return own.advance(pass, x[0]); });
  cases.add("Memory", "one row reset", Memory(small_model(), kWeights), {kMemory},
            [](const Memory& own, const Pass& pass, Inputs x) {
              return own.start(pass, x[0], from_host<std::uint8_t>({0, 1}, {kBatch}));
            });
}

/// Layers of the two stacks and the stacks, for a model with these switches.
void add_stacks(Cases& cases, const std::string& variant, const ModelConfig& config) {
  const bool has_memory = config.slots > 0;
  std::vector<Shape> encoder_inputs, encoder_layer_inputs{kTokens};
  if (has_memory) encoder_inputs.push_back(kMemory);
  if (has_memory) encoder_layer_inputs.push_back(kMemory);
  for (const bool two_sided : {true, false})
    cases.add("InputEmbedding", fmt::format("{}, {}", variant, two_sided ? "encoder" : "decoder"),
              InputEmbedding(config, two_sided, kWeights), {},
              [](const InputEmbedding& own, const Pass& pass, Inputs) {
                return own(pass, some_tokens());
              });
  cases.add("EncoderLayer", variant, EncoderLayer(config, kWeights), encoder_layer_inputs,
            [](const EncoderLayer& own, const Pass& pass, Inputs x) {
              AttentionScope seen;
              seen.mask = key_mask(some_padding());
              return own(pass, x[0], x.size() > 1 ? x[1] : Var{}, seen);
            });
  cases.add("DecoderLayer", variant, DecoderLayer(config, kWeights), {kTokens, kTokens},
            [](const DecoderLayer& own, const Pass& pass, Inputs x) {
              AttentionScope seen, cross;
              seen.causal = true;
              cross.mask = key_mask(some_padding());
              return own(pass, x[0], x[1], seen, cross);
            });
  cases.add("Encoder", variant, Encoder(config, kWeights), encoder_inputs,
            [](const Encoder& own, const Pass& pass, Inputs x) {
              return own(pass, some_tokens(), some_padding(), x.empty() ? Var{} : x[0]);
            });
  cases.add("Decoder", variant, Decoder(config, kWeights), {kTokens},
            [](const Decoder& own, const Pass& pass, Inputs x) {
              return own(pass, some_tokens(), x[0], some_padding());
            });
}

/// Most switches as the default model does not have them.
ModelConfig other_switches() {
  return changed([](ModelConfig& c) {
    c.activation = Activation::silu;
    c.dropout = c.attention_dropout = 0.2;
    c.final_norm = false;
    c.layer_replay = true;
    c.positions = Positions::relative_bias;
    c.embedding_scale = 2.0;
    c.attention_bias = c.tie_embeddings = c.tie_output = false;
    c.memory_read_norm = ReadNorm::own;
    c.writer_project_value = c.writer_output_projection = true;
    c.writer_shared_key = false;
    c.temperature = 0.5;
    c.memory_norm = MemoryNorm::layer_norm;
  });
}

struct Window {
  Memformer model;
  std::vector<Segment> segments;
  WindowPass pass;

  State state_of(const Tensor& memory) const {
    State state = model.initial_state(memory.size(0));
    state.front().value = memory;
    return state;
  }
};

/// y = the window's mean loss, x = its entry memory.
struct WindowLoss {
  static constexpr const char* kName = "window_loss";
  std::shared_ptr<const Window> window;
  Saved memory{};

  Tensor forward(Wants, const Tensor& entry) {
    memory = entry;
    Tape off = Tape::off();
    LiveState state = constants_of(window->state_of(entry));
    double sum = 0.0;
    for (std::size_t t = 0; t < window->segments.size(); ++t) {
      const StepResult step =
          window->model.step(Pass{off, kDraws.at(t), Mode::train, {}}, window->segments[t], state);
      if (step.loss.value.defined()) sum += step.loss.value.item();
      state = step.next;
    }
    return scalar(sum * loss_weight(window->segments, LossScale::mean), DType::f64);
  }
  /// The pass adds the parameters' gradients for gy = 1; what it adds is scaled.
  void backward(const Tensor& gy, Grads& g) const {
    std::vector<Parameter> parameters = window->model.parameters();
    std::vector<Tensor> former;
    for (Parameter& parameter : parameters) former.push_back(std::exchange(parameter.grad(), {}));
    const WindowResult result =
        window->pass(window->model, window->segments, window->state_of(memory), kDraws, {});
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Tensor& gradient = parameters[i].grad();
      if (gradient.defined()) gradient = affine(gradient, gy.item());
      if (former[i].defined()) gradient = gradient.defined() ? add(former[i], gradient) : former[i];
    }
    const Tensor& gradient = result.entry_gradient.front().value;
    if (gradient.defined()) g.add(0, affine(gradient, gy.item()));
  }
  auto saved() { return std::tie(memory); }
};

}  // namespace

std::vector<LayerCase> layer_cases() {
  Cases cases;
  add_small_layers(cases);
  add_attention(cases);
  add_memory_layers(cases);
  add_stacks(cases, "default", small_model());
  add_stacks(cases, "other switches", other_switches());
  add_stacks(cases, "no memory, sinusoidal positions", changed([](ModelConfig& c) {
               c.slots = 0;
               c.positions = Positions::sinusoidal;
             }));
  add_stacks(cases, "relative table, dropout", changed([](ModelConfig& c) {
               c.positions = Positions::simplified_relative;
               c.dropout = c.attention_dropout = 0.2;
             }));
  return cases.take();
}

ModelConfig window_model() { return small_model(); }

LayerCase window_case(std::string name, std::string variant, const ModelConfig& config,
                      WindowPass pass) {
  auto window = std::make_shared<Window>(Window{
      Memformer(config, kWeights), random_window(config, 3, kBatch, kInputs), std::move(pass)});
  window->segments[0].targets = window->segments[0].decoder_inputs = Tensor{};
  window->segments[0].scored = 0;
  window->segments[1].padding = some_padding();
  LayerCase one{std::move(name), std::move(variant), {}, {}, window->model.parameters()};
  perturb(one.parameters, kWeights);
  one.inputs.push_back(normal(kMemory, kInputs, 0.0, 1.0, DType::f64));
  one.function = [window = std::shared_ptr<const Window>(window)](Tape&, Inputs x) {
    return record(WindowLoss{window}, x[0]);
  };
  return one;
}

std::vector<LayerCase> window_cases() {
  std::vector<LayerCase> cases;
  const auto add = [&](const char* name, const WindowPass& pass) {
    cases.push_back(window_case(name, "default", small_model(), pass));
    cases.push_back(window_case(name, "other switches", other_switches(), pass));
  };
  add("bptt", bptt);
  add("mrbp", mrbp);
  add("checkpointed_bptt", checkpointed_bptt);
  return cases;
}

}  // namespace mf
