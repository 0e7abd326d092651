#!/bin/sh
# The program from outside: a run killed in the middle and resumed, every subcommand, every bad input.
# Usage: cli_test.sh PROGRAM
set -u
program=$1
training=
. "$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)/program_checks.sh"
clean_up() {
  [ -n "$training" ] && kill -9 "$training" 2> /dev/null
  rm -rf "$work"
}
trap clean_up EXIT

# --- A corpus, and a run that is never stopped -----------------------------------------------------

text 250 > corpus.txt
cat > config.json << 'JSON'
{"model": {"width": 32, "heads": 4, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 64,
           "segment": 16, "slots": 4, "dropout": 0.1},
 "data": {"source": "file:corpus.txt", "batch": 4},
 "train": {"steps": 120, "horizon": 4, "stride": 2, "warmup": 10, "log_every": 1,
           "checkpoint_every": 7, "eval_every": 25, "eval_bytes": 500}}
JSON
succeeds "$program" train --config config.json --out whole
prints "^done at step 120"
[ "$(wc -l < whole/metrics.jsonl)" -eq 120 ] || fail "120 steps gave $(wc -l < whole/metrics.jsonl) lines"

# --- Killed in the middle, and resumed -------------------------------------------------------------

"$program" train --config config.json --out killed > killed.log 2>&1 &
training=$!
while kill -0 "$training" 2> /dev/null && [ "$(cat killed/metrics.jsonl 2> /dev/null | wc -l)" -lt 10 ]
do sleep 0.02; done
kill -9 "$training" 2> /dev/null || fail "the run ended before it could be killed"
wait "$training" 2> /dev/null
training=
[ "$(wc -l < killed/metrics.jsonl)" -lt 120 ] || fail "the run was finished before it was killed"
succeeds "$program" train --out killed --resume
prints "^done at step 120"
metrics whole > expected
metrics killed > resumed
cmp expected resumed || fail "metrics after kill -9 and --resume are not those of the whole run"
cmp whole/checkpoint.safetensors killed/checkpoint.safetensors ||
  fail "the checkpoint after kill -9 and --resume is not that of the whole run"

# --- In use, then interrupted by a signal: a checkpoint is written ---------------------------------

"$program" train --config config.json --set train.steps=100000 --out interrupted > interrupted.log 2>&1 &
training=$!
while kill -0 "$training" 2> /dev/null &&
  [ "$(cat interrupted/metrics.jsonl 2> /dev/null | wc -l)" -lt 3 ]; do sleep 0.02; done
refused "in use by another process" "$program" train --out interrupted --resume
kill -TERM "$training"
wait "$training"
code=$?
training=
[ $code -eq 130 ] || fail "exit code $code after a signal, 130 is expected"
grep -q "^interrupted at step" interrupted.log || fail "no word of the interruption"
grep -q "$(printf '\r')" interrupted.log && fail "carriage returns in a file"

# --- What a trained model can do -------------------------------------------------------------------

succeeds "$program" eval --run whole --split valid --ngram
prints "with memory"
prints "n-gram of order 5"
succeeds "$program" eval --run whole --split all --json
prints '"bits_per_byte_memory_reset"'

succeeds "$program" generate --run whole --prompt "line 7 says" --bytes 90 --seed 4
[ "$(wc -c < out)" -eq 90 ] || fail "generate wrote $(wc -c < out) bytes instead of 90"
mv out first
succeeds "$program" generate --run whole --prompt "line 7 says" --bytes 90 --seed 4
cmp first out || fail "the same seed gave other bytes"
succeeds "$program" --threads 1 generate --run whole --prompt "line 7 says" --bytes 90 --seed 4
cmp first out || fail "one thread gave other bytes"
succeeds "$program" generate --run whole --prompt "line 7 says" --bytes 90 --seed 5
cmp -s first out && fail "another seed gave the same bytes"
printf 'line 7 says' > prompt.txt
succeeds "$program" generate --run whole --prompt-file prompt.txt --bytes 90 --seed 4
cmp first out || fail "a prompt from a file gave other bytes"
succeeds "$program" generate --run whole --bytes 20 --temperature 0
[ "$(wc -c < out)" -eq 20 ] || fail "generate without a prompt wrote $(wc -c < out) bytes"
succeeds "$program" generate --run whole --bytes 0
[ -s out ] && fail "generate --bytes 0 wrote something"

succeeds "$program" inspect --run whole
prints "encoder.tokens.weight"
prints "multiply-adds per token"
prints "weights of step 120"
succeeds "$program" inspect --run whole --json
prints '"memory_bytes_per_row":512'
succeeds "$program" inspect --config config.json
prints "f32\[32, 64\]"
succeeds "$program" inspect --file whole/checkpoint.safetensors
prints "state.memory"
prints "^step: 120"
succeeds "$program" inspect --file whole/checkpoint.safetensors --json
prints '"stream_position"'

succeeds "$program" audit mrbp --segments 1,3,5 --batch 2 --repeats 1
prints "verdict: MRBP is bit-identical to BPTT"
succeeds "$program" audit mrbp --run whole --dtype f64 --segments 3 --repeats 1 --json
prints '"bit_identical":true'
succeeds "$program" audit mrbp --config config.json --segments 2 --repeats 1
finds "NOT bit-identical" "$program" audit mrbp --segments 2,3 --repeats 1 --plant drop-state-seed
prints "gradient of writer"

# --- Audits -----------------------------------------------------------------------------------------

succeeds "$program" audit gradients --op softmax --html gradients.html
prints "softmax (axis 0)"
prints "exp-nan .*caught"
prints "23 of 23 planted faults are caught"
is_page gradients.html
succeeds "$program" audit gradients --op MemoryWriter --tolerance pytorch --json
prints '"holds":true'
is_json out
finds "square: the factor 2 is missing .*input 0 .*analytic and numeric differ" \
  "$program" audit gradients --op square --plant square-factor
finds '"holds":false' "$program" audit gradients --op exp --plant exp-nan --json
is_json out
refused "there is no op or layer 'sofmax'; known are add" "$program" audit gradients --op sofmax
refused "there is no planted fault 'nothing'" "$program" audit gradients --plant nothing
refused "finite differences of f32 are noise" "$program" audit gradients --dtype f32

succeeds "$program" audit tape --config config.json --html tape.html --dot tape.dot
prints "^encoder .* [0-9]* of [0-9]* "
prints "verdict: every claim holds"
grep -q "^digraph tape" tape.dot || fail "tape.dot is no graph"
is_page tape.html
succeeds "$program" audit tape --config config.json --all
prints "^    self_attention"
succeeds "$program" audit tape --run whole --batch 2 --json
prints '"holds":true'
is_json out
finds "(forgetful_add) gave its input 1, value [0-9]*, nothing" \
  "$program" audit tape --config config.json --plant forgotten-input
finds "writer.query.weight: none yet before, none yet after" \
  "$program" audit tape --config config.json --plant drop-state-seed
refused "--plant" "$program" audit tape --plant nothing
refused "--depth" "$program" audit tape --depth 0

# A dot that draws, and one that does not: the page has the drawing, or does without.
mkdir drawing
cat > drawing/dot << 'SH'
#!/bin/sh
{ echo '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://dtd">'
  echo '<svg width="8pt"><g class="graph"><text>drawn</text></g></svg>'; } > "$3"
SH
chmod +x drawing/dot
PATH=$work/drawing:$PATH "$program" audit tape --config config.json --html tape.html > out 2> err ||
  fail "a page with a drawing: $(cat err)"
grep -q '<svg role="img".*<title>.*drawn' tape.html || tr -d '\n' < tape.html |
  grep -q '<svg role="img".*<title>.*drawn' || fail "the page has no drawing"
grep -q "DOCTYPE svg" tape.html && fail "the drawing kept its document"
printf '#!/bin/sh\necho "no fonts here" >&2\nexit 3\n' > drawing/dot
PATH=$work/drawing:$PATH "$program" audit tape --config config.json --html tape.html > out 2> err ||
  fail "a dot that fails ended the audit: $(cat err)"
grep -q "exit code 3: no fonts here" err || fail "no word of dot's failure: $(cat err)"
is_page tape.html

succeeds "$program" audit slots --config config.json --segments 2 --text corpus.txt --json
prints '"holds":true'
is_json out
succeeds "$program" audit slots --run whole --segments 3
prints "^verdict: the weights reproduce"
refused "no-such.txt" "$program" audit slots --text no-such.txt
succeeds "$program" audit determinism --config config.json --steps 2
prints "^verdict: all runs have the same bits"

succeeds "$program" audit memory --html memory.html
prints "^verdict: the ledger adds up to the allocator's active bytes at all"
is_page memory.html
grep -q "<svg" memory.html || fail "no picture in memory.html"
succeeds "$program" audit memory --config config.json --mode bptt --segments 2 --batch 1 --json
prints '"gap_event":null'
prints '"holds":true'
for mode in checkpointed truncated; do
  succeeds "$program" audit memory --run whole --mode $mode --segments 3 --batch 1
done
finds "^verdict: NOT so: at event" "$program" audit memory --plant miss-event --segments 2

succeeds "$program" audit trace --html trace.html
prints "^verdict: all 9 claims hold"
prints "3 G is absent"
is_page trace.html
grep -q "<svg" trace.html || fail "no picture in trace.html"
grep -q "step.next, gradient" trace.html || fail "no code beside the steps"
succeeds "$program" audit trace --run whole --dtype f64 --segments 2 --batch 1 --json
prints '"same_bits":true'
prints '"holds":true'
finds "DIFFER" "$program" audit trace --plant replay-key --segments 3
prints "segment 1: 'memory' of M_2 differs at element"

cat > task.json << 'JSON'
{"model": {"vocabulary": 34, "width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1,
           "feed_forward": 16, "segment": 4, "slots": 3},
 "data": {"source": "task:remember", "max_difficulty": 2}, "train": {"steps": 2}}
JSON
succeeds "$program" train --config task.json --out task
succeeds "$program" eval --run task --windows 3
prints "accuracy with memory"
# --- Instruction sets ------------------------------------------------------------------------------

succeeds "$program" inspect --cpu
prints "^processor: "
prints "^tile of the matrix product: "
widest=$(sed -n 's/^instruction set: \([a-z0-9]*\) .*/\1/p' out)
succeeds "$program" --isa portable inspect --cpu --json
prints '"isa":"portable","available":\["portable"'
prints '"vector_bytes":16'
succeeds "$program" train --config task.json --set train.steps=3 --out sets --isa portable
prints "threads, portable; run folder"
prints "^peak memory: .* in tensors, .* of the process"
succeeds "$program" inspect --run sets --json
prints '"isa":"portable"'
succeeds "$program" inspect --run sets
prints "weights of step 3, made with portable"
succeeds "$program" inspect --file sets/checkpoint.safetensors
prints "^isa: portable"
succeeds "$program" train --out sets --resume --set train.steps=4 --isa portable
grep -q "bits may differ" out && fail "a warning though the instruction set is the same"
if [ "$widest" != portable ]; then
  succeeds "$program" train --out sets --resume --set train.steps=5
  grep -q "\"isa\": \"$widest\"" sets/manifest.json ||
    fail "the manifest does not have the instruction set that the run went on with"
  [ "$(grep -c "made with portable and this run goes on with $widest: bits may differ" out)" -eq 1 ] ||
    fail "no word of the other instruction set: $(cat out)"
fi
refused "'sse9' is not one of" "$program" --isa sse9 inspect --cpu

succeeds "$program" --help
prints "Subcommands"
succeeds "$program" --version

# --- What is wrong is said in one line -------------------------------------------------------------

train() { "$program" train --config config.json --out new "$@"; }
: > empty.txt
printf '{"model": {"width": 32,}}' > broken.json
printf '{"model": {"widht": 32}}' > unknown.json
printf '{"model": {"dropout": 0, "attention_dropout": 0}}' > dry.json
head -c 5000 whole/checkpoint.safetensors > cut.safetensors
mkdir damaged && cp whole/config.json damaged && cp cut.safetensors damaged/checkpoint.safetensors
mkdir changed && cp -r whole/* changed

refused "no-such.json" "$program" train --config no-such.json --out new
refused "not valid JSON" "$program" train --config broken.json --out new
refused "unknown key 'model.widht'" "$program" train --config unknown.json --out new
refused "unknown key 'model.widht'" train --set model.widht=32
refused "not a setting" train --set model.width
refused "does not divide" train --set model.heads=5
refused "no-such.txt" train --set data.source=file:no-such.txt
refused "empty" train --set data.source=file:empty.txt
refused "too little text" train --set model.segment=5000
refused "set model.vocabulary=257" train --set model.vocabulary=100
refused "train.stride" train --set train.stride=9
refused "--tf32: cpu has no TF32; give --device cuda" train --tf32
for name in gpu cuda: cuda:x cuda:-1 cuda:1x CPU; do
  refused "'$name' is not a device; give cpu, cuda or cuda:N" train --device "$name"
done
refused "first cause" train --set train.optimizer=sgd --set train.learning_rate=1e20 --set train.clip=0
refused "cannot make the folder" "$program" train --config config.json --out config.json
refused "holds a run already" "$program" train --config config.json --out whole
refused "nothing to resume" "$program" train --out nowhere --resume
refused "train.learning_rate' differs" \
  "$program" train --out whole --resume --set train.learning_rate=1
refused "describes a memformer, but --model is lstm" "$program" train --out whole --resume --model lstm
refused "checkpoint.safetensors" "$program" train --out damaged --resume
refused "checkpoint.safetensors" "$program" eval --run damaged
refused "--out is required" "$program" train
echo "more" >> corpus.txt
refused "have changed" "$program" train --out changed --resume

refused "does not exist" "$program" eval --run nowhere
refused "none-such" "$program" eval --run whole --data none-such
refused "vocabulary" "$program" eval --run task --data file:corpus.txt
refused "difficulty" "$program" eval --run task --difficulty 100
refused "difficulty" "$program" eval --run task --difficulty -1
refused "--split" "$program" eval --run whole --split half
refused "--ngram needs" "$program" eval --run whole --split all --ngram

refused "does not exist" "$program" generate --run nowhere
refused "prompt is empty" "$program" generate --run whole --prompt ""
refused "no-such.txt" "$program" generate --run whole --prompt-file no-such.txt
refused "temperature" "$program" generate --run whole --temperature -1
refused "top_p" "$program" generate --run whole --top-p 2
refused "top_k" "$program" generate --run whole --top-k -1
refused "bytes need 257" "$program" generate --run task
refused "excludes" "$program" generate --run whole --prompt a --prompt-file prompt.txt
if [ -w /dev/full ] && "$program" generate --run whole --bytes 5 > /dev/full 2> err; then
  fail "generate to a full disk did not fail"
fi

refused "Exactly 1 option" "$program" inspect
refused "no-such" "$program" inspect --file no-such.safetensors
refused "cut.safetensors" "$program" inspect --file cut.safetensors
refused "config.json" "$program" inspect --file config.json
refused "--segments" "$program" audit mrbp --segments 0
refused "window 2 has 1" "$program" audit mrbp --segments 2,1
refused "--plant" "$program" audit mrbp --plant nothing
refused "--plant" "$program" audit memory --plant replay-key
refused "--mode" "$program" audit memory --mode none
refused "--segments" "$program" audit trace --segments 0
refused "no dropout" "$program" audit trace --config dry.json --plant replay-key
refused "subcommand" "$program" audit
refused "subcommand" "$program"
refused "--threads" "$program" --threads 0 inspect --config config.json
refused "subcommand" "$program" nonsense

[ "$failures" -eq 0 ] && echo "all is well"
exit "$failures"
