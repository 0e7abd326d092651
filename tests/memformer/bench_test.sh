#!/bin/sh
# The benchmarks from outside: every subcommand in small, its JSON, and what it refuses.
# Usage: bench_test.sh PROGRAM
set -u
program=$1
. "$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)/program_checks.sh"

small="--width 16 --encoder-layers 1 --decoder-layers 1 --heads 2 --segment 8 --slots 2"
for dtype in f32 f64; do
  succeeds "$program" bench kernels --dtype $dtype --filter "square: 256" --seconds 0 --json k.json
  prints "FMA peak"
  prints "256x256x256"
  is_json k.json
done
succeeds "$program" --threads 2 bench kernels --filter "rows: softmax" --seconds 0
prints "softmax backward"
for mode in bptt checkpointed truncated mrbp; do
  # shellcheck disable=SC2086  # words on purpose
  succeeds "$program" bench step --mode $mode $small --batch 2 --segments 3 --steps 2 --json -
  is_json out
  prints "\"mode\":\"$mode\""
  prints '"model_flop_use"'
done
# shellcheck disable=SC2086
{
  succeeds "$program" bench step $small --batch 1 --segments 2 --steps 1 --json step.json
  prints "model FLOP"
  is_json step.json
  succeeds "$program" bench step --device cpu $small --batch 1 --segments 2 --steps 1 --json -
  prints '"device":"cpu"'
  succeeds "$program" bench step --width 16 --heads 2 --decoder-layers 0 --segment 8 --steps 1
  succeeds "$program" bench generate $small --tokens 12 --json generate.json
  prints "tokens/s"
  is_json generate.json
  succeeds "$program" bench growth $small --from 16 --to 32 --json growth.json
  prints "two segments of more tokens"
  is_json growth.json
}

# cost: each point in a process of its own
tiny="--width 8 --heads 2 --feed-forward 16 --encoder-layers 1 --decoder-layers 1 --segment 4 \
  --slots 2 --cache 4 --compressed 4 --memory-tokens 2 --repeats 1"
# shellcheck disable=SC2086
{
  succeeds "$program" --threads 2 bench cost $tiny --from 8 --to 16 --at-length 16 --json cost.json \
    --html cost.html
  prints "so it is at all 12 points"
  prints "transformer-xl  memformer"
  grep -q "memformer, inference, 8 tokens" err || fail "no progress: $(head -c 300 err)"
  is_json cost.json
  grep -q '"kind":"cost"' cost.json || fail "cost.json is of another kind"
  grep -q '"process_bytes":[1-9]' cost.json || fail "cost.json has no process bytes"
  is_page cost.html
  succeeds "$program" bench cost $tiny --over memory --from 8 --to 8 --length 16 --json -
  is_json out
  prints '"x_name":"memory"'
  succeeds "$program" bench cost $tiny --training --models memformer,lstm --from 8 --to 8
  prints "bptt"
  succeeds "$program" bench cost $tiny --models memformer --from 8 --to 16 --limit-seconds 1e-9 --json -
  is_json out
  prints '"not_run":"may take'
  succeeds "$program" bench cost $tiny --table mrbp --html table.html
  prints "16177"
  is_page table.html
}

refused "subcommand" "$program" bench
refused "smaller one first" "$program" bench cost --from 64 --to 8
refused "whole segments" "$program" bench cost --from 100
refused "perceptron" "$program" bench cost --models perceptron
refused "excludes" "$program" bench cost --table mrbp --over memory
refused "does not divide" "$program" bench cost --width 16 --heads 3
refused "no case has" "$program" bench kernels --filter nothing-like-this --seconds 0
refused "--dtype" "$program" bench kernels --dtype f16
refused "--seconds" "$program" bench kernels --seconds -1
refused "--mode" "$program" bench step --mode backwards
refused "give cpu, cuda or cuda:N" "$program" bench step --device gpu
refused "give cpu, cuda or cuda:N" "$program" bench kernels --device cuda:
refused "batch is 0" "$program" bench step --batch 0
refused "steps is 0" "$program" bench step --steps 0
refused "width is -8" "$program" bench step --width -8
refused "does not divide" "$program" bench step --width 16 --heads 3
refused "tokens is 0" "$program" bench generate --tokens 0
refused "with a decoder" "$program" bench generate --decoder-layers 0
refused "smaller one first" "$program" bench growth --from 64 --to 8
refused "less than one segment" "$program" bench growth --from 8 --to 8
refused "no-such-folder" "$program" bench generate --width 16 --heads 2 --tokens 1 \
  --json no-such-folder/x.json

[ "$failures" -eq 0 ] && echo "all is well"
exit "$failures"
