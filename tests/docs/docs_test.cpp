// What README.md and the pages in docs say about files, code, equations, tests and configuration
// keys is so, and a reader who follows their links gets everywhere.

#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "memformer/audit/trace.h"
#include "memformer/train/trainer.h"

namespace mf::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Lines = std::vector<std::string>;
/// Texts by path, seen from the project's root: "docs/tape.md".
using Book = std::map<std::string, std::string>;

const fs::path kSources{MEMFORMER_SOURCE_DIR};

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Lines lines_of(const std::string& text) {
  Lines lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string trimmed(const std::string& line) {
  const auto begin = line.find_first_not_of(' ');
  return begin == line.npos ? "" : line.substr(begin, line.find_last_not_of(' ') - begin + 1);
}

/// Every file in `folder` with one of these endings.
Book book_of(const std::string& folder, const std::set<std::string>& endings) {
  Book book;
  for (const auto& entry : fs::recursive_directory_iterator(kSources / folder))
    if (endings.contains(entry.path().extension().string()))
      book[fs::relative(entry.path(), kSources).generic_string()] = text_of(entry.path());
  REQUIRE(!book.empty());
  return book;
}

/// README.md and all pages in docs.
const Book& pages() {
  static const Book book = [] {
    Book all = book_of("docs", {".md"});
    all["README.md"] = text_of(kSources / "README.md");
    all.erase("docs/results/page.md");  // the template of docs/results.md, whose links it has
    return all;
  }();
  REQUIRE(book.size() > 25);
  return book;
}

/// A fenced block: what stands behind the fence, and the lines inside.
struct Block {
  std::string info;
  Lines lines;
};

/// A page taken apart: prose without fenced blocks, and the blocks.
struct Page {
  std::string prose;
  std::vector<Block> blocks;
};

Page page_of(const std::string& text) {
  Page page;
  bool inside = false;
  for (const std::string& line : lines_of(text)) {
    if (line.starts_with("```")) {
      inside = !inside;
      if (inside) page.blocks.push_back({line.substr(3), {}});
    } else if (inside) {
      page.blocks.back().lines.push_back(line);
    } else {
      page.prose += line + "\n";
    }
  }
  return page;
}

std::vector<std::string> matches(const std::string& text, const std::regex& pattern) {
  std::vector<std::string> found;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), pattern);
       it != std::sregex_iterator(); ++it)
    found.push_back((*it)[1].str());
  return found;
}

std::vector<std::string> code_spans(const std::string& prose) {
  return matches(prose, std::regex("`([^`\n]+)`"));
}

/// What a heading is called in a link: lower case, spaces as hyphens, without punctuation.
std::string slug_of(const std::string& heading) {
  std::string slug;
  for (const char c : heading) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_') {
      slug += static_cast<char>(std::tolower(byte));
    } else if (c == ' ') {
      slug += '-';
    }
  }
  return slug;
}

/// What may stand behind a '#' in a link to the page.
std::set<std::string> fragments_of(const std::string& text) {
  std::set<std::string> fragments;
  for (const std::string& line : lines_of(page_of(text).prose))
    if (line.starts_with('#')) {
      const std::string slug = slug_of(trimmed(line.substr(line.find_first_not_of('#'))));
      std::string unique = slug;
      for (int i = 1; !fragments.insert(unique).second; ++i)
        unique = slug + "-" + std::to_string(i);
    }
  return fragments;
}

std::vector<std::string> links_in(const std::string& prose) {
  return matches(prose, std::regex("\\]\\(([^)\\s]+)\\)"));
}

/// The path that `target`, found on `page`, leads to, without its fragment.
std::string destination(const std::string& page, const std::string& target) {
  const std::string file = target.substr(0, target.find('#'));
  return file.empty() ? page : (fs::path(page).parent_path() / file).lexically_normal().string();
}

/// Links of a page that lead to no file, or to a fragment that the page they lead to does not have.
Lines broken_links(const std::string& page, const Book& book) {
  Lines broken;
  for (const std::string& target : links_in(page_of(book.at(page)).prose)) {
    if (target.starts_with("http")) continue;
    const std::string path = destination(page, target);
    const auto hash = target.find('#');
    const bool fits =
        book.contains(path)
            ? hash == target.npos || fragments_of(book.at(path)).contains(target.substr(hash + 1))
            : hash == target.npos && fs::exists(kSources / path);
    if (!fits) broken.push_back(target);
  }
  return broken;
}

/// The pages that links lead to from README.md, one after the other.
std::set<std::string> reached_pages(const Book& book) {
  std::set<std::string> reached{"README.md"};
  Lines open{"README.md"};
  while (!open.empty()) {
    const std::string page = open.back();
    open.pop_back();
    for (const std::string& target : links_in(page_of(book.at(page)).prose)) {
      const std::string path = destination(page, target);
      if (book.contains(path) && reached.insert(path).second) open.push_back(path);
    }
  }
  return reached;
}

/// The chapters of the walkthrough, in their order.
Lines chapters_of(const Book& book) {
  Lines chapters;
  const std::regex chapter("docs/walkthrough/[0-9]{2}-[a-z-]+\\.md");
  for (const auto& [path, text] : book)
    if (std::regex_match(path, chapter)) chapters.push_back(path);
  return chapters;
}

/// What keeps a reader from going from README.md to the table of contents, from there to every
/// chapter, and from each chapter to its neighbours.
Lines path_faults(const Book& book) {
  Lines faults;
  const Lines chapters = chapters_of(book);
  const std::set<std::string> reached = reached_pages(book);
  const auto require_link = [&](const std::string& from, const std::string& to) {
    for (const std::string& target : links_in(page_of(book.at(from)).prose))
      if (destination(from, target) == to) return;
    faults.push_back(from + " has no link to " + to);
  };
  const std::string contents = "docs/walkthrough/README.md";
  require_link("README.md", contents);
  for (std::size_t i = 0; i < chapters.size(); ++i) {
    require_link(contents, chapters[i]);
    if (!reached.contains(chapters[i])) faults.push_back(chapters[i] + " is not reached");
    if (i > 0) require_link(chapters[i], chapters[i - 1]);
    if (i + 1 < chapters.size()) require_link(chapters[i], chapters[i + 1]);
  }
  for (const std::string& page : reached)
    for (const std::string& target : broken_links(page, book))
      faults.push_back(page + " links " + target + ", which is not there");
  return faults;
}

/// The equations that a text cites: "eq. W3", "eq. F1, F2", "eq. W1 to W4".
std::set<std::string> cited_in(const std::string& text) {
  std::set<std::string> cited;
  const std::regex list("eq\\. ([A-Z][0-9]+(?:(?:,| and| to) [A-Z][0-9]+)*)");
  const std::regex one("(,|and|to)? ?([A-Z])([0-9]+)");
  for (const std::string& names : matches(text, list)) {
    int before = 0;
    for (auto it = std::sregex_iterator(names.begin(), names.end(), one);
         it != std::sregex_iterator(); ++it) {
      const int number = std::stoi((*it)[3]);
      const int from = (*it)[1] == "to" ? before + 1 : number;
      for (int n = from; n <= number; ++n) cited.insert((*it)[2].str() + std::to_string(n));
      before = number;
    }
  }
  return cited;
}

/// The sections of equations.md, by the equation that is their heading.
std::map<std::string, std::string> equations_in(const std::string& text) {
  std::map<std::string, std::string> equations;
  std::string* section = nullptr;
  const std::regex heading("### ([A-Z][0-9]+)");
  for (const std::string& line : lines_of(page_of(text).prose)) {
    std::smatch match;
    if (std::regex_match(line, match, heading)) {
      section = &equations[match[1]];
    } else if (line.starts_with('#')) {
      section = nullptr;
    } else if (section) {
      *section += line + "\n";
    }
  }
  return equations;
}

/// What does not agree between docs/equations.md and the texts that cite it: every citation must
/// name an equation, and every source that an equation's section links must cite it.
Lines citation_faults(const std::string& equations_page, const Book& sources) {
  Lines faults;
  const auto equations = equations_in(equations_page);
  std::map<std::string, std::set<std::string>> cited;
  for (const auto& [path, text] : sources) {
    cited[path] = cited_in(text);
    for (const std::string& name : cited[path])
      if (!equations.contains(name)) faults.push_back(path + " cites " + name + ", which is none");
  }
  for (const auto& [name, section] : equations) {
    int places = 0;
    for (const std::string& target : links_in(section)) {
      const std::string path = destination("docs/equations.md", target);
      if (!sources.contains(path)) continue;
      ++places;
      if (!cited[path].contains(name)) faults.push_back(path + " does not cite " + name);
    }
    if (places == 0) faults.push_back(name + " names no code");
  }
  return faults;
}

/// The first line of `quoted` that `file` does not have behind the lines before it, or "".
std::string misquoted(const Lines& quoted, const Lines& file) {
  std::size_t at = 0;
  for (const std::string& line : quoted) {
    if (trimmed(line).empty() || trimmed(line) == "...") continue;
    while (at < file.size() && trimmed(file[at]) != trimmed(line)) ++at;
    if (at++ == file.size()) return line;
  }
  return "";
}

/// Names of all test cases; those written in several pieces are joined.
std::set<std::string> test_names() {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(kSources / "tests")) {
    if (entry.path().extension() != ".cpp") continue;
    const std::string text =
        std::regex_replace(text_of(entry.path()), std::regex("\"\\s*\n\\s*\""), "");
    for (const std::string& name : matches(text, std::regex("TEST_CASE\\(\\s*\"([^\"]+)\"")))
      names.insert(name);
  }
  REQUIRE(names.size() > 100);
  return names;
}

/// Every configuration key with its default: "train.steps" and the like.
std::map<std::string, Json> defaults() {
  std::map<std::string, Json> keys;
  const Json json = Json::parse(to_json(RunConfig{}));
  for (const auto& [part, fields] : json.items())
    for (const auto& [name, value] : fields.items()) keys[part + "." + name] = value;
  REQUIRE(keys.size() > 50);
  return keys;
}

bool same_value(const Json& value, const std::string& text) {
  if (value.is_string()) return value.get<std::string>() == text;
  return Json::parse(text, nullptr, false) == value;
}

/// The keys of the part "model" of every baseline with their defaults; equal keys have equal ones.
std::map<std::string, Json> baseline_defaults() {
  std::map<std::string, Json> keys;
  for (const std::string& model : baseline_names()) {
    RunConfig config;
    choose_model(config, model);
    const Json json = Json::parse(to_json(config));
    for (const auto& [name, value] : json.at("model").items()) {
      if (name == "name") continue;
      const auto [at, added] = keys.emplace("model." + name, value);
      CHECK_MESSAGE(at->second == value, name << " has two defaults");
    }
  }
  REQUIRE(keys.size() > 20);
  return keys;
}

/// Faults of a page that shall have a row for each of these keys, and for no other.
std::vector<std::string> key_faults(const std::map<std::string, Json>& keys,
                                    const std::map<std::string, std::string>& rows) {
  std::vector<std::string> faults;
  for (const auto& [key, value] : keys) {
    if (!rows.contains(key)) {
      faults.push_back("lacks " + key);
    } else if (!same_value(value, rows.at(key))) {
      faults.push_back(key + " is " + value.dump() + ", not " + rows.at(key));
    }
  }
  for (const auto& [key, text] : rows)
    if (!keys.contains(key)) faults.push_back("describes " + key + ", which is no key");
  return faults;
}

/// Rows "| `key` | value | ..." of a page whose first cell looks like a configuration key.
std::map<std::string, std::string> key_rows(const std::string& prose) {
  std::map<std::string, std::string> rows;
  const std::regex row("\\| `((?:model|data|train)\\.[a-z0-9_]+)` \\| `?([^`|]*?)`? \\|.*");
  for (const std::string& line : lines_of(prose)) {
    std::smatch match;
    if (std::regex_match(line, match, row)) rows[match[1]] = match[2];
  }
  return rows;
}

}  // namespace

TEST_SUITE("docs") {
  TEST_CASE("docs: every relative link leads to a file, and its fragment to a heading") {
    for (const auto& [path, text] : pages())
      for (const std::string& target : broken_links(path, pages()))
        CHECK_MESSAGE(false, path << " links " << target);
  }

  TEST_CASE(
      "docs: the README's example is the marked part of examples/walkthrough/09_training.cpp") {
    Lines marked;
    bool inside = false;
    for (const std::string& line :
         lines_of(text_of(kSources / "examples/walkthrough/09_training.cpp"))) {
      if (trimmed(line) == "// README ends") inside = false;
      if (inside) marked.push_back(line.substr(std::min<std::size_t>(2, line.size())));
      if (trimmed(line) == "// README begins") inside = true;
    }
    REQUIRE(marked.size() > 10);
    bool found = false;
    for (const Block& block : page_of(text_of(kSources / "README.md")).blocks)
      found |= block.lines == marked;
    CHECK(found);
  }

  TEST_CASE(
      "docs: a reader gets from README.md to every chapter, and from each to its neighbours") {
    CHECK(chapters_of(pages()).size() == 10);
    for (const std::string& fault : path_faults(pages())) CHECK_MESSAGE(false, fault);
  }

  TEST_CASE("docs: every chapter has a program of fewer than 150 lines") {
    for (const std::string& chapter : chapters_of(pages())) {
      std::string program = fs::path(chapter).stem().string() + ".cpp";
      std::ranges::replace(program, '-', '_');
      const std::string path = "examples/walkthrough/" + program;
      CHECK_MESSAGE(lines_of(text_of(kSources / path)).size() < 150, path);
      CHECK_MESSAGE(
          page_of(pages().at(chapter)).prose.find("(../../" + path + ")") != std::string::npos,
          chapter << " does not link " << path);
    }
  }

  TEST_CASE("docs: every equation is cited by the code it names, and every citation is one") {
    Book sources;
    for (const char* folder : {"tensor", "autograd", "nn", "memformer", "examples"})
      sources.merge(book_of(folder, {".h", ".cpp"}));
    REQUIRE(sources.size() > 100);
    const std::string& page = pages().at("docs/equations.md");
    CHECK(equations_in(page).size() > 30);
    for (const std::string& fault : citation_faults(page, sources)) CHECK_MESSAGE(false, fault);
    for (const auto& [path, text] : pages())
      for (const std::string& name : cited_in(text))
        CHECK_MESSAGE(equations_in(page).contains(name), path << " cites " << name);
  }

  TEST_CASE("docs: quoted code stands in the file it is quoted from") {
    int quotes = 0;
    for (const auto& [path, text] : pages())
      for (const Block& block : page_of(text).blocks) {
        if (!block.info.starts_with("cpp ")) continue;
        const std::string source = block.info.substr(4);
        const std::string wrong = misquoted(block.lines, lines_of(text_of(kSources / source)));
        CHECK_MESSAGE(wrong.empty(), path << " quotes from " << source << ": " << wrong);
        ++quotes;
      }
    CHECK(quotes > 10);
  }

  TEST_CASE("docs: the listing of audit trace stands in mrbp.cpp") {
    Lines quoted;
    for (const ListingLine& line : algorithm_listing())
      if (line.code) quoted.emplace_back(line.text);
    CHECK(quoted.size() > 15);
    const Lines file = lines_of(text_of(kSources / "memformer/replay/mrbp.cpp"));
    CHECK(misquoted(quoted, file) == "");
    quoted.insert(quoted.begin() + 3, "  Tape unknown;");
    CHECK(misquoted(quoted, file) == "  Tape unknown;");
  }

  TEST_CASE("docs: tests that a page names exist") {
    const std::set<std::string> names = test_names();
    std::set<std::string> units;
    for (const std::string& name : names) units.insert(name.substr(0, name.find(':')));
    std::size_t named = 0;
    for (const auto& [path, text] : pages())
      for (const std::string& span : code_spans(page_of(text).prose)) {
        const auto colon = span.find(": ");
        if (colon == span.npos || !units.contains(span.substr(0, colon))) continue;
        CHECK_MESSAGE(names.contains(span), path << " names " << span);
        ++named;
      }
    CHECK(named > 40);
  }

  TEST_CASE("docs: training.md names every configuration key with its default, and no other") {
    const auto rows = key_rows(page_of(text_of(kSources / "docs/training.md")).prose);
    for (const std::string& fault : key_faults(defaults(), rows)) FAIL_CHECK(fault);
  }

  TEST_CASE("docs: baselines.md names every key of every baseline with its default, and no other") {
    auto rows = key_rows(page_of(text_of(kSources / "docs/baselines.md")).prose);
    CHECK(rows["model.name"] == "memformer");
    rows.erase("model.name");
    const std::map<std::string, Json> keys = baseline_defaults();
    for (const std::string& fault : key_faults(keys, rows)) FAIL_CHECK(fault);
    rows["model.rate"] = "5";
    rows.erase("model.cache");
    rows["model.slots"] = "32";
    CHECK(key_faults(keys, rows).size() == 3);
  }

  TEST_CASE("docs: configuration keys that a page names exist") {
    std::map<std::string, Json> keys = defaults();
    keys.merge(baseline_defaults());
    const std::regex shape("((?:model|data|train)\\.[a-z0-9_]+)(?:=.*)?");
    for (const auto& [path, text] : pages())
      for (const std::string& span : code_spans(page_of(text).prose)) {
        std::smatch match;
        if (std::regex_match(span, match, shape))
          CHECK_MESSAGE(keys.contains(match[1]), path << " names " << span);
      }
  }

  TEST_CASE("docs: training.md names every field of metrics.jsonl") {
    StepMetrics all;
    all.accuracy = all.running_accuracy = all.valid_bits_per_byte = 0.5;
    all.difficulty = 1;
    const Json json = Json::parse(to_json(all));
    const auto spans = code_spans(page_of(text_of(kSources / "docs/training.md")).prose);
    const std::set<std::string> named(spans.begin(), spans.end());
    for (const auto& [field, value] : json.items())
      CHECK_MESSAGE(named.contains(field), "training.md lacks the field " << field);
  }

  TEST_CASE("docs: planted mistakes are found") {
    const Lines file{"  int a = 1;", "  int b = 2;", "  int c = 3;"};
    CHECK(misquoted({"int a = 1;", "int c = 3;"}, file).empty());
    CHECK(misquoted({"int c = 3;", "int a = 1;"}, file) == "int a = 1;");
    CHECK(misquoted({"int a = 2;"}, file) == "int a = 2;");
    const Book linked{{"README.md",
                       "[a](docs/b.md#two-words) [b](docs/b.md#two) [c](docs/c.md) "
                       "[d](#here) [e](tests) [f](docs/b.md#two-words-1)"},
                      {"docs/b.md", "## Two `words`!\n```text\n# two\n```\n## Two words\n"}};
    CHECK(broken_links("README.md", linked) == Lines{"docs/b.md#two", "docs/c.md", "#here"});
    CHECK(page_of("a\n```cpp x.h\nb\n```\nc\n").prose == "a\nc\n");
    CHECK(key_rows("| `train.steps` | 5 | steps |\n| `model.positions` | `none` | where |\n") ==
          std::map<std::string, std::string>{{"train.steps", "5"}, {"model.positions", "none"}});
    CHECK(same_value(Json(1e-3), "0.001"));
    CHECK_FALSE(same_value(Json(1e-3), "0.01"));
    CHECK_FALSE(same_value(Json(true), "yes"));
  }

  TEST_CASE("docs: a planted gap in the reader's path is found") {
    const std::string one = "docs/walkthrough/01-one.md", two = "docs/walkthrough/02-two.md";
    const Book whole{{"README.md", "[start](docs/walkthrough/README.md)"},
                     {"docs/walkthrough/README.md", "[first](01-one.md) [second](02-two.md)"},
                     {one, "[next](02-two.md)"},
                     {two, "[back](01-one.md) [up](../../README.md)"}};
    CHECK(path_faults(whole).empty());
    Book gap = whole;
    gap[one] = "[next](02-two.md#missing)";
    CHECK(path_faults(gap) == Lines{one + " links 02-two.md#missing, which is not there"});
    gap[one] = "the end";
    CHECK(path_faults(gap) == Lines{one + " has no link to " + two});
    gap = whole;
    gap["README.md"] = "[elsewhere](LICENSE)";
    CHECK(path_faults(gap) == Lines{"README.md has no link to docs/walkthrough/README.md",
                                    one + " is not reached", two + " is not reached"});
    // The real pages, with the link back taken out of one chapter.
    gap = pages();
    std::string& page = gap.at("docs/walkthrough/05-attention.md");
    page = std::regex_replace(page, std::regex("\\(04-[a-z-]+\\.md\\)"), "(README.md)");
    CHECK(path_faults(gap).size() == 1);
  }

  TEST_CASE("docs: a planted citation of nothing, and an equation nobody cites, are found") {
    CHECK(cited_in("eq. W1 to W3, see eq. F1, F2 and M4; eq. 5") ==
          std::set<std::string>{"W1", "W2", "W3", "F1", "F2", "M4"});
    const std::string page = "### W1\n[a](../nn/a.h)\n### W2\n[b](../nn/b.cpp)\n## Other\n";
    CHECK(citation_faults(page, {{"nn/a.h", "eq. W1"}, {"nn/b.cpp", "eq. W2"}}).empty());
    CHECK(citation_faults(page, {{"nn/a.h", "eq. W1"}, {"nn/b.cpp", "eq. W3"}}) ==
          Lines{"nn/b.cpp cites W3, which is none", "nn/b.cpp does not cite W2"});
    CHECK(citation_faults("### W1\nnothing\n", {{"nn/a.h", "eq. W1"}}) ==
          Lines{"W1 names no code"});
  }
}

}  // namespace mf::test
