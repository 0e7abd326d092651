#!/bin/sh
# docs/results.md and its pictures are what results_page writes from the JSON files beside them; so is a sample
# with invented numbers. Each planted mistake is found.
# Usage: results_page_test.sh RESULTS_PAGE SOURCES
set -u
program=$1
sources=$2
failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# same_page DOCS PLAN: writes the page again, elsewhere, and prints what is other than in DOCS.
same_page() {
  rm -rf "$work/fresh"
  "$program" "$1/results" "$2" "$work/fresh" > "$work/out" 2>&1 || { cat "$work/out"; return 1; }
  diff -u "$1/results.md" "$work/fresh/results.md"
  pages=$?
  diff -ru -x '*.json' -x page.md "$1/results" "$work/fresh/results" && [ $pages -eq 0 ]
}

if ! same_page "$sources/docs" "$sources/tests/results/plan.json"; then
  fail "docs/results.md is not what its files say; write it again:"
  echo "  $program docs/results tests/results/plan.json docs"
fi

sample=$sources/tests/results/sample
if ! same_page "$sample/docs" "$sample/plan.json"; then
  fail "the sample's page is another; if that is as wanted, write it again:"
  echo "  cd tests/results/sample && $program docs/results plan.json docs"
fi

# --- Planted mistakes, each in a copy of the sample ------------------------------------------------

# plant FILE SED_COMMAND: changes a file of a fresh copy.
plant() {
  rm -rf "$work/docs" "$work/plan.json"
  cp -R "$sample/docs" "$work/docs"
  cp "$sample/plan.json" "$work/plan.json"
  cp "$work/$1" "$work/before"
  sed -i "$2" "$work/$1"
  cmp -s "$work/before" "$work/$1" && fail "nothing was planted in $1 by $2"
}

# differs PATTERN: the page must be another one, with the pattern in the difference.
differs() {
  if same_page "$work/docs" "$work/plan.json" > "$work/difference"; then
    fail "the page is the same, although '$1' was planted"
  elif ! grep -q -- "$1" "$work/difference"; then
    fail "'$1' is not in: $(cat "$work/difference")"
  fi
}

# refused PATTERN: the page must not be written, for a reason with the pattern, in one line.
refused() {
  if "$program" "$work/docs/results" "$work/plan.json" "$work/fresh" > "$work/out" 2>&1; then
    fail "no failure, although '$1' is expected"
  elif ! grep -q -- "^results_page: .*$1" "$work/out"; then
    fail "'$1' is not in: $(cat "$work/out")"
  elif [ "$(wc -l < "$work/out")" -ne 1 ]; then
    fail "not one line: $(cat "$work/out")"
  fi
}

page=docs/results/page.md
one=docs/results/text-invented-a-seed1.json
plant "$one" 's/"bits_per_byte": 2.504/"bits_per_byte": 2.604/'
differs '^-.*2.508 ± 0.004.*'
differs '^+.*2.541 ± 0.048.*'
plant docs/results/cost-invented.json 's/"multiply_adds": 8192000/"multiply_adds": 9192000/'
differs '^+++ .*cost-invented-multiply-adds.svg'
plant docs/results.md 's/2.508/2.507/'
differs '^-.*2.507'
plant "$page" 's/All numbers/All these numbers/'
differs '^+All these numbers'
plant plan.json 's/Invented B/Renamed B/'
differs '^+| Renamed B'
plant "$page" 's/^{{chart depth}}$//'
differs '^Only in .*: depth.svg'

plant "$page" 's/{{table text}}/{{tabel text}}/'
refused 'page.md, line 5: {{tabel text}}: unknown placeholder; there are: table TABLE'
plant "$page" 's/{{table text}}/{{table text images}}/'
refused 'unknown placeholder'
plant "$page" 's/{{table text}}/{{table text/'
refused "line 5: '{{' without '}}' in its line"
plant "$page" 's/{{table text}}/{{table txt}}/'
refused "the plan has no table 'txt'"
plant "$page" 's/{{cost invented}}/{{cost other}}/'
refused 'cost-other.json.*No such file'
plant plan.json 's/"bench cost"/"bench"/'
refused "the plan has 'bench'; measure it with"
plant plan.json 's/"bench cost"/"bench cost --batch 2"/'
refused "cost-invented.json was measured by .*, the plan has 'bench cost --batch 2'; measure it with"
plant "$page" 's/text-invented-a-seed1.json/text-invented-a-seed9.json/'
refused 'text-invented-a-seed9.json.*No such file'
plant "$page" 's/{{value text-invented-a .metrics/{{value text-invented-c \/metrics/'
refused 'no seed of text-invented-c is there; run it with'
plant "$page" 's/bits_per_byte .3f/bits .3f/'
refused 'has null at /metrics/bits; a number is needed'
plant "$page" 's/bits_per_byte .3f/bits_per_byte .3q/'
refused "the format '.3q' is no bytes, count, time"
plant "$page" 's/invented-a@128/invented-a@129/'
refused 'cost-invented.json has no seconds of invented-a at length 129'
plant "$page" 's/invented-a@128/invented-a/'
refused 'is no pointer such as .* and no place such as'
plant "$page" 's/^{{table images}}$//'
refused 'images-invented-a-seed1.json is on no table of the page'
plant "$page" 's/{{chart depth}}/{{chart text}}/'
refused "the table 'text' has no x"
plant "$one" 's/"bits_per_byte": 2.504/"bits_per_byte": null/'
refused 'text-invented-a-seed1.json has null at /metrics/bits_per_byte'
plant "$one" 's/"slots": 8/"slots": 32/'
refused 'was made with model.slots = 32, the plan says 8; remove it and run it again'
plant "$one" 's/"seed": 1/"seed": 2/'
refused 'its name says otherwise'
plant "$one" 's/"parameters": 1234567/"parameters": 1234568/'
refused 'the seeds of Invented A differ in /parameters'
plant "$one" 's/^{$/{{/'
refused 'text-invented-a-seed1.json is not JSON'
plant docs/results/cost-invented.json 's/"x": 512,/"x": 128,/'
refused 'has two rows of invented-a at length 128'
plant plan.json 's/"same_as": "text-invented-a"/"same_as": "text-a"/'
refused 'which is no experiment'

[ $failures -eq 0 ] || exit 1
echo "the page and the sample are as their files say; each planted mistake was found"
