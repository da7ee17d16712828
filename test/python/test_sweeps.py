# SPDX-License-Identifier: GPL-2.0-only
"""scripts/sweep, with the real runner: SPLITLLM_RUNNER, or the release build's. Without one these are skipped.

SPLITLLM_KILLS=20 kills a sweep that often instead of 5 times.
"""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

from support import ROOT, FolderTest

from splitllm.cli import InputError
from splitllm.points import runner

STUDY = {
    "study": "lossy",
    "mode": "shape",
    "repeat": 2,
    "model": {"shape": "smollm2-135m"},
    "nodes": {
        "device": {"role": "user-device", "hardware": "device-13tflops"},
        "edge": {"role": "edge-server", "hardware": "a800-80gb"},
    },
    "links": {"device-edge": {"type": "wired", "rate": "100Mbps", "delay": "1ms", "loss": 0.02}},
    "scheme": {"name": "server"},
    "workload": {"prompt_tokens": [{"tokens": 20, "requests": 2}], "new_tokens": 8},
}


def has_runner():
    try:
        return bool(runner())
    except InputError:
        return False


@unittest.skipUnless(has_runner(), "no runner: SPLITLLM_RUNNER names none, and there is no release build")
class SweepTest(FolderTest):
    def study(self, sweep=None, **changes):
        sweep = {"sweep": sweep} if sweep else {}
        return self.write("study.json", json.dumps(STUDY | sweep | changes))

    def command(self, *arguments):
        return [sys.executable, "-m", "splitllm.sweeps", *map(str, arguments)]

    def environment(self, **changes):
        return os.environ | {"PYTHONPATH": str(ROOT / "scripts")} | {key: str(value) for key, value in changes.items()}

    def call(self, command, **changes):
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment(**changes),
                              timeout=300)  # fmt: skip

    def sweep(self, *arguments, **changes):
        return self.call(self.command(*arguments), **changes)

    def plain(self, study, out, *options):
        command = [str(runner()), f"--study={study}", f"--out={out}", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def wrapper(self, text):
        """A runner that does `text` before the real one, with "$point" where it runs one."""
        path = self.write("wrapped-runner", f'#!/bin/bash\npoint=$(printf "%s\\n" "$@" | sed -n s/^--point=//p)\n{text}\n'
                                            f'exec {runner()} "$@"\n')  # fmt: skip
        path.chmod(0o755)
        return path

    def wait_for(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def content(self, out):
        """{file: bytes} of a results folder, but for what says when and where it ran."""
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name not in ("run.json", ".lock")}


class Results(SweepTest):
    def test_a_sweep_leaves_the_files_of_a_plain_run_byte_for_byte_and_a_table(self):
        study = self.study(
            {"links.device-edge.rate": ["20Mbps", "1Gbps"], "scheme": [{"name": "server"}, {"name": "server", "label": "again"}]},
            timeline={"tokens": 2},
        )
        swept = self.sweep(study, "--out", self.folder / "swept", "--workers", 2)
        self.assertEqual((swept.returncode, swept.stderr), (0, ""), swept.stdout)
        self.assertEqual(self.plain(study, self.folder / "plain").returncode, 0)
        files = self.content(self.folder / "swept")
        tables = {name: files.pop(name) for name in ("table.csv", "table.parquet")}
        self.assertEqual(files, self.content(self.folder / "plain"))
        self.assertIn(b'"pid":', files["timeline.json"])

        points = json.loads(files["summary.json"])["points"]
        rows = list(csv.DictReader(tables["table.csv"].decode().splitlines()))
        self.assertEqual(len(rows), 4)
        self.assertEqual([row["scheme"] for row in rows], ["server", "again"] * 2)
        for row, point in zip(rows, points):
            self.assertEqual(row["links.device-edge.rate"], point["set"]["links.device-edge.rate"])
            for name, value in point["metrics"].items():
                self.assertEqual(float(row[name]), value)
            for name, value in point["ci95"].items():
                self.assertEqual(float(row[f"ci95.{name}"]), value)
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(self.folder / "swept/table.parquet")
        self.assertEqual(table.column_names, list(rows[0]))
        self.assertEqual(table["token_latency_ms.mean"].to_pylist(), [point["metrics"]["token_latency_ms.mean"] for point in points])
        run = json.loads((self.folder / "swept/run.json").read_text())
        plain = json.loads((self.folder / "plain/run.json").read_text())
        self.assertEqual((run["events"], run["study"]), (plain["events"], plain["study"]))
        self.assertEqual(run["command"][1:], [str(study), "--out", str(self.folder / "swept"), "--workers", "2"])

    def test_a_second_call_runs_nothing_and_no_stale_point_is_taken(self):
        log = self.folder / "log"
        environment = {"SPLITLLM_RUNNER": self.wrapper(f'[ -z "$point" ] || echo "$point" >>{log}')}
        shutil.copytree(ROOT / "scenarios/hardware", self.folder / "profiles")
        profile = self.folder / "profiles/device-13tflops.json"
        out = self.folder / "out"

        def started(delays, *options, **changes):
            """The points that a sweep runs, and what it says."""
            log.write_text("")
            study = self.study({"links.device-edge.delay": delays}, **changes)
            profiles = f"--profiles={self.folder}/profiles"
            done = self.sweep(study, "--out", out, profiles, *options, **environment)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            return sorted(map(int, log.read_text().split())), done.stdout

        self.assertEqual(started(["1ms", "2ms"])[0], [0, 1])
        before = self.content(out)
        ran, said = started(["1ms", "2ms"])
        self.assertEqual((ran, self.content(out)), ([], before))
        self.assertIn("2 of 2 points are finished, 0 to run\n", said)
        # a point more, in front: the others are still theirs
        self.assertEqual(started(["3ms", "1ms", "2ms"])[0], [0])
        ran, said = started(["1ms", "2ms"])
        self.assertEqual((ran, self.content(out)), ([], before))
        self.assertIn("1 results in", said)
        # what a point's result depends on: the study, options, files that it names, the runner
        self.assertEqual(started(["1ms", "2ms"], seed=2)[0], [0, 1])
        self.assertEqual(started(["1ms", "2ms"], "--RngRun=7")[0], [0, 1])
        self.assertEqual(started(["1ms", "2ms"], "--threads=1")[0], [])
        self.assertEqual(started(["1ms", "2ms"], expect=[{"metric": "tokens", "value": 32, "abs": 0}])[0], [0, 1])
        profile.write_text(profile.read_text() + "\n")
        self.assertEqual(started(["1ms", "2ms"])[0], [0, 1])
        self.assertEqual(started(["1ms", "2ms"])[0], [])
        self.wrapper(f'[ -z "$point" ] || echo "$point" >>{log} # changed')
        self.assertEqual(started(["1ms", "2ms"])[0], [0, 1])

    def test_captures_are_of_the_points_that_they_are_named_after(self):
        links = {"device-edge": STUDY["links"]["device-edge"] | {"loss": 0.0, "pcap": True}}
        study = self.study({"links.device-edge.rate": ["20Mbps", "1Gbps"]}, links=links, repeat=1)
        out = self.folder / "swept"
        # the second point runs as the first one of another sweep before
        first = self.sweep(study, "--out", out, "--set", "links.device-edge.rate=1Gbps")
        self.assertEqual(first.returncode, 0, first.stderr)
        before = sorted(path.name for path in (out / "pcap").iterdir())
        self.assertTrue(before and all(name.startswith("point-0-") for name in before))
        self.assertEqual(self.sweep(study, "--out", out).returncode, 0)
        self.assertEqual(self.plain(study, self.folder / "plain").returncode, 0)
        files = {path.name: path.read_bytes() for path in (self.folder / "plain/pcap").iterdir()}
        self.assertEqual({path.name: path.read_bytes() for path in (out / "pcap").iterdir()}, files)
        self.sweep(study, "--out", out, "--set", "links.device-edge.pcap=false")
        self.assertEqual(list((out / "pcap").iterdir()), [])

    def test_points_that_are_the_same_run_once_and_are_all_in_the_results(self):
        log = self.folder / "log"
        wrapped = self.wrapper(f'[ -z "$point" ] || echo "$point" >>{log}')
        study = self.study({"seed": [3, 4, 3]})
        done = self.sweep(study, "--out", self.folder / "out", SPLITLLM_RUNNER=wrapped)
        self.assertEqual((done.returncode, sorted(log.read_text().split())), (0, ["0", "1"]))
        points = json.loads((self.folder / "out/summary.json").read_text())["points"]
        self.assertEqual([point["set"]["seed"] for point in points], [3, 4, 3])
        self.assertEqual(points[0], points[2])
        self.assertNotEqual(points[0]["metrics"], points[1]["metrics"])

    def test_a_table_that_the_study_has_no_more_goes_and_other_files_stay(self):
        out = self.folder / "out"
        self.write("out/exits.csv", "old\n")
        self.write("out/mine.csv", "mine\n")
        self.assertEqual(self.sweep(self.study(), "--out", out).returncode, 0)
        self.assertFalse((out / "exits.csv").exists())
        self.assertTrue((out / "mine.csv").exists())


class Failures(SweepTest):
    def test_a_failing_point_is_reported_and_the_rest_goes_on(self):
        study = self.study({"links.device-edge.delay": ["1ms", "2ms", "3ms", "4ms"]})
        out = self.folder / "out"
        broken = self.wrapper("""
            [ "$point" != 1 ] || { echo "split-llm-run: internal error: a bug" >&2; exit 3; }
            [ "$point" != 2 ] || kill -9 $$""")  # fmt: skip
        done = self.sweep(study, "--out", out, "--workers", 2, SPLITLLM_RUNNER=broken)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("FAILED  point 1 (delay = 2ms): internal error: a bug\n", done.stdout)
        self.assertIn("FAILED  point 2 (delay = 3ms): killed by signal 9 (out of memory?)\n", done.stdout)
        self.assertIn("2 of 4 points failed; the same command runs them again:\n"
                      "    point 1 (delay = 2ms): internal error: a bug\n", done.stdout)  # fmt: skip
        points = json.loads((out / "summary.json").read_text())["points"]
        self.assertEqual([point["set"]["links.device-edge.delay"] for point in points], ["1ms", "4ms"])
        self.assertEqual(len([path for path in (out / "points").iterdir()]), 2)

    def test_a_failed_expectation_is_told_again_without_a_run(self):
        study = self.study({"seed": [1, 2]}, expect=[{"where": {"seed": 2}, "metric": "tokens", "value": 5, "abs": 0}])
        for _ in range(2):
            done = self.sweep(study, "--out", self.folder / "out")
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stdout.count("FAILED  tokens (seed = 2): 32, expected 5 +- 0\n"), 1)
        self.assertEqual(len(json.loads((self.folder / "out/summary.json").read_text())["points"]), 2)

    def test_bad_input_is_one_line_and_status_2(self):
        study = self.study({"links.device-edge.rate": ["1Mbps", "1Mbsp"]})
        for arguments, reason in (
            ([self.folder / "none.json"], "none.json: No such file"),
            ([study], 'study.json: links.device-edge.rate: "1Mbsp" is not a data rate'),
            ([study, "--workers", "0"], "--workers: at least 1"),
            ([study, "more.json"], "more.json: not understood"),
            ([study, "--record=file"], "--record=file: is about one run"),
            ([study, "--speed=1"], '"--speed=1": unknown option'),
        ):
            done = self.sweep(*arguments, "--out", self.folder / "out")
            self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (2, "", 1), done.stderr)
            self.assertIn("sweep: ", done.stderr)
            self.assertIn(reason, done.stderr)

    def test_two_sweeps_cannot_write_one_folder(self):
        started = self.folder / "started"
        waiting = self.wrapper(f'[ -z "$point" ] || {{ touch {started}; sleep 60; }}')
        study = self.study()
        first = subprocess.Popen(self.command(study, "--out", self.folder / "out"), stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, env=self.environment(SPLITLLM_RUNNER=waiting))  # fmt: skip
        try:
            self.wait_for(started.exists)
            second = self.sweep(study, "--out", self.folder / "out")
            self.assertEqual((second.returncode, len(second.stderr.splitlines())), (2, 1), second.stderr)
            self.assertIn(f"out: another sweep writes there (process {first.pid})", second.stderr)
        finally:
            first.kill()
            first.communicate()
        self.assertEqual(self.sweep(study, "--out", self.folder / "out").returncode, 0)

    def test_a_study_that_changes_under_a_sweep_ends_it(self):
        study = self.study({"seed": [1, 2]})
        changing = self.wrapper(f'[ -z "$point" ] || echo >>{study}')
        done = self.sweep(study, "--out", self.folder / "out", SPLITLLM_RUNNER=changing)
        self.assertEqual(done.returncode, 2)
        self.assertIn("changed while the sweep ran", done.stderr)
        self.assertEqual([path for path in (self.folder / "out/points").iterdir() if path.name[0] != "."], [])


class Killed(SweepTest):
    def test_a_sweep_killed_at_random_moments_runs_every_point_once_and_ends_with_the_same_table(self):
        kills = int(os.environ.get("SPLITLLM_KILLS", "5"))
        first, count = 10, 6 * kills
        study = self.study({"links.device-edge.rate": [f"{first + i}Mbps" for i in range(count)]})
        began = time.monotonic()
        calm = self.started(study, "--out", self.folder / "calm", "--workers", 2)
        self.wait_for(lambda: self.finished(self.folder / "calm"))
        setup = time.monotonic() - began
        self.assertEqual(calm.wait(), 0)
        share = (time.monotonic() - began - setup) / (kills + 1)
        expected = self.content(self.folder / "calm")
        table = list(csv.DictReader(expected["table.csv"].decode().splitlines()))
        self.assertEqual([row["links.device-edge.rate"] for row in table], [f"{first + i}Mbps" for i in range(count)])

        log, out = self.folder / "log", self.folder / "out"
        log.write_text("")
        wrapped = self.wrapper(f'[ -z "$point" ] || echo "$point" >>{log}')
        draw = random.Random(7)
        before, begun, killed = {}, 0, 0
        for number in range(kills + 1):
            process = self.started(study, "--out", out, "--workers", 2, SPLITLLM_RUNNER=wrapped)
            if number < kills:
                time.sleep(draw.uniform(0.5 * setup, setup + 2 * share))
                killed += process.poll() is None
                process.kill()
                self.wait_for(lambda: not self.running(out))  # a runner does not outlive its sweep
            process.wait()
            now = self.finished(out)
            self.assertLessEqual(before.items(), now.items())  # what is finished is not written again
            runs = list(map(int, log.read_text().split()))
            for point in runs[begun:]:
                self.assertNotIn(f"{first + point}Mbps", before)  # nor run again
            before, begun = now, len(runs)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(sorted(before), sorted(f"{first + i}Mbps" for i in range(count)))
        self.assertGreater(killed, kills // 2)
        self.assertEqual(self.content(out), expected)

    def started(self, *arguments, **changes):
        process = subprocess.Popen(self.command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=self.environment(**changes))  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def finished(self, out):
        """{rate: when it was written} of the points that are there; each is whole."""
        found = {}
        for path in (out / "points").glob("[0-9a-f]*"):
            (point,) = json.loads((path / "summary.json").read_text())["points"]
            self.assertEqual(len((path / "tokens.csv").read_text().splitlines()), 1 + 2 * 2 * 8)
            found[point["set"]["links.device-edge.rate"]] = path.stat().st_mtime_ns
        return found

    def running(self, out):
        """Whether a runner writes below `out`."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if f"{out}/points/.part-" in path.read_text():
                    return True
            except OSError:
                pass
        return False


if __name__ == "__main__":
    unittest.main()
