#pragma once

#include <string>

#include "memformer/audit/figure.h"

namespace mf {

/// The path of a program that PATH leads to, or empty.
std::string program_on_path(const std::string& name);

/// A graph laid out by Graphviz: runs `dot`, a path, on a text in its language, and returns what it
/// draws without the document around it. Colours are those of the page. Throws Error with what the
/// program said if it fails.
Figure graphviz(const std::string& dot, const std::string& text, const std::string& title,
                std::string caption);

}  // namespace mf
