// Chapter 1 of the walkthrough: docs/walkthrough/01-tensors-and-views.md.
// A tensor is a block of numbers and a way to find element (i, j, ..) in it; a view is another way
// to find elements in the same block.

#include <cstdio>
#include <vector>

#include "tensor/math.h"
#include "tensor/memory.h"
#include "tensor/tensor.h"

namespace {

using namespace mf;

void show(const char* name, const Tensor& x) {
  std::printf("%-8s %-9s strides %-7s:", name, describe(x).c_str(), describe(x.strides()).c_str());
  for (const double value : x.to_vector<double>()) std::printf(" %g", value);
  std::printf("\n");
}

/// Element (i, j) by the rule of chapter 1, from the block's own numbers.
double element(const Tensor& x, std::int64_t i, std::int64_t j) {
  return x.data<double>()[i * x.strides()[0] + j * x.strides()[1]];
}

}  // namespace

int main() {
  bool right = true;

  // One block of six numbers, and four views of it.
  Tensor x = from_host({0.0, 1.0, 2.0, 3.0, 4.0, 5.0}, {2, 3});
  const Tensor turned = x.transpose();
  const Tensor last_two = x.slice(1, 1, 3);
  const Tensor row = x.slice(0, 0, 1);
  const Tensor repeated = row.expand({3, 3});
  show("x", x);
  show("turned", turned);
  show("last_two", last_two);
  show("row", row);
  show("repeated", repeated);
  right &= turned.shares_storage(x) && last_two.shares_storage(x) && repeated.shares_storage(x);
  for (std::int64_t i = 0; i < 3; ++i)
    for (std::int64_t j = 0; j < 2; ++j) right &= element(turned, i, j) == element(x, j, i);

  // A view is not a copy: a write through one is seen by all, and counted in the block's version.
  const Tensor copy = x.clone();
  const std::uint64_t before = x.version();
  x.slice(0, 1, 2).slice(1, 0, 1).fill_(30.0);
  std::printf("after writing 30 to row 1, column 0: turned (0, 1) is %g, the copy still holds %g\n",
              element(turned, 0, 1), element(copy, 1, 0));
  std::printf("writes counted by x since: %d, by last_two: %d\n",
              static_cast<int>(x.version() - before),
              static_cast<int>(last_two.version() - before));
  right &= element(turned, 0, 1) == 30.0 && element(copy, 1, 0) == 3.0;
  right &= x.version() == before + 1 && last_two.version() == x.version();

  // What views cost: nothing is allocated.
  const std::int64_t active = memory_stats().active;
  const Tensor wide = row.expand({1000, 3});
  const std::int64_t by_view = memory_stats().active - active;
  const Tensor written_out = wide.contiguous();
  const std::int64_t by_copy = memory_stats().active - active;
  std::printf("1000 x 3 as a view: %d bytes more; written out: %d bytes more\n",
              static_cast<int>(by_view), static_cast<int>(by_copy));
  right &= by_view == 0 && by_copy == 1000 * 3 * 8;

  // reshape is a view or an error, never a silent copy.
  show("flat", x.reshape({6}));
  try {
    turned.reshape({6});
    right = false;
  } catch (const Error& error) {
    std::printf("%s\n", error.what());
  }
  show("flat", turned.contiguous().reshape({6}));

  // Dtypes are never mixed behind your back.
  try {
    add(x, x.to(DType::f32));
    right = false;
  } catch (const Error& error) {
    std::printf("%s\n", error.what());
  }

  // Heads of attention are views too: [B, T, h D] -> [B, h, T, D].
  const Tensor tokens = zeros({2, 5, 12}, DType::f32);
  const Tensor heads = tokens.reshape({2, 5, 3, 4}).permute({0, 2, 1, 3});
  std::printf("tokens %s, strides %s\n", describe(tokens).c_str(),
              describe(tokens.strides()).c_str());
  std::printf("heads  %s, strides %s, the same block: %s\n", describe(heads).c_str(),
              describe(heads.strides()).c_str(), heads.shares_storage(tokens) ? "yes" : "no");
  right &= heads.shares_storage(tokens);
  return right ? 0 : 1;
}
