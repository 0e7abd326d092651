#!/bin/sh
# Every subcommand of `memformer audit` from outside: its facts at the default size, its JSON object, its
# page, and the mistake that it must find.
# Usage: audit_test.sh PROGRAM
set -u
program=$1
export OMP_WAIT_POLICY=passive  # threads that wait take no time
. "$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)/program_checks.sh"

# subcommand, a mistake to plant, what is printed then; mrbp is smaller after its first run
while read -r name plant found; do
  times > before
  succeeds "$program" audit "$name"
  prints "^verdict: "
  times > after
  # Of processors, not of the clock: the machine may have other work. Line 2 is that of children.
  seconds=$(awk 'FNR == 2 { split($1, u, "m"); split($2, s, "m")
                            total = 60 * (u[1] + s[1]) + u[2] + s[2]
                            if (FNR != NR) printf "%d", total - first
                            first = total }' before after)
  [ "$seconds" -le 60 ] || fail "audit $name takes $seconds s of processors at its default size"
  echo "audit $name: $seconds s of processors"
  smaller=
  [ "$name" = mrbp ] && smaller="--segments 1,2,4 --repeats 1"

  succeeds "$program" audit "$name" $smaller --json --html "$name.html"
  [ "$(wc -l < out)" -eq 1 ] || fail "audit $name --json prints $(wc -l < out) lines"
  prints '^{".*"holds":true}$'
  is_json out
  is_page "$name.html"
  grep -q 'class="verdict holds"' "$name.html" || fail "the page of audit $name does not say that it holds"

  finds "$found" "$program" audit "$name" $smaller --plant "$plant"
  prints "^verdict: "
  refused "$plant" "$program" audit "$name" --plant no-such-mistake
  refused "cannot" "$program" audit "$name" $smaller --html no-such-folder/page.html
done << 'END'
gradients square-factor verdict: 61 of 62 agree
mrbp drop-state-seed NOT bit-identical
trace replay-key DIFFER
tape forgotten-input nothing
memory miss-event NOT so
slots no-temperature NOT reproduce
determinism other-draws DIFFER
END

[ "$failures" -eq 0 ] && echo "all is well"
exit "$failures"
