#!/bin/sh
# The program with --device cuda, on the stand-in of ptx/: train, go on, evaluate, generate, audit.
# Usage: program_test.sh PROGRAM_ON_THE_STAND_IN PROGRAM
set -u
program=$1 real=$2
. "$(CDPATH='' cd -- "$(dirname -- "$0")/../memformer" && pwd)/program_checks.sh"

# close_to NAME A B: the two numbers agree to five digits.
close_to() {
  awk -v a="$2" -v b="$3" 'BEGIN { exit !(b != "" && a - b < 1e-5 * b && b - a < 1e-5 * b) }' ||
    fail "$1 is $2 on cuda, $3 on the cpu"
}
# field NAME: its number in the JSON object in ./out.
field() {
  sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" out
}

text 60 > corpus.txt
cat > config.json << 'JSON'
{"model": {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 24,
           "segment": 8, "slots": 3, "dropout": 0.1},
 "data": {"source": "file:corpus.txt", "batch": 2},
 "train": {"steps": 4, "horizon": 3, "stride": 2, "warmup": 1, "log_every": 1}}
JSON

# --- Train, and go on from a checkpoint, with the same bits ----------------------------------------

succeeds "$program" train --config config.json --out whole --device cuda
prints "from step 0, cuda:0 (PTX interpreter"
prints "^done at step 4"
grep -q '"device": "cuda:0 (PTX interpreter, [0-9.]*)"' whole/manifest.json || fail "the manifest does not name the device"
succeeds "$program" train --config config.json --set train.steps=2 --set train.decay_steps=4 \
  --out parts --device cuda
succeeds "$program" train --config config.json --set train.decay_steps=4 --out uncut --device cuda
succeeds "$program" train --out parts --resume --set train.steps=4 --device cuda
metrics uncut > expected
metrics parts > resumed
cmp expected resumed || fail "metrics of a resumed run are not those of the whole run"

# --- The same on the cpu, but for rounding ---------------------------------------------------------

succeeds "$program" train --config config.json --out here
for run in whole here; do
  sed -n '4s/.*"loss":\([0-9.]*\).*/\1/p' "$run/metrics.jsonl" > "$run.loss"
done
close_to "the loss of step 4" "$(cat whole.loss)" "$(cat here.loss)"
succeeds "$program" train --out whole --resume --set train.steps=5
prints "was made on cuda:0 (PTX interpreter, [0-9.]*), this run goes on with cpu: bits may differ"
prints "^done at step 5"

succeeds "$program" eval --run whole --split valid --batch 2 --json
expected=$(field bits_per_byte)
succeeds "$program" eval --run whole --split valid --batch 2 --json --device cuda
close_to "the evaluation" "$(field bits_per_byte)" "$expected"
succeeds "$program" generate --run whole --bytes 12 --temperature 0
mv out expected
succeeds "$program" generate --run whole --bytes 12 --temperature 0 --device cuda:0
cmp expected out || fail "the bytes generated on cuda are not the cpu's"

# --- MRBP is BPTT; a planted mistake is found ------------------------------------------------------

succeeds "$program" audit mrbp --config config.json --segments 1,3 --batch 1 --repeats 1 --device cuda
prints "verdict: MRBP is bit-identical to BPTT"
"$program" audit mrbp --config config.json --segments 3 --batch 1 --repeats 1 --device cuda \
  --plant drop-state-seed > out 2>&1 && fail "the planted mistake is not found on cuda"
prints "verdict: MRBP is NOT bit-identical"

# --- Devices that are not there --------------------------------------------------------------------

refused "cpu, cuda or cuda:N" "$program" generate --run whole --device gpu
refused "cuda:3 does not exist" "$program" generate --run whole --device cuda:3
# With the real libraries: it works where there is a device, and says so where there is none.
if ! "$real" generate --run whole --bytes 1 --device cuda > out 2> err; then
  grep -q "^memformer: cuda: no device answers" err || fail "without a device: $(cat err)"
fi

exit "$failures"
