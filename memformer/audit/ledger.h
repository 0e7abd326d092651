#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "autograd/observer.h"
#include "tensor/memory.h"

namespace mf {

/// Bytes by category. The workspace is counted apart (tensor/memory.h) and stays 0 here.
using CategoryBytes = std::array<std::int64_t, kCategories>;
/// Bytes of one category.
inline std::int64_t& in_category(CategoryBytes& bytes, Category category) {
  return bytes[static_cast<std::size_t>(category)];
}
/// Bytes of one category.
inline std::int64_t in_category(const CategoryBytes& bytes, Category category) {
  return bytes[static_cast<std::size_t>(category)];
}
/// Bytes of all categories together.
std::int64_t sum_of(const CategoryBytes& bytes);

/// One block of memory, or all those together that were there before the ledger and never changed
/// while it was kept. It lives from event `born` on, up to but without event `died`.
struct LedgerBlock {
  /// `died` of a block that was not freed before the ledger ended.
  static constexpr std::int64_t kAlive = std::numeric_limits<std::int64_t>::max();

  std::int64_t bytes = 0;      ///< as requested
  std::int64_t born = 0;       ///< 0: before the ledger
  std::int64_t died = kAlive;  ///< the event that freed it
  /// What it was booked under, from which event on.
  std::vector<std::pair<std::int64_t, Category>> categories;
  std::string op;  ///< the innermost one that ran when the block was made; "" if none did
  OpPhase phase = OpPhase::forward;  ///< of the op; says nothing if `op` is ""
  std::string module;                ///< of the op; "" if no tape recorded it
  std::size_t stage = 0;             ///< in which it was made

  /// Whether it lives at an event.
  bool alive_at(std::int64_t event) const { return born <= event && event < died; }
  /// The block's category at an event of its life.
  Category category_at(std::int64_t event) const;
};

/// What a group of blocks holds at one event.
struct Holding {
  std::string name;         ///< what the group has in common
  std::int64_t blocks = 0;  ///< how many live; those from before count as one a category
  std::int64_t bytes = 0;   ///< of all of them
};

/// The part of the record that belongs to one stage.
struct StageSummary {
  std::string name;             ///< as given to `Ledger::stage`
  std::int64_t events = 0;      ///< how many happened in it
  std::int64_t end_bytes = 0;   ///< active behind its last event
  std::int64_t peak_bytes = 0;  ///< the most behind one of its events
  std::int64_t peak_event = 0;  ///< the first event with so many, counted in the whole record
};

/// What a ledger found. Time is the number of blocks made, moved to another category and freed
/// since it began, workspace left out: the same in every run, whatever the threads. Event 0 is the
/// beginning.
struct LedgerRecord {
  /// What the allocator said behind one event.
  struct Event {
    std::size_t stage = 0;    ///< it belongs to, index into `stages`
    CategoryBytes booked{};   ///< by the allocator, behind the event
    std::int64_t active = 0;  ///< its active bytes
  };

  std::vector<Event> events;  ///< in order; never empty: event 0 is the beginning
  /// The first kCategories are what was there before, one for each category.
  std::vector<LedgerBlock> blocks;
  std::vector<std::string> stages;  ///< their names
  std::int64_t workspace_peak = 0;  ///< bytes; depends on how threads overlap

  /// The blocks that live at each event, added up by category. It follows from the lives of the
  /// blocks alone, not from what the allocator says.
  std::vector<CategoryBytes> sums() const;
  /// The first event at which `sums` are not the allocator's bytes, in a category or in all.
  std::optional<std::size_t> first_gap() const;
  /// The first event with the most bytes.
  std::size_t peak() const;
  /// The blocks that live at `event`, grouped by `name`, the largest group first.
  std::vector<Holding> holders(std::size_t event,
                               const std::function<std::string(const LedgerBlock&)>& name) const;
  /// "linear, backward"; the stage for a block that no op made.
  std::string maker(const LedgerBlock& block) const;
  /// One for each stage that has events, in order.
  std::vector<StageSummary> summaries() const;
  /// At most about `count` events for a chart: the highest one of each stretch, the first and last.
  std::vector<std::size_t> highlights(std::size_t count) const;
};

/// Writes down every block of a device while it lives: what it is for, who made it, how long it
/// lived. One at a time, and not beside a profile; Error otherwise. Blocks but for workspace must
/// be made, moved and freed on one thread.
class Ledger {
 public:
  /// `missed_event` is a mistake made on purpose, which the record must show: nothing is written
  /// down at that event. -1: none.
  explicit Ledger(Device device, std::int64_t missed_event = -1);
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  /// What happens from now on belongs to the stage of this name.
  void stage(std::string name);
  /// Number of events so far.
  std::int64_t events() const { return static_cast<std::int64_t>(record_.events.size()) - 1; }
  /// Ends it and hands out what it found.
  LedgerRecord close();

 private:
  struct RunningOp {
    const char* op;
    OpPhase phase;
    std::string module;
  };

  static void note_block(const BlockEvent& event) noexcept;
  static void note_op(const OpEvent& event);
  void write(const BlockEvent& event);
  /// The live block at the event's address; one that was there before gets a line of its own.
  std::size_t find(const BlockEvent& event);
  void stop();

  Device device_;
  std::int64_t missed_event_;
  LedgerRecord record_;
  std::unordered_map<const void*, std::size_t> live_;  // by address: indices of blocks
  std::vector<RunningOp> ops_;
  std::optional<OpObservation> observation_;
  bool open_ = true;
};

}  // namespace mf
