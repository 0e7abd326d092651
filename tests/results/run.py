#!/usr/bin/env python3
"""Trains and measures every row of the tables of docs/results.md, one JSON file for each seed.

The plan lists the rows. A run whose file is in docs/results is not run again; one that was stopped
goes on from its checkpoint, so the queue may be stopped (Ctrl-C) and started again at any time. A run
that fails is reported, and the others go on. Costs are measured only on request (--cost), again each
time, and want the machine to themselves. Needs nothing but Python and the program.
"""
import argparse
import collections
import datetime
import fcntl
import fnmatch
import json
import math
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a program is built from; other files may change between the pieces of one run.
SOURCES = ("CMakeLists.txt", "tensor", "autograd", "nn", "memformer", "cuda")
KEYS = {"table", "row", "label", "config", "set", "seeds", "evaluate", "x", "series", "published", "same_as"}
CURVE_POINTS = 60


class Failure(Exception):
    """Why a run, or the queue, cannot go on, in one line."""


class Interrupted(Exception):
    """The queue was told to end."""


# The plan -----------------------------------------------------------------------------------------


def read_json(path):
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}")
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {error}")


def name_of(experiment):
    return f"{experiment['table']}-{experiment['row']}"


def read_plan(path):
    """The experiments that are run; those that show another one's results are left out."""
    experiments = read_json(path).get("experiments", [])
    names = set()
    for e in experiments:
        where = f"{path}: experiment {e.get('table')}-{e.get('row')}"
        needed = {"table", "row", "label"} | (set() if "same_as" in e else {"config", "seeds"})
        if not needed <= e.keys() <= KEYS:
            raise Failure(f"{where}: missing keys {sorted(needed - e.keys())}, unknown keys {sorted(e.keys() - KEYS)}")
        if not re.fullmatch("[a-z0-9-]+", name_of(e)):
            raise Failure(f"{where}: table and row may have lower-case letters, digits and hyphens only")
        if name_of(e) in names:
            raise Failure(f"{where} is there twice")
        names.add(name_of(e))
    for e in experiments:
        if "same_as" in e and e["same_as"] not in names:
            raise Failure(f"{path}: {name_of(e)} is the same as {e['same_as']}, which is no experiment")
    return [e for e in experiments if "same_as" not in e]


def relative(path):
    """As a reader of the repository would type it."""
    path = pathlib.Path(path).absolute()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


class Run:
    """One seed of one experiment: its commands, its folder, what it has left there."""

    def __init__(self, experiment, seed, a):
        self.experiment, self.seed = experiment, seed
        self.row = name_of(experiment)
        self.name = f"{self.row}-seed{seed}"
        self.folder = a.work / self.name
        self.result = a.results / f"{self.name}.json"
        program = [relative(a.program), "--threads", str(a.threads)]
        settings = [*experiment.get("set", []), f"train.seed={seed}"]
        self.train = [*program, "train", "--config", experiment["config"]]
        for setting in settings:
            self.train += ["--set", setting]
        self.train += ["--out", relative(self.folder)]
        self.evaluate = [*program, "eval", "--run", relative(self.folder), *experiment.get("evaluate", []), "--json"]

    def begun(self):
        return (self.folder / "checkpoint.safetensors").exists()

    def costs(self):
        """What the processes that trained it, one after the other, took."""
        path = self.folder / "costs.json"
        return read_json(path) if path.exists() else {"seconds": 0.0, "process_bytes": 0, "commits": []}

    def metrics(self):
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return []
        rows = []
        for line in path.read_text().splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                pass  # the last line of a process that was killed
        return rows

    def progress(self):
        """The last step in its metrics, and the steps of the whole run; 0 where nothing is there."""
        path = self.folder / "config.json"
        total = read_json(path)["train"]["steps"] if path.exists() else 0
        return next((row["step"] for row in reversed(self.metrics())), 0), total

    def place(self):
        return "step {} of {}".format(*self.progress())

    def seconds_left(self, others):
        """From its own steps, or else from `others`, what runs like it took; None if neither is known."""
        spent, (step, total) = self.costs()["seconds"], self.progress()
        if step and spent:
            return spent / step * (total - step)
        return sum(others) / len(others) if others else None

    def stale(self, result):
        """What its result was made with and the plan no longer says; "" if nothing."""
        planned = dict(leaves(read_json(ROOT / self.experiment["config"])))
        for setting in self.experiment.get("set", []):
            key, _, word = setting.partition("=")
            try:
                planned[key] = json.loads(word)
            except ValueError:
                planned[key] = word
        actual = dict(leaves(result["config"]))
        for key, value in planned.items():
            if actual.get(key) != value:
                return f"made with {key} = {json.dumps(actual.get(key))}, now {json.dumps(value)}"
        options = shlex.join([*self.experiment.get("evaluate", []), "--json"])
        return "" if result["command"][1].endswith(f"{self.folder.name} {options}") else f"not measured with {options}"

    def in_use(self):
        path = self.folder / "lock"
        return path.exists() and not try_lock(path)


def leaves(config, path=""):
    """Pairs such as ("train.steps", 460)."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield path + key, value


def write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def try_lock(path):
    """An open file that holds the lock until it is closed, or None."""
    file = open(path, "a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    except BlockingIOError:
        file.close()
        return None


def commit():
    """What is checked out; "+dirty" if sources differ from it."""
    def git(*words):
        result = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
        return result.stdout.strip() if result.returncode == 0 else None
    try:
        head = git("rev-parse", "HEAD")
        return head and head + ("+dirty" if git("status", "--porcelain", "--", *SOURCES) else "")
    except FileNotFoundError:
        return None


# What a run leaves behind -------------------------------------------------------------------------


def score_of(metrics):
    """The name of what was measured, and its value."""
    for name in ("bits_per_byte", "accuracy"):
        value = metrics.get(name)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return name, value
    raise Failure(f"eval printed neither bits_per_byte nor accuracy: {json.dumps(metrics)}")


def thinned(points):
    """At most CURVE_POINTS of them, evenly spread, the last one included."""
    if len(points) <= CURVE_POINTS:
        return points
    return [points[math.ceil((i + 1) * len(points) / CURVE_POINTS) - 1] for i in range(CURVE_POINTS)]


def result_of(run, metrics):
    manifest, rows, costs = read_json(run.folder / "manifest.json"), run.metrics(), run.costs()
    if not rows:
        raise Failure(f"{run.folder / 'metrics.jsonl'} holds no step; was train.log_every above train.steps?")
    work = manifest.get("multiply_adds_per_token")
    if isinstance(work, dict):  # by part of the model
        work = sum(work.values())
    return {
        "table": run.experiment["table"],
        "row": run.experiment["row"],
        "label": run.experiment["label"],
        "seed": run.seed,
        "command": [shlex.join(run.train), shlex.join(run.evaluate)],
        "commit": ", ".join(costs["commits"]) or None,
        "parameters": manifest["parameters"],
        "tokens": rows[-1]["tokens"],
        **({"difficulty": max(row["difficulty"] for row in rows)} if "difficulty" in rows[-1] else {}),
        "multiply_adds_per_token": work,
        "peak_bytes": max(row["peak_bytes"] for row in rows),
        "process_bytes": costs["process_bytes"],
        "seconds": round(costs["seconds"], 3),
        "threads": manifest["threads"],
        "isa": manifest["isa"],
        "device": manifest["device"],
        "config": read_json(run.folder / "config.json"),
        "metrics": metrics,
        "curve": thinned([[row["tokens"], row["accuracy"] if "accuracy" in row else row["bits_per_byte"]] for row in rows]),
    }


def write_result(path, result):
    """One line for each key and for each row of a table: few, and each a change of its own."""
    def text(value):
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            return "[\n" + ",\n".join("    " + json.dumps(row) for row in value) + "\n  ]"
        return json.dumps(value)
    lines = (f"  {json.dumps(key)}: {text(value)}" for key, value in result.items())
    write_atomically(path, "{\n" + ",\n".join(lines) + "\n}\n")


def measure_costs(patterns, a):
    """cost-NAME.json for each that the plan has: what `memformer bench cost` writes, and the commit."""
    costs = read_json(a.plan).get("costs", {})
    names = [name for name in costs if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not names:
        raise Failure(f"{a.plan} has no cost that is named {' or '.join(patterns)}; it has {', '.join(costs) or 'none'}")
    a.results.mkdir(parents=True, exist_ok=True)
    for name in names:
        result = a.results / f"cost-{name}.json"
        command = [relative(a.program), *shlex.split(costs[name]), "--json", relative(result)]
        print(shlex.join(command), flush=True)
        code = subprocess.run(command, cwd=ROOT).returncode
        if code != 0:
            raise Failure(f"exit code {code} from {shlex.join(command)}")
        measured = read_json(result)
        first = {key: measured.pop(key) for key in ("kind", "command")}
        write_result(result, {**first, "commit": commit(), **measured})


# The queue ----------------------------------------------------------------------------------------


def minutes(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Queue:
    def __init__(self, runs, a):
        self.open = collections.deque(enumerate(runs, 1))
        self.count, self.jobs = len(runs), a.jobs
        self.stop = threading.Event()
        self.lock = threading.Lock()  # of all below
        self.children, self.done, self.failed = set(), [], []

    def say(self, number, run, text):
        with self.lock:
            print(f"{datetime.datetime.now():%H:%M:%S} [{number}/{self.count}] {run.name}: {text}", flush=True)

    def call(self, command, stdout, stderr, watch):
        """Exit code and largest resident bytes of a process; `watch` is called now and then with its seconds."""
        begin = noted = time.monotonic()
        with self.lock:
            if self.stop.is_set():
                raise Interrupted
            # A session of its own: Ctrl-C in a terminal reaches it once, through interrupt_children.
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                       start_new_session=True)
            self.children.add(process.pid)
        while True:
            with self.lock:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    self.children.remove(pid)
            now = time.monotonic()
            if pid or now - noted > 10:
                watch(now - begin)
                noted = now
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode, usage.ru_maxrss * 1024
            time.sleep(0.05)

    def step(self, command, log, stdout=None, watch=lambda seconds: None):
        """Failure unless the command succeeds."""
        with open(log, "a") as errors:
            errors.write(f"$ {shlex.join(command)}\n")
            errors.flush()
            try:
                code, process_bytes = self.call(command, stdout or errors, errors, watch)
            except OSError as error:
                raise Failure(f"{command[0]}: {error.strerror}")
        if code != 0 and self.stop.is_set():
            raise Interrupted
        if code != 0:
            last = log.read_text(errors="replace").splitlines()[-1]
            raise Failure(f"exit code {code} from {shlex.join(command)}: {last} (all of it: {log})")
        return process_bytes

    def run(self, run):
        """Trains, or goes on; measures; writes the result."""
        run.folder.mkdir(parents=True, exist_ok=True)
        log = run.folder / "run.log"
        costs = run.costs()
        here, before = commit(), costs["seconds"]
        if here and here not in costs["commits"]:
            costs["commits"].append(here)

        def keep(seconds):
            costs["seconds"] = before + seconds
            write_atomically(run.folder / "costs.json", json.dumps(costs) + "\n")

        # Of a process that fails or is interrupted only the time is kept.
        process_bytes = self.step([*run.train, *(["--resume"] if run.begun() else [])], log, watch=keep)
        costs["process_bytes"] = max(costs["process_bytes"], process_bytes)
        keep(costs["seconds"] - before)
        answer = run.folder / "eval.json"
        with open(answer, "w") as file:
            self.step(run.evaluate, log, stdout=file)
        metrics = read_json(answer)
        score = score_of(metrics)
        result = result_of(run, metrics)
        write_result(run.result, result)
        return f"{score[0]} {score[1]:.4f}, {minutes(result['seconds'])}"

    def work(self):
        while not self.stop.is_set():
            with self.lock:
                if not self.open:
                    return
                number, run = self.open.popleft()
            try:
                self.say(number, run, f"goes on from {run.place()}" if run.begun() else "starts")
                self.say(number, run, "done, " + self.run(run))
                self.done.append(run)
            except Interrupted:
                self.say(number, run, f"interrupted at {run.place()}")
            except Exception as error:  # whatever is wrong with one run, the others go on
                reason = f"its files lack {error}" if isinstance(error, KeyError) else error
                self.say(number, run, f"FAILED, {reason}")
                self.failed.append(run)

    def interrupt_children(self):
        with self.lock:
            for pid in self.children:
                os.kill(pid, signal.SIGINT)

    def __call__(self):
        """The exit code: 0, 1 after a failure, 130 if interrupted."""
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if name != signal.SIGHUP or signal.getsignal(name) != signal.SIG_IGN:  # nohup
                signal.signal(name, lambda *_: self.stop.set())
        workers = [threading.Thread(target=self.work) for _ in range(self.jobs)]
        for worker in workers:
            worker.start()
        told = False
        for worker in workers:
            while worker.is_alive():
                worker.join(0.1)
                if self.stop.is_set() and not told:
                    told = True
                    self.interrupt_children()
        left = self.count - len(self.done) - len(self.failed)
        print(f"{len(self.done)} done, {len(self.failed)} failed, {left} left", flush=True)
        for run in self.failed:
            print(f"failed: {run.name}")
        return 130 if self.stop.is_set() else 1 if self.failed else 0


# What is done and what is left --------------------------------------------------------------------


def show(runs, jobs):
    seconds = collections.defaultdict(list)  # by row, and by table for rows that were never run
    for run in runs:
        if run.result.exists():
            result = read_json(run.result)
            for group in (run.row, run.experiment["table"]):
                seconds[group].append(result["seconds"])
    counts, left, unknown = collections.Counter(), 0.0, 0
    width = max(len(run.name) for run in runs)
    for run in runs:
        if run.result.exists():
            result = read_json(run.result)
            state, text = "done", "{} {:.4f}, {}".format(*score_of(result["metrics"]), minutes(result["seconds"]))
            if stale := run.stale(result):
                state, text = "stale", f"{stale}; remove {relative(run.result)} to run it again"
        else:
            state, text = ("running" if run.in_use() else "part", run.place()) if run.begun() else ("open", "")
            rest = run.seconds_left(seconds[run.row] or seconds[run.experiment["table"]])
            if rest is None:
                unknown += 1
            else:
                left += rest
                text += f"{', ' if text else ''}about {minutes(rest)} left"
        counts[state] += 1
        print(f"{run.name:<{width}}  {state:<7}  {text}".rstrip())
    print(f"{len(runs)} runs: " + ", ".join(f"{count} {state}" for state, count in counts.items()) +
          f"; about {minutes(left / jobs)} left with --jobs {jobs}" +
          (f", and {unknown} of unknown length" if unknown else ""))


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def parse(arguments):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--jobs", type=positive, default=1, help="runs side by side")
    p.add_argument("--threads", type=positive, default=1, help="of each run")
    p.add_argument("--only", action="append", metavar="PATTERN", help="rows such as 'text-*'; may be given again")
    p.add_argument("--cost", action="append", metavar="PATTERN",
                   help="measure costs such as 'length' or '*' instead; may be given again")
    p.add_argument("--list", action="store_true", help="print the state of each run and the time left, run nothing")
    folder = pathlib.Path
    p.add_argument("--program", type=folder, default=ROOT / "build/release/memformer/memformer")
    p.add_argument("--plan", type=folder, default=ROOT / "tests/results/plan.json")
    p.add_argument("--results", type=folder, default=ROOT / "docs/results", help="folder of the JSON files")
    p.add_argument("--work", type=folder, default=ROOT / "out/results", help="folder of the runs")
    a = p.parse_args(arguments)
    a.results, a.work = a.results.absolute(), a.work.absolute()
    return a


def main(arguments=None):
    a = parse(arguments)
    try:
        if a.cost and (a.only or a.list):
            raise Failure("--cost goes with neither --only nor --list")
        runs = [Run(e, seed, a) for e in read_plan(a.plan) for seed in e["seeds"]
                if not a.only or any(fnmatch.fnmatchcase(name_of(e), pattern) for pattern in a.only)]
        if not runs and not a.cost:
            raise Failure(f"{a.plan} has no row that is named {' or '.join(a.only or ['anything'])}")
        if a.list:
            show(runs, a.jobs)
            return 0
        if not os.access(a.program, os.X_OK):
            raise Failure(f"{a.program} is no program; build it, or name another with --program")
        a.work.mkdir(parents=True, exist_ok=True)
        lock = try_lock(a.work / "lock")
        if not lock:
            raise Failure(f"another queue is running in {a.work}; wait for it, or give another folder with --work")
        with lock:
            if a.cost:
                measure_costs(a.cost, a)
                return 0
            return Queue([run for run in runs if not run.result.exists()], a)()
    except Failure as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
