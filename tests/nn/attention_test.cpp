// What attention computes, and what it must not see.

#include <doctest/doctest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "autograd/ops.h"
#include "nn/attention.h"
#include "tests/support.h"

namespace mf::test {
namespace {

constexpr std::int64_t kBatch = 3, kLength = 6, kWidth = 8, kHeads = 2;

/// One forward pass, nothing recorded.
Tensor run(const MultiHeadAttention& layer, const Tensor& x, const Tensor& context,
           const AttentionScope& seen = {}) {
  Tape off = Tape::off();
  return layer(Pass{off, RngKey{1}, Mode::eval, {}}, constant(x), constant(context), seen).value;
}

MultiHeadAttention layer_of(DType dtype, bool relative = false) {
  MultiHeadAttention layer(kWidth, kHeads, true, 0.0, RngKey{1}, dtype);
  if (relative) layer.use_relative_positions(kLength, RngKey{2}, dtype);
  perturb(parameters(layer), RngKey{3}, 0.5);
  return layer;
}

/// x with token `position` of row `row` replaced.
Tensor with_other_token(const Tensor& x, std::int64_t row, std::int64_t position) {
  Tensor changed = x.clone();
  changed.slice(0, row, row + 1).slice(1, position, position + 1).fill_(7.0);
  return changed;
}

/// Rows `wanted` of x, in that order.
Tensor rows_of(const Tensor& x, const std::vector<std::int64_t>& wanted) {
  std::vector<Tensor> rows;
  for (const std::int64_t row : wanted) rows.push_back(x.slice(0, row, row + 1));
  return concat(rows, 0);
}

/// out_i = sum_j w_ij (v_j + r_ij), w = softmax of (q_i . k_j + q_i . r_ij + bias_hij) / sqrt(D)
/// over the keys that query i of row b may see, with plain loops. r_ij is row i - j of the relative
/// table.
Tensor plain_attention(const MultiHeadAttention& layer, const Tensor& x, const Tensor& context,
                       const AttentionScope& seen) {
  const std::int64_t B = x.size(0), T = x.size(1), S = context.size(1), D = kWidth / kHeads;
  const auto project = [](const Linear& linear, const Tensor& input) {
    return doubles(mf::linear(input, linear.weight.value(), linear.bias.value()));
  };
  const auto q = project(layer.query, x), k = project(layer.key, context),
             v = project(layer.value, context);
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  std::vector<double> bias, table, mixed(at(B * T * kWidth), 0.0);
  std::vector<std::uint8_t> mask;
  if (seen.bias.value.defined()) bias = doubles(seen.bias.value);
  if (seen.mask.defined()) mask = seen.mask.to_vector<std::uint8_t>();
  if (layer.relative) table = doubles(layer.relative->weight.value());
  for (std::int64_t b = 0; b < B; ++b)
    for (std::int64_t h = 0; h < kHeads; ++h)
      for (std::int64_t i = 0; i < T; ++i) {
        const auto relative = [&](std::int64_t j, std::int64_t d) {
          return table.empty() ? 0.0 : table[at((i - j + kLength - 1) * D + d)];
        };
        std::vector<double> weight(at(S), 0.0);
        double total = 0.0;
        for (std::int64_t j = 0; j < S; ++j) {
          if ((seen.causal && j > i) || (!mask.empty() && mask[at(b * S + j)] == 0)) continue;
          double score = 0.0;
          for (std::int64_t d = 0; d < D; ++d)
            score += q[at((b * T + i) * kWidth + h * D + d)] *
                     (k[at((b * S + j) * kWidth + h * D + d)] + relative(j, d));
          score /= std::sqrt(static_cast<double>(D));
          if (!bias.empty()) score += bias[at((h * T + i) * S + j)];
          weight[at(j)] = std::exp(score);
          total += weight[at(j)];
        }
        for (std::int64_t j = 0; j < S; ++j)
          for (std::int64_t d = 0; d < D; ++d)
            mixed[at((b * T + i) * kWidth + h * D + d)] +=
                weight[at(j)] / total * (v[at((b * S + j) * kWidth + h * D + d)] + relative(j, d));
      }
  return mf::linear(from_host(mixed, {B, T, kWidth}), layer.output.weight.value(),
                    layer.output.bias.value());
}

/// The first `kLength - row` tokens of each row are real.
Tensor key_mask_of_rows() {
  std::vector<std::uint8_t> real;
  for (std::int64_t b = 0; b < kBatch; ++b)
    for (std::int64_t j = 0; j < kLength; ++j) real.push_back(j < kLength - b ? 1 : 0);
  return from_host(real, {kBatch, 1, 1, kLength});
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE(
      "attention: equals plain loops in every combination of causal, mask, bias and relative") {
    const Tensor x = random_tensor({kBatch, kLength, kWidth}, RngKey{5});
    for (const bool relative : {false, true})
      for (const bool causal : {false, true})
        for (const bool masked : {false, true})
          for (const bool biased : {false, true}) {
            if (relative && biased) continue;  // no model has both
            const MultiHeadAttention layer = layer_of(DType::f64, relative);
            AttentionScope seen;
            seen.causal = causal;
            if (masked) seen.mask = key_mask_of_rows();
            if (biased) seen.bias = constant(random_tensor({kHeads, kLength, kLength}, RngKey{6}));
            const Tensor expected = plain_attention(layer, x, x, seen);
            CAPTURE(relative);
            CAPTURE(causal);
            CAPTURE(masked);
            CAPTURE(biased);
            CHECK(relative_difference(run(layer, x, x, seen), expected) <= 1e-13);
            seen.causal = !causal;  // the oracle sees each switch
            CHECK(relative_difference(run(layer, x, x, seen), expected) > 1e-3);
          }
    const MultiHeadAttention layer = layer_of(DType::f64);
    const Tensor context = random_tensor({kBatch, 4, kWidth}, RngKey{7});
    CHECK(relative_difference(run(layer, x, context), plain_attention(layer, x, context, {})) <=
          1e-13);
  }

  TEST_CASE("attention: a causal output does not change by a bit when a later token does") {
    for (const DType dtype : {DType::f32, DType::f64})
      for (const bool relative : {false, true}) {
        const MultiHeadAttention layer = layer_of(dtype, relative);
        const Tensor x = random_tensor({kBatch, kLength, kWidth}, RngKey{5}, dtype);
        for (const bool causal : {true, false}) {
          AttentionScope seen;
          seen.causal = causal;
          const Tensor before = run(layer, x, x, seen);
          for (std::int64_t p = 1; p < kLength; ++p) {
            const Tensor changed = with_other_token(x, 1, p);
            const Tensor after = run(layer, changed, changed, seen);
            CHECK(identical(after.slice(1, 0, p), before.slice(1, 0, p)) == causal);
            for (std::int64_t i = p; i < kLength; ++i)
              CHECK(!identical(after.slice(0, 1, 2).slice(1, i, i + 1),
                               before.slice(0, 1, 2).slice(1, i, i + 1)));
          }
        }
      }
  }

  TEST_CASE("attention: masked keys do not matter by a bit, unmasked ones do") {
    for (const bool relative : {false, true}) {
      const MultiHeadAttention layer = layer_of(DType::f32, relative);
      const Tensor x = random_tensor({kBatch, kLength, kWidth}, RngKey{5}, DType::f32);
      AttentionScope seen;
      seen.mask = key_mask_of_rows();
      const Tensor before = run(layer, x, x, seen);
      for (std::int64_t b = 0; b < kBatch; ++b)
        for (std::int64_t j = 1; j < kLength; ++j) {
          // Queries before j are not changed themselves.
          const Tensor changed = with_other_token(x, b, j);
          const Tensor after = run(layer, changed, changed, seen);
          const bool is_padding = j >= kLength - b;
          CHECK(identical(after.slice(1, 0, j), before.slice(1, 0, j)) == is_padding);
        }
    }
  }

  TEST_CASE("attention: rows of a batch do not know of each other") {
    for (const bool relative : {false, true}) {
      const MultiHeadAttention layer = layer_of(DType::f64, relative);
      const Tensor x = random_tensor({kBatch, kLength, kWidth}, RngKey{5});
      AttentionScope all, some;
      all.mask = key_mask_of_rows();
      const Tensor whole = run(layer, x, x, all);
      // Other rows of the same batch: the same bits.
      const Tensor changed = with_other_token(x, 1, 0);
      const Tensor after = run(layer, changed, changed, all);
      for (std::int64_t b = 0; b < kBatch; ++b)
        CHECK(identical(rows_of(after, {b}), rows_of(whole, {b})) == (b != 1));
      // Another batch: products are cut into other panels, so equal but for rounding.
      for (const std::vector<std::int64_t>& rows :
           {std::vector<std::int64_t>{2, 0, 1}, {1}, {2, 2}, {0, 2}}) {
        some.mask = rows_of(all.mask, rows);
        const Tensor part = run(layer, rows_of(x, rows), rows_of(x, rows), some);
        CHECK(relative_difference(part, rows_of(whole, rows)) <= 1e-14);
      }
      CHECK(relative_difference(rows_of(whole, {0}), rows_of(whole, {1})) > 1e-2);
    }
  }

  TEST_CASE("attention: heads that do not divide the width are an error that says so") {
    CHECK_THROWS_WITH_AS(MultiHeadAttention(8, 3, true, 0.0, RngKey{1}, DType::f32),
                         doctest::Contains("3 heads do not divide width 8"), Error);
  }

  TEST_CASE("positions: sequences beyond the relative table are an error that says so") {
    const MultiHeadAttention layer = layer_of(DType::f32, true);
    const Tensor x = zeros({1, kLength + 1, kWidth}, DType::f32);
    CHECK_THROWS_WITH_AS(run(layer, x, x), doctest::Contains("do not fit a table of reach 6"),
                         Error);
  }

  TEST_CASE("positions: the sinusoidal table is the formula's") {
    const Tensor table = sinusoidal_positions(5, 6, DType::f64);
    const std::vector<double> values = doubles(table);
    for (int p = 0; p < 5; ++p)
      for (int pair = 0; pair < 3; ++pair) {
        const double angle = p * std::pow(10000.0, -2.0 * pair / 6.0);
        const auto at = static_cast<std::size_t>(p * 6 + 2 * pair);
        CHECK(values[at] == doctest::Approx(std::sin(angle)).epsilon(1e-13));
        CHECK(values[at + 1] == doctest::Approx(std::cos(angle)).epsilon(1e-13));
      }
    CHECK(sinusoidal_positions(3, 4, DType::f32).dtype() == DType::f32);
  }

  TEST_CASE("positions: relative buckets are those of the table made by another program") {
    std::ifstream file(std::string(MEMFORMER_SOURCE_DIR) + "/tests/golden/closed_form.json");
    const nlohmann::json golden = nlohmann::json::parse(file);
    for (const nlohmann::json& given : golden["relative_buckets"]) {
      const auto first = given["first_offset"].get<std::int64_t>();
      const auto table = given["table"].get<std::vector<std::int32_t>>();
      for (std::size_t i = 0; i < table.size(); ++i) {
        const std::int64_t offset = first + static_cast<std::int64_t>(i);  // key - query
        CHECK(relative_bucket(200, 200 + offset, given["buckets"], given["max_distance"],
                              given["bidirectional"]) == table[i]);
      }
    }
  }

  TEST_CASE("positions: a relative bias is the table's row of each distance's bucket") {
    const RelativeBias bias(8, 16, true, kHeads, RngKey{1}, DType::f64);
    Tape off = Tape::off();
    const std::vector<double> values = doubles(bias(Pass{off, {}, Mode::eval, {}}, 4, 7).value);
    const std::vector<double> table = doubles(bias.weight.value());
    for (std::int64_t h = 0; h < kHeads; ++h)
      for (std::int64_t i = 0; i < 4; ++i)
        for (std::int64_t j = 0; j < 7; ++j)
          CHECK(values[static_cast<std::size_t>((h * 4 + i) * 7 + j)] ==
                table[static_cast<std::size_t>(relative_bucket(i, j, 8, 16, true) * kHeads + h)]);
  }
}

}  // namespace mf::test
