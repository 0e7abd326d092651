#!/bin/sh
# The API reference: every public name has a docstring, and its pages load nothing from elsewhere.
#   sh tests/docs/api_reference_test.sh FOLDER LIST    as docs/api_docs.sh
# Exit code 77 where doxygen is not installed, or is not 1.9.4: other versions warn otherwise.
set -eu
folder=$1 list=$2
builder=$(CDPATH='' cd -- "$(dirname -- "$0")/../../docs" && pwd)/api_docs.sh
doxygen=${DOXYGEN:-doxygen}

if ! version=$("$doxygen" --version 2>/dev/null); then
  echo "SKIPPED: doxygen is not installed here"
  exit 77
fi
case $version in
  1.9.4*) ;;
  *)
    echo "SKIPPED: this is doxygen $version; the reference is checked with 1.9.4"
    exit 77
    ;;
esac

failed() {
  echo "failed: $*" >&2
  exit 1
}

# What a page would load from elsewhere; links to follow are none of it.
loads_from_elsewhere() {
  grep -rEn --include='*.html' --include='*.css' \
    '<(script|link|img|iframe|object|source)[^>]*(src|href|data)="?(https?:)?//|(url\(|@import ).?(https?:)?//' \
    "$1"
}

# Doxygen 1.9.4 does not warn of enum values, so this looks for them in its XML.
bare_enum_values() {
  awk '/<enumvalue / { name = ""; described = 0 }
       /<name>/ { if (name == "") name = $0 }
       /<para>/ { described = 1 }
       /<\/enumvalue>/ { if (!described) { gsub(/ *<\/?name>/, "", name); print name } }' "$1"/*.xml
}

# build FOLDER LIST
build() {
  rm -rf "$1"
  mkdir -p "$1"
  API_DOCS_SETTINGS='GENERATE_XML = YES' sh "$builder" "$1" "$2" >"$1/log" 2>&1
}

build "$folder/pages" "$list" || {
  cat "$folder/pages/log" >&2
  failed "the reference does not build without warnings"
}
[ -z "$(bare_enum_values "$folder/pages/xml")" ] ||
  failed "enum values without docstring: $(bare_enum_values "$folder/pages/xml")"
! loads_from_elsewhere "$folder/pages/html" || failed "a page is not complete without the network"
for page in index classmf_1_1Tape structmf_1_1ops_1_1Attention mrbp_8h; do
  [ -s "$folder/pages/html/$page.html" ] || failed "there is no page $page.html"
done
names=$(grep -c '<member ' "$folder/pages/xml/index.xml")
[ "$names" -gt 1000 ] || failed "only $names names were found"

# Planted mistakes, each of which must be named, and what need not have a docstring.
control=$folder/control
rm -rf "$control"
mkdir -p "$control"
cat >"$control/planted.h" <<'PLANTED'
#pragma once
#define PLANTED_MACRO 1
namespace mf {
void planted_function();
inline constexpr int kPlanted = 1;
struct PlantedStruct {
  int described_field;  ///< has one
};
enum class PlantedEnum { one };
/// A class.
class Planted {
 public:
  int planted_field = 0;
  void planted_member();
  friend bool operator==(const Planted&, const Planted&) = default;

 private:
  void private_member();
};
/// An enum.
enum class Described {
  described_value,  ///< has one
  bare_value
};
/// Another.
enum class Undescribed { second_bare_value };
namespace detail {
void private_function();
}
namespace cuda {
void planted_cuda();
}

namespace ops {

struct PlantedOp {
  int hidden_field;
};
void planted_helper();

}  // namespace ops

}  // namespace mf
PLANTED
echo "$control/planted.h" >"$control/list"
if build "$control/pages" "$control/list"; then failed "names without docstring were accepted"; fi
for name in PLANTED_MACRO planted_function kPlanted PlantedStruct PlantedEnum planted_field \
  planted_member 'operator==' planted_cuda PlantedOp planted_helper; do
  grep -q "$name.* is not documented" "$control/pages/log" || failed "$name was not named"
done
for name in private_ hidden_field; do
  ! grep "$name" "$control/pages/log" || failed "$name needs no docstring"
done
bare=$(bare_enum_values "$control/pages/xml" | sort | tr '\n' ' ')
[ "$bare" = "bare_value one second_bare_value " ] || failed "enum values without docstring: $bare"
mkdir -p "$control/html"
echo '<script src="https://example.org/x.js"></script>' >"$control/html/page.html"
loads_from_elsewhere "$control/html" >/dev/null || failed "a script from elsewhere was accepted"
echo '<a href="https://example.org/">a link</a>' >"$control/html/page.html"
! loads_from_elsewhere "$control/html" || failed "a link was taken for something to load"

echo "$names names in the index; each public one has a docstring"
