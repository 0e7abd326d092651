// Writes docs/results.md and its pictures from a template, the plan of the runs and the JSON files
// that the runs left: every number on the page stands in one of these files.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "memformer/audit/report.h"
#include "tensor/error.h"
#include "tensor/io.h"

namespace mf {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Lines = std::vector<std::string>;

constexpr const char* kRunner = "python3 tests/results/run.py";
constexpr const char* kNothing = "-";

// Reading ----------------------------------------------------------------------------------------

Json read_json(const std::string& path) {
  try {
    return Json::parse(read_file(path));
  } catch (const Json::exception& error) {
    fail("{} is not JSON; {}", path, error.what());
  }
}

/// The value at a JSON pointer such as /metrics/bits_per_byte; null where there is none.
Json value_at(const Json& json, const std::string& pointer) {
  const Json::json_pointer place(pointer);
  return json.contains(place) ? json.at(place) : Json();
}

double number_at(const Json& json, const std::string& pointer, const std::string& file) {
  const Json value = value_at(json, pointer);
  check(value.is_number(), "{} has {} at {}; a number is needed", file, value.dump(), pointer);
  return value.get<double>();
}

// Numbers as text --------------------------------------------------------------------------------

/// Three digits and a unit: "1.88 M".
std::string scaled(double value) {
  const char* unit = "";
  for (const char* larger : {" k", " M", " G", " T", " P", " E"}) {
    if (std::abs(value) < 999.5) break;
    value /= 1000.0;
    unit = larger;
  }
  if (*unit == '\0') return fmt::format("{:.4g}", value);
  const int digits = std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0;
  return fmt::format("{:.{}f}{}", value, digits, unit);
}

std::string bytes_text(double bytes) { return readable_bytes(std::llround(bytes)); }

std::string time_text(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.3g} µs", 1e6 * seconds);
  if (seconds < 1.0) return fmt::format("{:.3g} ms", 1e3 * seconds);
  if (seconds < 100.0) return fmt::format("{:.3g} s", seconds);
  if (seconds < 6000.0) return fmt::format("{:.1f} min", seconds / 60.0);
  return fmt::format("{:.1f} h", seconds / 3600.0);
}

/// As the last word of a {{value}} asks: bytes, count, time, or a format such as .3f.
std::string formatted(double value, const std::string& format) {
  if (format == "bytes") return bytes_text(value);
  if (format == "count") return scaled(value);
  if (format == "time") return time_text(value);
  try {
    return fmt::format(fmt::runtime("{:" + format + "}"), value);
  } catch (const fmt::format_error& error) {
    fail("the format '{}' is no bytes, count, time or format of a number such as .3f; {}", format,
         error.what());
  }
}

// Markdown ---------------------------------------------------------------------------------------

/// A column of a table, as a function of the row.
template <class Row>
struct Column {
  std::string name;
  std::function<std::string(const Row&)> cell;
};

std::string markdown_row(const Lines& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

/// The first column stands to the left, numbers to the right.
template <class Row>
std::string markdown_table(const std::vector<Column<Row>>& columns, const std::vector<Row>& rows) {
  Lines head, rule;
  for (const auto& column : columns) {
    head.push_back(column.name);
    rule.push_back(rule.empty() ? "---" : "---:");
  }
  std::string text = markdown_row(head) + markdown_row(rule);
  for (const Row& row : rows) {
    Lines cells;
    for (const auto& column : columns) cells.push_back(column.cell(row));
    text += markdown_row(cells);
  }
  return text;
}

std::string joined(const std::set<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

/// What a result was made on: "2 threads, avx512".
std::string machine_of(const Json& json) {
  const auto threads = json.at("threads").get<std::int64_t>();
  return fmt::format("{} {}, {}", threads, threads == 1 ? "thread" : "threads",
                     json.at("isa").get<std::string>());
}

// Results ----------------------------------------------------------------------------------------

/// What one seed of a row left.
struct Seed {
  std::string file;  // text-memformer-seed1.json
  Json json;
};

/// A row of a table: what the plan says, and what is there of it.
struct Row {
  Json plan;
  std::size_t planned = 0;  // seeds
  std::vector<Seed> seeds;

  std::string label() const { return plan.at("label").get<std::string>(); }
  std::vector<double> values(const std::string& pointer) const {
    std::vector<double> all;
    for (const Seed& seed : seeds) all.push_back(number_at(seed.json, pointer, seed.file));
    return all;
  }
  bool has(const std::string& pointer) const {
    return !seeds.empty() && std::ranges::all_of(seeds, [&](const Seed& seed) {
      return value_at(seed.json, pointer).is_number();
    });
  }
};

double mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

/// "2.500 ± 0.004": mean and half the range; one value has no range.
std::string mean_and_spread(const std::vector<double>& values) {
  if (values.empty()) return kNothing;
  const auto [low, high] = std::ranges::minmax(values);
  std::string text = fmt::format("{:.3f}", mean(values));
  if (values.size() > 1) text += fmt::format(" ± {:.3f}", (high - low) / 2.0);
  return text;
}

std::string name_of(const Json& experiment) {
  return experiment.at("table").get<std::string>() + "-" + experiment.at("row").get<std::string>();
}

/// Text is scored whole. A task scores a part of what it reads, so that the work is no multiple of
/// the scored tokens.
bool scores_all(const std::string& metric) { return metric == "bits_per_byte"; }

/// The result must be that of the experiment as the plan has it now.
void require_as_planned(const Seed& seed, const Json& experiment, std::int64_t number) {
  const Json& json = seed.json;
  check(json.value("table", "") + "-" + json.value("row", "") == name_of(experiment) &&
            json.value("seed", std::int64_t{-1}) == number,
        "{} says that it is {}-{} with seed {}; its name says otherwise", seed.file,
        json.value("table", ""), json.value("row", ""), json.value("seed", std::int64_t{-1}));
  for (const Json& setting : experiment.value("set", Json::array())) {
    const auto text = setting.get<std::string>();
    const auto equals = text.find('=');
    std::string pointer = "/config/" + text.substr(0, equals);
    std::ranges::replace(pointer, '.', '/');
    const std::string word = text.substr(equals + 1);
    const Json parsed = Json::parse(word, nullptr, false);
    const Json planned = parsed.is_discarded() ? Json(word) : parsed;
    const Json actual = value_at(json, pointer);
    check(actual == planned,
          "{} was made with {} = {}, the plan says {}; remove it and run it again", seed.file,
          text.substr(0, equals), actual.dump(), planned.dump());
  }
}

// Costs ------------------------------------------------------------------------------------------

/// What is measured of each model at each x.
struct Quantity {
  const char* key;
  const char* title;
  const char* unit;
  std::string (*text)(double);
  bool drawn;
};
constexpr Quantity kQuantities[] = {
    {"multiply_adds", "Multiply-adds", "multiply-adds", scaled, true},
    {"active_bytes", "Memory of tensors", "bytes", bytes_text, true},
    {"process_bytes", "Memory of the process", "bytes", bytes_text, false},
    {"seconds", "Time", "seconds", time_text, true},
    {"state_bytes", "State that is carried", "bytes", bytes_text, false}};

/// What a row is about: its model, with the method where it trains, and the method alone in the
/// table of methods.
std::string subject_of(const Json& row) {
  const auto model = row.at("model").get<std::string>();
  const std::string method = row.value("method", "inference");
  if (row.at("x_name") == "horizon") return method;
  return method == "inference" ? model : model + ", " + method;
}

/// A file of `memformer bench cost`.
struct Costs {
  std::string x_name;
  Lines models;         // subjects, in the order of the file
  std::set<double> xs;  // growing
  std::map<std::pair<std::string, double>, Json> rows;
  std::string not_run;  // a line for each row that was left out

  /// NaN where nothing was measured.
  double value(const std::string& model, double x, const char* key) const {
    const auto row = rows.find({model, x});
    const Json found = row == rows.end() ? Json() : row->second.value(key, Json());
    return found.is_number() ? found.get<double>() : std::nan("");
  }
  bool left_out(const std::string& model, double x) const {
    const auto row = rows.find({model, x});
    return row != rows.end() && row->second.value("not_run", Json()).is_string();
  }
};

Costs costs_of(const Json& json, const std::string& file) {
  check(json.value("kind", "") == "cost", "{} is of kind {}, not \"cost\"", file,
        value_at(json, "/kind").dump());
  Costs costs;
  for (const Json& row : json.at("rows")) {
    const std::string model = subject_of(row);
    const auto x_name = row.at("x_name").get<std::string>();
    const double x = row.at("x").get<double>();
    if (costs.x_name.empty()) costs.x_name = x_name;
    check(costs.x_name == x_name, "{} has rows over {} and over {}", file, costs.x_name, x_name);
    check(costs.rows.emplace(std::pair{model, x}, row).second, "{} has two rows of {} at {} {}",
          file, model, x_name, x);
    if (std::ranges::count(costs.models, model) == 0) costs.models.push_back(model);
    costs.xs.insert(x);
    if (costs.left_out(model, x))
      costs.not_run += fmt::format("- {} at {} {}: {}\n", model, x_name, x,
                                   row.at("not_run").get<std::string>());
  }
  check(!costs.rows.empty(), "{} has no rows", file);
  return costs;
}

/// The quantity named by, say, "memformer,mrbp@8192/seconds".
double cost_number(const Json& json, const std::string& place, const std::string& file) {
  const auto at = place.find('@'), slash = place.find('/');
  check(at != place.npos && slash != place.npos && at < slash,
        "{} is no pointer such as /ratios/seconds/ratio and no place such as "
        "memformer,mrbp@8192/seconds",
        place);
  std::string subject = place.substr(0, at);
  if (const auto comma = subject.find(','); comma != subject.npos) subject.insert(comma + 1, " ");
  const std::string x = place.substr(at + 1, slash - at - 1), key = place.substr(slash + 1);
  const Costs costs = costs_of(json, file);
  for (const double measured : costs.xs)
    if (fmt::format("{}", measured) == x)
      if (const double value = costs.value(subject, measured, key.c_str()); !std::isnan(value))
        return value;
  fail("{} has no {} of {} at {} {}", file, key, subject, costs.x_name, x);
}

std::string cell(const Costs& costs, const std::string& model, double x, const Quantity& quantity) {
  const double value = costs.value(model, x, quantity.key);
  if (!std::isnan(value)) return quantity.text(value);
  return costs.left_out(model, x) ? "not run" : kNothing;
}

/// A row for each x, a column for each model.
std::string cost_table(const Costs& costs, const Quantity& quantity) {
  std::vector<Column<double>> columns{
      {costs.x_name, [](double x) { return fmt::format("{}", x); }}};
  for (const std::string& model : costs.models)
    columns.push_back({model, [&, model](double x) { return cell(costs, model, x, quantity); }});
  return markdown_table(columns, std::vector<double>(costs.xs.begin(), costs.xs.end()));
}

/// Of one x: a row for each quantity, a column for each model.
std::string cost_table(const Costs& costs) {
  const double x = *costs.xs.begin();
  std::vector<Column<Quantity>> columns{{fmt::format("{} {}", costs.x_name, x),
                                         [](const Quantity& quantity) { return quantity.title; }}};
  for (const std::string& model : costs.models)
    columns.push_back(
        {model, [&, model](const Quantity& quantity) { return cell(costs, model, x, quantity); }});
  return markdown_table(columns,
                        std::vector<Quantity>(std::begin(kQuantities), std::end(kQuantities)));
}

// The page ---------------------------------------------------------------------------------------

/// The page being written: what its placeholders stand for.
class Page {
 public:
  Page(std::string results, const std::string& plan)
      : results_(std::move(results)), plan_(read_json(plan)) {
    for (const Json& experiment : plan_.at("experiments"))
      experiments_[name_of(experiment)] = experiment;
  }

  /// The template with everything filled in.
  std::string filled() {
    const std::string path = results_ + "/page.md", text = read_file(path);
    std::string page =
        "<!-- Written by results_page from results/page.md and results/*.json -->\n\n";
    std::size_t at = 0;
    for (auto open = text.find("{{"); open != text.npos; open = text.find("{{", at)) {
      const auto line = 1 + std::count(text.begin(), text.begin() + std::ptrdiff_t(open), '\n');
      const auto close = text.find("}}", open);
      check(close < text.find('\n', open), "{}, line {}: '{{{{' without '}}}}' in its line", path,
            line);
      page += text.substr(at, open - at);
      const std::string words = text.substr(open + 2, close - open - 2);
      try {
        page += replacement(words);
      } catch (const std::exception& error) {
        fail("{}, line {}: {{{{{}}}}}: {}", path, line, words, error.what());
      }
      at = close + 2;
    }
    page += text.substr(at);
    require_all_used();
    return page;
  }

  /// Files beside the page, by name.
  const std::map<std::string, std::string>& pictures() const { return pictures_; }

 private:
  std::string replacement(const std::string& text) {
    std::istringstream stream(text);
    Lines words;
    for (std::string word; stream >> word;) words.push_back(word);
    const auto is = [&](const char* name, std::size_t least, std::size_t most) {
      return !words.empty() && words[0] == name && words.size() > least && words.size() <= most + 1;
    };
    if (is("table", 1, 1)) return table(words[1]);
    if (is("chart", 1, 1)) return chart(words[1]);
    if (is("curves", 2, 7)) return curves(words[1], {words.begin() + 2, words.end()});
    if (is("cost", 1, 1)) return cost(words[1]);
    if (is("value", 3, 3)) return value(words[1], words[2], words[3]);
    fail(
        "unknown placeholder; there are: table TABLE, chart TABLE, curves TABLE ROW ... (up to 6), "
        "cost NAME, value FILE-OR-ROW POINTER FORMAT");
  }

  /// A file of the results' folder.
  const Json& file(const std::string& name) {
    used_.insert(name);
    const auto found = files_.find(name);
    if (found != files_.end()) return found->second;
    return files_[name] = read_json(results_ + "/" + name);
  }

  const Json& table_plan(const std::string& name) const {
    const Json& tables = plan_.at("tables");
    check(tables.contains(name), "the plan has no table '{}'", name);
    return tables.at(name);
  }

  /// The row of an experiment, or of the one that it is the same as.
  Row row_of(const Json& experiment) {
    const Json* run = &experiment;
    if (experiment.contains("same_as")) {
      const auto found = experiments_.find(experiment.at("same_as").get<std::string>());
      check(found != experiments_.end(), "{} is the same as {}, which is no experiment",
            name_of(experiment), experiment.at("same_as").dump());
      run = &found->second;
    }
    Row row{experiment, run->at("seeds").size(), {}};
    for (const Json& seed : run->at("seeds")) {
      const auto number = seed.get<std::int64_t>();
      const std::string name = fmt::format("{}-seed{}.json", name_of(*run), number);
      if (!fs::exists(results_ + "/" + name)) continue;
      row.seeds.push_back({name, file(name)});
      require_as_planned(row.seeds.back(), *run, number);
    }
    return row;
  }

  std::vector<Row> rows_of(const std::string& table) {
    std::vector<Row> rows;
    for (const Json& experiment : plan_.at("experiments"))
      if (experiment.at("table") == table) rows.push_back(row_of(experiment));
    check(!rows.empty(), "the plan has no row of the table '{}'", table);
    return rows;
  }

  std::string table(const std::string& name) {
    const Json& description = table_plan(name);
    const std::vector<Row> rows = rows_of(name);
    const auto metric = description.at("metric").get<std::string>();
    const std::string score = "/metrics/" + metric, reset = score + "_memory_reset";
    const auto unit = description.at("unit").get<std::string>();

    std::vector<Column<Row>> columns;
    // Of a row that was not reached, only what the plan says of it is shown.
    const auto add = [&](const std::string& column, std::function<std::string(const Row&)> cell) {
      columns.push_back({column, [cell = std::move(cell)](const Row& row) {
                           return row.seeds.empty() ? std::string() : cell(row);
                         }});
    };
    const auto planned = [&](const std::string& column, const char* key) {
      columns.push_back({column, [key](const Row& row) -> std::string {
                           if (!row.plan.contains(key)) return "";
                           const Json& cell = row.plan.at(key);
                           return cell.is_string() ? cell.get<std::string>() : cell.dump();
                         }});
    };
    const auto same = [](const Row& row, const char* pointer) {
      const std::vector<double> values = row.values(pointer);
      check(std::ranges::count(values, values[0]) == std::ssize(values),
            "the seeds of {} differ in {}; they are not runs of one model", row.label(), pointer);
      return values[0];
    };
    columns.push_back({"model", [](const Row& row) { return row.label(); }});
    if (description.contains("x")) planned(description.at("x").get<std::string>(), "x");
    columns.push_back({"parameters", [&](const Row& row) {
                         return row.seeds.empty() ? "not reached"
                                                  : scaled(same(row, "/parameters"));
                       }});
    add(scores_all(metric) ? "tokens seen" : "tokens scored",
        [&](const Row& row) { return scaled(mean(row.values("/tokens"))); });
    if (scores_all(metric))
      add("training FLOP", [&](const Row& row) {
        if (!row.has("/multiply_adds_per_token")) return std::string(kNothing);
        return scaled(6.0 * same(row, "/multiply_adds_per_token") * mean(row.values("/tokens")));
      });
    if (std::ranges::any_of(rows, [](const Row& row) { return row.has("/difficulty"); }))
      add("difficulty reached", [](const Row& row) {
        return row.has("/difficulty") ? fmt::format("{}", mean(row.values("/difficulty")))
                                      : kNothing;
      });
    add("peak memory",
        [](const Row& row) { return bytes_text(std::ranges::max(row.values("/peak_bytes"))); });
    add("time", [](const Row& row) { return time_text(mean(row.values("/seconds"))); });
    add(unit, [&](const Row& row) { return mean_and_spread(row.values(score)); });
    add("memory reset", [&](const Row& row) {
      return row.has(reset) ? mean_and_spread(row.values(reset)) : kNothing;
    });
    if (description.contains("perplexity"))
      add(description.at("perplexity").get<std::string>(), [&](const Row& row) {
        std::vector<double> values = row.values(score);
        for (double& value : values) value = std::exp2(value);
        return mean_and_spread(values);
      });
    if (std::ranges::any_of(rows, [](const Row& row) { return row.plan.contains("published"); }))
      planned("published", "published");
    columns.push_back({"seeds", [](const Row& row) {
                         std::string text = std::to_string(row.seeds.size());
                         if (row.seeds.size() < row.planned)
                           text += " of " + std::to_string(row.planned);
                         const char* separator = ": ";
                         for (const Seed& seed : row.seeds) {
                           text += fmt::format("{}[{}](results/{})", std::exchange(separator, ", "),
                                               seed.json.at("seed").get<std::int64_t>(), seed.file);
                         }
                         return text;
                       }});
    return markdown_table(columns, rows) + "\n" + table_notes(name, rows, metric, unit);
  }

  /// What the columns mean, what the rows ran on, and the command that repeats them.
  std::string table_notes(const std::string& name, const std::vector<Row>& rows,
                          const std::string& metric, const std::string& unit) {
    std::string text = fmt::format(
        "Tokens: those scored in training. {}Peak memory: of tensors, the most of the seeds. "
        "Time: of the training process, mean. {}: mean ± half the range over the seeds",
        scores_all(metric) ? "Training FLOP: 6 x multiply-adds per token x tokens, without "
                             "what MRBP runs again. "
                           : "",
        unit);
    std::set<std::string> splits, machines, patterns;
    for (const Row& row : rows) {
      if (row.plan.contains("same_as")) {
        patterns.insert(row.plan.at("same_as").get<std::string>());
      } else {
        patterns.insert(name + "-*");
      }
      for (const Seed& seed : row.seeds) {
        if (const Json split = value_at(seed.json, "/metrics/split"); split.is_string())
          splits.insert(split.get<std::string>());
        machines.insert(machine_of(seed.json));
      }
    }
    if (!splits.empty()) text += fmt::format(", {} split", joined(splits));
    if (metric == "accuracy") text += ", 1 is perfect";
    text += "; memory reset: the same model, its memory reset at every segment.";
    if (!machines.empty()) text += " Run with " + joined(machines) + ".";
    text += fmt::format(" Again:\n\n    {}", kRunner);
    for (const std::string& pattern : patterns)
      text += pattern.ends_with('*') ? " --only '" + pattern + "'" : " --only " + pattern;
    return text;
  }

  /// The link to a picture that is written beside the page.
  std::string picture(const std::string& name, const LineChart& chart) {
    check(pictures_.emplace(name + ".svg", svg_file_of(line_chart(chart, ""))).second,
          "the picture {}.svg is there already", name);
    return fmt::format("![{}](results/{}.svg)", chart.title, name);
  }

  /// The metric of a table over the x of its rows.
  std::string chart(const std::string& name) {
    const Json& description = table_plan(name);
    check(description.contains("x"), "the table '{}' has no x in the plan", name);
    const std::string score = "/metrics/" + description.at("metric").get<std::string>();
    LineChart chart;
    chart.x_label = description.at("x").get<std::string>();
    chart.y_label = description.at("unit").get<std::string>();
    chart.title = chart.y_label + " over " + chart.x_label;
    chart.y_from_zero = false;
    for (const Row& row : rows_of(name)) {
      if (row.seeds.empty()) continue;
      add_point(chart, row.plan.value("series", chart.y_label), row.plan.at("x").get<double>(),
                mean(row.values(score)));
    }
    for (Series& series : chart.series) std::ranges::sort(series.points);
    if (chart.series.empty()) return fmt::format("No row of the chart of {} is there yet.", name);
    return picture(name, chart);
  }

  static void add_point(LineChart& chart, const std::string& series, double x, double y) {
    auto found = std::ranges::find(chart.series, series, &Series::name);
    if (found == chart.series.end()) found = chart.series.insert(found, Series{series, {}});
    found->points.emplace_back(x, y);
  }

  /// What rows of a table learnt over the tokens they saw, of their first seeds.
  std::string curves(const std::string& name, const Lines& names) {
    const Json& description = table_plan(name);
    LineChart chart;
    chart.x_label = "million tokens";
    chart.y_label = description.at("unit").get<std::string>() + " in training";
    chart.title = chart.y_label + ", first seed";
    chart.y_from_zero = false;
    std::string missing;
    for (const std::string& row_name : names) {
      const auto found = experiments_.find(name + "-" + row_name);
      check(found != experiments_.end(), "the plan has no row '{}' of the table '{}'", row_name,
            name);
      const Row row = row_of(found->second);
      if (row.seeds.empty()) {
        missing += (missing.empty() ? "" : ", ") + row_name;
        continue;
      }
      for (const Json& point : row.seeds[0].json.at("curve"))
        add_point(chart, row_name, 1e-6 * point.at(0).get<double>(), point.at(1).get<double>());
    }
    const std::string note = missing.empty() ? "" : "Without a result yet: " + missing + ".";
    if (chart.series.empty()) return note;
    return picture("curves-" + name, chart) + (note.empty() ? "" : "\n\n" + note);
  }

  /// What `memformer bench cost` measured: one table where x has one value, else a table of each
  /// quantity, and a picture of some.
  std::string cost(const std::string& name) {
    const std::string file_name = "cost-" + name + ".json";
    const Json& json = file(file_name);
    const Costs costs = costs_of(json, file_name);
    const auto planned = plan_.value("costs", Json::object()).value(name, std::string());
    const auto command = json.at("command").get<std::string>();
    check(!planned.empty() && command.find(planned + " --json ") != command.npos,
          "{} was measured by '{}', the plan has '{}'; measure it with {} --cost {}", file_name,
          command, planned, kRunner, name);
    if (costs.xs.size() == 1) return cost_table(costs) + "\n" + cost_notes(json, file_name, costs);
    std::string text;
    for (const Quantity& quantity : kQuantities) {
      LineChart chart;
      chart.title = fmt::format("{} over {}", quantity.title, costs.x_name);
      chart.x_label = costs.x_name;
      chart.y_label = quantity.unit;
      chart.log_x = chart.log_y = true;
      chart.y_is_bytes = quantity.text == bytes_text;
      for (const std::string& model : costs.models)
        for (const double x : costs.xs)
          if (const double y = costs.value(model, x, quantity.key); y > 0.0)
            add_point(chart, model, x, y);
      if (chart.series.empty()) continue;
      text += fmt::format("**{}**\n\n{}\n", quantity.title, cost_table(costs, quantity));
      if (!quantity.drawn || costs.xs.size() < 3) continue;
      std::string suffix = quantity.key;
      std::ranges::replace(suffix, '_', '-');
      text += picture("cost-" + name + "-" + suffix, chart) + "\n\n";
    }
    return text + cost_notes(json, file_name, costs);
  }

  static std::string cost_notes(const Json& json, const std::string& file_name,
                                const Costs& costs) {
    std::string text = costs.not_run.empty() ? "" : "Not run:\n\n" + costs.not_run + "\n";
    std::string setting;
    const Json settings = json.value("setting", Json::object());
    for (const auto& [key, value] : settings.items())
      setting += fmt::format("{}{} {}", setting.empty() ? "" : ", ", key,
                             value.is_string() ? value.get<std::string>() : value.dump());
    return text +
           fmt::format("Setting: {}. Run with {}; all figures: [{}](results/{}). Again:\n\n    {}",
                       setting.empty() ? "the default" : setting, machine_of(json), file_name,
                       file_name, json.at("command").get<std::string>());
  }

  /// One figure of a file, or the mean of a row's seeds. Rows of a cost file have no names; theirs
  /// are MODEL@X/QUANTITY, MODEL,METHOD@X/QUANTITY in training.
  std::string value(const std::string& name, const std::string& pointer,
                    const std::string& format) {
    if (name.ends_with(".json")) {
      const bool of_a_cost = !pointer.starts_with('/');
      return formatted(
          of_a_cost ? cost_number(file(name), pointer, name) : number_at(file(name), pointer, name),
          format);
    }
    const auto found = experiments_.find(name);
    check(found != experiments_.end(),
          "'{}' is neither a file that ends with .json nor a row of the plan", name);
    const Row row = row_of(found->second);
    check(!row.seeds.empty(), "no seed of {} is there; run it with {} --only {}", name, kRunner,
          name);
    return formatted(mean(row.values(pointer)), format);
  }

  /// A result that nobody sees was left out of the page by mistake.
  void require_all_used() const {
    for (const auto& entry : fs::directory_iterator(results_)) {
      const std::string name = entry.path().filename().string();
      check(!name.ends_with(".json") || used_.contains(name),
            "{}/{} is on no table of the page; add it to the plan and the template, or remove it",
            results_, name);
    }
  }

  std::string results_;
  Json plan_;
  std::map<std::string, Json> experiments_;  // by TABLE-ROW
  std::map<std::string, Json> files_;
  std::set<std::string> used_;
  std::map<std::string, std::string> pictures_;
};

void write_page(const std::string& results, const std::string& plan, const std::string& output) {
  Page page(results, plan);
  const std::string text = page.filled();
  fs::create_directories(output + "/results");
  write_file_atomically(output + "/results.md", text);
  for (const auto& [name, svg] : page.pictures())
    write_file_atomically(output + "/results/" + name, svg);
  std::printf("%s/results.md and %zu pictures\n", output.c_str(), page.pictures().size());
}

}  // namespace
}  // namespace mf

int main(int count, char** arguments) {
  if (count != 4) {
    std::fprintf(stderr,
                 "usage: results_page RESULTS PLAN OUTPUT\n"
                 "  RESULTS  folder of page.md and the JSON files, docs/results\n"
                 "  PLAN     tests/results/plan.json\n"
                 "  OUTPUT   folder that gets results.md and results/*.svg, docs\n");
    return 2;
  }
  try {
    mf::write_page(arguments[1], arguments[2], arguments[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "results_page: %s\n", error.what());
    return 1;
  }
}
