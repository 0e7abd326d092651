#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace standin::ptx {

struct Token {
  std::string_view text;  ///< a word with its dots, a quoted string, or one punctuation mark
  int line = 0;
};

/// Splits PTX without its comments; ends with an empty token. Views point into `text`.
std::vector<Token> tokenize(std::string_view text);

}  // namespace standin::ptx
