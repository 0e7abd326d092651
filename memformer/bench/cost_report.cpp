#include <algorithm>
#include <nlohmann/json.hpp>

#include "memformer/bench/cost.h"

namespace mf::bench {
namespace {

using Json = nlohmann::ordered_json;

/// What the paper has for MRBP, Table 3 of arXiv 2010.06891 v2: megabytes on its GPU, and speed
/// relative to BPTT.
struct Published {
  CostMethod method;
  int megabytes;
  double speed;
};
constexpr Published kPublished[] = {{CostMethod::bptt, 16177, 1.00},
                                    {CostMethod::checkpointed, 9885, 0.48},
                                    {CostMethod::mrbp, 7229, 0.90}};

const char* x_name(const CostReport& report) {
  if (report.methods) return "horizon";
  return report.options.axis == CostAxis::length ? "length" : "memory";
}

Json setting_of(const CostReport& report) {
  const CostOptions& options = report.options;
  const CostShape& shape = options.shape;
  Json models = Json::object();
  for (const CostModel& model : report.models)
    models[model.name] = {{"layers", model.layers}, {"parameters", model.parameters}};
  return {{"over", x_name(report)},
          {"from", options.from},
          {"to", options.to},
          {"length", options.length},
          {"batch", options.batch},
          {"training", options.training},
          {"repeats", options.repeats},
          {"limit_seconds", options.limit_seconds},
          {"limit_bytes", options.limit_bytes},
          {"at_length", options.at_length},
          {"seed", options.seed},
          {"width", shape.width},
          {"heads", shape.heads},
          {"feed_forward", shape.feed_forward},
          {"encoder_layers", shape.encoder_layers},
          {"decoder_layers", shape.decoder_layers},
          {"layers", shape.layers},
          {"vocabulary", shape.vocabulary},
          {"segment", shape.segment},
          {"slots", shape.slots},
          {"cache", shape.cache},
          {"compressed", shape.compressed},
          {"memory_tokens", shape.memory_tokens},
          {"models", models}};
}

Json to_json(const CostReport& report, const CostRow& row) {
  Json json{{"model", row.model}, {"method", name_of(row.method)}, {"x_name", x_name(report)}};
  json["x"] = row.x;
  if (!row.not_run.empty()) {
    json["not_run"] = row.not_run;
    return json;
  }
  const Cost& cost = row.cost;
  json["multiply_adds"] = cost.multiply_adds;
  if (row.expected > 0) json["closed_form"] = row.expected;
  json["active_bytes"] = cost.active_bytes;
  json["peak_bytes"] = cost.peak_bytes;
  json["process_bytes"] = cost.process_bytes ? Json(*cost.process_bytes) : Json(nullptr);
  json["state_bytes"] = cost.state_bytes;
  json["seconds"] = cost.seconds;
  json["scored_tokens"] = cost.scored;
  json["tokens_per_second"] = row.tokens_per_second();
  return json;
}

/// "1.2e+12": four digits.
std::string short_number(double value) { return fmt::format("{:.4g}", value); }

Table table_of(const CostReport& report) {
  const bool inference = !report.methods && !report.options.training;
  Table table;
  table.columns = {{"model", false}};
  if (!inference) table.columns.push_back({"method", false});
  for (const char* name : {x_name(report), "multiply-adds", "active", "with weights", "process",
                           "state", "seconds", "tokens/s"})
    table.columns.push_back({name});
  table.columns.push_back({"not run", false});
  for (const CostRow& row : report.rows) {
    std::vector<std::string> cells{row.model};
    if (!inference) cells.emplace_back(name_of(row.method));
    cells.push_back(std::to_string(row.x));
    if (row.not_run.empty()) {
      const Cost& cost = row.cost;
      cells.insert(cells.end(), {short_number(static_cast<double>(cost.multiply_adds)),
                                 readable_bytes(cost.active_bytes), readable_bytes(cost.peak_bytes),
                                 cost.process_bytes ? readable_bytes(*cost.process_bytes) : "-",
                                 readable_bytes(cost.state_bytes), short_number(cost.seconds),
                                 fmt::format("{:.1f}", row.tokens_per_second()), ""});
    } else {
      cells.insert(cells.end(), 7, "-");
      cells.push_back(row.not_run);
    }
    table.rows.push_back(std::move(cells));
  }
  return table;
}

Table model_table(const CostReport& report) {
  Table table{{{"model", false}, {"layers"}, {"parameters"}}, {}};
  for (const CostModel& model : report.models)
    table.rows.push_back(
        {model.name, std::to_string(model.layers), std::to_string(model.parameters)});
  return table;
}

Table ratio_table(const CostReport& report) {
  Table table{{{"measure", false}, {"of", false}, {"over", false}, {"at"}, {"ratio"}}, {}};
  for (const CostRatio& ratio : report.ratios)
    table.rows.push_back({ratio.measure, ratio.of, ratio.over, std::to_string(ratio.x),
                          fmt::format("{:.2f}", ratio.ratio)});
  return table;
}

Table published_table() {
  Table table{{{"method", false}, {"MB"}, {"speed"}}, {}};
  for (const auto& [method, megabytes, speed] : kPublished)
    table.rows.push_back(
        {name_of(method), std::to_string(megabytes), fmt::format("{:.2f}", speed)});
  return table;
}

/// Curves of one measure over x, one for each model that has a positive value somewhere.
void add_figure(Report& page, const CostReport& report, CostMethod method, const std::string& title,
                const std::string& y_label, bool bytes, double (*value)(const Cost&)) {
  LineChart chart;
  chart.title = report.options.training ? title + ", " + name_of(method) : title;
  chart.x_label = report.options.axis == CostAxis::length ? "tokens of the text"
                                                          : "rows of memory (slots, cache, tokens)";
  chart.y_label = y_label;
  chart.log_x = chart.log_y = true;
  chart.y_is_bytes = bytes;
  for (const CostModel& model : report.models) {
    Series series{model.name, {}};
    for (const CostRow& row : report.rows)
      if (row.model == model.name && row.method == method && row.not_run.empty() &&
          value(row.cost) > 0.0)
        series.points.emplace_back(static_cast<double>(row.x), value(row.cost));
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  if (!chart.series.empty())
    page.figure(line_chart(chart,
                           "Both axes are logarithmic. A curve ends where the next point "
                           "would take longer or need more than the limits allow."));
}

void add_figures(Report& page, const CostReport& report) {
  for (const CostMethod method : methods_of(report.options)) {
    const auto add = [&](const char* title, const char* y_label, bool bytes,
                         double (*value)(const Cost&)) {
      add_figure(page, report, method, title, y_label, bytes, value);
    };
    add("Work", "10^9 multiply-adds", false,
        [](const Cost& cost) { return 1e-9 * static_cast<double>(cost.multiply_adds); });
    add("Memory above the weights", "active bytes", true,
        [](const Cost& cost) { return static_cast<double>(cost.active_bytes); });
    add("Memory of the process", "resident bytes", true,
        [](const Cost& cost) { return static_cast<double>(cost.process_bytes.value_or(0)); });
    add("State carried on", "bytes", true,
        [](const Cost& cost) { return static_cast<double>(cost.state_bytes); });
    add("Time", "seconds", false, [](const Cost& cost) { return cost.seconds; });
  }
}

std::string described(const CostReport& report) {
  const CostOptions& options = report.options;
  const CostShape& shape = options.shape;
  const std::string model =
      fmt::format("width {}, {} heads, feed-forward {}, segments of {} tokens, {} of vocabulary",
                  shape.width, shape.heads, shape.feed_forward, shape.segment, shape.vocabulary);
  const std::string place =
      fmt::format("{} threads, instruction set {}", report.threads, report.isa);
  const std::string rows = options.batch == 1 ? "one row" : fmt::format("{} rows", options.batch);
  if (report.methods)
    return fmt::format("{}, {} + {} layers, {} slots; {}; {}; medians of {} turns", model,
                       shape.encoder_layers, shape.decoder_layers, shape.slots, rows, place,
                       options.repeats);
  const std::string memories =
      options.axis == CostAxis::length
          ? fmt::format("{} slots, {} rows of cache, {} compressed, {} memory tokens", shape.slots,
                        shape.cache, shape.compressed, shape.memory_tokens)
          : fmt::format("texts of {} tokens", options.length);
  return fmt::format("{}; {}; {}; {}; medians of {} runs", model, memories, rows, place,
                     options.repeats);
}

std::string claim_of(const CostReport& report) {
  if (report.methods) return "MRBP needs less memory than full unrolling.";
  // There are closed forms for reading one row (cost.h).
  const bool counted = std::ranges::any_of(
      report.rows, [](const CostRow& row) { return row.not_run.empty() && row.expected > 0; });
  std::string claim;
  if (counted)
    claim =
        "The counted work of every model is that of its closed form, or less where its cache "
        "fills first. ";
  if (report.options.axis == CostAxis::length)
    claim += "The state that a Memformer carries on does not grow with the text. ";
  return claim + "Every point counts some work.";
}

std::string verdict_of(const CostReport& report) {
  if (!report.holds())
    return "NOT so: a count or a size is not as claimed, or nothing was run; see the table";
  const auto not_run =
      std::ranges::count_if(report.rows, [](const CostRow& row) { return !row.not_run.empty(); });
  return fmt::format("so it is at all {} points that were run; {} were not run",
                     std::ssize(report.rows) - not_run, not_run);
}

}  // namespace

std::string to_json(const CostReport& report) {
  Json rows = Json::array(), ratios = Json::object();
  for (const CostRow& row : report.rows) rows.push_back(to_json(report, row));
  for (const CostRatio& ratio : report.ratios) {
    Json& place = report.methods ? ratios[fmt::format("horizon_{}", ratio.x)][ratio.over] : ratios;
    place[ratio.measure] = {
        {"of", ratio.of}, {"over", ratio.over}, {"x", ratio.x}, {"ratio", ratio.ratio}};
  }
  Json json{{"kind", "cost"},
            {"command", report.options.command},
            {"threads", report.threads},
            {"isa", report.isa},
            {"setting", setting_of(report)},
            {"rows", rows},
            {"ratios", ratios},
            {"holds", report.holds()}};
  if (report.methods)
    for (const auto& [method, megabytes, speed] : kPublished)
      json["published"].push_back(
          {{"method", name_of(method)}, {"megabytes", megabytes}, {"speed", speed}});
  return json.dump();
}

Report report_of(const CostReport& report) {
  Report page(
      report.methods ? "Cost: MRBP beside BPTT and checkpointing" : "Cost: what each model takes",
      claim_of(report));
  page.paragraph(described(report));
  page.heading("Models");
  page.table(model_table(report));
  page.heading("Measurements");
  page.table(table_of(report),
             "active: largest bytes of live tensors above what stands before; with weights: the "
             "same with it; process: largest resident size; state: carried at the end");
  if (!report.methods) add_figures(page, report);
  if (!report.ratios.empty()) {
    page.heading("Ratios");
    page.table(ratio_table(report),
               report.methods
                   ? "of / over, at the horizon; of seconds: the speed relative to BPTT"
                   : "of / over, at the length: the better of Transformer and Transformer-XL");
  }
  if (report.methods) {
    page.heading("The paper's");
    page.table(published_table(), "megabytes of its GPU; speed relative to BPTT");
  }
  page.verdict(report.holds(), verdict_of(report));
  return page;
}

}  // namespace mf::bench
