#include "memformer/audit/slots.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "tensor/math.h"

namespace mf {
namespace {

Tensor on_host(const Tensor& x) { return x.to(cpu).to(DType::f64); }

/// max |x - y| / max |y|.
double relative_error(const Tensor& x, const Tensor& y) {
  const std::vector<double> a = on_host(x).to_vector<double>(), b = on_host(y).to_vector<double>();
  double largest = 0.0, size = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]));
    size = std::max(size, std::abs(b[i]));
  }
  return largest == 0.0 ? 0.0 : largest / size;
}

/// Rows of the last axis of a [1, slots, d] tensor.
std::vector<std::vector<double>> rows_of(const Tensor& slots) {
  const std::vector<double> all = on_host(slots).to_vector<double>();
  const auto width = static_cast<std::ptrdiff_t>(slots.size(-1));
  std::vector<std::vector<double>> rows;
  for (auto begin = all.begin(); begin != all.end(); begin += width)
    rows.emplace_back(begin, begin + width);
  return rows;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> norms_of(const Tensor& slots) {
  std::vector<double> norms;
  for (const auto& row : rows_of(slots)) norms.push_back(std::sqrt(dot(row, row)));
  return norms;
}

double cosine_between(const std::vector<double>& a, const std::vector<double>& b) {
  return dot(a, b) / std::sqrt(dot(a, a) * dot(b, b));
}

std::vector<double> angles_between(const Tensor& a, const Tensor& b) {
  const auto x = rows_of(a), y = rows_of(b);
  std::vector<double> degrees;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double cosine = std::clamp(cosine_between(x[i], y[i]), -1.0, 1.0);
    degrees.push_back(std::acos(cosine) * 180.0 / std::numbers::pi);
  }
  return degrees;
}

double mean_cosine_between(const Tensor& slots) {
  const auto rows = rows_of(slots);
  double sum = 0.0, pairs = 0.0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      sum += cosine_between(rows[i], rows[j]);
      ++pairs;
    }
  return sum / pairs;
}

/// [1, h, T, S] -> [T, S].
Tensor mean_over_heads(const Tensor& weights) {
  const Tensor host = on_host(weights);
  return affine(sum(host, {0, 1}), 1.0 / static_cast<double>(host.size(1)));
}

class Reading {
 public:
  Reading(const Memformer& model, SlotsFault fault) : model_(model), fault_(fault) {}

  SlotsAtSegment operator()(const Segment& segment, State& state) {
    const LiveState live = constants_of(state);
    const Var memory = model_.read_state(pass_, live, segment.reset);
    SlotsAtSegment seen;
    seen.tokens = segment.tokens.to(cpu).to_vector<std::int32_t>();
    const Var encoded = read(segment, memory, seen);
    write(memory, encoded, seen);
    const LiveState next = model_.next_state(pass_, segment, live);
    seen.write_error = relative_error(remembered_, next.front().value.value);
    seen.turned = angles_between(memory.value, next.front().value.value);
    seen.from_start =
        angles_between(next.front().value.value, model_.initial_state(1).front().value);
    seen.between_slots = mean_cosine_between(next.front().value.value);
    state = values_of(next);
    return seen;
  }

 private:
  /// The encoder layer by layer, as Encoder runs it, with the readers' weights on the way.
  Var read(const Segment& segment, const Var& memory, SlotsAtSegment& seen) {
    const Encoder& encoder = model_.encoder();
    Var x = encoder.embedding(pass_, segment.tokens);
    AttentionScope scope;
    if (encoder.embedding.relative_bias)
      scope.bias = (*encoder.embedding.relative_bias)(pass_, x.size(1), x.size(1));
    Tensor sum_of_layers;
    for (const EncoderLayer& layer : encoder.layers) {
      const Var normed = layer.self_norm(pass_, x);
      const Var a = layer.self_attention(pass_, normed, normed, scope, x);
      const MemoryReader& reader = *layer.reader;
      const MultiHeadAttention& attention = reader.attention;
      Var slots = memory;
      if (reader.read_norm == ReadNorm::shared) slots = reader.norm(pass_, memory);
      if (reader.read_norm == ReadNorm::own) slots = (*reader.slot_norm)(pass_, memory);
      const Var q = split_heads(attention.query(pass_, reader.norm(pass_, a)), attention.heads);
      const Var k = split_heads(attention.key(pass_, slots), attention.heads);
      const Var v = split_heads(attention.value(pass_, slots), attention.heads);
      const Var weights = softmax(scores(q, k, 1.0), -1);
      const Var result = attention.output(pass_, merge_heads(matmul(weights, v)));
      seen.read_error =
          std::max(seen.read_error, relative_error(result.value, reader(pass_, a, memory).value));
      const Tensor mean = mean_over_heads(weights.value);
      sum_of_layers = sum_of_layers.defined() ? add(sum_of_layers, mean) : mean;
      x = layer(pass_, x, memory, scope);
    }
    seen.read = affine(sum_of_layers, 1.0 / static_cast<double>(encoder.layers.size()));
    return encoder.norm ? (*encoder.norm)(pass_, x) : x;
  }

  void write(const Var& memory, const Var& encoded, SlotsAtSegment& seen) {
    const MemoryWriter& writer = model_.writer();
    const double temperature =
        fault_ == SlotsFault::none ? writer.temperature : (writer.temperature == 1.0 ? 2.0 : 1.0);
    const Var q = split_heads(writer.query(pass_, memory), writer.heads);
    const Linear& slot_key = writer.slot_key ? *writer.slot_key : writer.key;
    const Var kappa = split_heads(slot_key(pass_, memory), writer.heads);
    const Var own_value =
        split_heads(writer.project_value ? writer.value(pass_, memory) : memory, writer.heads);
    const Var k = split_heads(writer.key(pass_, encoded), writer.heads);
    const Var v = split_heads(writer.value(pass_, encoded), writer.heads);
    const Var own_score = scale(sum(mul(q, kappa), {-1}, true), score_scale(q, temperature));
    const std::array parts{own_score, scores(q, k, temperature)};
    const Var weights = softmax(concat(parts, -1), -1);
    const Var own_weight = slice(weights, -1, 0, 1);
    const Var token_weights = slice(weights, -1, 1, weights.size(-1));
    Var written =
        merge_heads(add(mul(own_weight, own_value), matmul(contiguous(token_weights), v)));
    if (writer.output) written = (*writer.output)(pass_, written);
    seen.write = mean_over_heads(weights.value);
    seen.written_norm = norms_of(written.value);
    remembered_ = model_.memory().advance(pass_, written).value;
  }

  static double score_scale(const Var& q, double temperature) {
    return 1.0 / (std::sqrt(static_cast<double>(q.size(-1))) * temperature);
  }
  static Var scores(const Var& q, const Var& k, double temperature) {
    return scale(matmul(q, transpose(k)), score_scale(q, temperature));
  }

  const Memformer& model_;
  const SlotsFault fault_;
  Tape off_ = Tape::off();
  const Pass pass_{off_, {}, Mode::eval, {}};
  Tensor remembered_;  // M_{t+1} as made here
};

}  // namespace

std::vector<double> own_weights(const SlotsAtSegment& segment) {
  return segment.write.slice(1, 0, 1).contiguous().to_vector<double>();
}

SlotKinds kinds_of(const SlotsAtSegment& segment) {
  SlotKinds kinds;
  for (const double weight : own_weights(segment))
    ++(weight >= kKeeperFrom   ? kinds.keepers
       : weight <= kWriterUpTo ? kinds.writers
                               : kinds.mixers);
  return kinds;
}

bool SlotsReport::reproduced() const {
  return std::ranges::all_of(segments, [&](const SlotsAtSegment& segment) {
    return segment.write_error <= tolerance && segment.read_error <= tolerance;
  });
}

SlotsReport audit_slots(const Memformer& model, const std::vector<Segment>& segments,
                        SlotsFault fault) {
  const ModelConfig& config = model.config();
  check(config.slots > 0, "audit slots: this model has no memory; model.slots is 0");
  check(!segments.empty(), "audit slots: there is no segment to read; give a longer text");
  SlotsReport report;
  report.forgetting_norms = norms_of(model.memory().forgetting.value());
  report.radius = config.radius();
  report.tolerance = config.dtype == DType::f64 ? 1e-12 : 1e-4;
  State state = model.initial_state(1);
  Reading reading(model, fault);
  for (const Segment& segment : segments) {
    check(segment.batch() == 1 && !segment.padding.defined(),
          "audit slots: a segment must be one row without padding; got tokens {}", segment.tokens);
    report.segments.push_back(reading(segment.to(model.device()), state));
  }
  return report;
}

}  // namespace mf
