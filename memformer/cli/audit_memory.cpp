#include <algorithm>
#include <array>
#include <memory>

#include "memformer/audit/memory_audit.h"
#include "memformer/audit/mrbp_audit.h"
#include "memformer/cli/audit_shared.h"
#include "memformer/replay/bptt.h"
#include "memformer/replay/checkpointed.h"
#include "memformer/replay/truncated.h"

namespace mf::cli {
namespace {

struct MemoryArguments {
  AuditedModel model;
  AuditOutput output;
  MemoryAuditOptions options;
  std::string mode = "mrbp";
  std::int64_t truncate = 1;
};

// From what lasts to what comes and goes: the order of tables, and from bottom to top of the chart.
constexpr std::array kCategoryOrder{Category::parameter, Category::optimizer, Category::state,
                                    Category::gradient, Category::activation};
constexpr std::size_t kTopRows = 12;  // of a table; what follows is added up
constexpr std::size_t kBars = 30;     // blocks whose lives are drawn
constexpr std::size_t kChartPoints = 600;

WindowPass pass_named(const std::string& mode, std::int64_t truncate) {
  if (mode == "bptt") return bptt;
  if (mode == "checkpointed") return checkpointed_bptt;
  if (mode == "mrbp") return mrbp;
  return [truncate](const Recurrence& model, std::span<const Segment> segments, const State& entry,
                    RngKey key, const WindowOptions& options) {
    return truncated_bptt(model, segments, entry, key, truncate, options);
  };
}

/// The first two steps of a path: "encoder/layers.0".
std::string layer_of(const std::string& module) {
  const std::size_t first = module.find('/');
  return first == module.npos ? module : module.substr(0, module.find('/', first + 1));
}

/// A ledger with what the tables ask of it again and again.
struct LedgerView {
  explicit LedgerView(const MemoryAudit& made)
      : audit(made), ledger(made.ledger), sums(ledger.sums()), peak(ledger.peak()) {
    by_op = ledger.holders(peak, [&](const LedgerBlock& block) { return ledger.maker(block); });
    by_module = ledger.holders(peak, [&](const LedgerBlock& block) {
      if (!block.module.empty()) return layer_of(block.module);
      return block.op.empty() ? ledger.stages[block.stage] : std::string("no layer");
    });
  }

  std::size_t own_peak(Category category) const {
    const auto highest = std::ranges::max_element(
        sums, {}, [&](const CategoryBytes& bytes) { return in_category(bytes, category); });
    return static_cast<std::size_t>(highest - sums.begin());
  }

  const MemoryAudit& audit;
  const LedgerRecord& ledger;
  std::vector<CategoryBytes> sums;
  std::size_t peak;
  std::vector<Holding> by_op, by_module;
};

Table category_table(const LedgerView& view) {
  Table table{{{"category", false},
               {"before"},
               {"at the peak"},
               {"its own peak"},
               {"at event"},
               {"behind the step"},
               {"left"},
               {"expected"}},
              {}};
  for (const Category category : kCategoryOrder) {
    const auto at = [&](std::size_t event) { return in_category(view.sums[event], category); };
    const std::size_t highest = view.own_peak(category);
    table.rows.push_back({std::string(name_of(category)), std::to_string(at(0)),
                          std::to_string(at(view.peak)), std::to_string(at(highest)),
                          std::to_string(highest), std::to_string(at(view.sums.size() - 1)),
                          std::to_string(in_category(view.audit.left, category)),
                          std::to_string(in_category(view.audit.expected_left, category))});
  }
  table.rows.push_back({"sum", std::to_string(sum_of(view.sums.front())),
                        std::to_string(sum_of(view.sums[view.peak])), "", "",
                        std::to_string(sum_of(view.sums.back())),
                        std::to_string(sum_of(view.audit.left)),
                        std::to_string(sum_of(view.audit.expected_left))});
  return table;
}

Table holding_table(const std::string& what, const std::vector<Holding>& holdings) {
  Table table{{{what, false}, {"blocks"}, {"bytes"}, {"share"}}, {}};
  Holding others{"others"}, sum{"sum"};
  for (const Holding& holding : holdings) {
    sum.blocks += holding.blocks;
    sum.bytes += holding.bytes;
  }
  const auto add = [&](const Holding& holding) {
    table.rows.push_back({holding.name, std::to_string(holding.blocks),
                          std::to_string(holding.bytes),
                          fmt::format("{:.1f} %", 100.0 * static_cast<double>(holding.bytes) /
                                                      static_cast<double>(sum.bytes))});
  };
  for (std::size_t i = 0; i < holdings.size(); ++i) {
    if (i < kTopRows) {
      add(holdings[i]);
    } else {
      others.blocks += holdings[i].blocks;
      others.bytes += holdings[i].bytes;
    }
  }
  if (others.blocks > 0) add(others);
  add(sum);
  return table;
}

Table stage_table(const LedgerRecord& ledger) {
  Table table{{{"stage", false}, {"events"}, {"peak in it"}, {"at event"}, {"at its end"}}, {}};
  for (const StageSummary& stage : ledger.summaries())
    table.rows.push_back({stage.name, std::to_string(stage.events),
                          std::to_string(stage.peak_bytes), std::to_string(stage.peak_event),
                          std::to_string(stage.end_bytes)});
  return table;
}

/// The largest blocks, of equal ones those that lived longest, in the order in which they were
/// made.
std::vector<const LedgerBlock*> largest_blocks(const LedgerRecord& ledger) {
  std::vector<const LedgerBlock*> blocks;
  for (const LedgerBlock& block : ledger.blocks)
    if (block.bytes > 0) blocks.push_back(&block);
  std::ranges::stable_sort(blocks, std::greater{}, [](const LedgerBlock* block) {
    return std::pair(block->bytes, block->died - block->born);
  });
  blocks.resize(std::min(blocks.size(), kBars));
  std::ranges::stable_sort(blocks, {}, &LedgerBlock::born);
  return blocks;
}

std::string name_of_block(const LedgerRecord& ledger, const LedgerBlock& block) {
  if (block.op.empty()) return ledger.maker(block);
  return ledger.maker(block) + ", " +
         (block.module.empty() ? ledger.stages[block.stage] : block.module);
}

Table block_table(const LedgerRecord& ledger) {
  Table table{{{"block", false}, {"category", false}, {"bytes"}, {"made at"}, {"freed at"}}, {}};
  for (const LedgerBlock* block : largest_blocks(ledger)) {
    const bool freed = block->died != LedgerBlock::kAlive;
    table.rows.push_back(
        {name_of_block(ledger, *block), std::string(name_of(block->categories.back().second)),
         std::to_string(block->bytes), block->born == 0 ? "before" : std::to_string(block->born),
         freed ? std::to_string(block->died) : "-"});
  }
  return table;
}

Figure lives_figure(const LedgerRecord& ledger) {
  Lifetimes chart;
  chart.title = "Lives of the largest blocks";
  chart.x_label = "event: a block is made, moved to another category or freed";
  chart.last = static_cast<double>(ledger.events.size() - 1);
  for (const Category category : kCategoryOrder) chart.groups.emplace_back(name_of(category));
  for (const LedgerBlock* block : largest_blocks(ledger)) {
    const auto group = std::ranges::find(kCategoryOrder, block->categories.back().second);
    chart.bars.push_back(
        {name_of_block(ledger, *block) + ", " + readable_bytes(block->bytes),
         static_cast<int>(group - kCategoryOrder.begin()), static_cast<double>(block->born),
         block->died == LedgerBlock::kAlive ? chart.last : static_cast<double>(block->died)});
  }
  return lifetimes(chart,
                   "One bar for each block, from the event that made it to the one that freed "
                   "it; colours are categories at the end of its life.");
}

Figure bytes_figure(const LedgerView& view) {
  StackedAreas chart;
  chart.title = "Active bytes by category";
  chart.x_label = "event: a block is made, moved to another category or freed";
  chart.y_label = "active bytes";
  chart.y_is_bytes = true;
  const std::vector<std::size_t> events = view.ledger.highlights(kChartPoints);
  for (const std::size_t event : events) chart.x.push_back(static_cast<double>(event));
  for (const Category category : kCategoryOrder) {
    auto& layer = chart.layers.emplace_back(name_of(category), std::vector<double>());
    for (const std::size_t event : events)
      layer.second.push_back(static_cast<double>(in_category(view.sums[event], category)));
  }
  return stacked_areas(
      chart, fmt::format("{} of {} events: the highest of each stretch, the peak among them.",
                         events.size(), view.ledger.events.size()));
}

std::string verdict_of(const LedgerView& view) {
  const MemoryAudit& audit = view.audit;
  const std::size_t events = view.ledger.events.size() - 1;
  if (audit.gap) {
    const std::size_t event = *audit.gap;
    return fmt::format(
        "NOT so: at event {} of {}, in '{}', the ledger's blocks add up to {} bytes, the "
        "allocator has {} active",
        event, events, view.ledger.stages[view.ledger.events[event].stage],
        sum_of(view.sums[event]), view.ledger.events[event].active);
  }
  const std::int64_t peak = sum_of(view.sums[view.peak]);
  if (peak != audit.allocator_peak)
    return fmt::format("NOT so: the ledger's peak is {} bytes, the allocator's {}", peak,
                       audit.allocator_peak);
  if (audit.left != audit.expected_left)
    return fmt::format("NOT so: the step leaves {} bytes, {} are expected", sum_of(audit.left),
                       sum_of(audit.expected_left));
  return fmt::format(
      "the ledger adds up to the allocator's active bytes at all {} events, its peak is the "
      "allocator's {} bytes, and only gradients and the optimizer's moments are left",
      events, peak);
}

Report memory_report(const LedgerView& view, const Memformer& model,
                     const MemoryArguments& arguments) {
  const LedgerRecord& ledger = view.ledger;
  Report report(
      "Memory: who holds the bytes of a training step",
      "The blocks in the ledger add up to the allocator's active bytes at every event, in "
      "each category; the step leaves nothing but gradients and the optimizer's moments.");
  report.paragraph(describe(model));
  report.paragraph(fmt::format(
      "one step of {} over {} segments, batch {}: {} events, {} blocks made; workspace of kernels, "
      "counted apart, up to {} bytes at once",
      arguments.mode, arguments.options.segments, arguments.options.batch, ledger.events.size() - 1,
      std::ranges::count_if(ledger.blocks, [](const LedgerBlock& b) { return b.born > 0; }),
      ledger.workspace_peak));
  report.heading("Bytes by category");
  report.figure(bytes_figure(view));
  report.table(category_table(view),
               fmt::format("active bytes; the peak is at event {}, in '{}'; left: more than before "
                           "the step",
                           view.peak, ledger.stages[ledger.events[view.peak].stage]));
  report.heading("Who holds the peak");
  report.table(holding_table("made by", view.by_op), "blocks live at the peak, by op or stage");
  report.table(holding_table("made in", view.by_module), "the same by layer");
  report.heading("Stages of the step");
  report.table(stage_table(ledger));
  report.heading("The largest blocks");
  report.figure(lives_figure(ledger));
  report.table(block_table(ledger));
  report.verdict(view.audit.holds(), verdict_of(view));
  return report;
}

Json to_json(const std::vector<Holding>& holdings) {
  Json list = Json::array();
  for (const Holding& holding : holdings)
    list.push_back({{"name", holding.name}, {"blocks", holding.blocks}, {"bytes", holding.bytes}});
  return list;
}

Json to_json(const LedgerView& view, const Memformer& model, const MemoryArguments& arguments) {
  const LedgerRecord& ledger = view.ledger;
  Json json{{"model", Json::parse(mf::to_json(model.config()))},
            {"mode", arguments.mode},
            {"segments", arguments.options.segments},
            {"batch", arguments.options.batch},
            {"seed", arguments.options.seed},
            {"device", full_name(model.device())},
            {"events", ledger.events.size() - 1},
            {"peak_event", view.peak},
            {"peak_bytes", sum_of(view.sums[view.peak])},
            {"allocator_peak_bytes", view.audit.allocator_peak},
            {"workspace_peak_bytes", ledger.workspace_peak},
            {"gap_event", nullptr},
            {"categories", Json::array()},
            {"ops_at_peak", to_json(view.by_op)},
            {"modules_at_peak", to_json(view.by_module)},
            {"stages", Json::array()},
            {"timeline", Json::object()}};
  if (view.audit.gap) json["gap_event"] = *view.audit.gap;
  const std::vector<std::size_t> events = ledger.highlights(kChartPoints);
  json["timeline"]["event"] = events;
  for (const Category category : kCategoryOrder) {
    const auto at = [&](std::size_t event) { return in_category(view.sums[event], category); };
    const std::size_t highest = view.own_peak(category);
    json["categories"].push_back(
        {{"name", name_of(category)},
         {"before", at(0)},
         {"at_peak", at(view.peak)},
         {"own_peak", at(highest)},
         {"own_peak_event", highest},
         {"left", in_category(view.audit.left, category)},
         {"expected_left", in_category(view.audit.expected_left, category)}});
    Json& line = json["timeline"][std::string(name_of(category))] = Json::array();
    for (const std::size_t event : events) line.push_back(at(event));
  }
  for (const StageSummary& stage : ledger.summaries())
    json["stages"].push_back({{"name", stage.name},
                              {"events", stage.events},
                              {"peak_bytes", stage.peak_bytes},
                              {"peak_event", stage.peak_event},
                              {"end_bytes", stage.end_bytes}});
  return json;
}

void audit_memory_command(const MemoryArguments& arguments) {
  const std::unique_ptr<Memformer> model = load(arguments.model);
  MemoryAuditOptions options = arguments.options;
  options.seed = arguments.model.seed;
  options.pass = pass_named(arguments.mode, arguments.truncate);
  MemoryAudit audit = audit_memory(*model, options);
  if (!arguments.output.plant.empty()) {
    options.missed_event = static_cast<std::int64_t>(audit.ledger.events.size()) / 2;
    audit = audit_memory(*model, options);
  }
  const LedgerView view(audit);
  deliver(arguments.output, memory_report(view, *model, arguments),
          to_json(view, *model, arguments));
}

}  // namespace

void add_audit_memory(CLI::App& audit) {
  CLI::App* command = audit.add_subcommand(
      "memory",
      "the ledger of one training step: bytes by category, op and layer, lives of blocks, who "
      "holds the peak; fails unless it adds up to the allocator's active bytes at every event");
  const auto arguments = std::make_shared<MemoryArguments>();
  add_audited_model(*command, arguments->model);
  add_audit_output(*command, arguments->output, {"miss-event"});
  command->option_defaults()->always_capture_default();
  command->add_option("--mode", arguments->mode, "bptt, checkpointed, truncated or mrbp")
      ->check(CLI::IsMember({"bptt", "checkpointed", "truncated", "mrbp"}));
  command->add_option("--truncate", arguments->truncate, "segments in a chunk of --mode truncated")
      ->check(CLI::PositiveNumber);
  command->add_option("--segments", arguments->options.segments, "of the window")
      ->check(CLI::PositiveNumber);
  command->add_option("--batch", arguments->options.batch, "rows")->check(CLI::PositiveNumber);
  command->callback([arguments] { audit_memory_command(*arguments); });
}

}  // namespace mf::cli
