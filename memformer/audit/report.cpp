#include "memformer/audit/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "tensor/error.h"

namespace mf {
namespace {

// Colours are those of Okabe and Ito, which most eyes tell apart.
constexpr const char* kColours = R"(
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #5c5c5c; --rule: #d4d4d4;
  --shade: #f4f4f2; --good: #00664a; --bad: #a11d00; --c0: #0072b2; --c1: #d55e00; --c2: #009e73;
  --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #161616; --soft: #a8a8a8;
  --rule: #444; --shade: #222; --good: #4fd1a5; --bad: #ff8f73; --c0: #4aa8e0; --c1: #f08040;
  --c3: #e0a0c4; } }
)";

// What a picture looks like, on a page or alone.
constexpr const char* kFigureStyle = R"(
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
text.title { font-weight: 600; }
.grid { stroke: var(--rule); fill: none; }
.axis { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 2; }
.line.c0 { stroke: var(--c0); } .line.c1 { stroke: var(--c1); } .line.c2 { stroke: var(--c2); }
.line.c3 { stroke: var(--c3); } .line.c4 { stroke: var(--c4); } .line.c5 { stroke: var(--c5); }
.fill.c0 { fill: var(--c0); } .fill.c1 { fill: var(--c1); } .fill.c2 { fill: var(--c2); }
.fill.c3 { fill: var(--c3); } .fill.c4 { fill: var(--c4); } .fill.c5 { fill: var(--c5); }
.area { fill-opacity: .85; }
.cell { fill: var(--c0); }
)";

// The rest of a page.
constexpr const char* kPageStyle = R"(
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 68rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; }
.claim { margin: 0 0 1rem; color: var(--soft); }
.verdict { padding: .5rem .8rem; border-left: .4rem solid var(--bad); background: var(--shade);
  font-weight: 600; }
.verdict.holds { border-color: var(--good); }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
p.caption { color: var(--soft); font-size: .9rem; margin: 1rem 0 -.6rem; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: normal; }
th { font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; }
th.left, td.left { text-align: left; white-space: normal; min-width: 6rem; }
figure { margin: 1.4rem 0; }
figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; min-width: 40rem; max-width: 60rem; height: auto; }
.graph > polygon { fill: none; stroke: none; }
.graph .node :is(path, polygon, ellipse) { fill: var(--shade); stroke: var(--soft); }
.graph .node.unvisited :is(path, polygon, ellipse) { fill: none; stroke-dasharray: 4 3; }
.graph .cluster :is(path, polygon) { fill: none; stroke: var(--rule); }
.graph .edge path { stroke: var(--soft); } .graph .edge text { fill: var(--soft); }
.graph .edge polygon { fill: var(--soft); stroke: var(--soft); }
pre { background: var(--shade); padding: .6rem .8rem; overflow-x: auto; font-size: .85rem;
  line-height: 1.45; }
details { margin: .2rem 0; } details details, details .wide { margin-left: 1.2rem; }
details .wide { margin-top: .2rem; margin-bottom: .6rem; }
summary { padding: .15rem .3rem; cursor: pointer; font-variant-numeric: tabular-nums; }
summary:hover { background: var(--shade); }
summary span { color: var(--soft); margin-left: .8rem; }
.folds nav { display: flex; gap: .6rem; margin: .6rem 0; }
.folds button { font: inherit; padding: .2rem .8rem; color: var(--ink); background: var(--shade);
  border: 1px solid var(--soft); border-radius: .3rem; }
.steps pre { padding: .6rem 0; white-space: pre; }
.steps pre span { display: block; padding: 0 .8rem 0 .5rem; min-width: max-content;
  border-left: .3rem solid transparent; }
.steps pre .now { background: var(--c4); border-color: var(--bad); color: #000; }
.steps nav { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .6rem 0; }
.steps button { font: inherit; padding: .3rem .9rem; color: var(--ink); background: var(--shade);
  border: 1px solid var(--soft); border-radius: .3rem; }
.steps button:disabled { opacity: .4; }
.stepping .step { display: none; } .stepping .step.shown { display: block; }
@media print { body { max-width: none; font-size: 11pt; }
  details::details-content { content-visibility: visible; } nav { display: none !important; }
  .stepping .step { display: block; break-inside: avoid; } .wide, pre { overflow: visible; }
  svg { min-width: 0 !important; width: 100% !important; height: auto !important; }
  h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
)";

// Without it every step is shown.
constexpr const char* kScript = R"(
for (const box of document.querySelectorAll('.steps')) {
  const steps = [...box.querySelectorAll('.step')];
  const [first, back, next, last] = box.querySelectorAll('button');
  const place = box.querySelector('output');
  let at = 0;
  const show = (i) => {
    at = Math.min(Math.max(i, 0), steps.length - 1);
    steps.forEach((step, j) => step.classList.toggle('shown', j === at));
    place.textContent = `step ${at + 1} of ${steps.length}`;
    first.disabled = back.disabled = at === 0;
    next.disabled = last.disabled = at === steps.length - 1;
    history.replaceState(null, '', '#step-' + (at + 1));
  };
  first.onclick = () => show(0);
  back.onclick = () => show(at - 1);
  next.onclick = () => show(at + 1);
  last.onclick = () => show(steps.length - 1);
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const move = {ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: steps.length - 1}[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(move);
  });
  box.classList.add('stepping');
  const asked = location.hash.match(/^#step-(\d+)$/);
  show(asked ? asked[1] - 1 : 0);
}
)";

// Printed, everything is open.
constexpr const char* kFoldScript = R"(
for (const box of document.querySelectorAll('.folds')) {
  const parts = [...box.querySelectorAll('details')];
  const [open, close] = box.querySelectorAll('button');
  const set = (state) => parts.forEach((part) => { part.open = state; });
  open.onclick = () => set(true);
  close.onclick = () => set(false);
  let before = [];
  addEventListener('beforeprint', () => {
    before = parts.map((part) => part.open);
    set(true);
  });
  addEventListener('afterprint', () => parts.forEach((part, i) => { part.open = before[i]; }));
}
)";

std::string row_html(const std::vector<std::string>& cells, const Table& table, const char* tag) {
  std::string html = "<tr>";
  for (std::size_t i = 0; i < cells.size(); ++i)
    html += fmt::format("<{}{}>{}</{}>", tag, table.columns[i].right ? "" : " class=\"left\"",
                        escaped(cells[i]), tag);
  return html + "</tr>\n";
}

void require_rectangular(const Table& table) {
  for (const auto& row : table.rows)
    check(row.size() == table.columns.size(), "table: a row has {} cells for {} columns",
          row.size(), table.columns.size());
}

std::vector<std::string> names_of(const Table& table) {
  std::vector<std::string> names;
  for (const Table::Column& column : table.columns) names.push_back(column.name);
  return names;
}

std::string listing_html(const std::vector<std::string>& lines,
                         const std::vector<std::size_t>& now) {
  std::string html = "<pre tabindex=\"0\"><code>";
  for (std::size_t i = 0; i < lines.size(); ++i)
    html += fmt::format("<span{}>{}</span>", std::ranges::count(now, i) > 0 ? " class=\"now\"" : "",
                        lines[i].empty() ? " " : escaped(lines[i]));
  return html + "</code></pre>\n";
}

/// The table without columns in which no row says anything.
Table without_empty_columns(const Table& table) {
  Table result;
  result.rows.resize(table.rows.size());
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    if (std::ranges::all_of(table.rows, [i](const auto& row) { return row[i].empty(); })) continue;
    result.columns.push_back(table.columns[i]);
    for (std::size_t r = 0; r < table.rows.size(); ++r) result.rows[r].push_back(table.rows[r][i]);
  }
  return result;
}

/// Rows of their own that follow each other are one table.
std::string rows_html(const std::vector<TreeRow>& rows, const TreeTable& tree, int level) {
  std::string html;
  Table table{tree.columns, {}};
  const auto flush = [&] {
    if (!table.rows.empty()) html += html_of(without_empty_columns(table));
    table.rows.clear();
  };
  for (const TreeRow& row : rows) {
    if (row.parts.empty()) {
      table.rows.push_back(row.cells);
      continue;
    }
    flush();
    html += fmt::format("<details{}><summary>{}", level < tree.depth ? " open" : "",
                        escaped(row.cells[0]));
    for (std::size_t i = 1; i < row.cells.size(); ++i)
      if (!row.cells[i].empty())
        html +=
            fmt::format("<span>{} {}</span>", escaped(tree.columns[i].name), escaped(row.cells[i]));
    html += "</summary>\n" + rows_html(row.parts, tree, level + 1) + "</details>\n";
  }
  flush();
  return html;
}

void unfold(const std::vector<TreeRow>& rows, int level, int depth, Table& table) {
  for (const TreeRow& row : rows) {
    std::vector<std::string> cells = row.cells;
    cells[0].insert(0, static_cast<std::size_t>(2 * (level - 1)), ' ');
    table.rows.push_back(std::move(cells));
    if (level < depth) unfold(row.parts, level + 1, depth, table);
  }
}

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>  // clang 14 does not find it by itself
Overloaded(Fs...)->Overloaded<Fs...>;

}  // namespace

std::string readable_bytes(std::int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* larger : {"kB", "MB", "GB", "TB"}) {
    if (value < 1000.0) break;
    value /= 1000.0;
    unit = larger;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string svg_file_of(const Figure& figure) {
  const std::size_t inside = figure.svg.find('>') + 1;
  // The picture's own background: what surrounds it need not follow light and dark as it does.
  return figure.svg.substr(0, inside) +
         fmt::format("\n<style>{}svg {{ background: var(--paper); }}{}</style>\n", kColours,
                     kFigureStyle) +
         figure.svg.substr(inside);
}

std::string text_of(const Table& table) {
  require_rectangular(table);
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    std::size_t width = table.columns[i].name.size();
    for (const auto& row : table.rows) width = std::max(width, row[i].size());
    widths.push_back(width);
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) text += "  ";
      text += table.columns[i].right ? fmt::format("{:>{}}", cells[i], widths[i])
                                     : fmt::format("{:<{}}", cells[i], widths[i]);
    }
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  std::string text = line(names_of(table));
  for (const auto& row : table.rows) text += line(row);
  return text;
}

Table unfolded(const TreeTable& tree) {
  Table table{tree.columns, {}};
  unfold(tree.rows, 1, tree.depth, table);
  return table;
}

std::string html_of(const Table& table, const std::string& caption) {
  require_rectangular(table);
  // The caption is no part of the table, which may scroll.
  std::string html;
  if (!caption.empty()) html += "<p class=\"caption\">" + escaped(caption) + "</p>\n";
  html += "<div class=\"wide\" tabindex=\"0\"><table>";
  html += "<thead>" + row_html(names_of(table), table, "th") + "</thead><tbody>\n";
  for (const auto& row : table.rows) html += row_html(row, table, "td");
  return html + "</tbody></table></div>\n";
}

Report::Report(std::string title, std::string claim)
    : title_(std::move(title)), claim_(std::move(claim)) {}

void Report::heading(std::string text) { blocks_.emplace_back(Heading{std::move(text)}); }
void Report::paragraph(std::string text) { blocks_.emplace_back(Paragraph{std::move(text)}); }
void Report::listing(std::string text) { blocks_.emplace_back(Listing{std::move(text)}); }
void Report::table(Table table, std::string caption) {
  blocks_.emplace_back(CaptionedTable{std::move(table), std::move(caption)});
}
void Report::folded_table(std::string summary, Table table) {
  blocks_.emplace_back(FoldedTable{std::move(summary), std::move(table)});
}
void Report::tree(TreeTable tree, std::string caption) {
  blocks_.emplace_back(CaptionedTree{std::move(tree), std::move(caption)});
}
void Report::figure(Figure figure) { blocks_.emplace_back(std::move(figure)); }
void Report::steps(std::string title, std::vector<std::string> listing, std::vector<Step> steps) {
  blocks_.emplace_back(StepThrough{std::move(title), std::move(listing), std::move(steps)});
}
void Report::verdict(bool holds, std::string text) {
  holds_ = holds;
  verdict_ = std::move(text);
}

std::string Report::text() const {
  std::string text = title_ + "\n" + claim_ + "\n";
  std::string heading;  // written before the first text below it; some have pictures alone
  const auto add = [&](const std::string& block) {
    text += "\n" + std::exchange(heading, "") + block + "\n";
  };
  const auto add_table = [&](const Table& table, const std::string& caption) {
    std::string lines = text_of(table);
    lines.pop_back();  // `add` ends the last one
    add(caption.empty() ? lines : caption + "\n" + lines);
  };
  for (const Block& block : blocks_)
    std::visit(Overloaded{
                   [&](const Heading& next) { heading = next.text + "\n\n"; },
                   [&](const Paragraph& paragraph) { add(paragraph.text); },
                   [&](const Listing& listing) { add(listing.text); },
                   [&](const CaptionedTable& block_table) {
                     add_table(block_table.table, block_table.caption);
                   },
                   [](const FoldedTable&) {},
                   [&](const CaptionedTree& block_tree) {
                     add_table(unfolded(block_tree.tree), block_tree.caption);
                   },
                   [](const Figure&) {},
                   [](const StepThrough&) {},
               },
               block);
  return text + "\nverdict: " + verdict_ + "\n";
}

std::string Report::html() const {
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n"  // or browsers ask for one
      "<title>{}</title>\n<style>{}{}{}</style></head>\n<body>\n<h1>{}</h1>\n<p "
      "class=\"claim\">{}</p>\n"
      "<p class=\"verdict{}\">{}</p>\n",
      escaped(title_), kColours, kFigureStyle, kPageStyle, escaped(title_), escaped(claim_),
      holds_ ? " holds" : "", escaped(verdict_));
  bool stepped = false, folded = false;
  for (const Block& block : blocks_)
    std::visit(
        Overloaded{
            [&](const Heading& heading) { html += "<h2>" + escaped(heading.text) + "</h2>\n"; },
            [&](const Paragraph& paragraph) { html += "<p>" + escaped(paragraph.text) + "</p>\n"; },
            [&](const Listing& listing) {
              html += "<pre tabindex=\"0\"><code>" + escaped(listing.text) + "</code></pre>\n";
            },
            [&](const CaptionedTable& block_table) {
              html += html_of(block_table.table, block_table.caption);
            },
            [&](const FoldedTable& fold) {
              html += "<details><summary>" + escaped(fold.summary) + "</summary>\n" +
                      html_of(fold.table) + "</details>\n";
            },
            [&](const CaptionedTree& block_tree) {
              folded = true;
              html += "<section class=\"folds\">";
              if (!block_tree.caption.empty()) html += "<p>" + escaped(block_tree.caption) + "</p>";
              html +=
                  "<nav><button type=\"button\">open all</button>"
                  "<button type=\"button\">close all</button></nav>\n" +
                  rows_html(block_tree.tree.rows, block_tree.tree, 1) + "</section>\n";
            },
            [&](const Figure& figure) {
              html += "<figure><div class=\"wide\" tabindex=\"0\">" + figure.svg +
                      "</div><figcaption>" + escaped(figure.caption) + "</figcaption></figure>\n";
            },
            [&](const StepThrough& through) {
              stepped = true;
              html += "<section class=\"steps\" aria-label=\"" + escaped(through.title) +
                      "\">\n<h2>" + escaped(through.title) +
                      "</h2>\n<nav><button type=\"button\">first</button>"
                      "<button type=\"button\">previous</button>"
                      "<button type=\"button\">next</button><button type=\"button\">last</button>"
                      "<output aria-live=\"polite\"></output><span>keys: ←, →, Home, "
                      "End</span></nav>\n";
              for (const Step& step : through.steps)
                html += "<div class=\"step\"><h3>" + escaped(step.title) + "</h3>\n" +
                        listing_html(through.listing, step.lines) + "<p>" + escaped(step.text) +
                        "</p>\n" + html_of(step.table) + "</div>\n";
              html += "</section>\n";
            },
        },
        block);
  if (folded) html += fmt::format("<script>{}</script>\n", kFoldScript);
  if (stepped) html += fmt::format("<script>{}</script>\n", kScript);
  return html + "</body></html>\n";
}

}  // namespace mf
