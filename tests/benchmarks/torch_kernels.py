#!/usr/bin/env python3
"""Kernels of PyTorch, counted as `memformer bench kernels` counts them (docs/benchmarks.md).

The same cases by the same names, f32: 2^20 numbers in rows of 256, products of the shapes of a
training step, one small op. Repetitions of 4 ms, one of each case in turn; one in which the thread
did not get the processor is thrown away. Prints a table, or one JSON object with --json.
Needs only PyTorch (1.13 or newer).
"""
import argparse
import itertools
import json
import os
import statistics
import time

ROWS, WIDTH = 4096, 256
REPETITION = 4e-3  # seconds


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--filter", default="", help="only cases with this in their name")
    p.add_argument("--seconds", type=float, default=20.0, help="rounds are begun for so long")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return p.parse_args()


ARGS = parse()
for _v in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before torch is loaded
    os.environ[_v] = str(ARGS.threads)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

torch.set_num_threads(ARGS.threads)


def cases():
    """(family, name, unit, work of one call, call)"""
    torch.manual_seed(0)
    out = []

    def add(family, name, unit, work, call):
        if ARGS.filter.lower() in f"{family}: {name}".lower():
            out.append((family, name, unit, work, call))

    def product(family, name, flops, a, b):
        add(family, name, "GFLOP/s", flops, lambda: torch.matmul(a, b))

    pool = torch.rand(4096 * 4096) * 2 - 1
    other = torch.rand(4096 * 4096) * 2 - 1

    def take(source, *shape):
        n = 1
        for extent in shape:
            n *= extent
        return source[:n].view(*shape)

    for n in (256, 512, 1024, 2048):
        product("square", f"{n}x{n}x{n}", 2 * n**3, take(pool, n, n), take(other, n, n))
    for tokens in (512, 1024, 4096):
        for d in (256, 512, 1024):
            for i, o in ((d, d), (d, 4 * d), (4 * d, d)):
                x, w, g = take(pool, tokens, i), take(other, i, o), take(other, tokens, o)
                flops = 2 * tokens * i * o
                product("transformer NN", f"{tokens}x{o}x{i}", flops, x, w)
                product("transformer NT", f"{tokens}x{i}x{o}", flops, g, w.t())
                product("transformer TN", f"{i}x{o}x{tokens}", flops, x.t(), g)
    for i, o in ((512, 512), (512, 2048), (2048, 512)):
        x, weights = take(pool, 64, i), itertools.cycle(take(other, len(other) // (i * o), i, o))
        add("segment NN", f"64x{o}x{i}", "GFLOP/s", 2 * 64 * i * o, lambda x=x, w=weights: torch.matmul(x, next(w)))
    for m, n, k in ((64, 64, 64), (128, 128, 32), (128, 128, 64), (128, 128, 128), (256, 256, 32), (32, 160, 32)):
        flops, name = 64 * 2 * m * n * k, f"{m}x{n}x{k}"
        product("batched NN", name, flops, take(pool, 64, m, k), take(other, 64, k, n))
        product("batched NT", name, flops, take(pool, 64, m, k), take(other, 64, n, k).transpose(1, 2))
        product("batched TN", name, flops, take(pool, 64, k, m).transpose(1, 2), take(other, 64, k, n))

    a, b = take(pool, ROWS, WIDTH), take(other, ROWS, WIDTH)
    one = 4 * a.numel()  # bytes of one pass over the numbers

    def elementwise(name, passes, call):
        add("elementwise", name, "GB/s", passes * one, call)

    elementwise("add", 3, lambda: torch.add(a, b))
    elementwise("mul", 3, lambda: torch.mul(a, b))
    elementwise("exp", 2, lambda: torch.exp(a))
    elementwise("tanh", 2, lambda: torch.tanh(a))
    elementwise("gelu", 2, lambda: F.gelu(a))
    elementwise("gelu backward", 3, lambda: torch.ops.aten.gelu_backward(b, a))

    def rows(name, passes, call):
        add("rows", name, "GB/s", passes * one, call)

    softmax = torch.softmax(a, -1)
    rows("softmax", 2, lambda: torch.softmax(a, -1))
    rows("softmax backward", 3, lambda: torch.ops.aten._softmax_backward_data(b, softmax, -1, torch.float32))
    gain, bias = torch.ones(WIDTH), torch.zeros(WIDTH)
    rows("layer norm", 2, lambda: F.layer_norm(a, (WIDTH,), gain, bias))
    _, mean, rstd = torch.native_layer_norm(a, (WIDTH,), gain, bias, 1e-5)
    rows("layer norm backward", 3, lambda: torch.ops.aten.native_layer_norm_backward(
        b, a, (WIDTH,), mean, rstd, gain, bias, (True, True, True)))
    logits, targets = a.clone().requires_grad_(), torch.randint(0, WIDTH, (ROWS,))
    # Through autograd, the way a user has it; what its bookkeeping costs is nothing beside 2^20 numbers.
    rows("cross entropy, forward and backward", 2,
         lambda: torch.autograd.grad(F.cross_entropy(logits, targets), logits))

    ops = 1000
    small, factor = torch.full((16,), 0.5), torch.ones(16)
    leaf = factor.clone().requires_grad_()

    def chain(x, by, backward):
        for _ in range(ops):
            x = x * by
        if backward:
            torch.autograd.grad(x, by, factor)

    add("overhead", "mul of 16, not recorded", "ns", ops, lambda: chain(small, factor, False))
    add("overhead", "mul of 16, recorded", "ns", ops, lambda: chain(small, leaf, False))
    add("overhead", "mul of 16, recorded and swept", "ns", ops, lambda: chain(small, leaf, True))
    return out


def quantile(values, q):
    values = sorted(values)
    place = q * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def main():
    todo = cases()
    if not todo:
        raise SystemExit(f"no case has '{ARGS.filter}' in its name")
    values, calls, disturbed = {}, {}, {}
    end = time.monotonic() + ARGS.seconds
    rounds = 0
    while rounds == 0 or time.monotonic() < end:
        rounds += 1
        for key, (_, _, unit, work, call) in enumerate(todo):
            if key not in calls:
                call()
                begin = time.perf_counter()
                call()
                calls[key] = max(1, round(REPETITION / max(1e-9, time.perf_counter() - begin)))
            begin, cpu = time.perf_counter(), time.thread_time()
            for _ in range(calls[key]):
                call()
            wall, cpu = time.perf_counter() - begin, time.thread_time() - cpu
            if cpu < (0.97 if ARGS.threads == 1 else 0.90) * wall:
                disturbed[key] = disturbed.get(key, 0) + 1
                continue
            done = calls[key] * work
            values.setdefault(key, []).append(wall / done * 1e9 if unit == "ns" else done / wall / 1e9)

    report = {"torch": torch.__version__, "threads": ARGS.threads, "rounds": rounds, "cases": []}
    for key, (family, name, unit, _, _) in enumerate(todo):
        kept = values.get(key)
        spread = {"median": statistics.median(kept), "p10": quantile(kept, 0.1), "p90": quantile(kept, 0.9)} \
            if kept else {"median": None, "p10": None, "p90": None}
        report["cases"].append({"family": family, "name": name, "unit": unit, "value": spread,
                                "kept": len(kept or ()), "disturbed": disturbed.get(key, 0)})
    if ARGS.json:
        print(json.dumps(report))
        return
    print(f"torch {torch.__version__}, {ARGS.threads} threads, {rounds} rounds")
    for row in report["cases"]:
        v = row["value"]
        text = "         -" if v["median"] is None else f"{v['median']:10.1f} [{v['p10']:.1f} - {v['p90']:.1f}]"
        print(f"{row['family']:<15} {row['name']:<36} {text:<28} {row['unit']:<8} {row['kept']:5}")


if __name__ == "__main__":
    main()
