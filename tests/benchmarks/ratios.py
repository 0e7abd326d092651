#!/usr/bin/env python3
"""Runs Memformer.cpp and PyTorch in turn, each in its own process, and prints the ratios.

Started by against_torch.sh, which says what the options mean. Only ratios of two runs of the same
minute mean anything, so one pair is run after the other, begun only when the machine is idle, and
repeated if others used it meanwhile. Needs nothing but Python.
"""
import argparse
import datetime
import glob
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
MODES = ("bptt", "mrbp", "checkpointed")
# The training jobs: options of both sides, by the same names where they have them.
JOBS = {
    "d256": {"width": 256, "layers": 2, "segment": 128, "slots": 32, "batch": 8, "segments": 8, "steps": 5, "warmup": 1},
    "d512": {"width": 512, "layers": 4, "segment": 128, "slots": 128, "batch": 8, "segments": 8, "steps": 2, "warmup": 1},
    "tiny": {"width": 64, "layers": 2, "segment": 32, "slots": 8, "batch": 2, "segments": 8, "steps": 40, "warmup": 5},
}
CASES = (*JOBS, "generate", "kernels")


class Failure(Exception):
    """What ends the program, in one line."""


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", required=True)
    p.add_argument("--python", action="append", required=True)
    p.add_argument("--threads", type=int, choices=(1, 2), default=1)
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--case", choices=(*CASES, "all"), default="d256")
    p.add_argument("--mode", choices=(*MODES, "all"), default="all")
    p.add_argument("--segments", type=int, help="another length of the window than the case's")
    p.add_argument("--steps", type=int, help="other timed steps in a run than the case's")
    p.add_argument("--seconds", type=float, default=20.0, help="of a run of the case kernels")
    p.add_argument("--others", type=float,
                   help="cores that others may use meanwhile; default: 0.06 if all cores are ours, else 0.15")
    p.add_argument("--patience", type=float, default=600.0, help="seconds to wait for an idle machine")
    p.add_argument("--out", default="out/benchmarks", help="folder of the JSON files")
    a = p.parse_args()
    if a.pairs < 1:
        p.error(f"--pairs is {a.pairs}; it must be positive")
    if a.others is None:
        a.others = 0.06 if a.threads >= (os.cpu_count() or 1) else 0.15
    return a


# The machine ------------------------------------------------------------------------------------


def busy_seconds():
    """CPU seconds that anything has used since the machine started."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICKS


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def wait_until_idle(limit, patience):
    """Returns when less than `limit` cores were used for two seconds."""
    end, told = time.monotonic() + patience, False
    while True:
        before, begin = busy_seconds(), time.monotonic()
        time.sleep(2.0)
        load = (busy_seconds() - before) / (time.monotonic() - begin)
        if load <= limit:
            return
        if time.monotonic() > end:
            raise Failure(f"others use {load:.2f} cores and went on for {patience:.0f} s; "
                          "wait for them, or allow more with --others")
        if not told:
            print(f"  waiting: others use {load:.2f} cores", file=sys.stderr, flush=True)
            told = True


def run(argv, environment):
    """The JSON object that the command prints last, and the cores that others used meanwhile."""
    busy, own, begin = busy_seconds(), children_seconds(), time.monotonic()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wall = time.monotonic() - begin
    others = (busy_seconds() - busy - (children_seconds() - own)) / wall
    if done.returncode != 0:
        raise Failure(f"exit code {done.returncode} from: {' '.join(argv)}\n{done.stderr[-2000:]}")
    report = json.loads(done.stdout.strip().splitlines()[-1])
    report["others"] = round(max(0.0, others), 4)
    return report


def disturbed(report, limit):
    """Why this run does not count, or None."""
    if report["others"] > limit:
        return f"others used {report['others']:.2f} cores"
    wall, cpu = report.get("step_s"), report.get("cpu_s")
    if wall and report["threads"] == 1 and not 0.97 <= cpu / wall <= 1.03:
        return f"{cpu:.4f} s of CPU in a step of {wall:.4f} s"
    if wall and cpu < 0.97 * wall:
        return f"{cpu:.4f} s of CPU in a step of {wall:.4f} s on {report['threads']} threads"
    return None


# The two sides ----------------------------------------------------------------------------------


class Peer:
    """A Python with PyTorch, set as well as it can be."""

    def __init__(self, python, threads):
        self.python = python
        self.environment = {k: v for k, v in os.environ.items()
                            if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "ATEN_CPU_CAPABILITY",
                                         "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND", "OMP_PLACES")}
        self.environment["OMP_NUM_THREADS"] = str(threads)
        found = subprocess.run([python, "-c", "import torch; print(torch.__version__); print(torch.__file__)"],
                               env=self.environment, capture_output=True, text=True)
        if found.returncode != 0:
            raise Failure(f"{python} has no torch")
        self.version, place = found.stdout.split()
        self.name = f"torch {self.version}"
        self.blas = "its own"
        if place.startswith("/usr/lib/python3"):
            # Debian's: with another BLAS than this, two pools of threads fight for the cores.
            folders = glob.glob("/usr/lib/*/openblas-openmp")
            if folders:
                self.blas = "OpenBLAS, OpenMP"
                old = os.environ.get("LD_LIBRARY_PATH")
                self.environment["LD_LIBRARY_PATH"] = folders[0] + (f":{old}" if old else "")
            elif threads > 1:
                raise Failure(f"{self.name} of Debian needs the package libopenblas0-openmp to be fast on "
                              f"{threads} threads; install it (tests/benchmarks/peers.sh)")


class Ours:
    def __init__(self, program, threads):
        self.command = [program, "--threads", str(threads), "bench"]
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}


def jobs_of(a):
    """(case, mode, options of ours, options of the peer)"""
    jobs = []
    for case in CASES if a.case == "all" else (a.case,):
        if case == "kernels":
            jobs.append((case, "", ["kernels", "--json", "-", "--seconds", str(a.seconds)],
                         [str(HERE / "torch_kernels.py"), "--json", "--seconds", str(a.seconds)]))
        elif case == "generate":
            jobs.append((case, "", ["generate", "--tokens", "1024", "--json", "-"],
                         [str(HERE / "torch_generate.py"), "--tokens", "1024"]))
        else:
            job = dict(JOBS[case])
            for name in ("segments", "steps"):
                if getattr(a, name) is not None:
                    job[name] = getattr(a, name)
            for mode in MODES if a.mode == "all" else (a.mode,):
                both = []
                for name in ("batch", "segments", "steps", "warmup", "slots"):
                    both += [f"--{name}", str(job[name])]
                layers, width, segment = str(job["layers"]), str(job["width"]), str(job["segment"])
                jobs.append((
                    case, mode,
                    ["step", "--mode", mode, "--json", "-", "--width", width, "--encoder-layers", layers,
                     "--decoder-layers", layers, "--segment", segment, *both],
                    [str(HERE / "torch_peer.py"), "--mode", mode.replace("checkpointed", "checkpoint"), "--dim", width,
                     "--enc", layers, "--dec", layers, "--seg", segment, *both]))
    return jobs


def speeds(report):
    """What is compared, the more the better: {"": tokens/s}, or one number for each kernel."""
    if "tokens_per_s" in report:
        return {"": report["tokens_per_s"]}
    found = {}
    for row in report["cases"]:
        value = row["value"]["median"]
        if value:
            found[f"{row['family']}: {row['name']}"] = 1e9 / value if row["unit"] == "ns" else value
    return found


def pair_of(job, ours, peer, first, a):
    """One clean pair, the side `first` (0: ours) first; and how many were thrown away."""
    case, mode, our_options, peer_options = job
    sides = [(ours.command + our_options, ours.environment),
             ([peer.python, *peer_options, "--threads", str(a.threads)], peer.environment)]
    for rejected in range(20):
        reports = [None, None]
        for side in (first, 1 - first):
            wait_until_idle(a.others, a.patience)
            reports[side] = run(*sides[side])
            why = disturbed(reports[side], a.others)
            if why:
                print(f"  thrown away, {case} {mode} of {'ours' if side == 0 else peer.name}: {why}",
                      file=sys.stderr, flush=True)
                break
        else:
            return reports, rejected
    raise Failure(f"{case} {mode}: twenty pairs in a row were disturbed")


# The tables -------------------------------------------------------------------------------------


def median(values):
    return statistics.median(values) if values else float("nan")


def print_ratios(rows):
    print("\nratio: our speed over the peer's, each of one pair; above 1 we are faster")
    print(f"{'case':<9} {'mode':<13} {'peer':<20} {'pairs':>5} {'ratio':>6} {'[min - max]':>14} "
          f"{'ours tok/s':>11} {'peer tok/s':>11} {'ours MB':>8} {'peer MB':>8} {'thrown':>6}")
    for row in rows:
        if not row["pairs"] or row["case"] == "kernels":
            continue
        ratios = [speeds(o)[""] / speeds(p)[""] for o, p in row["pairs"]]
        ours, peers = ([r[i] for r in row["pairs"]] for i in (0, 1))

        def of(reports, name):
            return median([r[name] for r in reports if name in r])

        print(f"{row['case']:<9} {row['mode']:<13} {row['peer']:<20} {len(ratios):5} {median(ratios):6.2f} "
              f"{f'[{min(ratios):.2f} - {max(ratios):.2f}]':>14} {of(ours, 'tokens_per_s'):11.1f} "
              f"{of(peers, 'tokens_per_s'):11.1f} {of(ours, 'peak_rss_mb'):8.0f} {of(peers, 'peak_rss_mb'):8.0f} "
              f"{row['rejected']:6}")


def print_kernel_ratios(rows):
    for row in rows:
        if row["case"] != "kernels" or not row["pairs"]:
            continue
        print(f"\nkernels, ours over {row['peer']}, median of {len(row['pairs'])} pairs")
        names = [n for n in speeds(row["pairs"][0][0]) if n in speeds(row["pairs"][0][1])]
        families = {}
        for name in names:
            ratios = [speeds(o)[name] / speeds(p)[name] for o, p in row["pairs"]
                      if name in speeds(o) and name in speeds(p)]
            families.setdefault(name.split(":")[0], []).append(median(ratios))
            print(f"{name:<52} {median(ratios):6.2f} [{min(ratios):.2f} - {max(ratios):.2f}]")
        print()
        for family, ratios in families.items():
            print(f"{family + ', geometric mean':<52} {statistics.geometric_mean(ratios):6.2f}")


def print_cost_of_modes(rows):
    """MRBP and checkpointing over BPTT on each side, from runs of the same round."""
    printed = False
    for case in JOBS:
        for peer in dict.fromkeys(row["peer"] for row in rows):
            of = {row["mode"]: row["pairs"] for row in rows if row["case"] == case and row["peer"] == peer}
            for mode in ("mrbp", "checkpointed"):
                both = list(zip(of.get(mode, ()), of.get("bptt", ())))
                if not both:
                    continue
                if not printed:
                    print("\nseconds of a step over those of BPTT")
                    printed = True
                ours, theirs = ([m[side]["step_s"] / b[side]["step_s"] for m, b in both] for side in (0, 1))
                print(f"{case:<9} {mode:<13} ours {median(ours):.3f}, {peer} {median(theirs):.3f}")


def main():
    a = parse()
    try:
        peers = [Peer(python, a.threads) for python in a.python]
        ours, jobs = Ours(a.program, a.threads), jobs_of(a)
        rows = {(job[0], job[1], peer.name): {"case": job[0], "mode": job[1], "peer": peer.name, "blas": peer.blas,
                                              "pairs": [], "rejected": 0} for job in jobs for peer in peers}
        begun = datetime.datetime.now()
        path = pathlib.Path(a.out) / f"against_torch-{begun:%Y%m%d-%H%M%S}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{a.pairs} pairs, {a.threads} threads, others may use {a.others} cores; "
              f"{', '.join(f'{p.name} (BLAS: {p.blas})' for p in peers)}", flush=True)
        failure = None
        try:
            for i in range(a.pairs):
                for job in jobs:
                    for peer in peers:
                        row = rows[job[0], job[1], peer.name]
                        pair, rejected = pair_of(job, ours, peer, i % 2, a)
                        row["pairs"].append(pair)
                        row["rejected"] += rejected
                        now = [speeds(side).get("") for side in pair]
                        note = f", {now[0]:.1f} and {now[1]:.1f} tokens/s" if all(now) else ""
                        print(f"  pair {i + 1} of {' '.join(x for x in job[:2] if x)} with {peer.name}{note}",
                              file=sys.stderr, flush=True)
                        path.write_text(json.dumps({"begun": begun.isoformat(), "threads": a.threads,
                                                    "others_allowed": a.others, "rows": list(rows.values())}, indent=1))
        except (Failure, KeyboardInterrupt) as error:
            failure = error
        found = list(rows.values())
        print_ratios(found)
        print_kernel_ratios(found)
        print_cost_of_modes(found)
        print(f"\nall runs: {path}")
        if failure is not None:
            raise Failure(str(failure) or "interrupted; the tables hold what was done")
    except Failure as error:
        print(f"against_torch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
