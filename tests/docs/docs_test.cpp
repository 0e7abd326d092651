// What README.md and docs/*.md say about files, code, tests and configuration keys is so.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "memformer/train/trainer.h"

namespace mf::test {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Lines = std::vector<std::string>;

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

std::vector<fs::path> pages() {
  std::vector<fs::path> paths{kSources / "README.md"};
  for (const auto& entry : fs::directory_iterator(kSources / "docs"))
    if (entry.path().extension() == ".md") paths.push_back(entry.path());
  REQUIRE(paths.size() > 10);
  return paths;
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

/// Links that lead nowhere, seen from `folder`.
std::vector<std::string> broken_links(const std::string& prose, const fs::path& folder) {
  std::vector<std::string> broken;
  for (std::string target : matches(prose, std::regex("\\]\\(([^)\\s]+)\\)"))) {
    if (target.starts_with("http") || target.starts_with("#")) continue;
    if (!fs::exists(folder / target.substr(0, target.find('#')))) broken.push_back(target);
  }
  return broken;
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

bool same_value(const Json& value, const std::string& text) {
  if (value.is_string()) return value.get<std::string>() == text;
  return Json::parse(text, nullptr, false) == value;
}

}  // namespace

TEST_SUITE("docs") {
  TEST_CASE("docs: every relative link leads to a file") {
    for (const fs::path& path : pages())
      for (const std::string& target :
           broken_links(page_of(text_of(path)).prose, path.parent_path()))
        CHECK_MESSAGE(false, path.filename().string() << " links " << target);
  }

  TEST_CASE("docs: the README's example is the marked part of examples/tiny_memformer.cpp") {
    Lines marked;
    bool inside = false;
    for (const std::string& line : lines_of(text_of(kSources / "examples/tiny_memformer.cpp"))) {
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

  TEST_CASE("docs: quoted code stands in the file it is quoted from") {
    int quotes = 0;
    for (const fs::path& path : pages())
      for (const Block& block : page_of(text_of(path)).blocks) {
        if (!block.info.starts_with("cpp ")) continue;
        const std::string source = block.info.substr(4);
        const std::string wrong = misquoted(block.lines, lines_of(text_of(kSources / source)));
        CHECK_MESSAGE(wrong.empty(), path.filename().string()
                                         << " quotes from " << source << ": " << wrong);
        ++quotes;
      }
    CHECK(quotes > 10);
  }

  TEST_CASE("docs: tests that a page names exist") {
    const std::set<std::string> names = test_names();
    std::set<std::string> units;
    for (const std::string& name : names) units.insert(name.substr(0, name.find(':')));
    std::size_t named = 0;
    for (const fs::path& path : pages())
      for (const std::string& span : code_spans(page_of(text_of(path)).prose)) {
        const auto colon = span.find(": ");
        if (colon == span.npos || !units.contains(span.substr(0, colon))) continue;
        CHECK_MESSAGE(names.contains(span), path.filename().string() << " names " << span);
        ++named;
      }
    CHECK(named > 40);
  }

  TEST_CASE("docs: training.md names every configuration key with its default, and no other") {
    const std::map<std::string, Json> keys = defaults();
    const std::map<std::string, std::string> rows =
        key_rows(page_of(text_of(kSources / "docs/training.md")).prose);
    for (const auto& [key, value] : keys) {
      CHECK_MESSAGE(rows.contains(key), "training.md lacks " << key);
      if (rows.contains(key))
        CHECK_MESSAGE(same_value(value, rows.at(key)),
                      key << " is " << value.dump() << ", not " << rows.at(key));
    }
    for (const auto& [key, text] : rows)
      CHECK_MESSAGE(keys.contains(key), "training.md describes " << key << ", which is no key");
  }

  TEST_CASE("docs: configuration keys that a page names exist") {
    const std::map<std::string, Json> keys = defaults();
    const std::regex shape("((?:model|data|train)\\.[a-z0-9_]+)(?:=.*)?");
    for (const fs::path& path : pages())
      for (const std::string& span : code_spans(page_of(text_of(path)).prose)) {
        std::smatch match;
        if (std::regex_match(span, match, shape))
          CHECK_MESSAGE(keys.contains(match[1]), path.filename().string() << " names " << span);
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
    CHECK(broken_links("[a](docs/ops.md) [b](docs/nowhere.md#x) [c](#here)", kSources) ==
          Lines{"docs/nowhere.md#x"});
    CHECK(page_of("a\n```cpp x.h\nb\n```\nc\n").prose == "a\nc\n");
    CHECK(key_rows("| `train.steps` | 5 | steps |\n| `model.positions` | `none` | where |\n") ==
          std::map<std::string, std::string>{{"train.steps", "5"}, {"model.positions", "none"}});
    CHECK(same_value(Json(1e-3), "0.001"));
    CHECK_FALSE(same_value(Json(1e-3), "0.01"));
    CHECK_FALSE(same_value(Json(true), "yes"));
  }
}

}  // namespace mf::test
