// The ledger of blocks: it adds up to the allocator's active bytes at every event, and says so
// where it does not.

#include <doctest/doctest.h>

#include <algorithm>

#include "autograd/ops.h"
#include "memformer/audit/ledger.h"
#include "memformer/audit/memory_audit.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/replay/truncated.h"
#include "nn/linear.h"
#include "tests/memformer/small_audit_model.h"
#include "tests/support.h"

namespace mf::test {
namespace {

using doctest::Contains;

WindowResult truncated_to_two(const Recurrence& model, std::span<const Segment> segments,
                              const State& entry, RngKey key, const WindowOptions& options) {
  return truncated_bptt(model, segments, entry, key, 2, options);
}

/// Events at which the ledger's blocks do not add up to the allocator's active bytes.
std::int64_t wrong_events(const LedgerRecord& ledger) {
  const std::vector<CategoryBytes> sums = ledger.sums();
  REQUIRE(sums.size() == ledger.events.size());
  std::int64_t wrong = 0;
  for (std::size_t event = 0; event < sums.size(); ++event)
    wrong += sum_of(sums[event]) == ledger.events[event].active ? 0 : 1;
  return wrong;
}

/// The block of this size that was made in this stage and lived longest.
const LedgerBlock* block_of(const LedgerRecord& ledger, std::int64_t bytes,
                            const std::string& stage) {
  const LedgerBlock* longest = nullptr;
  for (const LedgerBlock& block : ledger.blocks)
    if (block.born > 0 && block.bytes == bytes && ledger.stages[block.stage] == stage &&
        (longest == nullptr || block.died - block.born > longest->died - longest->born))
      longest = &block;
  return longest;
}

std::vector<BlockEvent::Kind> kinds_seen;
std::int64_t active_seen = 0;
void note_kind(const BlockEvent& event) noexcept {
  kinds_seen.push_back(event.kind);
  active_seen = event.stats.active;
}

}  // namespace

TEST_SUITE("memformer") {
  TEST_CASE("memory: an observer sees each block made, moved and freed, with the bytes behind it") {
    kinds_seen.clear();
    kinds_seen.reserve(8);
    CHECK((observe_blocks(note_kind) == nullptr));
    Tensor x = empty({1000}, DType::f32);
    CHECK(active_seen == memory_stats().active);
    x.set_category(Category::state);
    x = {};
    CHECK(active_seen == memory_stats().active);
    CHECK((observe_blocks(nullptr) == note_kind));
    const Tensor unseen = empty({10}, DType::f32);
    using enum BlockEvent::Kind;
    CHECK(kinds_seen == std::vector{allocate, move, free});
  }

  TEST_CASE("ledger: a block has its bytes, category, life, op and layer") {
    Linear linear(10, 7, false, RngKey{1}, DType::f32);
    Ledger ledger(cpu);
    ledger.stage("first");
    Tensor loose = empty({3, 11}, DType::f32);
    {
      Tape tape;
      const Pass pass{tape, RngKey{2}, Mode::train, {}};
      const Var y = linear(pass.at("layer", 3), constant(full({13, 10}, 1.0, DType::f32)));
      ledger.stage("second");
      tape.backward({{y, full({13, 7}, 1.0, DType::f32)}});
    }
    loose.set_category(Category::state);
    loose = {};
    const LedgerRecord record = ledger.close();
    CHECK_FALSE(record.first_gap());

    const LedgerBlock* block = block_of(record, 3 * 11 * 4, "first");
    REQUIRE(block != nullptr);
    CHECK(block->born == 1);
    CHECK(block->died == std::ssize(record.events) - 1);
    CHECK(block->category_at(block->born) == Category::activation);
    CHECK(block->category_at(block->died - 1) == Category::state);
    CHECK(record.maker(*block) == "first");

    block = block_of(record, 13 * 7 * 4, "first");
    REQUIRE(block != nullptr);
    CHECK(record.maker(*block) == "linear, forward");
    CHECK(block->module == "layer.3");

    block = block_of(record, 10 * 7 * 4, "second");  // the weight's gradient
    REQUIRE(block != nullptr);
    CHECK(record.maker(*block) == "linear, backward");
    CHECK(block->module == "layer.3");
    CHECK(block->categories.front().second == Category::gradient);
    CHECK(block->died == LedgerBlock::kAlive);
  }

  TEST_CASE("ledger: sums to the allocator's active bytes at every event, in every mode") {
    Draws draw(RngKey{61});
    for (int i = 0; i < 12; ++i) {
      const ModelConfig config = random_config(draw, i % 2 ? DType::f64 : DType::f32);
      CAPTURE(to_json(config));
      const Memformer model(config, draw.key());
      for (const WindowMethod method :
           {WindowMethod{mrbp}, WindowMethod{bptt}, WindowMethod{checkpointed_bptt},
            WindowMethod{truncated_to_two}}) {
        MemoryAuditOptions options;
        options.pass = method;
        options.segments = draw.between(1, 4);
        options.batch = draw.between(1, 3);
        const MemoryAudit audit = audit_memory(model, options);
        CHECK(audit.ledger.events.size() > 100);
        CHECK(wrong_events(audit.ledger) == 0);
        CHECK_FALSE(audit.gap);
        CHECK(audit.left == audit.expected_left);
        CHECK(audit.left[static_cast<std::size_t>(Category::gradient)] > 0);
        CHECK(audit.holds());
      }
    }
  }

  TEST_CASE("ledger: one missed event, whichever it is, is a gap at that event") {
    const Memformer model(small_audit_model(), RngKey{3});
    const MemoryAudit whole = audit_memory(model, {.segments = 2, .batch = 2});
    REQUIRE(whole.holds());
    const std::size_t events = whole.ledger.events.size();
    int missed = 0;
    for (std::size_t event = 1; event < events; event += 7) {
      if (whole.ledger.events[event].booked == whole.ledger.events[event - 1].booked)
        continue;  // nothing changed: a block of no bytes
      MemoryAuditOptions options{.segments = 2, .batch = 2};
      options.missed_event = static_cast<std::int64_t>(event);
      const MemoryAudit audit = audit_memory(model, options);
      CAPTURE(event);
      CHECK_FALSE(audit.holds());
      REQUIRE(audit.gap);
      CHECK(*audit.gap == event);
      ++missed;
    }
    CHECK(missed > 40);
  }

  TEST_CASE("ledger: what was there before can be moved and freed") {
    Tensor moved = empty({100}, DType::f32), freed = empty({200}, DType::f32);
    const CategoryBytes before = memory_stats().by_category;
    Ledger ledger(cpu);
    moved.set_category(Category::state);
    freed = {};
    moved = {};
    const LedgerRecord record = ledger.close();
    CHECK_FALSE(record.first_gap());
    CHECK(record.events.size() == 4);
    REQUIRE(record.blocks.size() == kCategories + 2);
    for (const LedgerBlock& block : record.blocks) CHECK(block.born == 0);
    const auto activations = static_cast<std::size_t>(Category::activation);
    CHECK(record.sums().front()[activations] == before[activations]);
    CHECK(record.sums().back()[activations] == before[activations] - 1200);
    CHECK(record.blocks[activations].bytes == before[activations] - 1200);
  }

  TEST_CASE("ledger: groups of blocks add up to the active bytes, the peak is the allocator's") {
    const Memformer model(small_audit_model(), RngKey{4});
    const MemoryAudit audit = audit_memory(model, {});
    const LedgerRecord& ledger = audit.ledger;
    const auto by_module = [](const LedgerBlock& block) { return block.module; };
    const auto by_maker = [&](const LedgerBlock& block) { return ledger.maker(block); };
    for (std::size_t event = 0; event < ledger.events.size(); event += 50) {
      std::int64_t made = 0, modules = 0;
      for (const Holding& holding : ledger.holders(event, by_maker)) made += holding.bytes;
      for (const Holding& holding : ledger.holders(event, by_module)) modules += holding.bytes;
      CHECK(made == ledger.events[event].active);
      CHECK(modules == ledger.events[event].active);
    }
    const std::size_t peak = ledger.peak();
    CHECK(ledger.events[peak].active == audit.allocator_peak);
    CHECK(std::ranges::is_sorted(ledger.holders(peak, by_maker), std::greater{}, &Holding::bytes));

    const std::vector<std::size_t> highlights = ledger.highlights(50);
    CHECK(highlights.size() <= 52);
    CHECK(std::ranges::is_sorted(highlights));
    CHECK(std::ranges::count(highlights, peak) == 1);
    CHECK(highlights.front() == 0);
    CHECK(highlights.back() == ledger.events.size() - 1);

    const std::vector<StageSummary> stages = ledger.summaries();
    REQUIRE(stages.size() > 12);
    CHECK(stages.front().name == "making of Adam");
    CHECK(stages[1].name == "memory path of segment 0");
    CHECK(stages[4].name == "step of segment 3");
    CHECK(stages[5].name == "behind the step of segment 3");
    CHECK(stages.back().name == "end of the step");
    std::int64_t events = 0, highest = 0;
    for (const StageSummary& stage : stages) {
      events += stage.events;
      highest = std::max(highest, stage.peak_bytes);
    }
    CHECK(events == std::ssize(ledger.events) - 1);
    CHECK(highest == audit.allocator_peak);
  }

  TEST_CASE("ledger: is the same on one thread and on two, and in every run") {
    ModelConfig config = small_audit_model();
    config.width = 64;  // large enough for kernels to share their work
    config.feed_forward = 512;
    config.segment = 32;
    const Memformer model(config, RngKey{5});
    const auto sums = [&](int count) {
      const ThreadScope scope(count);
      return audit_memory(model, {.segments = 2, .batch = 8}).ledger.sums();
    };
    const std::vector<CategoryBytes> one = sums(1);
    CHECK(sums(2) == one);
    CHECK(sums(2) == one);
  }

  TEST_CASE("ledger: MRBP's peak is lower than full unrolling's, and weights stay") {
    const Memformer model(small_audit_model(), RngKey{6});
    std::vector<Tensor> before;
    for (const Parameter& parameter : model.parameters())
      before.push_back(parameter.value().clone());
    const auto peak = [&](WindowMethod method) {
      MemoryAuditOptions options;
      options.pass = method;
      return audit_memory(model, options).allocator_peak;
    };
    CHECK(peak(mrbp) < peak(bptt));
    std::size_t i = 0;
    for (const Parameter& parameter : model.parameters()) {
      CHECK(identical(parameter.value(), before[i++]));
      CHECK_FALSE(parameter.grad().defined());
    }
  }

  TEST_CASE("ledger: one at a time, and the one that is kept goes on") {
    Ledger ledger(cpu);
    CHECK_THROWS_WITH_AS(Ledger{cpu}, Contains("another one is kept; close it first"), Error);
    const Tensor x = empty({5}, DType::f32);
    CHECK(ledger.events() == 1);
    CHECK_FALSE(ledger.close().first_gap());

    const OpObserver nothing = [](const OpEvent&) {};
    observe_ops(nothing);
    CHECK_THROWS_WITH_AS(Ledger{cpu}, Contains("ops are observed already"), Error);
    CHECK((observe_ops(nullptr) == nothing));
    observe_blocks(note_kind);
    CHECK_THROWS_WITH_AS(Ledger{cpu}, Contains("blocks are observed already"), Error);
    CHECK((observe_blocks(nullptr) == note_kind));
    CHECK((observe_ops(nullptr) == nullptr));
    CHECK_THROWS_WITH_AS(audit_memory(Memformer(small_audit_model(), RngKey{7}), {.segments = 0}),
                         Contains("segments is 0"), Error);
  }
}

}  // namespace mf::test
