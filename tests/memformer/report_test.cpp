#include <doctest/doctest.h>

#include <set>

#include "memformer/audit/report.h"
#include "tensor/error.h"

using namespace mf;
using doctest::Contains;

namespace {

Report sample(bool holds) {
  Report report("Title <1>", "A claim & its facts.");
  report.heading("Heading");
  report.paragraph("Two < three.");
  report.listing("line one\nline two");
  report.table({{{"name", false}, {"bytes"}}, {{"a", "5"}, {"long name", "12345"}}}, "caption");
  report.folded_table("more", {{{"folded"}}, {{"7"}}});
  report.figure(line_chart(
      {"A chart", "x", "y", true, true, true, {{"one", {{1, 100}, {2, 4000}, {64, 9e6}}}}},
      "seen"));
  report.steps(
      "Steps", {"first line", "second line"},
      {{"one", "text", {0}, {{{"fact"}}, {{"1"}}}}, {"two", "text", {1}, {{{"fact"}}, {}}}});
  report.verdict(holds, holds ? "it holds" : "it does NOT hold");
  return report;
}

std::size_t count(const std::string& text, const std::string& piece) {
  std::size_t found = 0;
  for (auto at = text.find(piece); at != text.npos; at = text.find(piece, at + 1)) ++found;
  return found;
}

}  // namespace

TEST_SUITE_BEGIN("memformer");

TEST_CASE(
    "report: the text has aligned tables and the verdict, without what only a page can show") {
  const std::string text = sample(true).text();
  CHECK(text.find("name       bytes\na              5\nlong name  12345\n") != text.npos);
  CHECK(text.find("Title <1>\nA claim & its facts.\n") == 0);
  CHECK(text.find("caption\n") != text.npos);
  CHECK(text.ends_with("\nverdict: it holds\n"));
  CHECK(text.find("folded") == text.npos);
  CHECK(text.find("svg") == text.npos);
}

TEST_CASE("report: the page has everything, asks no network, and escapes what it shows") {
  const std::string html = sample(false).html();
  for (const char* piece :
       {"<h1>Title &lt;1&gt;</h1>", "A claim &amp; its facts.", "Two &lt; three.",
        "<th>folded</th>", "<svg", "it does NOT hold", "second line"})
    CHECK_MESSAGE(html.find(piece) != html.npos, piece);
  CHECK(html.find("class=\"verdict\"") != html.npos);
  CHECK(sample(true).html().find("class=\"verdict holds\"") != html.npos);
  // Nothing is fetched: the only address is the name of SVG's language.
  CHECK(count(html, "http") == count(html, "http://www.w3.org/2000/svg"));
  CHECK(count(html, "src=") == 0);
  CHECK(count(html, "href=") == count(html, "href=\"data:"));
  for (const char* tag : {"table", "tbody", "figure", "svg", "details", "section", "pre", "div"})
    CHECK_MESSAGE(
        count(html, std::string("<") + tag + ">") + count(html, std::string("<") + tag + " ") ==
            count(html, std::string("</") + tag + ">"),
        tag);
}

TEST_CASE("report: a page without steps has no script") {
  Report report("t", "c");
  report.verdict(true, "v");
  CHECK(report.html().find("<script") == std::string::npos);
}

TEST_CASE("report: a table whose rows do not fit its columns is refused") {
  const Table table{{{"a"}, {"b"}}, {{"1"}}};
  CHECK_THROWS_WITH_AS(text_of(table), Contains("a row has 1 cells for 2 columns"), Error);
  CHECK_THROWS_WITH_AS(html_of(table), Contains("a row has 1 cells for 2 columns"), Error);
}

TEST_CASE("figure: every picture has a title, words, and all of its names") {
  const Figure figures[] = {
      line_chart({"Chart", "x", "y", false, false, false, {{"alpha", {{0, 1}, {1, 3}}}}}, ""),
      heat_map({"Chart", "rows", "columns", {"alpha", "b"}, {"c", "d"}, {0, 0.5, 1, 2}}, ""),
      stacked_areas({"Chart", "x", "y", true, {0, 1, 2}, {{"alpha", {1, 2, 3}}, {"b", {1, 0, 0}}}},
                    ""),
      lifetimes({"Chart", "x", 0, 9, {"group"}, {{"alpha", 0, 2, 5}}}, "")};
  for (const Figure& figure : figures) {
    CHECK(figure.svg.find("role=\"img\"") != std::string::npos);
    CHECK(figure.svg.find("<title>Chart</title><desc>") != std::string::npos);
    CHECK(figure.svg.find("<desc></desc>") == std::string::npos);
    CHECK(figure.svg.find("alpha") != std::string::npos);
    CHECK(figure.svg.find("nan") == std::string::npos);
    CHECK(figure.svg.find("inf") == std::string::npos);
  }
}

TEST_CASE("figure: points stand where their values say") {
  // 1, 4 and 16 on a logarithmic axis: the middle one in the middle.
  const Figure figure =
      line_chart({"t", "x", "y", true, true, false, {{"s", {{1, 1}, {4, 4}, {16, 16}}}}}, "");
  std::vector<double> x, y;
  const std::string open = "<circle cx=\"", between = "\" cy=\"";
  for (auto at = figure.svg.find(open); at != figure.svg.npos; at = figure.svg.find(open, at + 1)) {
    x.push_back(std::stod(figure.svg.substr(at + open.size())));
    y.push_back(std::stod(figure.svg.substr(figure.svg.find(between, at) + between.size())));
  }
  REQUIRE(x.size() == 3);
  CHECK(x[1] == doctest::Approx((x[0] + x[2]) / 2).epsilon(1e-3));
  CHECK(y[1] == doctest::Approx((y[0] + y[2]) / 2).epsilon(1e-3));
  CHECK(y[0] > y[2]);  // up is more
}

TEST_CASE("figure: an axis that is cut to its points tells them apart") {
  LineChart chart{"t", "x", "y", false, false, false, {{"s", {{0, 2.50}, {1, 2.54}}}}};
  CHECK(line_chart(chart, "").svg.find(">2.52</text>") == std::string::npos);
  chart.y_from_zero = false;
  CHECK(line_chart(chart, "").svg.find(">2.52</text>") != std::string::npos);
}

TEST_CASE("figure: ticks of a long logarithmic axis are powers of ten") {
  const Figure figure =
      line_chart({"t", "x", "y", false, true, false, {{"s", {{0, 1}, {1, 9e6}}}}}, "");
  CHECK(figure.svg.find(">100000</text>") != std::string::npos);
  CHECK(figure.svg.find(">200000</text>") == std::string::npos);
}

TEST_CASE("figure: a file of its own has its size, its colours and those of the dark") {
  const std::string svg = svg_file_of(line_chart(
      {"t", "x", "y", false, false, false, {{"s", {{0, 1}, {1, 3}}}}}, "the page's caption"));
  CHECK(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"760\" height=\"380\""));
  for (const char* piece :
       {"\n<style>", "prefers-color-scheme: dark", ".line.c0", "</style>\n<title>"})
    CHECK_MESSAGE(svg.find(piece) != svg.npos, piece);
}

TEST_CASE("figure: names that do not fit one line below the chart take more") {
  LineChart chart{"t", "x", "y", false, false, false, {}};
  for (const char* name : {"memformer, mrbp", "memformer, bptt", "transformer, mrbp",
                           "transformer, bptt", "transformer-xl, mrbp", "transformer-xl, bptt"})
    chart.series.push_back({name, {{0, 1}, {1, 3}}});
  const std::string svg = line_chart(chart, "").svg;
  CHECK(svg.find("height=\"398\"") != svg.npos);  // a line of 18 more
  const std::string open = "<text x=\"", between = "\" y=\"";
  std::set<double> lines;
  for (const Series& series : chart.series) {
    const auto at = svg.rfind(open, svg.find(">" + series.name + "</text>"));
    const double x = std::stod(svg.substr(at + open.size()));
    lines.insert(std::stod(svg.substr(svg.find(between, at) + between.size())));
    CHECK(x + 8.0 * static_cast<double>(series.name.size()) < 760.0);
  }
  CHECK(lines == std::set<double>{372.0, 390.0});
}

TEST_CASE("figure: what cannot be drawn is refused") {
  CHECK_THROWS_WITH_AS(
      line_chart({"t", "x", "y", true, false, false, {{"s", {{0, 1}, {1, 1}}}}}, ""),
      Contains("the point (0, 1) on a logarithmic axis"), Error);
  CHECK_THROWS_WITH_AS(line_chart({"t", "x", "y", false, false, false, {{"s", {}}}}, ""),
                       Contains("no points"), Error);
  CHECK_THROWS_WITH_AS(heat_map({"t", "r", "c", {"a"}, {"b"}, {1, 2}}, ""), Contains("2 values"),
                       Error);
  CHECK_THROWS_WITH_AS(stacked_areas({"t", "x", "y", false, {0}, {}}, ""), Contains("1 points"),
                       Error);
}

TEST_CASE("figure: bytes are read in units of a thousand") {
  CHECK(readable_bytes(999) == "999 B");
  CHECK(readable_bytes(1000) == "1.0 kB");
  CHECK(readable_bytes(2'500'000) == "2.5 MB");
}

TEST_SUITE_END();
