#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/error.h"

namespace mf {

/// The id that begins a text; ids 0..255 are the bytes.
inline constexpr std::int32_t kBeginToken = 256;
/// How many ids there are: ModelConfig::vocabulary of a byte model.
inline constexpr std::int64_t kByteVocabulary = 257;

/// The token of one byte; a plain cast would make bytes above 127 negative.
inline std::int32_t byte_token(char byte) { return static_cast<unsigned char>(byte); }

/// The tokens of a text, one a byte; no begin token is added.
inline std::vector<std::int32_t> encode_bytes(std::string_view text) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(text.size());
  for (const char byte : text) tokens.push_back(byte_token(byte));
  return tokens;
}

/// The text of the tokens; begin tokens stand for nothing. Throws Error on ids that are no byte
/// token.
inline std::string decode_bytes(std::span<const std::int32_t> tokens) {
  std::string text;
  text.reserve(tokens.size());
  for (const std::int32_t token : tokens) {
    check(token >= 0 && token < kByteVocabulary,
          "decode_bytes: token {} is no byte; ids are 0..{}; was the text encoded otherwise?",
          token, kByteVocabulary - 1);
    if (token != kBeginToken) text += static_cast<char>(token);
  }
  return text;
}

}  // namespace mf
