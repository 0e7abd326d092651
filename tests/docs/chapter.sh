#!/bin/sh
# Runs the program of a chapter and compares what it prints with the ```text blocks of the chapter's
# page, joined in their order: every line of one must be the other's next line. Blank lines and spaces
# at the end of a line do not count, so that a page may break the output where it has something to say.
#   sh tests/docs/chapter.sh PROGRAM PAGE
set -eu
if [ $# -ne 2 ]; then
  echo "usage: sh tests/docs/chapter.sh PROGRAM PAGE" >&2
  exit 2
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$1" >"$work/printed" || {
  status=$?
  cat "$work/printed"
  echo "$1 ended with $status: a claim of the program does not hold" >&2
  exit 1
}
awk '/^```/ { shown = !inside && $0 == "```text"; inside = !inside; next }
     shown' "$2" >"$work/shown"
for text in printed shown; do
  sed -e 's/[[:space:]]*$//' -e '/^$/d' "$work/$text" >"$work/$text.lines"
done
if ! diff -u "$work/shown.lines" "$work/printed.lines" >"$work/difference"; then
  echo "$2 (-) and what $1 prints (+) differ:" >&2
  tail -n +3 "$work/difference" >&2
  exit 1
fi
echo "$2 shows all $(wc -l <"$work/printed.lines") lines that $1 prints"
