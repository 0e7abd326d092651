#include <doctest/doctest.h>

#include <algorithm>
#include <set>

#include "memformer/audit/op_cases.h"

/// What each op says when it is used wrongly. A message begins with the op's public name and holds
/// the values that were wrong.
namespace mf::test {
namespace {

struct Misuse {
  std::string op;
  std::function<void(Tape&)> call;
  std::vector<std::string> parts;  // of the message, besides the op's name at its beginning
};

Var wide(Tape& tape, const Shape& shape) { return tape.input(full(shape, 0.5, DType::f64)); }
Var narrow(Tape& tape, const Shape& shape) { return tape.input(full(shape, 0.5, DType::f32)); }
Var integers(const Shape& shape) { return constant(zeros(shape, DType::i32)); }
Tensor ids(std::initializer_list<std::int32_t> values) {
  return from_host(values, {static_cast<std::int64_t>(values.size())});
}

template <class Function>
Misuse binary_shapes(std::string op, Function function) {
  return {std::move(op),
          [function](Tape& t) {
            function(wide(t, {2, 3}), wide(t, {2, 4}));
          },
          {"do not broadcast", "[2, 3]", "[2, 4]"}};
}

template <class Function>
Misuse binary_dtypes(std::string op, Function function) {
  return {std::move(op),
          [function](Tape& t) { function(wide(t, {2}), narrow(t, {2})); },
          {"dtypes are mixed", "f64[2]", "f32[2]", "to()"}};
}

template <class Function>
Misuse not_floating(std::string op, Function function) {
  return {std::move(op),
          [function](Tape&) {
            function(integers({2, 3}));
          },
          {"i32[2, 3] is not floating", "to(DType::f32)"}};
}

template <class Function>
Misuse bad_axis(std::string op, Function function) {
  return {std::move(op),
          [function](Tape& t) {
            function(wide(t, {2, 3}));
          },
          {"axis 5 is out of range for rank 2", "-2 to 1"}};
}

std::vector<Misuse> elementwise_misuses() {
  return {
      binary_shapes("add", [](const Var& a, const Var& b) { add(a, b); }),
      binary_dtypes("add", [](const Var& a, const Var& b) { add(a, b); }),
      binary_shapes("sub", [](const Var& a, const Var& b) { sub(a, b); }),
      binary_dtypes("sub", [](const Var& a, const Var& b) { sub(a, b); }),
      binary_shapes("mul", [](const Var& a, const Var& b) { mul(a, b); }),
      binary_dtypes("mul", [](const Var& a, const Var& b) { mul(a, b); }),
      binary_shapes("div", [](const Var& a, const Var& b) { div(a, b); }),
      binary_dtypes("div", [](const Var& a, const Var& b) { div(a, b); }),
      not_floating("negative", [](const Var& x) { negative(x); }),
      not_floating("scale", [](const Var& x) { scale(x, 2.0); }),
      not_floating("affine", [](const Var& x) { affine(x, 2.0, 1.0); }),
      not_floating("exp", [](const Var& x) { exp(x); }),
      not_floating("log", [](const Var& x) { log(x); }),
      not_floating("sqrt", [](const Var& x) { sqrt(x); }),
      not_floating("square", [](const Var& x) { square(x); }),
      not_floating("tanh", [](const Var& x) { tanh(x); }),
      not_floating("sigmoid", [](const Var& x) { sigmoid(x); }),
      not_floating("relu", [](const Var& x) { relu(x); }),
      not_floating("silu", [](const Var& x) { silu(x); }),
      not_floating("gelu", [](const Var& x) { gelu(x); }),
      not_floating("gelu_tanh", [](const Var& x) { gelu_tanh(x); }),
      not_floating("dropout", [](const Var& x) { dropout(x, 0.5, RngKey{}); }),
      {"dropout",
       [](Tape& t) { dropout(wide(t, {2}), 1.0, RngKey{}); },
       {"probability 1 is not in [0, 1)"}},
      {"dropout",
       [](Tape& t) { dropout(wide(t, {2}), -0.5, RngKey{}); },
       {"probability -0.5 is not in [0, 1)"}},
      {"where",
       [](Tape& t) { where(zeros({2}, DType::f32), wide(t, {2}), wide(t, {2})); },
       {"condition must be u8", "f32[2]"}},
      {"where",
       [](Tape& t) { where(zeros({3}, DType::u8), wide(t, {2}), wide(t, {2})); },
       {"do not broadcast", "[3]", "[2]"}},
      {"where",
       [](Tape& t) { where(zeros({2}, DType::u8), wide(t, {2}), narrow(t, {2})); },
       {"dtypes are mixed", "f64[2]", "f32[2]"}},
      {"masked_fill",
       [](Tape& t) {
         masked_fill(wide(t, {2, 3}), zeros({3}, DType::i32), 0.0);
       },
       {"must be u8", "i32[3]"}},
      {"masked_fill",
       [](Tape& t) {
         masked_fill(wide(t, {3}), zeros({2, 3}, DType::u8), 0.0);
       },
       {"u8[2, 3] does not broadcast to f64[3]"}},
      {"masked_fill", [](Tape& t) { masked_fill(wide(t, {3}), Tensor{}, 0.0); }, {"undefined"}},
  };
}

std::vector<Misuse> reduction_misuses() {
  return {
      bad_axis("sum", [](const Var& x) { sum(x, {5}); }),
      {"sum",
       [](Tape& t) {
         sum(wide(t, {2, 3}), {1, -1});
       },
       {"axis -1 is named twice"}},
      not_floating("sum", [](const Var& x) { sum(x); }),
      bad_axis("mean", [](const Var& x) { mean(x, {5}); }),
      {"mean",
       [](Tape& t) {
         mean(wide(t, {0, 3}), {0});
       },
       {"f64[0, 3]", "no elements"}},
      not_floating("mean", [](const Var& x) { mean(x); }),
      bad_axis("max", [](const Var& x) { max(x, 5); }),
      {"max",
       [](Tape& t) {
         max(wide(t, {3, 0}), 1);
       },
       {"axis 1 of f64[3, 0] is empty"}},
      not_floating("max", [](const Var& x) { max(x, 0); }),
      bad_axis("softmax", [](const Var& x) { softmax(x, 5); }),
      {"softmax", [](Tape& t) { softmax(wide(t, {})); }, {"rank 0"}},
      not_floating("softmax", [](const Var& x) { softmax(x); }),
      bad_axis("log_softmax", [](const Var& x) { log_softmax(x, 5); }),
      not_floating("log_softmax", [](const Var& x) { log_softmax(x); }),
      bad_axis("logsumexp", [](const Var& x) { logsumexp(x, 5); }),
      not_floating("logsumexp", [](const Var& x) { logsumexp(x); }),
      {"layer_norm",
       [](Tape& t) {
         layer_norm(wide(t, {2, 3}), wide(t, {4}), wide(t, {3}));
       },
       {"gain must have shape [3]", "f64[4]"}},
      {"layer_norm",
       [](Tape& t) {
         layer_norm(wide(t, {2, 3}), wide(t, {3}), wide(t, {1, 3}));
       },
       {"bias must have shape [3]", "f64[1, 3]"}},
      {"layer_norm",
       [](Tape& t) {
         layer_norm(wide(t, {2, 3}), narrow(t, {3}), wide(t, {3}));
       },
       {"dtypes are mixed", "f32[3]"}},
      {"normalize", [](Tape& t) { normalize(wide(t, {}), 1.0, 0.1); }, {"rank 0"}},
      {"normalize", [](Tape& t) { normalize(wide(t, {2}), -1.0, 0.1); }, {"radius -1"}},
      {"normalize", [](Tape& t) { normalize(wide(t, {2}), 1.0, -0.1); }, {"epsilon -0.1"}},
      not_floating("normalize", [](const Var& x) { normalize(x, 1.0, 0.1); }),
  };
}

std::vector<Misuse> product_misuses() {
  const auto heads = [](Tape& t, std::int64_t length, std::int64_t width) {
    return wide(t, {1, 2, length, width});
  };
  return {
      {"matmul",
       [](Tape& t) {
         matmul(wide(t, {8, 64}), wide(t, {32, 64}));
       },
       {"inner sizes differ: f64[8, 64] x f64[32, 64]", "transpose"}},
      {"matmul",
       [](Tape& t) {
         matmul(wide(t, {3}), wide(t, {3, 2}));
       },
       {"f64[3] has rank 1"}},
      {"matmul",
       [](Tape& t) {
         matmul(wide(t, {2, 3, 3}), wide(t, {4, 3, 3}));
       },
       {"do not broadcast", "[2]", "[4]"}},
      binary_dtypes("matmul", [](const Var& a, const Var& b) { matmul(a, b); }),
      {"linear",
       [](Tape& t) {
         linear(wide(t, {2, 3}), wide(t, {4, 3}));
       },
       {"weight must be [3, out]", "f64[2, 3]", "f64[4, 3]"}},
      {"linear",
       [](Tape& t) {
         linear(wide(t, {2, 3}), wide(t, {3, 4}), wide(t, {3}));
       },
       {"bias must have shape [4]", "f64[3]"}},
      {"linear",
       [](Tape& t) {
         linear(wide(t, {2, 3}), wide(t, {3, 4}), wide(t, {4}), wide(t, {2, 3}));
       },
       {"residual must have shape [2, 4]", "f64[2, 3]"}},
      {"projections",
       [](Tape& t) {
         const std::vector<Var> weights{wide(t, {3, 4}), wide(t, {3, 4})};
         projections(wide(t, {2, 3}), weights, std::vector<Var>{wide(t, {4})});
       },
       {"2 weights have 1 biases"}},
      {"projections",
       [](Tape& t) {
         projections(wide(t, {2, 3}), std::vector<Var>{wide(t, {4, 3})});
       },
       {"weight must be [3, out]", "f64[4, 3]"}},
      {"feed_forward",
       [](Tape& t) {
         feed_forward(wide(t, {2, 3}), wide(t, {3, 5}), wide(t, {5}), wide(t, {4, 3}), wide(t, {3}),
                      Unary::gelu);
       },
       {"weight must be [5, out]", "f64[4, 3]"}},
      {"linear",
       [](Tape& t) {
         linear(wide(t, {}), wide(t, {1, 4}));
       },
       {"rank 0"}},
      {"linear",
       [](Tape& t) {
         linear(wide(t, {2, 3}), narrow(t, {3, 4}));
       },
       {"dtypes are mixed", "f32[3, 4]"}},
      {"attention",
       [heads](Tape& t) { attention(heads(t, 3, 4), heads(t, 5, 3), heads(t, 5, 4)); },
       {"f64[1, 2, 3, 4]", "f64[1, 2, 5, 3]", "key width must equal query width"}},
      {"attention",
       [heads](Tape& t) { attention(heads(t, 3, 4), heads(t, 5, 4), heads(t, 6, 4)); },
       {"f64[1, 2, 6, 4]", "value length must equal key length"}},
      {"attention",
       [](Tape& t) {
         attention(wide(t, {3, 4}), wide(t, {3, 4}), wide(t, {3, 4}));
       },
       {"[batch, heads, length, width]", "f64[3, 4]"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.mask = zeros({3, 3}, DType::i32)});
       },
       {"mask must be u8", "i32[3, 3]"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.mask = zeros({2, 3}, DType::u8)});
       },
       {"[2, 3]", "[1, 2, 3, 3]"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.bias = narrow(t, {3, 3})});
       },
       {"dtypes are mixed", "f32[3, 3]"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.options = {.temperature = 0.0}});
       },
       {"temperature 0 must be positive"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.options = {.dropout = 1.5}});
       },
       {"dropout 1.5 is not in [0, 1)"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.own_key = x});
       },
       {"own key f64[1, 2, 3, 4] and own value undefined go together", "both or neither"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.own_value = x});
       },
       {"own key undefined and own value f64[1, 2, 3, 4] go together"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.own_key = heads(t, 5, 4), .own_value = x});
       },
       {"own key must have shape [1, 2, 3, 4]", "f64[1, 2, 5, 4]"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, heads(t, 3, 6), {.own_key = x, .own_value = x});
       },
       {"own value must have shape [1, 2, 3, 6]", "f64[1, 2, 3, 4]"}},
      {"attention",
       [heads](Tape& t) {
         const Var x = heads(t, 3, 4);
         attention(x, x, x, {.own_key = narrow(t, {1, 2, 3, 4}), .own_value = x});
       },
       {"dtypes are mixed", "f32[1, 2, 3, 4]"}},
  };
}

std::vector<Misuse> index_misuses() {
  using Reduction = CrossEntropyOptions::Reduction;
  return {
      {"embedding",
       [](Tape& t) {
         embedding(wide(t, {5, 2}), ids({0, 7}));
       },
       {"id 7 at position 1 is out of range", "0 to 4"}},
      {"embedding",
       [](Tape& t) {
         embedding(wide(t, {5, 2}), ids({-1}));
       },
       {"id -1 at position 0"}},
      {"embedding",
       [](Tape& t) {
         embedding(wide(t, {5, 2}), zeros({2}, DType::f32));
       },
       {"ids must be i32", "f32[2]"}},
      {"embedding",
       [](Tape& t) { embedding(wide(t, {5}), ids({0})); },
       {"[rows, width]", "f64[5]"}},
      {"gather",
       [](Tape& t) {
         gather(wide(t, {2, 3}), ids({0, 3}));
       },
       {"id 3 at position 1 is out of range", "0 to 2"}},
      {"gather",
       [](Tape& t) {
         gather(wide(t, {2, 3}), zeros({3, 1}, DType::i32));
       },
       {"[3, 1]", "[2, 1]"}},
      {"gather",
       [](Tape& t) {
         gather(wide(t, {2, 3}), zeros({2}, DType::u8));
       },
       {"must be i32", "u8[2]"}},
      {"gather", [](Tape& t) { gather(wide(t, {}), ids({0})); }, {"rank 0"}},
      {"concat",
       [](Tape& t) {
         concat({wide(t, {2, 3}), wide(t, {3, 3})}, 1);
       },
       {"f64[2, 3]", "f64[3, 3]", "axis 1"}},
      {"concat",
       [](Tape& t) {
         concat({wide(t, {2}), narrow(t, {2})}, 0);
       },
       {"f64[2]", "f32[2]"}},
      bad_axis("concat",
               [](const Var& x) {
                 concat({x, x}, 5);
               }),
      {"concat", [](Tape&) { concat(std::span<const Var>{}, 0); }, {"no tensors"}},
      {"cross_entropy",
       [](Tape& t) {
         cross_entropy(wide(t, {2, 3}), ids({0, 3}));
       },
       {"target 3 is out of range", "0 to 2", "-1 (ignored)"}},
      {"cross_entropy",
       [](Tape& t) {
         cross_entropy(wide(t, {2, 3}), ids({0, 1, 2}));
       },
       {"f64[2, 3]", "i32[3]"}},
      {"cross_entropy",
       [](Tape& t) {
         cross_entropy(wide(t, {2, 3}), zeros({2}, DType::f32));
       },
       {"targets must be i32", "f32[2]"}},
      {"cross_entropy",
       [](Tape& t) {
         cross_entropy(wide(t, {2, 3}), ids({-1, -1}));
       },
       {"no row of f64[2, 3] is scored", "i32[2]", "-1", "ask for the sum"}},
      {"cross_entropy",
       [](Tape& t) {
         cross_entropy(wide(t, {0, 3}), empty({0}, DType::i32));
       },
       {"no row of f64[0, 3] is scored"}},
      {"cross_entropy",
       [](Tape& t) {
         cross_entropy(wide(t, {2, 3}), ids({0, 1}),
                       {.label_weights = full({2}, 1.0, DType::f64), .reduction = Reduction::sum});
       },
       {"label weights must have shape [3]", "f64[2]"}},
  };
}

std::vector<Misuse> view_misuses() {
  return {
      {"slice",
       [](Tape& t) {
         slice(wide(t, {2, 3}), 1, 2, 4);
       },
       {"2..4", "axis 1 of f64[2, 3]"}},
      {"slice",
       [](Tape& t) {
         slice(wide(t, {2, 3}), 0, 2, 1);
       },
       {"2..1", "begin <= end"}},
      bad_axis("slice", [](const Var& x) { slice(x, 5, 0, 1); }),
      {"permute",
       [](Tape& t) {
         permute(wide(t, {2, 3}), {0});
       },
       {"1 axes given for f64[2, 3]"}},
      {"permute",
       [](Tape& t) {
         permute(wide(t, {2, 3}), {1, -1});
       },
       {"axis 1 is named twice"}},
      bad_axis("permute",
               [](const Var& x) {
                 permute(x, {0, 5});
               }),
      bad_axis("transpose", [](const Var& x) { transpose(x, 0, 5); }),
      {"transpose", [](Tape& t) { transpose(wide(t, {3})); }, {"axis -2", "rank 1"}},
      {"reshape",
       [](Tape& t) {
         reshape(wide(t, {2, 3}), {4, 2});
       },
       {"f64[2, 3]", "[4, 2]"}},
      {"reshape",
       [](Tape& t) {
         reshape(wide(t, {2, 3}), {4, -1});
       },
       {"f64[2, 3]", "4"}},
      {"reshape",
       [](Tape& t) {
         reshape(wide(t, {2, 3}), {-1, -1});
       },
       {"more than one extent"}},
      {"reshape",
       [](Tape& t) {
         reshape(transpose(wide(t, {2, 3})), {6});
       },
       {"f64[3, 2]", "contiguous()"}},
      {"expand",
       [](Tape& t) {
         expand(wide(t, {2, 3}), {2, 6});
       },
       {"f64[2, 3]", "[2, 6]"}},
      {"expand",
       [](Tape& t) {
         expand(wide(t, {2, 3}), {3});
       },
       {"more axes", "[3]"}},
  };
}

std::vector<Misuse> misuses() {
  std::vector<Misuse> all;
  for (const auto& part : {elementwise_misuses(), reduction_misuses(), product_misuses(),
                           index_misuses(), view_misuses()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("ops: every misuse is an error that begins with the op and holds the values") {
    for (const Misuse& misuse : misuses()) {
      Tape tape;
      std::string text;
      try {
        misuse.call(tape);
      } catch (const Error& error) {
        text = error.what();
      }
      CHECK_MESSAGE(text.starts_with(misuse.op + ": "), misuse.op << " said: " << text);
      for (const std::string& part : misuse.parts)
        CHECK_MESSAGE(text.find(part) != std::string::npos,
                      misuse.op << " said '" << text << "' without '" << part << "'");
    }
  }

  TEST_CASE(
      "ops: every op of the table has a misuse with an error, but contiguous, which has none") {
    std::set<std::string> covered;
    for (const Misuse& misuse : misuses()) covered.insert(misuse.op);
    for (const OpRow& row : op_table())
      CHECK_MESSAGE((covered.contains(row.name) || row.name == "contiguous"), row.name);
  }

  TEST_CASE("ops: a refused op leaves the tape as it was") {
    Tape tape;
    const Var x = wide(tape, {2, 3});
    CHECK_THROWS_AS(matmul(x, x), Error);
    CHECK(tape.size() == 0);
    tape.backward(sum(x));
    CHECK(tape.grad(x).to_vector<double>() == std::vector<double>(6, 1.0));
  }
}

}  // namespace mf::test
