#!/usr/bin/env python3
"""Checks of run.py: what is done, goes on, fails and is refused, with a program that only leaves files behind."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import run as runner

HERE = pathlib.Path(__file__).resolve().parent


class RunTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.results, self.work = self.folder / "results", self.folder / "work"
        # Whatever "env python3" is, the stand-in runs under this test's Python.
        self.program = self.folder / "memformer"
        self.program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{HERE / 'stand_in.py'}' \"$@\"\n")
        self.program.chmod(0o755)

    def config(self, name, steps=3, **behaviour):
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"train": {"steps": steps}, **behaviour}))
        return str(path)

    def plan(self, *rows):
        """Rows (name, configuration, seeds) of one table."""
        experiments = [{"table": "text", "row": row, "label": row.upper(), "config": config, "seeds": seeds,
                        "evaluate": ["--split", "test"]} for row, config, seeds in rows]
        self.write_plan(experiments)

    def write_plan(self, experiments):
        (self.folder / "plan.json").write_text(json.dumps({"experiments": experiments}))

    def command(self, *options):
        return [sys.executable, str(HERE / "run.py"), "--program", str(self.program), "--plan",
                str(self.folder / "plan.json"), "--results", str(self.results), "--work", str(self.work), *options]

    def call(self, *options):
        """Exit code and all that was printed."""
        done = subprocess.run(self.command(*options), capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def start(self, *options):
        queue = subprocess.Popen(self.command(*options), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(queue.stdout.close)
        self.addCleanup(queue.wait)
        self.addCleanup(queue.terminate)
        return queue

    def wait_for_steps(self, run, steps):
        metrics = self.work / run / "metrics.jsonl"
        for _ in range(1000):
            if metrics.exists() and len(metrics.read_text().splitlines()) >= steps:
                return
            time.sleep(0.02)
        self.fail(f"{run} made no {steps} steps")

    def calls(self, run):
        return (self.work / run / "calls.txt").read_text().split()

    def test_each_seed_leaves_its_file(self):
        self.plan(("memformer", self.config("a", steps=200), [1, 2]), ("lstm", self.config("b"), [1]))
        code, out = self.call("--jobs", "2", "--threads", "1")
        self.assertEqual(code, 0, out)
        self.assertIn("3 done, 0 failed, 0 left", out)
        self.assertEqual(sorted(path.name for path in self.results.iterdir()),
                         ["text-lstm-seed1.json", "text-memformer-seed1.json", "text-memformer-seed2.json"])
        result = json.loads((self.results / "text-memformer-seed2.json").read_text())
        expected = {"table": "text", "row": "memformer", "label": "MEMFORMER", "seed": 2, "parameters": 1000,
                    "tokens": 20000, "multiply_adds_per_token": 1000.0, "peak_bytes": 5006, "threads": 1,
                    "isa": "avx2", "device": "cpu", "config": {"train": {"steps": 200, "seed": 2}},
                    "metrics": {"step": 200, "split": "test", "bits_per_byte": 2.2}}
        self.assertEqual({key: result[key] for key in expected}, expected)
        self.assertGreater(result["seconds"], 0.0)
        self.assertGreater(result["process_bytes"], 1000000)
        self.assertEqual(len(result["curve"]), runner.CURVE_POINTS)
        self.assertEqual(result["curve"][-1], [20000, 0.04])
        # The commands repeat it.
        shutil.rmtree(self.work / "text-memformer-seed2")
        for line in result["command"]:
            printed = subprocess.run(["sh", "-c", line], cwd=runner.ROOT, capture_output=True, text=True, check=True).stdout
        self.assertEqual(json.loads(printed), result["metrics"])

    def test_what_is_there_is_not_run_again(self):
        self.plan(("memformer", self.config("a"), [1]))
        self.assertEqual(self.call()[0], 0)
        before = (self.results / "text-memformer-seed1.json").read_bytes()
        shutil.rmtree(self.work)
        code, out = self.call()
        self.assertEqual(code, 0, out)
        self.assertIn("0 done, 0 failed, 0 left", out)
        self.assertFalse((self.work / "text-memformer-seed1").exists())
        self.assertEqual((self.results / "text-memformer-seed1.json").read_bytes(), before)

    def test_an_interrupted_queue_goes_on(self):
        slow = self.config("slow", steps=8, slow=True)
        self.plan(("memformer", slow, [1]), ("lstm", self.config("b"), [1]))
        queue = self.start()
        self.wait_for_steps("text-memformer-seed1", 2)
        code, out = self.call("--list")
        self.assertEqual(code, 0, out)
        self.assertRegex(out, r"text-memformer-seed1 +\w+ +step \d of 8")
        queue.send_signal(signal.SIGINT)
        out = queue.communicate(timeout=30)[0]
        self.assertEqual(queue.returncode, 130, out)
        self.assertIn("interrupted at step", out)
        self.assertIn("0 done, 0 failed, 2 left", out)
        self.assertEqual(list(self.results.glob("*")), [])
        self.assertRegex(self.call("--list")[1], r"text-memformer-seed1 +part +step \d of 8, about \d s left")
        spent = json.loads((self.work / "text-memformer-seed1/costs.json").read_text())["seconds"]
        self.assertGreater(spent, 0.2)

        code, out = self.call()
        self.assertEqual(code, 0, out)
        self.assertIn("goes on from step", out)
        self.assertEqual(self.calls("text-memformer-seed1"), ["start", "resume"])
        result = json.loads((self.results / "text-memformer-seed1.json").read_text())
        self.assertEqual(result["tokens"], 800)
        self.assertEqual([tokens for tokens, _ in result["curve"]], [100 * step for step in range(1, 9)])
        self.assertGreater(result["seconds"], 8 * 0.2)  # of both pieces
        self.assertNotIn("--resume", result["command"][0])

    def test_a_killed_queue_goes_on(self):
        self.plan(("memformer", self.config("slow", steps=8, slow=True), [1]))
        queue = self.start()
        self.wait_for_steps("text-memformer-seed1", 2)
        queue.kill()
        queue.wait()
        self.wait_for_steps("text-memformer-seed1", 8)  # the run itself was not killed
        code, out = self.call()
        self.assertEqual(code, 0, out)
        self.assertEqual(self.calls("text-memformer-seed1"), ["start", "resume"])

    def test_a_failed_run_is_reported_and_the_others_go_on(self):
        self.plan(("bad", self.config("bad", fail=True), [1]), ("missing", str(self.folder / "none.json"), [1]),
                  ("good", self.config("good"), [1]))
        code, out = self.call()
        self.assertEqual(code, 1)
        self.assertRegex(out, "text-bad-seed1: FAILED, exit code 1 from .*: memformer: train: step 2 gave loss nan")
        self.assertIn("1 done, 2 failed, 0 left\nfailed: text-bad-seed1\nfailed: text-missing-seed1\n", out)
        self.assertEqual([path.name for path in self.results.iterdir()], ["text-good-seed1.json"])

    def test_a_damaged_run_is_a_failed_run(self):
        good = self.config("good")
        self.plan(("damaged", good, [1]), ("good", good, [1]))
        folder = self.work / "text-damaged-seed1"
        folder.mkdir(parents=True)
        (folder / "checkpoint.safetensors").touch()
        (folder / "config.json").write_text('{"train": {')
        code, out = self.call()
        self.assertEqual(code, 1, out)
        self.assertRegex(out, "text-damaged-seed1: FAILED, .*config.json is not JSON")
        self.assertIn("1 done, 1 failed, 0 left", out)

    def test_a_result_of_another_plan_is_stale(self):
        self.plan(("memformer", self.config("a"), [1]))
        self.assertEqual(self.call()[0], 0)
        self.assertIn(" done ", self.call("--list")[1])
        self.config("a", steps=4)
        self.assertRegex(self.call("--list")[1], "stale +made with train.steps = 3, now 4; remove .*seed1.json")
        self.config("a")
        row = json.loads((self.folder / "plan.json").read_text())["experiments"][0]
        self.write_plan([{**row, "set": ["train.steps=5"]}])
        self.assertRegex(self.call("--list")[1], "stale +made with train.steps = 3, now 5")
        self.write_plan([{**row, "evaluate": ["--split", "valid"]}])
        self.assertRegex(self.call("--list")[1], "stale +not measured with --split valid --json")

    def test_a_second_queue_is_refused(self):
        self.plan(("memformer", self.config("slow", steps=100, slow=True), [1]))
        queue = self.start()
        self.wait_for_steps("text-memformer-seed1", 1)
        code, out = self.call()
        self.assertEqual(code, 1)
        self.assertIn("another queue is running in", out)
        queue.send_signal(signal.SIGTERM)
        queue.communicate(timeout=30)
        self.assertEqual(queue.returncode, 130)

    def test_rows_are_chosen_and_listed(self):
        a = self.config("a")
        self.plan(("memformer", a, [1, 2]), ("lstm", a, [1]))
        self.assertEqual(self.call("--only", "*-lstm")[0], 0)
        code, out = self.call("--list")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"text-lstm-seed1 +done +bits_per_byte 2\.1000")
        self.assertRegex(out, r"text-memformer-seed2 +open +about 0 s left")
        self.assertIn("3 runs: 2 open, 1 done; about 0 s left", out)
        code, out = self.call("--only", "images-*")
        self.assertEqual(code, 1)
        self.assertIn("has no row that is named images-*", out)

    def test_costs_are_measured_on_request(self):
        (self.folder / "plan.json").write_text(json.dumps(
            {"costs": {"length": "--threads 2 bench cost --to 256", "fails": "--threads 2 bench cost --to -1"}}))
        for _ in range(2):  # again each time
            code, out = self.call("--cost", "len*")
            self.assertEqual(code, 0, out)
        text = (self.results / "cost-length.json").read_text()
        result = json.loads(text)
        self.assertEqual(list(result), ["kind", "command", "commit", "rows"])
        self.assertEqual(result["commit"], runner.commit())
        self.assertEqual([row["x"] for row in result["rows"]], [128, 256])
        self.assertEqual(len(text.splitlines()), 9)
        self.assertIn(f"--to 256 --json {self.results / 'cost-length.json'}", result["command"])
        self.assertEqual(list(self.work.glob("*seed*")), [])
        self.assertRegex(self.call("--cost", "fails")[1], "run.py: exit code 1 from .* bench cost --to -1")
        self.assertIn("no cost that is named none; it has length, fails", self.call("--cost", "none")[1])
        self.assertIn("goes with neither", self.call("--cost", "*", "--list")[1])

    def test_mistakes_in_the_plan_are_named(self):
        good = {"table": "text", "row": "a", "label": "A", "config": "c", "seeds": [1]}
        for change, pattern in (({"sed": 1}, r"unknown keys \['sed'\]"), ({"row": "A b"}, "lower-case letters"),
                                ({"same_as": "text-b"}, "which is no experiment")):
            self.write_plan([{**good, **change}])
            code, out = self.call()
            self.assertEqual(code, 1)
            self.assertRegex(out, pattern)
        self.write_plan([good, good])
        self.assertIn("is there twice", self.call()[1])
        (self.folder / "plan.json").write_text("{")
        self.assertIn("is not JSON", self.call()[1])
        self.write_plan([good])
        self.assertRegex(self.call("--program", str(self.folder / "none"))[1], "is no program; build it")

    def test_no_result_of_the_repository_is_stale(self):
        a = runner.parse([])
        done = [run for e in runner.read_plan(a.plan) for seed in e["seeds"]
                if (run := runner.Run(e, seed, a)).result.exists()]
        self.assertGreater(len(done), 10)
        stale = {run.name: run.stale(runner.read_json(run.result)) for run in done}
        self.assertEqual({name: why for name, why in stale.items() if why}, {})

    def test_a_curve_keeps_its_end(self):
        for count in (1, 59, 60, 61, 1000):
            points = runner.thinned(list(range(count)))
            self.assertEqual(len(points), min(count, runner.CURVE_POINTS))
            self.assertEqual(points[-1], count - 1)
            self.assertEqual(points, sorted(set(points)))


if __name__ == "__main__":
    unittest.main()
