#include <doctest/doctest.h>

#include <limits>

#include "tensor/memory.h"
#include "tests/tensor/kernel_checks.h"

using namespace mf;
using namespace mf::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Sizes {
  std::int64_t batch, heads, queries, keys, width, value_width;
};

struct Inputs {
  Tensor q, k, v, mask, bias, gout;
  OwnKeyValue own;
  Sizes sizes;

  Inputs(const Sizes& s, DType dtype, bool with_mask, bool with_bias, bool with_own = false)
      : q(random_tensor({s.batch, s.heads, s.queries, s.width}, dtype, 1)),
        k(random_tensor({s.batch, s.heads, s.keys, s.width}, dtype, 2)),
        v(random_tensor({s.batch, s.heads, s.keys, s.value_width}, dtype, 3)),
        gout(random_tensor({s.batch, s.heads, s.queries, s.value_width}, dtype, 5)),
        sizes(s) {
    if (with_bias) bias = random_tensor({1, s.heads, s.queries, s.keys}, dtype, 4);
    if (with_own) {
      own.key = random_tensor({s.batch, s.heads, s.queries, s.width}, dtype, 6);
      own.value = random_tensor({s.batch, s.heads, s.queries, s.value_width}, dtype, 7);
    }
    if (!with_mask) return;
    // Row 0 of batch 0 sees nothing; the others a scattered half of the keys.
    std::vector<std::uint8_t> bits(static_cast<std::size_t>(s.batch * s.queries * s.keys));
    for (std::size_t i = 0; i < bits.size(); ++i)
      bits[i] = static_cast<std::int64_t>(i) >= s.keys && RngKey{9}.uniform(i) < 0.5;
    mask = from_host<std::uint8_t>(bits, {s.batch, 1, s.queries, s.keys});
  }
};

AttentionResult forward(const Inputs& in, const AttentionOptions& options, bool want_map = false) {
  return attention(in.q, in.k, in.v, in.mask, in.bias, options, want_map, in.own);
}

AttentionGrads backward(const Inputs& in, const AttentionOptions& options,
                        const AttentionResult& result, AttentionWants wants = {}) {
  return attention_backward(in.q, in.k, in.v, in.mask, in.bias, options, result.out, result.log_sum,
                            in.gout, wants, in.own);
}

/// Everything that attention and its backward return, by plain f64 loops from the definitions: the
/// gradients go through the whole softmax Jacobian, not through the kernel's shortcut. A query's
/// own key is number `keys`.
struct Oracle {
  std::vector<double> out, log_sum, map, gq, gk, gv, gbias, gown_key, gown_value;

  Oracle(const Inputs& in, const AttentionOptions& options) {
    const Sizes& s = in.sizes;
    const auto size = [](std::int64_t n) { return static_cast<std::size_t>(n); };
    const bool has_own = in.own.key.defined();
    const std::int64_t weights = s.keys + (has_own ? 1 : 0);
    const auto q = values(in.q), k = values(in.k), v = values(in.v), gout = values(in.gout);
    const auto own_key = has_own ? values(in.own.key) : std::vector<double>{};
    const auto own_value = has_own ? values(in.own.value) : std::vector<double>{};
    const Shape scores{s.batch, s.heads, s.queries, s.keys};
    const auto bias = in.bias.defined() ? values(in.bias.expand(scores).contiguous())
                                        : std::vector<double>(size(scores.elements()));
    const auto mask = in.mask.defined()
                          ? in.mask.expand(scores).contiguous().to_vector<std::uint8_t>()
                          : std::vector<std::uint8_t>(size(scores.elements()), 1);
    const std::int64_t rows = s.batch * s.heads * s.queries;
    out.resize(gout.size()), log_sum.resize(size(rows)), map.resize(size(rows * weights));
    gbias.resize(mask.size());
    gq.resize(q.size()), gk.resize(k.size()), gv.resize(v.size());
    gown_key.resize(own_key.size()), gown_value.resize(own_value.size());
    const double scale =
        options.scale != 0.0 ? options.scale : 1.0 / std::sqrt(static_cast<double>(s.width));
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t head = row / s.queries, i = row % s.queries;
      const auto is_own = [&](std::int64_t j) { return j == s.keys; };
      const auto place = [&](std::int64_t j, std::int64_t width) {
        return size((is_own(j) ? row : head * s.keys + j) * width);
      };
      std::vector<double> p(size(weights)), factor(size(weights)), gp(size(weights));
      double sum = 0.0;
      for (std::int64_t j = 0; j < weights; ++j) {
        const std::vector<double>& key = is_own(j) ? own_key : k;
        double product = 0.0;
        for (std::int64_t d = 0; d < s.width; ++d)
          product += q[size(row * s.width + d)] * key[place(j, s.width) + size(d)];
        const std::size_t at = size(row * s.keys + j);
        const bool seen =
            is_own(j) || (mask[at] != 0 && (!options.causal || j <= i + (s.keys - s.queries)));
        const double added = is_own(j) ? 0.0 : bias[at];
        p[size(j)] = seen ? std::exp((scale * product + added) / options.temperature) : 0.0;
        sum += p[size(j)];
        const auto element = static_cast<std::uint64_t>(row * weights + j);
        const bool keep = options.key.uniform(element) >= options.dropout;
        factor[size(j)] = keep ? 1.0 / (1.0 - options.dropout) : 0.0;
      }
      log_sum[size(row)] = std::log(sum);
      for (std::int64_t j = 0; j < weights; ++j) {
        if (sum > 0.0) p[size(j)] /= sum;
        const double weight = p[size(j)] * factor[size(j)];
        map[size(row * weights + j)] = weight;
        for (std::int64_t e = 0; e < s.value_width; ++e) {
          const double g = gout[size(row * s.value_width + e)];
          const std::size_t at = place(j, s.value_width) + size(e);
          const double value = (is_own(j) ? own_value : v)[at];
          out[size(row * s.value_width + e)] += weight * value;
          (is_own(j) ? gown_value : gv)[at] += weight * g;
          gp[size(j)] += g * value * factor[size(j)];
        }
      }
      for (std::int64_t j = 0; j < weights; ++j) {
        double glogit = 0.0;
        for (std::int64_t l = 0; l < weights; ++l)
          glogit += gp[size(l)] * p[size(l)] * ((l == j ? 1.0 : 0.0) - p[size(j)]);
        if (!is_own(j)) gbias[size(row * s.keys + j)] = glogit / options.temperature;
        for (std::int64_t d = 0; d < s.width; ++d) {
          const std::size_t query = size(row * s.width + d), key = place(j, s.width) + size(d);
          gq[query] += glogit * scale / options.temperature * (is_own(j) ? own_key : k)[key];
          (is_own(j) ? gown_key : gk)[key] += glogit * scale / options.temperature * q[query];
        }
      }
    }
  }
};

void check_against_oracle(const Inputs& in, const AttentionOptions& options, double limit) {
  const Oracle oracle(in, options);
  const auto result = forward(in, options, true);
  CHECK(close(result.out, oracle.out, limit));
  CHECK(close(result.log_sum, oracle.log_sum, limit));
  CHECK(close(result.map, oracle.map, limit));
  CHECK(same_bits(forward(in, options).out.clone(), result.out.clone()));
  const auto grads = backward(in, options, result);
  CHECK(close(grads.q, oracle.gq, limit));
  CHECK(close(grads.k, oracle.gk, limit));
  CHECK(close(grads.v, oracle.gv, limit));
  if (in.bias.defined()) CHECK(close(grads.bias, oracle.gbias, limit));
  CHECK(grads.own_key.defined() == in.own.key.defined());
  if (!in.own.key.defined()) return;
  CHECK(close(grads.own_key, oracle.gown_key, limit));
  CHECK(close(grads.own_value, oracle.gown_value, limit));
}

void check_against_oracle(const Inputs& in, const AttentionOptions& options) {
  check_against_oracle(in, options, in.q.dtype() == DType::f64 ? 1e-11 : 5e-5);
}

}  // namespace

TEST_CASE("attention: forward and backward equal the f64 loops for every combination of options") {
  const Sizes sizes[] = {
      {2, 3, 5, 7, 4, 6}, {1, 2, 1, 1, 1, 1}, {1, 1, 9, 4, 8, 3}, {2, 1, 33, 65, 16, 16}};
  for (const DType dtype : kFloats) {
    for (const Sizes& s : sizes) {
      for (int choice = 0; choice < 16; ++choice) {
        AttentionOptions options;
        options.causal = choice & 1;
        options.dropout = choice & 2 ? 0.3 : 0.0;
        options.temperature = choice & 2 ? 1.7 : 1.0;
        options.scale = choice & 4 ? 0.4 : 0.0;
        options.key = RngKey{77};
        check_against_oracle(Inputs(s, dtype, choice & 4, choice & 8), options);
      }
    }
  }
}

TEST_CASE("attention: several blocks of queries give the same as the f64 loops") {
  AttentionOptions options;
  options.dropout = 0.2;
  for (const bool causal : {false, true}) {
    options.causal = causal;
    check_against_oracle(Inputs({1, 1, 70, 2100, 2, 3}, DType::f64, false, true), options);
    check_against_oracle(Inputs({1, 1, 300, 290, 4, 2}, DType::f64, true, false), options);
  }
}

TEST_CASE("attention: own keys and values equal the f64 loops, forward and every gradient") {
  const Sizes sizes[] = {{2, 3, 5, 7, 4, 6}, {1, 2, 1, 1, 1, 1},     {2, 2, 3, 0, 4, 5},
                         {1, 1, 9, 4, 8, 3}, {2, 1, 33, 65, 19, 16}, {1, 1, 70, 2100, 2, 3}};
  for (const DType dtype : kFloats) {
    for (const Sizes& s : sizes) {
      for (int choice = 0; choice < 16; ++choice) {
        if (s.keys > 1000 && (choice % 5 != 0 || dtype == DType::f32)) continue;  // slow
        AttentionOptions options;
        options.causal = choice & 1;
        options.dropout = choice & 2 ? 0.3 : 0.0;
        options.temperature = choice & 2 ? 1.7 : 1.0;
        options.scale = choice & 4 ? 0.4 : 0.0;
        options.key = RngKey{77};
        check_against_oracle(Inputs(s, dtype, choice & 4, choice & 8, true), options,
                             dtype == DType::f64 ? 1e-12 : 5e-5);
      }
    }
  }
}

TEST_CASE("attention: a query whose keys are all masked still sees its own, with weight 1") {
  Inputs in({1, 2, 3, 4, 2, 5}, DType::f32, false, false, true);
  in.mask = zeros({1, 1, 1, 4}, DType::u8);
  const auto result = forward(in, {}, true);
  CHECK(same_bits(result.out.clone(), in.own.value));
  CHECK(same_bits(result.map.slice(3, 4, 5).clone(), full({1, 2, 3, 1}, 1.0, DType::f32)));
  CHECK(close(result.map.slice(3, 0, 4), std::vector<double>(24, 0.0)));
  const auto grads = backward(in, {}, result);
  CHECK(same_bits(grads.own_value.clone(), in.gout));
  for (const Tensor& nothing : {grads.q, grads.own_key})
    CHECK(close(nothing, std::vector<double>(12, 0.0), 1e-6));  // one weight cannot move
  CHECK(close(grads.k, std::vector<double>(16, 0.0)));
  CHECK(close(grads.v, std::vector<double>(40, 0.0)));
}

TEST_CASE("attention: gradients of own keys and values are the same bits whichever are wanted") {
  const Inputs in({2, 2, 9, 6, 5, 4}, DType::f32, true, false, true);
  const auto result = forward(in, {});
  const auto all = backward(in, {}, result);
  const auto queries = backward(in, {}, result, {true, false, false, false, false, false});
  CHECK(same_bits(queries.q.clone(), all.q.clone()));
  CHECK_FALSE(queries.own_key.defined());
  CHECK_FALSE(queries.own_value.defined());
  const auto key = backward(in, {}, result, {false, false, false, false, true, false});
  CHECK(same_bits(key.own_key.clone(), all.own_key.clone()));
  const auto value = backward(in, {}, result, {false, false, false, false, false, true});
  CHECK(same_bits(value.own_value.clone(), all.own_value.clone()));
}

TEST_CASE("attention: strided inputs give the same as contiguous ones") {
  const Inputs in({2, 3, 6, 9, 4, 5}, DType::f64, true, true);
  const auto heads_inside = [](const Tensor& x) {
    return x.transpose(1, 2).contiguous().transpose(1, 2);
  };
  const AttentionOptions options;
  const auto plain = attention(in.q, in.k, in.v, in.mask, in.bias, options);
  const auto strided = attention(heads_inside(in.q), awkward(in.k), heads_inside(in.v),
                                 awkward(in.mask), awkward(in.bias), options);
  CHECK(close(strided.out, values(plain.out)));
  const auto gradients = attention_backward(in.q, in.k, in.v, in.mask, in.bias, options, plain.out,
                                            plain.log_sum, in.gout, {});
  const auto again =
      attention_backward(heads_inside(in.q), awkward(in.k), awkward(in.v), awkward(in.mask),
                         in.bias, options, plain.out, plain.log_sum, awkward(in.gout), {});
  CHECK(close(again.q, values(gradients.q)));
  CHECK(close(again.k, values(gradients.k)));
  CHECK(close(again.v, values(gradients.v)));
  CHECK(close(again.bias, values(gradients.bias)));
}

TEST_CASE("attention: strided own keys and values give the same as contiguous ones") {
  const Inputs in({2, 3, 6, 9, 4, 5}, DType::f64, true, false, true);
  Inputs strided = in;
  strided.own.key = in.own.key.transpose(1, 2).contiguous().transpose(1, 2);
  strided.own.value = awkward(in.own.value);
  const auto plain = forward(in, {}), again = forward(strided, {});
  CHECK(same_bits(again.out.clone(), plain.out.clone()));
  const auto gradients = backward(in, {}, plain), regained = backward(strided, {}, again);
  CHECK(same_bits(regained.q.clone(), gradients.q.clone()));
  CHECK(same_bits(regained.own_key.clone(), gradients.own_key.clone()));
  CHECK(same_bits(regained.own_value.clone(), gradients.own_value.clone()));
}

TEST_CASE("attention: a fully masked row gives zeros, log-sum -inf and no gradient") {
  Inputs in({1, 1, 3, 4, 2, 2}, DType::f32, true, false);
  const auto result = attention(in.q, in.k, in.v, in.mask, {}, {}, true);
  CHECK(result.log_sum.to_vector<float>()[0] == -std::numeric_limits<float>::infinity());
  const auto zero_row = [](const Tensor& x) {
    return close(x.slice(2, 0, 1), std::vector<double>(static_cast<std::size_t>(x.size(3)), 0.0));
  };
  CHECK(zero_row(result.out));
  CHECK(zero_row(result.map));
  const auto grads = attention_backward(in.q, in.k, in.v, in.mask, {}, {}, result.out,
                                        result.log_sum, in.gout, {});
  CHECK(zero_row(grads.q));
  CHECK(count_nonfinite(grads.k.contiguous()) == 0);
  CHECK(count_nonfinite(grads.v.contiguous()) == 0);
}

TEST_CASE("attention: no keys and no queries") {
  const Inputs no_keys({1, 2, 3, 0, 4, 5}, DType::f32, false, false);
  const auto result = attention(no_keys.q, no_keys.k, no_keys.v, {}, {}, {});
  CHECK(close(result.out, std::vector<double>(30, 0.0)));
  CHECK(close(result.log_sum, std::vector<double>(6, -kInfinity)));
  const auto grads = attention_backward(no_keys.q, no_keys.k, no_keys.v, {}, {}, {}, result.out,
                                        result.log_sum, no_keys.gout, {});
  CHECK(close(grads.q, std::vector<double>(24, 0.0)));
  const Inputs no_queries({1, 2, 0, 3, 4, 5}, DType::f32, false, false);
  const auto none = attention(no_queries.q, no_queries.k, no_queries.v, {}, {}, {});
  CHECK(none.out.elements() == 0);
  const auto none_grads = attention_backward(no_queries.q, no_queries.k, no_queries.v, {}, {}, {},
                                             none.out, none.log_sum, no_queries.gout, {});
  CHECK(close(none_grads.k, std::vector<double>(24, 0.0)));
}

TEST_CASE("attention: same bits on 1, 2, 3 and 4 threads") {
  for (const bool with_own : {false, true}) {
    // Many heads; and one, whose blocks of queries go to different threads, the last with one row.
    for (const Sizes& sizes : {Sizes{3, 3, 65, 70, 16, 17}, Sizes{1, 1, 530, 620, 16, 17},
                               Sizes{1, 1, 97, 75, 16, 140}}) {
      const Inputs in(sizes, DType::f32, true, true, with_own);
      AttentionOptions options;
      options.dropout = 0.1;
      options.causal = with_own;
      CHECK(same_on_any_threads([&] { return forward(in, options).out.clone(); }));
      CHECK(same_on_any_threads([&] { return forward(in, options).log_sum.clone(); }));
      const auto result = forward(in, options);
      const auto same = [&](Tensor AttentionGrads::*which) {
        return same_on_any_threads([&] { return (backward(in, options, result).*which).clone(); });
      };
      CHECK(same(&AttentionGrads::q));
      CHECK(same(&AttentionGrads::k));
      CHECK(same(&AttentionGrads::v));
      CHECK(same(&AttentionGrads::bias));
      if (!with_own) continue;
      CHECK(same(&AttentionGrads::own_key));
      CHECK(same(&AttentionGrads::own_value));
    }
  }
}

TEST_CASE("attention: a query's bits do not depend on the queries beside it") {
  for (const bool causal : {false, true}) {
    for (const DType dtype : {DType::f32, DType::f64}) {
      CAPTURE(causal);
      const Inputs in({1, 2, 45, 70, 9, 5}, dtype, true, true);
      const AttentionOptions options{.causal = causal};
      const AttentionResult whole = forward(in, options);
      // With the causal rule the last query sees all keys, so the last queries keep their view.
      for (const std::int64_t first : {1, 20, 44}) {
        const auto rest = [&](const Tensor& x) { return x.slice(2, first, 45); };
        const AttentionResult last =
            attention(rest(in.q), in.k, in.v, rest(in.mask), rest(in.bias), options);
        CHECK(same_bits(last.out, rest(whole.out)));
        CHECK(same_bits(last.log_sum, rest(whole.log_sum)));
      }
    }
  }
}

TEST_CASE("attention: memory grows by a block of scores, not by queries x keys") {
  const Inputs in({1, 1, 2048, 2048, 4, 4}, DType::f32, false, false, true);
  const PeakScope peak;
  const auto result = forward(in, {});
  CHECK(peak.growth() < 1024 * 1024);
}
