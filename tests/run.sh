#!/bin/sh
# Installs what is missing, builds everything, runs all tests.
#   sh tests/run.sh       optimised build, into build/release
#   sh tests/run.sh dev   under the address and undefined-behaviour sanitizers, into build/dev
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. examples/setup.sh

preset=${1:-release}
case $preset in
  release | dev) ;;
  *)
    echo "usage: sh tests/run.sh [release|dev]" >&2
    exit 2
    ;;
esac

step "what is needed"
set_up
step "build of everything, preset $preset"
build "$preset" "out/tests/$preset"
step "tests"
ctest --preset "$preset" --parallel 2
