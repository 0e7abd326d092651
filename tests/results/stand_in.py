#!/usr/bin/env python3
"""Behaves like the program memformer towards run.py, without a model.

Its configuration is {"train": {"steps": N}, "fail": B, "slow": B}: a run that fails does so at its
second step, a slow one takes 0.2 s a step. Each call of train is noted in calls.txt in the run's folder.
"""
import argparse
import json
import pathlib
import signal
import sys
import time

interrupted = False


def note_interrupt(*_):
    global interrupted
    interrupted = True


def train(a):
    signal.signal(signal.SIGINT, note_interrupt)
    config = json.loads(pathlib.Path(a.config).read_text())
    settings = dict(setting.split("=") for setting in a.set)
    config["train"]["seed"] = int(settings["train.seed"])
    a.out.mkdir(parents=True, exist_ok=True)
    checkpoint, metrics = a.out / "checkpoint.safetensors", a.out / "metrics.jsonl"
    if checkpoint.exists() != a.resume:
        sys.exit(f"memformer: train: --resume is {a.resume}, but a checkpoint is {'not ' if a.resume else ''}there")
    with open(a.out / "calls.txt", "a") as calls:
        calls.write("resume\n" if a.resume else "start\n")
    (a.out / "config.json").write_text(json.dumps(config))
    (a.out / "manifest.json").write_text(json.dumps(
        {"threads": a.threads, "device": "cpu", "isa": "avx2", "parameters": 1000,
         "multiply_adds_per_token": {"memory_path": 300.0, "prediction": 700.0}}))
    first = int(checkpoint.read_text()) if a.resume else 0
    checkpoint.write_text(str(first))
    for step in range(first + 1, config["train"]["steps"] + 1):
        if config.get("fail") and step == 2:
            sys.exit("memformer: train: step 2 gave loss nan")
        time.sleep(0.2 if config.get("slow") else 0.0)
        with open(metrics, "a") as file:
            file.write(json.dumps({"step": step, "bits_per_byte": 8.0 / step, "tokens": 100 * step,
                                   "peak_bytes": 5000 + step % 7, "seconds": 0.1}) + "\n")
        checkpoint.write_text(str(step))
        if interrupted:
            sys.exit(130)


def evaluate(a):
    step = int((a.run / "checkpoint.safetensors").read_text())
    seed = json.loads((a.run / "config.json").read_text())["train"]["seed"]
    print(json.dumps({"step": step, "split": a.split, "bits_per_byte": 2.0 + seed / 10}))


def bench_cost(a):
    if a.to < 128:
        sys.exit("memformer: bench cost: the last point is too small")
    rows = [{"model": "memformer", "x": x} for x in (128, 256) if x <= a.to]
    a.json.write_text(json.dumps({"kind": "cost", "command": " ".join(sys.argv), "rows": rows}))


p = argparse.ArgumentParser()
p.add_argument("--threads", type=int)
commands = p.add_subparsers(dest="command", required=True)
c = commands.add_parser("train")
c.add_argument("--config")
c.add_argument("--set", action="append")
c.add_argument("--out", type=pathlib.Path)
c.add_argument("--resume", action="store_true")
c = commands.add_parser("eval")
c.add_argument("--run", type=pathlib.Path)
c.add_argument("--split")
c.add_argument("--json", action="store_true")
c = commands.add_parser("bench")
c.add_argument("what", choices=["cost"])
c.add_argument("--to", type=int)
c.add_argument("--json", type=pathlib.Path)
a = p.parse_args()
{"train": train, "eval": evaluate, "bench": bench_cost}[a.command](a)
