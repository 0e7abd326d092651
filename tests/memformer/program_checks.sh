# What the tests of the program from outside share; to be sourced in a folder of their own. A failed
# check is printed and counted in $failures.
failures=0

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
