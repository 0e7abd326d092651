# How doxygen reads a header (docs/Doxyfile). Lines keep their numbers.

# Every header gets a page that lists what it declares.
/^#pragma once$/ { $0 = "/** @file */ " $0 }

# The members of these structs follow from rules, which the text of their namespace states. Doxygen
# would not miss the text of a struct without members, so this does.
/^namespace (ops|mf::formulas) \{/ { follows_rule = 1 }
/^\}  \/\/ namespace/ { follows_rule = 0 }
follows_rule && /^struct .*\{$/ {
  if (!described) print FILENAME ":" FNR ": " $2 " is not documented." >"/dev/stderr"
  $0 = $0 " /** @cond */"
  inside = 1
}
inside && /^\};$/ { $0 = "/** @endcond */ " $0; inside = 0 }
!/^template / { described = /^\/\/\// }

# Lines that a docstring sets in, such as equations, stay lines of their own.
/^ *\/\/\/ - / { list = 1 }
!/^ *\/\/\/ +[^ ]/ || /^ *\/\/\/ [^ -]/ { list = 0 }
{
  set_in = !list && /^ *\/\/\/   [^ ]/
  continues = /^ *\/\/\/    /
  if (set_in) sub(/\/\/\/ +/, "/// <br>\\&emsp;")
  else if (before && !continues && /^ *\/\/\/ [^ ]/) sub(/\/\/\/ /, "/// <br>")
  before = set_in || (before && continues)
}

# Dots that do not end the first sentence, which becomes the brief text, and m'_i, which is no emphasis.
/^ *\/\/\// {
  gsub(/'_/, "'\\_")
  gsub(/et al\. /, "et al.\\ ")
  gsub(/Fig\. /, "Fig.\\ ")
  gsub(/ \. /, " .\\ ")
}

{ print }
