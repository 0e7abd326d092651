#!/bin/sh
# Installs what is missing, builds everything, runs all tests.
#   sh tests/run.sh       optimised build, into build/release; where there is a CUDA toolkit, also the
#                         CUDA backend, into build/cuda, its kernels run on the CPU (docs/cuda.md)
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

[ "$preset" = release ] || exit 0
step "the CUDA backend: its kernels compiled for every architecture, and their PTX run on the CPU"
if ! nvcc=${CUDACXX:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}; then
  echo "SKIPPED: there is no nvcc here; with the CUDA toolkit 13 these tests run too"
  exit 0
fi
export CUDACXX="$nvcc"
build cuda out/tests/cuda cuda_tests
ctest --preset cuda --label-regex cuda --parallel 2
