#!/bin/sh
# `memformer bench --device cuda` in small, by a program whose kernels run on the stand-in runtime.
# Usage: bench_test.sh PROGRAM
set -u
program=$1
. "$(CDPATH='' cd -- "$(dirname -- "$0")/../memformer" && pwd)/program_checks.sh"

# field NAME FILE: a number of a report
field() {
  sed -n "s/.*\"$1\":\([^,}]*\).*/\1/p" "$2"
}

# agree NAME BOUND A B: the field differs by at most BOUND, relatively
agree() {
  awk -v a="$(field "$1" "$3")" -v b="$(field "$1" "$4")" -v bound="$2" \
    'BEGIN { d = a - b; exit !(a > 0 && b > 0 && d <= bound * a && -d <= bound * a) }' ||
    fail "$1 is $(field "$1" "$3") in $3 and $(field "$1" "$4") in $4"
}

model="--width 16 --encoder-layers 1 --decoder-layers 1 --heads 2 --segment 8 --slots 2"
for dtype in f64:1e-10 f32:1e-4; do
  for mode in bptt mrbp; do
    for device in cpu cuda; do
      # shellcheck disable=SC2086  # words on purpose
      succeeds "$program" bench step --device $device --mode $mode --dtype ${dtype%:*} $model --batch 2 \
        --segments 3 --steps 2 --json $device-$mode.json
      prints "model FLOP"
    done
    agree loss_first "${dtype#*:}" cpu-$mode.json cuda-$mode.json
    agree loss_last "${dtype#*:}" cpu-$mode.json cuda-$mode.json
    [ "$(field loss_last cuda-$mode.json)" = "$(field loss_last cuda-bptt.json)" ] ||
      fail "$mode and bptt end in other losses on the device"
    agree active_peak_bytes 0.01 cpu-$mode.json cuda-$mode.json
    agree active_standing_bytes 0.01 cpu-$mode.json cuda-$mode.json
  done
done
grep -q '"device":"cuda:0 (PTX interpreter, [0-9.]*)"' cuda-mrbp.json || fail "the report is not of cuda:0"
[ "$(field model_flop_use cuda-mrbp.json)" = null ] || fail "a share of the cpu's peak for a device"

succeeds "$program" bench kernels --device cuda --small --filter "mul of 16, not" --seconds 0 \
  --json k.json
prints "^f32, cuda:0, 1 rounds"
prints "copy [0-9.]* \[.*\] GB/s"
prints "overhead .* 1 *0$"
grep -q '"device":"cuda:0 (PTX interpreter, [0-9.]*)"' k.json || fail "the report is not of cuda:0"
# shellcheck disable=SC2086
succeeds "$program" bench growth --device cuda $model --from 16 --to 16
prints "^mrbp, cuda:0, width 16"
# shellcheck disable=SC2086
succeeds "$program" bench step --device cuda --tf32 --mode bptt $model --batch 2 \
  --segments 3 --steps 2 --json tf32.json
grep -q '"device":"cuda:0 (PTX interpreter, [0-9.]*, TF32)"' tf32.json || fail "TF32 is not reported"
[ "$(field loss_last tf32.json)" != "$(field loss_last cuda-bptt.json)" ] || fail "--tf32 changes nothing"
# shellcheck disable=SC2086
succeeds "$program" bench generate --device cuda $model --tokens 4 --json g.json
grep -q '"device":"cuda:0 (PTX interpreter, [0-9.]*)"' g.json || fail "the report is not of cuda:0"
refused "cuda:7 does not exist" "$program" bench step --device cuda:7 --width 16 --heads 2 --steps 1

[ "$failures" -eq 0 ] && echo "all is well"
exit "$failures"
