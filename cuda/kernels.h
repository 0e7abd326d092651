#pragma once

#include "tensor/backend.h"

/// The CUDA backend's kernels: host functions that queue the work on the context's stream and
/// return. The contract of each is the comment of its entry in tensor/backend.h.
namespace mf::cuda {

// copy.cu
void copy(Context&, View x, MutView y);
void fill(Context&, MutView y, double value);

// random.cu
void uniform(Context&, MutView y, RngKey key, double low, double high);
void normal(Context&, MutView y, RngKey key, double mean, double deviation);
void dropout(Context&, View x, double p, RngKey key, MutView y);

// elementwise.cu
void map(Context&, Unary function, View x, MutView y);
void map_backward(Context&, Unary function, View x, View y, View gy, MutView gx);
/// y = f(x) and gx *= f'(x); x, y and gx contiguous.
void map_and_differentiate(Context&, Unary function, View x, MutView gx, MutView y);
void combine(Context&, Binary function, View a, View b, MutView y);
void affine(Context&, View x, double scale, double shift, MutView y);
void accumulate(Context&, View x, double scale, MutView y);
void select(Context&, View condition, View a, View b, MutView y);

// reduce.cu
void sum(Context&, View x, MutView y);
void max(Context&, View x, MutView y, MutView index);
void sum_of_squares(Context&, View x, MutView y);
void count_nonfinite(Context&, View x, MutView y);

// product.cpp
void matmul(Context&, View a, View b, MutView c, double alpha, View base, View bias);
void matmul_map(Context&, View a, View b, View bias, Unary function, MutView c, MutView y);
void matmul_map_backward(Context&, View a, View b, Unary function, View x, MutView gx, MutView y);

// softmax.cu
void softmax(Context&, View x, MutView y);
void softmax_backward(Context&, View y, View gy, MutView gx);
void log_softmax(Context&, View x, MutView y);
void log_softmax_backward(Context&, View y, View gy, MutView gx);
void logsumexp(Context&, View x, MutView y);

// normalization.cu
void layer_norm(Context&, View x, View gain, View bias, double epsilon, MutView y, MutView mean,
                MutView rstd);
void layer_norm_backward(Context&, View x, View gain, View mean, View rstd, View gy, View base,
                         MutView gx, MutView ggain, MutView gbias);
void normalize(Context&, View x, double radius, double epsilon, MutView y, MutView r);
void normalize_backward(Context&, View x, View r, View gy, double radius, MutView gx);

// index.cu
void gather_rows(Context&, View table, View ids, MutView y);
void scatter_rows(Context&, View ids, View gy, MutView gtable);
void gather(Context&, View x, View index, MutView y);
void scatter(Context&, View index, View gy, MutView gx);

// attention.cu, attention_backward.cu
void attention(Context&, View q, View k, View v, View mask, View bias, View own_key, View own_value,
               const AttentionOptions& options, MutView out, MutView log_sum, MutView map);
void attention_backward(Context&, View q, View k, View v, View mask, View bias, View own_key,
                        View own_value, const AttentionOptions& options, View out, View log_sum,
                        View gout, MutView gq, MutView gk, MutView gv, MutView gbias,
                        MutView gown_key, MutView gown_value);

// loss.cu
void cross_entropy(Context&, View logits, View targets, View weights, std::int32_t ignore,
                   MutView loss, MutView log_sum);
void cross_entropy_backward(Context&, View logits, View targets, View weights, std::int32_t ignore,
                            View log_sum, View gloss, MutView glogits);

// optimizer.cu
void adam(Context&, View gradient, double scale, const AdamOptions& options, std::int64_t step,
          MutView parameter, MutView first_moment, MutView second_moment);
void sgd(Context&, View gradient, double scale, double learning_rate, double momentum,
         double weight_decay, MutView parameter, MutView velocity);

}  // namespace mf::cuda
