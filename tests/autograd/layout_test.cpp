#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "memformer/audit/op_cases.h"

/// What the sources must hold so that no op is forgotten. MEMFORMER_SOURCE_DIR is the repository.
namespace mf::test {
namespace {

const std::filesystem::path kSources{MEMFORMER_SOURCE_DIR};

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<std::filesystem::path> op_headers() {
  std::vector<std::filesystem::path> headers;
  for (const auto& entry : std::filesystem::directory_iterator(kSources / "autograd/ops"))
    if (entry.path().extension() == ".h") headers.push_back(entry.path());
  REQUIRE(!headers.empty());
  return headers;
}

/// The word that ends where `end` begins a parameter list: "name" of "...name(".
std::string word_before(const std::string& line, std::size_t end) {
  std::size_t begin = end;
  while (begin > 0 &&
         (std::isalnum(static_cast<unsigned char>(line[begin - 1])) != 0 || line[begin - 1] == '_'))
    --begin;
  return line.substr(begin, end - begin);
}

/// For each line that begins with one of `beginnings`: the name before its first parenthesis.
std::set<std::string> names_in(const std::string& text, std::vector<std::string_view> beginnings) {
  std::set<std::string> names;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto begins = [&](std::string_view beginning) { return line.starts_with(beginning); };
    if (line.find('(') != std::string::npos && std::ranges::any_of(beginnings, begins))
      names.insert(word_before(line, line.find('(')));
  }
  return names;
}

std::set<std::string> functions_of(const std::string& header) {
  return names_in(header, {"inline Var ", "inline std::vector<Var> ", "inline AttentionOutput "});
}

}  // namespace

TEST_SUITE("autograd") {
  TEST_CASE("ops: every function of every op header has a row in the table") {
    std::set<std::string> rows;
    for (const OpRow& row : op_table()) rows.insert(row.header + " " + row.name);
    std::size_t functions = 0;
    for (const auto& header : op_headers()) {
      const std::set<std::string> names = functions_of(text_of(header));
      CHECK_MESSAGE(!names.empty(), header.string());
      for (const std::string& name : names)
        CHECK_MESSAGE(rows.contains(header.filename().string() + " " + name), header.string()
                                                                                  << ": " << name);
      functions += names.size();
    }
    CHECK(functions == rows.size());
  }

  TEST_CASE("ops: every function has an entry in docs/ops.md, and the other way round") {
    const std::string document = text_of(kSources / "docs/ops.md");
    const std::set<std::string> described = names_in(document, {"| `"});
    std::set<std::string> names;
    for (const OpRow& row : op_table()) names.insert(row.name);
    for (const std::string& name : names)
      CHECK_MESSAGE(described.contains(name), "docs/ops.md lacks " << name);
    for (const std::string& name : described)
      CHECK_MESSAGE(names.contains(name), "docs/ops.md describes " << name << ", which is no op");
  }

  TEST_CASE("ops: ops.h includes every op header") {
    const std::string all = text_of(kSources / "autograd/ops.h");
    for (const auto& header : op_headers()) {
      const std::string line = "#include \"autograd/ops/" + header.filename().string() + "\"";
      CHECK_MESSAGE(all.find(line) != std::string::npos, line);
    }
  }

  TEST_CASE("ops: every op header states what it saves and its gradient") {
    for (const auto& header : op_headers()) {
      const std::string text = text_of(header);
      CHECK_MESSAGE(text.find("Gradient") != std::string::npos, header.string());
      const bool saves = text.find("Saves: ") != std::string::npos ||
                         text.find("nothing is saved") != std::string::npos;
      CHECK_MESSAGE(saves, header.string());
    }
  }
}

}  // namespace mf::test
