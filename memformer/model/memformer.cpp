#include "memformer/model/memformer.h"

#include "autograd/ops.h"
#include "nn/parameters.h"
#include "tensor/math.h"

namespace mf {

Memformer::Memformer(const ModelConfig& config, RngKey key) : config_(config) {
  validate(config);
  encoder_ = Encoder(config, key.at("encoder"));
  if (config.slots > 0) {
    memory_.emplace(config, key.at("memory"));
    writer_.emplace(config, key.at("writer"));
  }
  if (config.architecture == Architecture::encoder_decoder) {
    decoder_.emplace(config, key.at("decoder"));
    if (config.tie_embeddings) decoder_->embedding.tokens = encoder_.embedding.tokens;
  }
  if (!config.tie_output)
    output_.emplace(config.width, config.vocabulary, true, key.at("output"), config.dtype);
  mf::parameters(*this);  // gives each parameter its path as its name
}

std::vector<Parameter> Memformer::parameters() const { return mf::parameters(*this); }

State Memformer::initial_state(std::int64_t batch) const {
  if (!memory_) return {};
  Tape off = Tape::off();
  const Pass pass{off, {}, Mode::eval, {}};
  return {{"memory", memory_->initial(pass, batch).value, true, {}}};
}

Var Memformer::encode(const Pass& pass, const Tensor& tokens, const Tensor& padding,
                      const Var& memory) const {
  return encoder_(pass.at("encoder"), tokens, padding, memory);
}

// eq. D4, before the softmax.
Var Memformer::logits(const Pass& pass, const Var& x) const {
  if (output_) return (*output_)(pass.at("output"), x);
  const Embedding& table = decoder_ ? decoder_->embedding.tokens : encoder_.embedding.tokens;
  const Var rows = reshape(x, {x.size(0) * x.size(1), x.size(2)});
  const Var scores = matmul(rows, transpose(pass.tape.param(table.weight)));
  return reshape(scores, {x.size(0), x.size(1), scores.size(1)});
}

Var Memformer::decode(const Pass& pass, const Tensor& inputs, const Var& encoded,
                      const Tensor& padding) const {
  check(decoder_.has_value(), "decode: this model is encoder_only; it has no decoder");
  return logits(pass, (*decoder_)(pass.at("decoder"), inputs, encoded, padding));
}

void Memformer::start_decoding(DecoderCache& cache, const Tensor& encoded,
                               const Tensor& padding) const {
  check(decoder_.has_value(), "start_decoding: this model is encoder_only; it has no decoder");
  decoder_->start(cache, encoded, padding);
}

Tensor Memformer::decode_next(DecoderCache& cache, const Tensor& ids) const {
  check(decoder_.has_value(), "decode_next: this model is encoder_only; it has no decoder");
  const Tensor x = decoder_->next(cache, ids);
  return output_ ? infer(*output_, x)
                 : matmul(x, decoder_->embedding.tokens.weight.value().transpose());
}

Var Memformer::read_state(const Pass& pass, const LiveState& state, const Tensor& reset) const {
  if (!memory_) return {};
  check(state.size() == 1, "memformer: the state must be one tensor, 'memory'; got {} tensors",
        state.size());
  const Var& memory = state.front().value;
  check(memory.rank() == 3 && memory.size(1) == config_.slots && memory.size(2) == config_.width,
        "memformer: the memory must be [batch, {}, {}]; got {}", config_.slots, config_.width,
        memory);
  return memory_->start(pass.at("memory"), memory, reset);
}

LiveState Memformer::write(const Pass& pass, const Var& memory, const Var& encoded,
                           const Tensor& padding) const {
  if (!memory_) return {};
  const Var written = (*writer_)(pass.at("writer"), memory, encoded, padding);
  return {{"memory", memory_->advance(pass.at("memory"), written), true, {}}};
}

namespace {

/// The boundary rules belong to the state that came in, not to the step.
LiveState keep_rules(LiveState next, const LiveState& state) {
  for (std::size_t i = 0; i < next.size(); ++i) next[i].boundary = state[i].boundary;
  return next;
}

}  // namespace

// eq. S2.
LiveState Memformer::next_state(const Pass& pass, const Segment& segment,
                                const LiveState& state) const {
  const Var memory = read_state(pass, state, segment.reset);
  const Var encoded = encode(pass, segment.tokens, segment.padding, memory);
  return keep_rules(write(pass, memory, encoded, segment.padding), state);
}

// eq. S2 and S3.
StepResult Memformer::step(const Pass& pass, const Segment& segment, const LiveState& state) const {
  const Var memory = read_state(pass, state, segment.reset);
  const Var encoded = encode(pass, segment.tokens, segment.padding, memory);
  StepResult result;
  result.next = keep_rules(write(pass, memory, encoded, segment.padding), state);
  if (!segment.targets.defined()) return result;
  result.outputs = decoder_ ? decode(pass, segment.decoder_inputs, encoded, segment.padding)
                            : logits(pass, encoded);
  result.loss = summed_loss(result.outputs, segment.targets);
  return result;
}

}  // namespace mf
