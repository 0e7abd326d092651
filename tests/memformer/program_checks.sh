# What the tests of the program from outside share. Sourcing it makes the folder $work, which goes with
# the shell, and goes there. A failed check is printed and counted in $failures.
failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# succeeds COMMAND...: it must; its output is left in ./out
succeeds() {
  "$@" > out 2> err || fail "exit code $? from: $* ($(cat err))"
}

# refused PATTERN COMMAND...: it must fail, and say so in one line, or in CLI11's usage error.
refused() {
  pattern=$1
  shift
  if "$@" > out 2> err; then
    fail "no failure from: $*"
  elif ! grep -q -- "$pattern" err; then
    fail "'$pattern' is not in the error of: $* ($(cat err))"
  elif grep -q "Run with --help" err; then
    :
  elif [ "$(wc -l < err)" -ne 1 ] || ! grep -q "^memformer: " err; then
    fail "not one line that starts with 'memformer: ' from: $* ($(cat err))"
  fi
}

# finds PATTERN COMMAND...: it must find a planted mistake: end with 1, and print the pattern.
finds() {
  pattern=$1
  shift
  "$@" > out 2> err
  code=$?
  [ $code -eq 1 ] || fail "exit code $code, not 1, from: $*"
  prints "$pattern"
}

# is_json FILE: one object; looked at closely where there is a Python.
is_json() {
  if command -v python3 > /dev/null; then
    python3 -c 'import json, sys; assert isinstance(json.load(open(sys.argv[1])), dict)' "$1" \
      2> err || fail "$1 is not JSON: $(cat err)"
  else
    grep -q '^{.*}$' "$1" || fail "$1 is not a JSON object"
  fi
}

# is_page FILE: a whole page that asks nothing of a network: the only address is the name of SVG's language.
is_page() {
  for piece in '<!DOCTYPE html>' '<h1>' 'class="verdict' '<table>' '</html>' 'prefers-color-scheme: dark'; do
    grep -q -- "$piece" "$1" || fail "$1 lacks $piece"
  done
  grep -Eq "(src|href) *= *[\"']?(https?:|//)|url\(" "$1" && fail "$1 refers to something outside"
  grep -o 'https\?://[^"<> ]*' "$1" | grep -v '^http://www.w3.org/' > addresses
  [ ! -s addresses ] || fail "$1 holds $(head -n 3 addresses)"
}

prints() {
  grep -q -- "$1" out || fail "'$1' is not printed: $(head -c 600 out)"
}

# metrics RUN: without what depends on the clock.
metrics() {
  sed 's/,"seconds":.*//' "$1/metrics.jsonl"
}

# text LINES: a corpus.
text() {
  line=0
  while [ $line -lt "$1" ]; do
    echo "line $line says that $((line * 7919 % 1009)) is not $((line * 31 % 97))."
    line=$((line + 1))
  done
}
