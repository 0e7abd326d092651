#include "lexer.h"

#include <cctype>

namespace standin::ptx {

namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '$' || c == '%' ||
         c == '.';
}

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  std::vector<Token> tokens;
  int line = 1;
  std::size_t at = 0;
  const auto skip_until = [&](std::string_view mark) {
    const std::size_t end = std::min(text.find(mark, at), text.size());
    for (; at < end; ++at) line += text[at] == '\n';
  };
  while (at < text.size()) {
    const char c = text[at];
    if (c == '\n') ++line;
    if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++at;
    } else if (text.substr(at, 2) == "//") {
      skip_until("\n");
    } else if (text.substr(at, 2) == "/*") {
      skip_until("*/");
      at += 2;
    } else if (c == '"') {
      const std::size_t end = std::min(text.find('"', at + 1), text.size() - 1);
      tokens.push_back({text.substr(at, end + 1 - at), line});
      at = end + 1;
    } else {
      std::size_t end = at;
      // "::" belongs to a word: .shared::cta, .L2::128B
      while (end < text.size() && (is_word(text[end]) || text.substr(end, 2) == "::" ||
                                   (end > at && text.substr(end - 1, 2) == "::"))) {
        ++end;
      }
      if (end == at) ++end;
      tokens.push_back({text.substr(at, end - at), line});
      at = end;
    }
  }
  tokens.push_back({{}, line});
  return tokens;
}

}  // namespace standin::ptx
