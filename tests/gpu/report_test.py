#!/usr/bin/env python3
"""Checks of report.py: what agrees is accepted, and every planted difference is found."""
import contextlib
import io
import json
import pathlib
import re
import tempfile
import unittest

import report

ROOT = pathlib.Path(__file__).resolve().parents[2]


def row(step, loss, seconds=0.5, peak=1000):
    return json.dumps({"step": step, "loss": loss, "peak_bytes": peak, "seconds": seconds, "tokens_per_second": 9.0},
                      separators=(",", ":"))


class ReportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_folder(self, name, rows, checkpoint=b"weights"):
        run = self.folder / name
        run.mkdir()
        (run / "metrics.jsonl").write_text("".join(line + "\n" for line in rows))
        if checkpoint is not None:
            (run / "checkpoint.safetensors").write_bytes(checkpoint)
        return run

    def refused(self, pattern, call, *arguments):
        with self.assertRaisesRegex(report.Failure, pattern):
            call(*arguments)

    def test_losses_within_the_bound_are_accepted(self):
        a = self.run_folder("a", [row(1, 5.0), row(2, 4.0)])
        b = self.run_folder("b", [row(1, 5.0, seconds=7.0), row(2, 4.0 * (1 + 1e-12))])
        self.assertAlmostEqual(report.compare_losses(a, b, 1e-10), 1e-12, delta=1e-15)
        self.assertEqual(report.compare_losses(a, a, 0.0), 0.0)

    def test_a_differing_loss_is_found(self):
        a = self.run_folder("a", [row(1, 5.0), row(2, 4.0)])
        b = self.run_folder("b", [row(1, 5.0), row(2, 4.0 * (1 + 1e-9))])
        self.refused("step 2: .*above 1e-10", report.compare_losses, a, b, 1e-10)
        report.compare_losses(a, b, 1e-8)

    def test_losses_that_are_not_finite_or_not_there_are_found(self):
        good = self.run_folder("good", [row(1, 5.0)])
        for name, line in {"nan": row(1, float("nan")), "infinite": row(1, float("inf")), "null": row(1, None),
                           "word": '{"step":1}', "cut": '{"step":1,"lo'}.items():
            bad = self.run_folder(name, [line])
            self.refused("loss", report.compare_losses, good, bad, 1.0)
            self.refused("loss", report.compare_losses, bad, bad, 1.0)

    def test_missing_steps_and_files_are_found(self):
        a = self.run_folder("a", [row(1, 5.0), row(2, 4.0)])
        self.refused("2 steps and .* 1", report.compare_losses, a, self.run_folder("short", [row(1, 5.0)]), 1.0)
        self.refused("is empty", report.compare_losses, a, self.run_folder("empty", []), 1.0)
        self.refused("No such file", report.compare_losses, a, self.folder / "nowhere", 1.0)
        self.refused("No such file", report.compare_bytes, a, self.run_folder("bare", [row(1, 5.0), row(2, 4.0)], None))

    def test_the_same_bytes_are_accepted_whatever_the_time(self):
        a = self.run_folder("a", [row(1, 5.0, seconds=1.0)])
        b = self.run_folder("b", [row(1, 5.0, seconds=2.0)])
        self.assertEqual(report.compare_bytes(a, b), len(b"weights"))

    def test_a_differing_byte_is_found(self):
        a = self.run_folder("a", [row(1, 5.0)])
        self.refused("from byte 6 on", report.compare_bytes, a, self.run_folder("byte", [row(1, 5.0)], b"weightz"))
        self.refused("7 and 8 bytes", report.compare_bytes, a, self.run_folder("long", [row(1, 5.0)], b"weights!"))
        self.refused("metrics differ", report.compare_bytes, a, self.run_folder("ulp", [row(1, 5.000000000000001)]))
        self.refused("metrics differ", report.compare_bytes, a, self.run_folder("peak", [row(1, 5.0, peak=1001)]))
        self.refused("without seconds", report.compare_bytes, a, self.run_folder("other", ['{"step":1}']))

    def summary(self, parts, files=()):
        (self.folder / "parts.tsv").write_text("".join("\t".join(part) + "\n" for part in parts))
        for name, value in dict(files).items():
            (self.folder / name).write_text(json.dumps(value))
        log = self.folder / "log.md"
        log.write_text("# Log\n" + report.NOTHING_YET + "\n| date |\n|---|\n")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = report.main(["summary", str(self.folder), "--log", str(log), "--date", "2026-01-02", "--device",
                                "A|B", "--driver", "580", "--commit", "abc+changes"])
        return code, out.getvalue(), log.read_text()

    def test_a_summary_names_what_passed_and_was_left_out(self):
        step = {"step_s": 0.02, "active_peak_bytes": 3 * 2**20}
        kernels = {"copy": {"median": 2000.0}, "families": [
            {"name": "rows", "unit": "percent", "geometric_mean": 80.0},
            {"name": "square", "unit": "GFLOP/s", "geometric_mean": None}]}
        code, out, log = self.summary(
            [["tests", "pass", "3", ""], ["compute-sanitizer", "skipped", "0", "not there"]],
            {"step-d256-mrbp.json": step, "peer-d256-mrbp.json": {"step_s": 0.03}, "kernels.json": kernels})
        self.assertEqual(code, 0)
        self.assertIn("not there", out)
        self.assertNotIn("Nothing has been run", log)
        self.assertTrue(log.endswith(
            "|---|\n| 2026-01-02 | A/B | 580 | abc+changes | pass, without compute-sanitizer | 1 of 1 | d256: mrbp "
            "20.0 ms, 3 MiB (1.50 times PyTorch's speed); kernels: copy 2000 GB/s, rows 80 % of copy |\n"), log)

    def test_a_failed_part_fails_the_summary_and_stands_in_the_log(self):
        code, _, log = self.summary([["tests", "pass", "3", ""], ["training", "FAIL", "3", "out of time"]])
        self.assertEqual(code, 1)
        self.assertIn("| FAIL: training | 1 of 2 | - |", log)

    def test_no_parts_are_no_success(self):
        for text in ("", "tests\tpass\n", "tests\tgood\t3\t\n"):
            (self.folder / "parts.tsv").write_text(text)
            self.refused("no parts", report.parts_of, self.folder)
        self.refused("No such file", report.parts_of, self.folder / "nowhere")

    def test_each_filter_of_the_sanitizer_names_one_test_case(self):
        names = re.findall(r'TEST_CASE\("([^"]+)"', (ROOT / "tests/cuda/backend_test.cpp").read_text())
        filters = (ROOT / "tests/gpu/sanitizer_cases").read_text().splitlines()
        self.assertGreater(len(filters), 5)
        for line in filters:
            self.assertTrue(line.endswith("*") and "," not in line, line)
            self.assertEqual(sum(name.startswith(line[:-1]) for name in names), 1, line)


if __name__ == "__main__":
    unittest.main()
