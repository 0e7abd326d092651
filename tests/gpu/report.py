#!/usr/bin/env python3
"""What tests/gpu.sh concludes from files: whether two runs agree, and the summary of all parts.

  report.py losses RUN RUN --within R   losses of metrics.jsonl, step by step, differ by at most R relatively
  report.py same RUN RUN                metrics.jsonl, timings left out, and checkpoints are the same bytes
  report.py summary FOLDER ...          prints the table of FOLDER/parts.tsv and appends a line to the log

Exit code 1 where runs do not agree, or where a part failed. Needs nothing but Python.
"""
import argparse
import json
import math
import pathlib
import sys

NOTHING_YET = "\nNothing has been run on hardware yet.\n"


class Failure(Exception):
    """Why two runs do not agree, in one line."""


def read(path):
    try:
        return path.read_bytes()
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}")


def lines_of(run):
    lines = read(run / "metrics.jsonl").decode().splitlines()
    if not lines:
        raise Failure(f"{run / 'metrics.jsonl'} is empty")
    return lines


# Two runs ---------------------------------------------------------------------------------------


def losses_of(run):
    """[(step, loss)]"""
    found = []
    for number, line in enumerate(lines_of(run), 1):
        try:
            row = json.loads(line)
            found.append((row["step"], row["loss"]))
        except (ValueError, KeyError, TypeError):
            raise Failure(f"{run / 'metrics.jsonl'}, line {number}: no step and loss")
        if not isinstance(found[-1][1], (int, float)) or not math.isfinite(found[-1][1]):
            raise Failure(f"{run}: the loss of step {found[-1][0]} is {found[-1][1]}")
    return found


def compare_losses(a, b, within):
    """The largest relative difference; Failure if it is above `within`."""
    ours, theirs = losses_of(a), losses_of(b)
    if [step for step, _ in ours] != [step for step, _ in theirs]:
        raise Failure(f"{a} has {len(ours)} steps and {b} {len(theirs)}, or others")
    worst = 0.0
    for (step, x), (_, y) in zip(ours, theirs):
        difference = abs(x - y) / max(abs(x), abs(y)) if x != y else 0.0
        if not difference <= within:
            raise Failure(f"step {step}: losses {x!r} and {y!r} differ by {difference:.2e}, above {within:.0e}")
        worst = max(worst, difference)
    return worst


def without_timings(line):
    """What stands before "seconds" is the same in every run of one build and device."""
    head, found, _ = line.partition(',"seconds":')
    if not found:
        raise Failure(f"a line of metrics without seconds: {line[:60]}")
    return head


def compare_bytes(a, b):
    """Failure unless both runs left the same metrics and the same checkpoint."""
    ours, theirs = ([without_timings(line) for line in lines_of(run)] for run in (a, b))
    if len(ours) != len(theirs):
        raise Failure(f"{a} has {len(ours)} lines of metrics, {b} {len(theirs)}")
    for x, y in zip(ours, theirs):
        if x != y:
            raise Failure(f"metrics differ: {x} and {y}")
    x, y = (read(run / "checkpoint.safetensors") for run in (a, b))
    if len(x) != len(y):
        raise Failure(f"checkpoints have {len(x)} and {len(y)} bytes")
    if x != y:
        raise Failure(f"checkpoints differ from byte {next(i for i in range(len(x)) if x[i] != y[i])} on")
    return len(x)


# The summary ------------------------------------------------------------------------------------


def parts_of(folder):
    """[(name, result, seconds, note)]; a result is pass, FAIL or skipped."""
    rows = [line.split("\t") for line in read(folder / "parts.tsv").decode(errors="replace").splitlines()]
    if not rows or any(len(row) != 4 or row[1] not in ("pass", "FAIL", "skipped") for row in rows):
        raise Failure(f"{folder / 'parts.tsv'} holds no parts, or damaged ones")
    return rows


def report_of(path):
    """The one JSON object of a benchmark, or None."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def step_figures(folder):
    """One text for each training job: times of both modes, and beside PyTorch."""
    texts = []
    for case in ("d256", "d512"):
        words = []
        for mode in ("bptt", "mrbp"):
            ours, peer = (report_of(folder / f"{side}-{case}-{mode}.json") for side in ("step", "peer"))
            if not ours:
                continue
            word = f"{mode} {1e3 * ours['step_s']:.1f} ms, {ours['active_peak_bytes'] / 2**20:.0f} MiB"
            if peer:
                word += f" ({peer['step_s'] / ours['step_s']:.2f} times PyTorch's speed)"
            words.append(word)
        if words:
            texts.append(f"{case}: " + "; ".join(words))
    return texts


def kernel_figures(report):
    texts = [f"copy {report['copy']['median']:.0f} GB/s"] if report["copy"]["median"] else []
    for family in report["families"]:
        if family["geometric_mean"] is not None:
            unit = "% of copy" if family["unit"] == "percent" else family["unit"]
            texts.append(f"{family['name']} {family['geometric_mean']:.0f} {unit}")
    return texts


def figures_of(folder):
    texts = step_figures(folder)
    kernels = report_of(folder / "kernels.json")
    if kernels:
        texts.append("kernels: " + ", ".join(kernel_figures(kernels)))
    return texts


def log_line(parts, figures, a):
    failed = [name for name, result, _, _ in parts if result == "FAIL"]
    skipped = [f"without {name}" for name, result, _, _ in parts if result == "skipped"]
    run = [result for _, result, _, _ in parts if result != "skipped"]
    result = ", ".join([f"FAIL: {', '.join(failed)}" if failed else "pass", *skipped])
    cells = [a.date, a.device, a.driver, a.commit, result, f"{run.count('pass')} of {len(run)}", "; ".join(figures) or "-"]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |\n"


def append_to_log(path, line):
    text = path.read_text()
    if not text.endswith("\n"):
        text += "\n"
    path.write_text(text.replace(NOTHING_YET, "") + line)


def summary(a):
    parts = parts_of(a.folder)
    print(f"\n{'part':<34} {'result':<8} {'seconds':>7}  note")
    for name, result, seconds, note in parts:
        print(f"{name:<34} {result:<8} {seconds:>7}  {note}".rstrip())
    figures = figures_of(a.folder)
    if figures:
        print("\n" + "\n".join(figures))
    line = log_line(parts, figures, a)
    append_to_log(a.log, line)
    print(f"\nappended to {a.log}:\n{line}", end="")
    return any(result == "FAIL" for _, result, _, _ in parts)


def parse(arguments):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = p.add_subparsers(dest="command", required=True)
    for name in ("losses", "same"):
        command = commands.add_parser(name)
        command.add_argument("runs", nargs=2, type=pathlib.Path)
        if name == "losses":
            command.add_argument("--within", type=float, required=True)
    command = commands.add_parser("summary")
    command.add_argument("folder", type=pathlib.Path)
    command.add_argument("--log", type=pathlib.Path, required=True)
    for name in ("date", "device", "driver", "commit"):
        command.add_argument(f"--{name}", required=True)
    return p.parse_args(arguments)


def main(arguments=None):
    a = parse(arguments)
    try:
        if a.command == "losses":
            print(f"losses differ by at most {compare_losses(*a.runs, a.within):.1e}")
        elif a.command == "same":
            print(f"the same metrics, and checkpoints of {compare_bytes(*a.runs)} bytes")
        elif summary(a):
            return 1
    except Failure as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
