#!/bin/sh
# Builds the API reference: FOLDER/html/index.html. Fails on any warning, such as a public name without
# docstring.
#   sh docs/api_docs.sh FOLDER LIST    LIST holds a header on each line; paths are absolute
# DOXYGEN=PROGRAM stands in for doxygen; API_DOCS_SETTINGS is added to docs/Doxyfile.
set -eu
folder=$1 list=$2
CDPATH='' cd -- "$(dirname -- "$0")/.."
rm -rf "$folder/html"
code=0
{
  cat docs/Doxyfile
  printf 'OUTPUT_DIRECTORY = "%s"\nINPUT = docs/api.md\n' "$folder"
  sed 's/.*/INPUT += "&"/' "$list"
  printf '%s\n' "${API_DOCS_SETTINGS:-}"
} | "${DOXYGEN:-doxygen}" - 2>"$folder/warnings" || code=$?
cat "$folder/warnings" >&2
[ "$code" -eq 0 ] && [ ! -s "$folder/warnings" ]
