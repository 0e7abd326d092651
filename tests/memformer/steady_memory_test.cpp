#include <doctest/doctest.h>
#include <malloc.h>
#include <sys/resource.h>

#include "nn/optimizer.h"
#include "tests/support.h"

using namespace mf;
using namespace mf::test;

namespace {

// AddressSanitizer keeps what is freed out of use for a while, so that pages are touched anew.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCountsFaults = false;
#else
constexpr bool kCountsFaults = true;
#endif

ModelConfig small_model() {
  ModelConfig c;
  c.vocabulary = 50;
  c.width = 64;
  c.heads = 4;
  c.encoder_layers = 2;
  c.decoder_layers = 2;
  c.feed_forward = 256;
  c.segment = 32;
  c.slots = 8;
  c.dropout = 0.1;
  return c;
}

/// Page faults of this process that needed no disk, so far.
std::int64_t page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

struct Growth {
  std::int64_t faults, allocations;
};

/// Training windows on the same segments; what `count` of them cost after `warm_up` others.
/// `between` runs before each window.
template <class Method, class F>
Growth growth_of(const Method& method, int warm_up, int count, const F& between) {
  constexpr std::int64_t kBatch = 8;
  const ModelConfig config = small_model();
  const Memformer model(config, RngKey{1});
  std::vector<Parameter> parameters = model.parameters();
  Adam optimizer(parameters, AdamOptions{});
  Draws draw(RngKey{2});
  std::vector<Segment> segments;
  for (int t = 0; t < 4; ++t) {
    Segment segment;
    segment.tokens = random_ids(draw, kBatch, config.segment, config.vocabulary);
    segment.decoder_inputs = random_ids(draw, kBatch, config.segment, config.vocabulary);
    segment.targets = random_ids(draw, kBatch, config.segment, config.vocabulary);
    segment.scored = kBatch * config.segment;
    segments.push_back(segment);
  }
  State state = model.initial_state(kBatch);
  const auto window = [&](int step) {
    between();
    zero_grad(parameters);
    const WindowResult result =
        method(model, segments, state, RngKey{3}.at(static_cast<std::uint64_t>(step)), {});
    optimizer.step(1e-3, 1.0);
    state = result.states.back();
  };
  int step = 0;
  while (step < warm_up) window(step++);
  const Growth before{page_faults(), memory_stats().allocations};
  while (step < warm_up + count) window(step++);
  return {page_faults() - before.faults, memory_stats().allocations - before.allocations};
}

}  // namespace

TEST_CASE("memory: after the first windows training asks the system for nothing more") {
  constexpr int kWindows = 10;
  keep_freed_memory();  // as the program does
  // How many workspaces live at once depends on how threads overlap: one thread.
  const ThreadScope one(1);
  for (const WindowMethod method : {WindowMethod{bptt}, WindowMethod{mrbp}}) {
    CAPTURE(method == WindowMethod{mrbp});
    const Growth steady = growth_of(method, 3, kWindows, [] {});
    CHECK(steady.allocations == 0);
    if (kCountsFaults) CHECK(steady.faults <= kWindows);
    // Control: what is given back is asked for again, and its pages are touched anew.
    const Growth released = growth_of(method, 3, kWindows, [] {
      release_cached();
      malloc_trim(0);
    });
    CHECK(released.allocations > 100 * kWindows);
    if (kCountsFaults) CHECK(released.faults > 100 * kWindows);
  }
}
