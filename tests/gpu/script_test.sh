#!/bin/sh
# tests/gpu.sh on any machine: what it says where there is nothing to run on, its flow with a program
# and tools that only leave files behind, and that each planted failure fails it.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
unset MEMFORMER_GPU_PROGRAM MEMFORMER_GPU_TESTS MEMFORMER_GPU_DEVICE
. "$root/tests/memformer/program_checks.sh"
cd "$root" || exit 1

# stand_in NAME: a command of that name, found first; its text is read.
mkdir "$work/bin"
stand_in() {
  cat >"$work/bin/$1"
  chmod +x "$work/bin/$1"
}

# exits CODE PATTERN COMMAND...
exits() {
  expected=$1 pattern=$2
  shift 2
  "$@" >"$work/out" 2>&1
  code=$?
  [ $code -eq "$expected" ] ||
    fail "exit code $code, not $expected, from: $* ($(tail -n 20 "$work/out"))"
  grep -q -- "$pattern" "$work/out" ||
    fail "'$pattern' is not printed by: $* ($(tail -n 20 "$work/out"))"
}

gpu() {
  PATH=$work/bin:$PATH sh tests/gpu.sh "$@"
}

# Nothing to run on ------------------------------------------------------------------------------

stand_in nvidia-smi <<'END'
#!/bin/sh
echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
exit 9
END
exits 77 "SKIPPED: no device answers" gpu
exits 1 "failed: no device answers" gpu --required
stand_in nvidia-smi <<'END'
#!/bin/sh
echo "NVIDIA Device, 580.65.06, 9.0"
END
stand_in nvcc <<'END'
#!/bin/sh
echo "Cuda compilation tools, release 12.4, V12.4.131"
END
export CUDACXX="$work/bin/nvcc"
exits 77 "NVIDIA Device, but .*nvcc is of CUDA 12" gpu
exits 1 "nvcc is of CUDA 12" gpu --required
exits 2 "usage" gpu --requierd

# The flow, and planted failures -----------------------------------------------------------------

stand_in memformer <<'END'
#!/bin/sh
# The files that memformer leaves, and one difference where PLANT asks for it.
command="$1 $2" out= json= device= dtype=
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=$2 ;;
    --json) json=$2 ;;
    --device) device=$2 ;;
    model.dtype=*) dtype=${1#*=} ;;
  esac
  shift
done
case $command in
  train*)
    mkdir -p "$out"
    loss=4.5 weights=abc
    [ "$PLANT $device" != "loss cuda" ] || loss=4.50001
    [ "$PLANT $device" != "nan cuda" ] || loss=NaN
    [ "$PLANT $out" != "byte ${out%-twice}-twice" ] || weights=abd
    [ "$PLANT $dtype" != "steps f32" ] || [ "$device" = cpu ] || exit 1
    printf '{"step":1,"loss":%s,"seconds":%s}\n' $loss $$ >"$out/metrics.jsonl"
    printf '%s' $weights >"$out/checkpoint.safetensors"
    [ "$PLANT $device" != "missing cuda" ] || rm "$out/metrics.jsonl"
    ;;
  "bench step") echo '{"step_s":0.01,"active_peak_bytes":1048576}' >"$json" ;;
  "bench kernels") echo '{"copy":{"median":1.5},"families":[]}' >"$json" ;;
  "audit mrbp") [ "$PLANT" != audit ] || { echo "verdict: NOT bit-identical"; exit 1; } ;;
esac
END
# Without torch, whatever is installed.
stand_in python3 <<END
#!/bin/sh
[ "\$1" != -c ] || exit 1
exec "$(python3 -c 'import sys; print(sys.executable)')" "\$@"
END
export MEMFORMER_GPU_PROGRAM="$work/bin/memformer" MEMFORMER_GPU_OUT="$work/gpu"

# planted WHAT CODE RESULT: what the log then holds
log=$work/gpu/gpu-log.md
planted() {
  export PLANT="$1"
  exits "$2" "appended to" gpu
  tail -n 1 "$log" | grep -q -- "| $3" ||
    fail "with '$1' planted the log has no '$3': $(tail -n 1 "$log")"
}
cp docs/gpu-log.md "$work/before"
planted nothing 0 "pass, without compute-sanitizer.* | 11 of 11 | d256: bptt 10.0 ms, 1 MiB.*; mrbp"
planted loss 1 "FAIL: f64 beside the cpu, without"
planted nan 1 "FAIL: f64 beside the cpu, f32 beside the cpu, without"
planted missing 1 "FAIL: f64 beside the cpu, f32 beside the cpu"
planted steps 1 "FAIL: f32 beside the cpu, f32 twice, without"
planted byte 1 "FAIL: f64 twice, f32 twice, without"
planted audit 1 "FAIL: mrbp is bptt, without"
export MEMFORMER_GPU_TESTS=false
planted nothing 1 "FAIL: device tests, without"
cmp docs/gpu-log.md "$work/before" || fail "a dry run wrote to docs/gpu-log.md"

# As on a GPU: build, device tests and compute-sanitizer, in a copy of the tree ------------------

unset MEMFORMER_GPU_PROGRAM MEMFORMER_GPU_TESTS MEMFORMER_GPU_OUT
mkdir -p "$work/tree/tests" "$work/tree/docs" "$work/tree/examples"
cp -r tests/gpu tests/gpu.sh "$work/tree/tests"
cp docs/gpu-log.md "$work/tree/docs"
cp examples/setup.sh "$work/tree/examples"
cd "$work/tree" || exit 1
log=docs/gpu-log.md
stand_in nvcc <<'END'
#!/bin/sh
echo "Cuda compilation tools, release 13.0, V13.0.88"
END
stand_in apt-get <<'END'
#!/bin/sh
exit 1
END
stand_in cmake <<END
#!/bin/sh
echo "cmake version 3.25.1 \$*" | tee -a "$work/cmake"
mkdir -p build/gpu/memformer
ln -sf "$work/bin/memformer" build/gpu/memformer/memformer
END
stand_in ctest <<'END'
#!/bin/sh
[ "$PLANT" != skip ] || { echo "1/1 Test #1: cuda_device ....***Skipped"; exit 0; }
[ "$PLANT" != ctest ] || exit 8
END
stand_in compute-sanitizer <<'END'
#!/bin/sh
[ "$PLANT $2" != "report racecheck" ] || { echo "ERROR SUMMARY: 1 error"; exit 1; }
[ "$PLANT" != fewer ] || { echo "[doctest] test cases: 1 | 1 passed"; exit 0; }
echo "[doctest] test cases: $(echo "$6" | tr , '\n' | wc -l) | all passed"
END
planted nothing 0 "NVIDIA Device | 580.65.06 | .* | pass.* | 15 of 15 |"
grep -q -- "-B build/gpu -DCMAKE_CUDA_ARCHITECTURES=90$" "$work/cmake" ||
  fail "not built for the device alone: $(cat "$work/cmake")"
grep -q "Nothing has been run" $log && fail "the log says both that nothing was run and what was"
planted skip 1 "FAIL: device tests, without"
planted ctest 1 "FAIL: device tests, without"
planted report 1 "FAIL: racecheck, without"
planted fewer 1 "FAIL: memcheck, racecheck, initcheck, synccheck, without"
[ "$(grep -c "NVIDIA Device" $log)" -eq 5 ] || fail "five runs are not five lines: $(cat $log)"

[ "$failures" -eq 0 ] && echo "all is well"
exit "$failures"
