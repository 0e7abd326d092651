#pragma once

#include <optional>

#include "autograd/ops/attention.h"
#include "autograd/pass.h"
#include "nn/embedding.h"

namespace mf {

/// Fixed table [length, width]: pe[p, 2i] = sin(p / 10000^(2i/width)), pe[p, 2i+1] = cos(same).
Tensor sinusoidal_positions(std::int64_t length, std::int64_t width, DType dtype);

/// T5's bucket of the distance key - query. Two-sided: half the buckets are for keys behind the
/// query. Near distances have a bucket each, far ones share logarithmically wider ones up to
/// `max_distance`.
std::int32_t relative_bucket(std::int64_t query, std::int64_t key, std::int64_t buckets,
                             std::int64_t max_distance, bool two_sided);

/// A learned bias per bucket and head, added to attention logits. Result: [heads, queries, keys].
struct RelativeBias {
  Parameter weight;               ///< [buckets, heads]
  std::int64_t buckets = 0;       ///< how many distances are told apart
  std::int64_t max_distance = 0;  ///< farther ones share the last bucket
  bool two_sided = true;          ///< whether keys behind the query have buckets of their own

  /// Without a table; to be assigned to.
  RelativeBias() = default;
  /// The table is normal with mean 0 and deviation 0.02.
  RelativeBias(std::int64_t bucket_count, std::int64_t farthest, bool two_sides, std::int64_t heads,
               RngKey key, DType dtype)
      : weight(normal_parameter({bucket_count, heads}, 0.02, key.at("weight"), dtype)),
        buckets(bucket_count),
        max_distance(farthest),
        two_sided(two_sides) {}

  /// For queries and keys whose positions both begin at 0.
  Var operator()(const Pass& pass, std::int64_t queries, std::int64_t keys) const;

  /// Names the members for ParameterCollector.
  template <class F>
  void each(F&& fn) const {
    fn("weight", weight);
  }
};

/// The simplified relative scheme of the paper's first version (eq. P1, P2):
///   logit_ij = scale * (q_i . k_j + q_i . R_{i-j}),   out_i = sum_j a_ij (v_j + R_{i-j}).
/// q, k, v: [B, H, T, D]; table R: [2 * reach - 1, D], row i - j + reach - 1, shared by the heads.
/// Stores the attention weights, as R is also added to the values. Throws Error if T > reach.
Var relative_attention(const Pass& pass, const Var& query, const Var& key, const Var& value,
                       const Var& table, const Tensor& mask, bool causal,
                       double dropout_probability);

}  // namespace mf
