#include "memformer/audit/ledger.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "tensor/error.h"

namespace mf {
namespace {

Ledger* current = nullptr;  // the one that is kept

CategoryBytes without_workspace(CategoryBytes bytes) {
  in_category(bytes, Category::workspace) = 0;
  return bytes;
}

}  // namespace

std::int64_t sum_of(const CategoryBytes& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
}

Category LedgerBlock::category_at(std::int64_t event) const {
  Category category = categories.front().second;
  for (const auto& [from, next] : categories)
    if (from <= event) category = next;
  return category;
}

std::vector<CategoryBytes> LedgerRecord::sums() const {
  std::vector<CategoryBytes> bytes(events.size());  // first what changes at each event
  const auto at = [&](std::int64_t event) -> CategoryBytes& {
    return bytes[static_cast<std::size_t>(event)];
  };
  for (const LedgerBlock& block : blocks) {
    Category booked = block.categories.front().second;
    in_category(at(block.born), booked) += block.bytes;
    for (const auto& [event, category] : block.categories) {
      in_category(at(event), booked) -= block.bytes;
      in_category(at(event), category) += block.bytes;
      booked = category;
    }
    if (block.died != LedgerBlock::kAlive) in_category(at(block.died), booked) -= block.bytes;
  }
  for (std::size_t event = 1; event < bytes.size(); ++event)
    for (std::size_t c = 0; c < bytes[event].size(); ++c) bytes[event][c] += bytes[event - 1][c];
  for (CategoryBytes& sum : bytes) sum = without_workspace(sum);
  return bytes;
}

std::optional<std::size_t> LedgerRecord::first_gap() const {
  const std::vector<CategoryBytes> bytes = sums();
  for (std::size_t event = 0; event < events.size(); ++event)
    if (bytes[event] != events[event].booked || sum_of(bytes[event]) != events[event].active)
      return event;
  return std::nullopt;
}

std::size_t LedgerRecord::peak() const {
  const std::vector<CategoryBytes> bytes = sums();
  const auto highest = std::ranges::max_element(bytes, {}, sum_of);
  return static_cast<std::size_t>(highest - bytes.begin());
}

std::vector<Holding> LedgerRecord::holders(
    std::size_t event, const std::function<std::string(const LedgerBlock&)>& name) const {
  std::map<std::string, Holding> groups;
  for (const LedgerBlock& block : blocks) {
    const auto at = static_cast<std::int64_t>(event);
    if (!block.alive_at(at) || block.bytes == 0 || block.category_at(at) == Category::workspace)
      continue;
    Holding& group = groups[name(block)];
    group.blocks += 1;
    group.bytes += block.bytes;
  }
  std::vector<Holding> list;
  for (auto& [key, group] : groups) list.push_back({key, group.blocks, group.bytes});
  std::ranges::stable_sort(list, std::greater{}, &Holding::bytes);
  return list;
}

std::string LedgerRecord::maker(const LedgerBlock& block) const {
  if (block.op.empty()) return stages[block.stage];
  return block.op + (block.phase == OpPhase::forward ? ", forward" : ", backward");
}

std::vector<StageSummary> LedgerRecord::summaries() const {
  const std::vector<CategoryBytes> bytes = sums();
  std::vector<StageSummary> list;
  for (std::size_t event = 1; event < events.size(); ++event) {
    if (event == 1 || events[event].stage != events[event - 1].stage)
      list.push_back({stages[events[event].stage]});
    StageSummary& summary = list.back();
    summary.events += 1;
    summary.end_bytes = sum_of(bytes[event]);
    if (summary.end_bytes > summary.peak_bytes) {
      summary.peak_bytes = summary.end_bytes;
      summary.peak_event = static_cast<std::int64_t>(event);
    }
  }
  return list;
}

std::vector<std::size_t> LedgerRecord::highlights(std::size_t count) const {
  const std::vector<CategoryBytes> bytes = sums();
  const std::size_t stretch = (events.size() + count - 1) / count;
  std::vector<std::size_t> chosen{0};
  for (std::size_t begin = 1; begin + 1 < events.size(); begin += stretch) {
    const std::size_t end = std::min(begin + stretch, events.size() - 1);
    std::size_t highest = begin;
    for (std::size_t event = begin; event < end; ++event)
      if (sum_of(bytes[event]) > sum_of(bytes[highest])) highest = event;
    chosen.push_back(highest);
  }
  if (events.size() > 1) chosen.push_back(events.size() - 1);
  return chosen;
}

Ledger::Ledger(Device device, std::int64_t missed_event)
    : device_(device), missed_event_(missed_event) {
  check(current == nullptr, "ledger: another one is kept; close it first");
  observation_.emplace("ledger", note_op);
  if (const BlockObserver other = observe_blocks(note_block)) {
    observe_blocks(other);
    fail("ledger: blocks are observed already; call observe_blocks(nullptr) first");
  }
  current = this;
  record_.stages = {"before the ledger"};
  const MemoryStats stats = memory_stats(device_);
  const CategoryBytes before = without_workspace(stats.by_category);
  for (int c = 0; c < kCategories; ++c) {
    LedgerBlock& block = record_.blocks.emplace_back();
    block.bytes = before[static_cast<std::size_t>(c)];
    block.categories = {{0, static_cast<Category>(c)}};
  }
  record_.events.push_back({0, before, stats.active});
}

Ledger::~Ledger() { stop(); }

void Ledger::stop() {
  if (!open_) return;
  open_ = false;
  current = nullptr;
  observe_blocks(nullptr);
  observation_.reset();
}

LedgerRecord Ledger::close() {
  stop();
  return std::move(record_);
}

void Ledger::stage(std::string name) { record_.stages.push_back(std::move(name)); }

void Ledger::note_block(const BlockEvent& event) noexcept { current->write(event); }

void Ledger::note_op(const OpEvent& event) {
  if (event.begins) {
    current->ops_.push_back({event.op, event.phase, std::string(event.module)});
  } else if (!current->ops_.empty()) {  // else it began before the ledger
    current->ops_.pop_back();
  }
}

std::size_t Ledger::find(const BlockEvent& event) {
  const auto [found, fresh] = live_.try_emplace(event.data, record_.blocks.size());
  if (fresh) {
    record_.blocks[static_cast<std::size_t>(event.former)].bytes -= event.bytes;
    LedgerBlock& block = record_.blocks.emplace_back();
    block.bytes = event.bytes;
    block.categories = {{0, event.former}};
  }
  return found->second;
}

void Ledger::write(const BlockEvent& event) {
  if (event.device != device_) return;
  if (event.category == Category::workspace && event.former == Category::workspace &&
      !live_.contains(event.data)) {
    record_.workspace_peak =
        std::max(record_.workspace_peak, in_category(event.stats.by_category, Category::workspace));
    return;
  }
  const auto now = static_cast<std::int64_t>(record_.events.size());
  const std::size_t stage = record_.stages.size() - 1;
  record_.events.push_back({stage, without_workspace(event.stats.by_category), event.stats.active});
  if (now == missed_event_) return;
  switch (event.kind) {
    case BlockEvent::Kind::allocate: {
      live_[event.data] = record_.blocks.size();
      LedgerBlock& made = record_.blocks.emplace_back();
      made.bytes = event.bytes;
      made.born = now;
      made.categories = {{now, event.category}};
      made.stage = stage;
      if (!ops_.empty()) {
        made.op = ops_.back().op;
        made.phase = ops_.back().phase;
        made.module = ops_.back().module;
      }
      break;
    }
    case BlockEvent::Kind::move:
      record_.blocks[find(event)].categories.emplace_back(now, event.category);
      break;
    case BlockEvent::Kind::free:
      record_.blocks[find(event)].died = now;
      live_.erase(event.data);
      break;
  }
}

}  // namespace mf
