#!/bin/sh
# chapter.sh finds what it is for: differences planted in a page or in a program's output.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# program EXIT_CODE LINE...: a program that prints the lines.
program() {
  code=$1
  shift
  printf '#!/bin/sh\ncat <<END\n' >"$work/program"
  printf '%s\n' "$@" >>"$work/program"
  printf 'END\nexit %s\n' "$code" >>"$work/program"
  chmod +x "$work/program"
}

# expect pass|fail WHAT
expect() {
  verdict=pass
  sh chapter.sh "$work/program" "$work/page" >"$work/said" 2>&1 || verdict=fail
  if [ "$verdict" != "$1" ]; then
    cat "$work/said"
    echo "$2: chapter.sh says $verdict, not $1" >&2
    exit 1
  fi
  echo "$2: $1, as it should be"
}

cat >"$work/page" <<'END'
# A page
```text
one 1
two 2
```
Between the blocks.
```cpp some/file.cpp
int not_compared;
```
```text
three 3
```
END
program 0 'one 1' 'two 2  ' '' 'three 3'
expect pass "the same lines, broken otherwise"
program 0 'one 1' 'two 3' 'three 3'
expect fail "one digit differs"
program 0 'one 1' 'three 3'
expect fail "a line that the program does not print"
program 0 'one 1' 'two 2' 'three 3' 'four 4'
expect fail "a line that the page does not show"
program 0 'two 2' 'one 1' 'three 3'
expect fail "two lines exchanged"
program 0 'one 1' 'two 2' 'int not_compared;' 'three 3'
expect fail "code is not output"
program 1 'one 1' 'two 2' 'three 3'
expect fail "the right lines and the wrong exit code"
program 0 ''
expect fail "no output at all"
