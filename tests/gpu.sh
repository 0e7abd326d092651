#!/bin/sh
# The CUDA backend on a machine with a GPU: device tests, compute-sanitizer, training beside the cpu
# and twice, benchmarks. Prints a table and appends a line to docs/gpu-log.md. Takes eight minutes at
# most behind the build.
#   sh tests/gpu.sh              exit code 77 where no device answers, or there is no toolkit or no
#                                Python; 1 if the build or a part failed
#   sh tests/gpu.sh --required   1 instead of 77
# Builds into build/gpu for this device only; logs and JSON go to out/gpu.
# For tests of this script, on any machine and in small: MEMFORMER_GPU_PROGRAM=PROGRAM stands in for
# memformer, MEMFORMER_GPU_TESTS for the device tests (default: true), MEMFORMER_GPU_DEVICE for the
# device (default: cuda), MEMFORMER_GPU_OUT for out/gpu; the line goes to a copy of the log there.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. examples/setup.sh

required=
case ${1:-} in
  '') ;;
  --required) required=yes ;;
  *)
    echo "usage: sh tests/gpu.sh [--required]" >&2
    exit 2
    ;;
esac

# absent REASON...: there is nothing to run on.
absent() {
  if [ -n "$required" ]; then
    echo "failed: $*" >&2
    exit 1
  fi
  echo "SKIPPED: $*"
  exit 77
}

out=${MEMFORMER_GPU_OUT:-out/gpu}
log=docs/gpu-log.md
device=${MEMFORMER_GPU_DEVICE:-cuda}
program=${MEMFORMER_GPU_PROGRAM:-}
dry=${program:+yes}
# Numbers of nvidia-smi and of the runtime mean the same device.
export CUDA_DEVICE_ORDER=PCI_BUS_ID
export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}"

if [ -n "$dry" ]; then
  name="dry run on $device" driver=- capability=- sanitizer=
  tests=${MEMFORMER_GPU_TESTS:-true}
else
  # "name, driver, 9.0"
  found=$(nvidia-smi -i "${CUDA_VISIBLE_DEVICES%%,*}" \
    --query-gpu=name,driver_version,compute_cap --format=csv,noheader 2>/dev/null) || found=
  case $found in
    *,*,*[0-9].[0-9]) ;;
    *) absent "no device answers nvidia-smi" ;;
  esac
  name=${found%%,*} driver=${found#*, } capability=${found##*, }
  driver=${driver%%,*}
  nvcc=${CUDACXX:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)} || nvcc=
  [ -n "$nvcc" ] || absent "there is a $name, but no nvcc to build with; install the CUDA toolkit 13"
  release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
  [ "${release:-0}" -ge 13 ] ||
    absent "there is a $name, but $nvcc is of CUDA ${release:-?}; install the toolkit 13"
  sanitizer=$(command -v compute-sanitizer || ls "$(dirname "$nvcc")/compute-sanitizer" 2>/dev/null) ||
    sanitizer=
fi

if [ -e "$out" ]; then
  rm -rf "$out.previous"
  mv "$out" "$out.previous"
fi
mkdir -p "$out/logs" "$out/runs"
: >"$out/parts.tsv"
commit=$(git rev-parse --short HEAD 2>/dev/null) || commit=unknown
[ -z "$(git status --porcelain -- . ":!$log" 2>/dev/null)" ] || commit=$commit+changes

if [ -n "$dry" ]; then
  cp "$log" "$out/gpu-log.md"
  log=$out/gpu-log.md
else
  step "what is needed"
  set_up python3
  command -v python3 >/dev/null || absent "python3, which compares the runs, is missing"
  step "build for $name, compute capability $capability"
  export CUDACXX="$nvcc"
  if [ -z "${CMAKE_GENERATOR:-}" ] && ! [ -e build/gpu ] && command -v ninja >/dev/null; then
    export CMAKE_GENERATOR=Ninja
  fi
  quietly "$out/logs/configure" cmake --preset cuda -B build/gpu \
    -DCMAKE_CUDA_ARCHITECTURES="$(echo "$capability" | tr -d .)"
  quietly "$out/logs/build" cmake --build build/gpu --parallel "$(processors)" \
    --target gpu_tests memformer_program
  program=build/gpu/memformer/memformer
  tests=build/gpu/tests/cuda/cuda_device_tests
fi

# What the parts run -----------------------------------------------------------------------------

begun=$(date +%s)

# within SECONDS COMMAND...: and no longer than eight minutes from `begun` for all of them.
within() {
  limit=$((480 - ($(date +%s) - begun)))
  [ "$limit" -lt "$1" ] || limit=$1
  shift
  if [ "$limit" -le 0 ]; then
    echo "no time was left"
    return 124
  fi
  # A program that waits for a device may not heed the first signal.
  timeout -k 10 "$limit" "$@"
}

# note NAME RESULT SECONDS NOTE
note() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$out/parts.tsv"
  printf '%-8s %4s s  %s%s\n' "$2" "$3" "$1" "${4:+: $4}"
}

# part NAME COMMAND...: the output goes to a log; its last line is the note of what failed.
part() {
  part_name=$1
  part_log=$out/logs/$(echo "$1" | tr ' ' -)
  shift
  part_begun=$(date +%s)
  code=0
  "$@" </dev/null >"$part_log" 2>&1 || code=$?
  part_seconds=$(($(date +%s) - part_begun))
  case $code in
    0) note "$part_name" pass "$part_seconds" "" ;;
    124 | 137) note "$part_name" FAIL "$part_seconds" "out of time; $part_log" ;;
    *)
      why=$(tail -n 1 "$part_log" | cut -c 1-100 | tr '\t' ' ')
      note "$part_name" FAIL "$part_seconds" "$why; $part_log"
      ;;
  esac
}

# A skipped test is one that found no device.
device_tests() {
  if [ -n "$dry" ]; then
    within 240 "$tests"
    return
  fi
  within 240 ctest --test-dir build/gpu --label-regex gpu --no-tests=error --output-on-failure \
    >"$out/logs/ctest" 2>&1 || {
    code=$?
    cat "$out/logs/ctest"
    return $code
  }
  cat "$out/logs/ctest"
  ! grep -E 'Skipped|Not Run' "$out/logs/ctest"
}

# sanitized TOOL: the short list, all of which must have been run.
sanitized() {
  cases=$(paste -sd , tests/gpu/sanitizer_cases)
  count=$(wc -l <tests/gpu/sanitizer_cases)
  within 90 "$sanitizer" --tool "$1" --error-exitcode 1 "$tests" --test-case="$cases" \
    >"$out/logs/sanitized-$1" 2>&1 || {
    code=$?
    cat "$out/logs/sanitized-$1"
    return $code
  }
  cat "$out/logs/sanitized-$1"
  grep -q "test cases: *$((count)) |" "$out/logs/sanitized-$1" || {
    echo "not all $((count)) test cases were run"
    return 1
  }
}

# train NAME DEVICE DTYPE
train() {
  within 90 "$program" train --config tests/gpu/train.json --set model.dtype="$3" --device "$2" \
    ${dry:+--set model.width=16 --set model.segment=8 --set train.steps=3} --out "$out/runs/$1"
}

# beside_cpu DTYPE BOUND
beside_cpu() {
  train "$1-cpu" cpu "$1" && train "$1-once" "$device" "$1" &&
    python3 tests/gpu/report.py losses "$out/runs/$1-cpu" "$out/runs/$1-once" --within "$2"
}

# twice DTYPE: behind beside_cpu
twice() {
  train "$1-twice" "$device" "$1" &&
    python3 tests/gpu/report.py same "$out/runs/$1-once" "$out/runs/$1-twice"
}

# The sizes of tests/benchmarks/ratios.py; tiny in a dry run.
bench_step() {
  case=$1 mode=$2
  layers=2 width=256 slots=32 segment=128 batch=8 segments=8 steps=20 warmup=5
  [ "$case" = d256 ] || { layers=4 width=512 slots=128; }
  [ -z "$dry" ] || { layers=1 width=16 slots=4 segment=8 batch=2 segments=2 steps=2 warmup=1; }
  set -- --mode "$mode" --slots $slots --batch $batch --segments $segments --steps $steps \
    --warmup $warmup
  within 60 "$program" bench step --device "$device" "$@" --width $width --encoder-layers $layers \
    --decoder-layers $layers --segment $segment --json "$out/step-$case-$mode.json" || return
  [ -n "$peer" ] || return 0
  within 60 "$peer" tests/benchmarks/torch_peer.py --device "$device" "$@" --dim $width \
    --enc $layers --dec $layers --seg $segment >"$out/peer-$case-$mode.json" || {
    echo "PyTorch failed"
    rm "$out/peer-$case-$mode.json"
  }
}

bench_kernels() {
  set -- --seconds 30
  [ -z "$dry" ] || set -- --seconds 0 --small --filter overhead
  within 90 "$program" bench kernels --device "$device" "$@" --json "$out/kernels.json"
}

# The parts --------------------------------------------------------------------------------------

step "$name"
part "device tests" device_tests
part "mrbp is bptt" within 60 "$program" audit mrbp --device "$device" \
  ${dry:+--segments 1,2 --batch 1 --repeats 1}
part "f64 beside the cpu" beside_cpu f64 1e-10
part "f32 beside the cpu" beside_cpu f32 1e-4
for dtype in f64 f32; do part "$dtype twice" twice $dtype; done
if [ -n "$sanitizer" ]; then
  for tool in memcheck racecheck initcheck synccheck; do part "$tool" sanitized $tool; done
else
  note compute-sanitizer skipped 0 "it is not installed here"
fi

peer=
for python in python3 build/peers/newest/bin/python build/peers/debian; do
  finds="import sys, torch; sys.exit('$device' == 'cuda' and not torch.cuda.is_available())"
  [ -n "$peer" ] || ! "$python" -c "$finds" 2>/dev/null || peer=$python
done
[ -n "$peer" ] || note PyTorch skipped 0 "no Python with torch that finds the device"
for case in d256 d512; do
  for mode in bptt mrbp; do part "bench step $case $mode" bench_step $case $mode; done
done
part "bench kernels" bench_kernels

python3 tests/gpu/report.py summary "$out" --log "$log" --date "$(date +%Y-%m-%d)" --device "$name" \
  --driver "$driver" --commit "$commit"
