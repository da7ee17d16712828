# SPDX-License-Identifier: GPL-2.0-only
"""scripts/regress: its statistics, what it says, and real runs."""

import json
import unittest

import numpy as np
from support import FolderTest
from test_sweeps import SweepTest, has_runner

from splitllm import baselines, regression
from splitllm.cli import InputError
from splitllm.equivalence import Sample, enough, interval, judge, t_above, t_quantile


class Equivalence(unittest.TestCase):
    def test_the_distribution_is_students(self):
        # scipy 1.17.1: scipy.stats.t.sf(t, degrees) and .isf(p, degrees)
        for t, degrees, expected in (
            (0, 3, 0.5), (1, 1, 0.25), (2.5, 4.7, 0.02879607967343366), (-1.3, 7.25, 0.8832981830783054),
            (30, 2, 0.0005546313409798295), (1e-3, 1000.5, 0.499601157459396), (5, 99999, 2.871350887705353e-07),
        ):  # fmt: skip
            self.assertAlmostEqual(t_above(t, degrees) / expected, 1, 9, (t, degrees))
        for p, degrees, expected in (
            (0.05, 1.5, 3.7051808200967518), (0.05, 7.3, 1.8829300179564314), (0.05, 123.4, 1.6572956275324373),
            (0.025, 99999, 1.9599877077718448),
        ):  # fmt: skip
            self.assertAlmostEqual(t_quantile(p, degrees) / expected, 1, 9, (p, degrees))

    def test_the_interval_is_welchs(self):
        # scipy 1.17.1: ttest_ind(now, before, equal_var=False).confidence_interval(0.9), and of 0.998
        before, now = Sample.of([7.1, 7.4, 6.9, 7.2, 7.6]), Sample.of([7.9, 7.7, 8.4])
        for alpha, expected in ((0.05, (0.21875665746583217, 1.301243342534169)), (0.001, (-1.327359211278191, 2.8473592112781922))):
            for found, bound in zip(interval(before, now, alpha), expected):
                self.assertAlmostEqual(found, bound, 9)

    def test_only_an_interval_inside_the_margin_shows_equivalence(self):
        before = Sample(10, 100.0, 1.0)
        half = interval(before, before)[1]
        self.assertEqual(judge(before, before, half * 1.01)[0], "equivalent")
        self.assertEqual(judge(before, before, half * 0.99)[0], "cannot tell")
        self.assertEqual(judge(before, Sample(10, 101.0, 1.0), 2.0)[0], "equivalent")
        self.assertEqual(judge(before, Sample(10, 102.0, 1.0), 2.0)[0], "cannot tell")
        self.assertEqual(judge(before, Sample(10, 105.0, 1.0), 2.0)[0], "changed")
        self.assertEqual(judge(before, Sample(10, 95.0, 1.0), 2.0)[0], "changed")
        # no difference at all, and still no equivalence: three repetitions say too little
        self.assertEqual(judge(Sample(3, 100.0, 1.0), Sample(3, 100.0, 1.0), 1.0)[0], "cannot tell")

    def test_it_says_how_many_repetitions_would_tell(self):
        before, now = Sample(10, 100.0, 1.0), Sample(3, 100.1, 1.0)
        count, both = enough(before, now, 1.0)
        self.assertFalse(both)
        self.assertEqual(judge(before, Sample(count, 100.1, 1.0), 1.0)[0], "equivalent")
        self.assertEqual(judge(before, Sample(count - 1, 100.1, 1.0), 1.0)[0], "cannot tell")
        count, both = enough(before, now, 0.3)
        self.assertTrue(both)
        self.assertEqual(judge(Sample(count, 100.0, 1.0), Sample(count, 100.1, 1.0), 0.3)[0], "equivalent")
        self.assertEqual(judge(Sample(count - 1, 100.0, 1.0), Sample(count - 1, 100.1, 1.0), 0.3)[0], "cannot tell")
        self.assertIsNone(enough(before, now, 0.1))

    def test_equal_values_have_no_deviation(self):
        self.assertEqual(Sample.of([0.1, 0.1, 0.1]), Sample(3, 0.1, 0.0))
        self.assertEqual(Sample.of([0.1]), Sample(1, 0.1, 0.0))
        self.assertAlmostEqual(Sample.of([2, 4, 4, 4, 5, 5, 7, 9]).deviation, (32 / 7) ** 0.5, 12)


class Comparing(unittest.TestCase):
    def verdict(self, before, now, **tolerance):
        found = regression.compare_values(before, now, tolerance)
        return found and found[2]

    def test_numbers_are_compared_with_their_tolerance(self):
        self.assertIsNone(self.verdict(3.0, 3.0))
        self.assertEqual(self.verdict(100.0, 101.0, rel=0.0101), "within tolerance")
        self.assertEqual(self.verdict(100.0, 101.0, rel=0.0099), "changed")
        self.assertEqual(self.verdict(100.0, 99.0, abs=1.0), "within tolerance")
        self.assertEqual(self.verdict(0.0, 1e-12), "changed")

    def test_repetitions_that_scatter_are_tested_and_those_that_do_not_are_compared(self):
        constant, other = Sample(5, 8.0, 0.0), Sample(5, 8.1, 0.0)
        self.assertEqual(self.verdict(constant, other, margin=0.5), "changed")
        self.assertEqual(self.verdict(constant, other, rel=0.02), "within tolerance")
        scattered, moved = Sample(5, 8.0, 0.1), Sample(5, 8.01, 0.1)
        self.assertIsNone(self.verdict(scattered, scattered))
        self.assertEqual(self.verdict(scattered, moved, margin=0.05), "equivalent")
        self.assertTrue(self.verdict(scattered, moved, margin=0.01).startswith("cannot tell: repeat "))
        self.assertEqual(self.verdict(scattered, moved, margin=0.01, unproven="passes"), "no change shown")
        self.assertEqual(self.verdict(scattered, Sample(5, 9.5, 0.1), margin=0.01, unproven="passes"), "changed")
        self.assertTrue(self.verdict(scattered, 8.0, margin=0.5).startswith("cannot tell"))
        self.assertTrue(self.verdict(scattered, Sample(1, 8.0, 0.0), margin=0.5).startswith("cannot tell"))
        self.assertIsNone(self.verdict(constant, 8.0))

    def test_the_first_tolerance_that_is_about_a_metric_counts(self):
        tolerances = [{"metric": "a.*", "study": "one", "rel": 1}, {"metric": "a.mean", "rel": 2}, {"metric": "*", "rel": 3}]
        found = lambda *where: regression.tolerance_of(tolerances, *where)["rel"]
        self.assertEqual([found("one", "a.mean"), found("two", "a.mean"), found("two", "a.p95")], [1, 2, 3])
        self.assertEqual(regression.tolerance_of([], "one", "a"), {})


def point(tokens, **metrics):
    return {"set": {}, "metrics": metrics, "tokens": baselines.packed(np.array(tokens, np.int64).reshape(-1, 9))}


class Tokens(FolderTest):
    ROWS = [[0, 0, 1, 50, 0, 0, 0, 7, 0], [0, 0, 2, 60, 0, 0, 0, 8, 0], [1, 0, 1, 50, 0, 0, 0, 7, 0]]

    def test_they_are_kept_as_they_are(self):
        rows = np.array([[2**62, -5, 0], [-(2**62), 7, 1], [0, 0, -1]], np.int64)
        self.assertTrue(np.array_equal(baselines.unpacked(baselines.packed(rows), 3), rows))
        empty = np.zeros((0, 3), np.int64)
        self.assertEqual(baselines.unpacked(baselines.packed(empty), 3).shape, (0, 3))
        whole = baselines.packed(rows)
        for broken in ({"rows": 4}, {"rows": 2}, {"rows": -1}, {"rows": None}, {"data": "%"}, {"data": whole["data"][:-8]},
                       {"data": "AAAA"}):  # fmt: skip
            with self.assertRaisesRegex(InputError, "tokens cannot be read"):
                baselines.unpacked(whole | broken, 3)

    def test_the_first_that_moved_is_named_with_what_moved_it(self):
        before = point(self.ROWS)
        self.assertIsNone(regression.first_moved(before, point(self.ROWS)))
        slower = [list(row) for row in self.ROWS]
        slower[1][7] += 5
        slower[1][3] -= 2
        slower[2][8] += 9
        said = regression.first_moved(before, point(slower))
        self.assertEqual(said, "session 0, request 0, token 2: +3 ns (base -2 ns, network +5 ns)")
        self.assertEqual(regression.first_moved(before, point(self.ROWS[:2])), "session 1, request 0, token 1 is gone")
        self.assertEqual(regression.first_moved(point(self.ROWS[:2]), before), "session 1, request 0, token 1 is new")
        self.assertEqual(regression.first_moved(before, point(self.ROWS[::-1])), "the same tokens in another order")

    def test_a_table_of_tokens_is_read_in_the_order_of_time(self):
        path = self.write("tokens.csv", "point,repetition,session,request,position,token,start_ns,latency_ns,base_ns,adapter_ns,"
                          "calibrator_ns,codec_ns,network_ns,queue_ns,server_ns\n"
                          "0,0,1,0,1,9,30,21,1,2,3,4,5,6,0\n0,0,0,0,1,9,20,21,1,2,3,4,5,6,0\n"
                          "0,1,0,0,1,9,10,22,1,2,3,4,5,7,0\n2,0,0,4,1,9,20,21,6,5,4,3,2,1,0\n")  # fmt: skip
        found = {number: rows.tolist() for number, rows in baselines.read_tokens(path).items()}
        self.assertEqual(found, {0: [[0, 0, 1, 1, 2, 3, 4, 5, 6], [1, 0, 1, 1, 2, 3, 4, 5, 6]],
                                 2: [[0, 4, 1, 6, 5, 4, 3, 2, 1]]})  # fmt: skip


class Baselines(FolderTest):
    def test_one_that_is_none_is_refused_in_one_line(self):
        whole = baselines.FORMAT | {"tolerances": [], "studies": {}}
        for text, reason in (
            ("[]", "no baseline of version 1"),
            (json.dumps(whole | {"version": 2}), "no baseline of version 1"),
            ("{", "cannot be read as JSON"),
            (json.dumps(baselines.FORMAT), "not a whole baseline"),
            (json.dumps(whole | {"tolerances": [{"metric": "*", "rel": "1 %"}]}), r"tolerances\[0\].rel: accepted"),
            (json.dumps(whole | {"tolerances": [{"metric": "*", "margin": -1}]}), r"tolerances\[0\].margin: accepted"),
            (json.dumps(whole | {"tolerances": [{"metric": "*", "marge": 1}]}), r"tolerances\[0\].marge: accepted"),
            (json.dumps(whole | {"tolerances": [{"metric": "*", "unproven": "ignored"}]}), "unproven: accepted"),
            (json.dumps(whole | {"tolerances": [{"rel": 1}]}), "not a whole baseline"),
            (json.dumps(whole | {"studies": {"a": [{"set": {}, "metrics": {}}]}}), "not a whole baseline"),
        ):  # fmt: skip
            with self.assertRaisesRegex(InputError, reason):
                baselines.load(self.write("b.json", text))

    def test_points_and_metrics_that_come_and_go_are_told(self):
        baseline = {"tolerances": [], "studies": {"s": [point([], a=1.0, gone=2.0), point([], a=1.0) | {"set": {"x": 1}}]}}
        now = [point([], a=1.0, new=3.0), point([], a=1.0) | {"set": {"x": 2}}]
        rows, notes = regression.compare(baseline, "s", now)
        self.assertEqual([(row.point, row.metric, row.verdict, row.passes()) for row in rows], [
            ("", "gone", "gone", False), ("", "new", "new metric", True), ("x = 2", "-", "new: not in the baseline", False),
            ("x = 1", "-", "gone", False)])  # fmt: skip
        self.assertEqual(notes, [])
        rows, _ = regression.compare(baseline, "t", now)
        self.assertEqual([row.verdict for row in rows], ["new: not in the baseline"])


FREE = {"table": {}, "otherwise": "free"}
FADING = {
    "study": "fading",
    "mode": "shape",
    "repeat": 12,
    "model": {"shape": "smollm2-135m", "adapter": {"rank": 1}},
    "nodes": {
        "device": {"role": "user-device", "hardware": {"profile": "device-13tflops", "timing": FREE}},
        "edge": {"role": "edge-server", "hardware": {"profile": "a800-80gb",
                 "timing": {"table": {"layer": {"ms": 0.2}}, "otherwise": "free"}}},
    },
    "links": {"device-edge": {"type": "fading", "bandwidth": "10MHz", "snr": 10, "epsilon": 0.001, "rate": "optimal"}},
    "scheme": {"name": "tlc", "codec": "fp16", "policy": {"name": "never"}},
    "workload": {"prompt_tokens": [{"tokens": 1, "requests": 2}], "new_tokens": 200},
    "timeline": {"tokens": 0},
}  # fmt: skip
LAYER = "nodes.edge.hardware.timing.table.layer.ms"
BASE_MS = 30 * 0.2  # of a token of 30 layers


class Runs(SweepTest):
    def regress(self, *arguments, status=0):
        command = self.command(*arguments, "--baseline", self.folder / "b.json", "--out", self.folder / "out", "--workers", 2)
        command[2] = "splitllm.regression"
        done = self.call(command)
        self.assertEqual((done.returncode, done.stderr), (status, ""), done.stdout)
        return done.stdout

    def verdicts(self, output):
        """{metric: verdict} of the table in an output without points' names."""
        rows = [line.split("  ") for line in output.splitlines() if line.startswith("fading  ")]
        return {cells[0].strip(): cells[-1].strip() for cells in ([c for c in row[1:] if c.strip()] for row in rows)}

    def test_another_seed_of_a_stochastic_study_passes_and_two_per_cent_do_not(self):
        study = self.write("fading.json", json.dumps(FADING))
        self.regress(study, "--update")
        self.assertIn("1 studies, 1 points: 0 differences that fail, 0 that pass", self.regress(study))
        mean = json.loads((self.folder / "out/fading/summary.json").read_text())["points"][0]["metrics"]["token_latency_ms.mean"]

        # the differences are there, and small
        for seed in (2, 3):
            said = self.regress(study, "--set", f"seed={seed}")
            self.assertEqual(self.verdicts(said)["token_latency_ms.mean"], "equivalent")
            self.assertIn("0 differences that fail", said)
            self.assertIn("fading: first token that moved: session 0, request 0, token ", said)

        slower = f"{LAYER}={0.2 * (1 + 0.02 * mean / BASE_MS)}"
        for options in ([], ["--set", "seed=2"]):
            said = self.regress(study, "--set", slower, *options, status=1)
            self.assertEqual(self.verdicts(said)["token_latency_ms.mean"], "changed", said)
            self.assertEqual(self.verdicts(said)["component_ms.base.mean"], "changed", said)
        said = self.regress(study, "--set", slower, status=1)
        by = round(0.02 * mean * 1e6)
        self.assertRegex(said, rf"token 1: \+{by // 100}\d\d ns \(base \+{by // 100}\d\d ns\)")

        # too few repetitions for a narrow margin are no pass
        baseline = json.loads((self.folder / "b.json").read_text())
        baseline["tolerances"][0]["margin"] = 0.001
        self.write("b.json", json.dumps(baseline))
        said = self.regress(study, "--set", "seed=2", status=1)
        self.assertRegex(self.verdicts(said)["token_latency_ms.mean"], r"cannot tell: repeat \d+ ")
        self.assertIn("1 differences that fail", said)

    def test_another_seed_of_a_deterministic_study_is_the_same_and_two_per_cent_are_not(self):
        steady = FADING | {"repeat": 1, "links": {"device-edge": {"type": "service", "rate": "20Mbps", "delay": "1ms"}}}
        study = self.write("fading.json", json.dumps(steady))
        self.regress(study, "--update")
        self.assertIn("0 differences that fail, 0 that pass", self.regress(study, "--set", "seed=2"))
        mean = json.loads((self.folder / "out/fading/summary.json").read_text())["points"][0]["metrics"]["token_latency_ms.mean"]
        said = self.regress(study, "--set", f"{LAYER}={0.2 * (1 + 0.02 * mean / BASE_MS)}", status=1)
        self.assertEqual(self.verdicts(said)["token_latency_ms.mean"], "changed")
        # a nanosecond more of each of the two messages
        said = self.regress(study, "--set", "links.device-edge.delay=1000001ns", status=1)
        self.assertIn("first token that moved: session 0, request 0, token 1: +2 ns (network +2 ns)\n", said)

    def test_update_replaces_what_ran_and_keeps_the_tolerances(self):
        first = self.write("a/one.json", json.dumps(FADING | {"study": "one", "repeat": 1}))
        self.write("a/two.json", json.dumps(FADING | {"study": "two", "repeat": 1}))
        self.write("a/b.json", json.dumps(baselines.FORMAT | {"tolerances": [], "studies": {}}))  # lies among the studies
        (self.folder / "b.json").symlink_to("a/b.json")
        self.assertIn("2 studies, 2 points", self.regress(self.folder / "a", "--update"))
        (self.folder / "a/b.json").unlink()
        baseline = json.loads((self.folder / "b.json").read_text())
        self.assertEqual(list(baseline["studies"]), ["one", "two"])
        baseline["tolerances"] = [{"metric": "*", "rel": 0.5, "abs": 1e9}]
        self.write("b.json", json.dumps(baseline))
        said = self.regress(first, "--update", "--set", "workload.new_tokens=100")
        self.assertIn("within tolerance", said)
        after = json.loads((self.folder / "b.json").read_text())
        self.assertEqual(after["tolerances"], baseline["tolerances"])
        self.assertEqual(after["studies"]["two"], baseline["studies"]["two"])
        self.assertEqual(after["studies"]["one"][0]["metrics"]["tokens"], 200)

    def test_bad_input_is_one_line_and_a_failing_run_is_no_baseline(self):
        study = self.write("fading.json", json.dumps(FADING | {"repeat": 1}))
        same = self.write("other.json", json.dumps(FADING | {"repeat": 1}))
        for arguments, reason in (
            ([study], "b.json: no such file; --update writes it"),
            ([study, same, "--update"], 'other.json: has the name "fading", as '),
            ([self.folder / "out", "--update"], "no study (JSON) in this folder"),
            ([study, "--update", "--set", "links.device-edge.snr=-1"], "links.device-edge.snr: "),
        ):  # fmt: skip
            (self.folder / "out").mkdir(exist_ok=True)
            command = self.command(*arguments, "--baseline", self.folder / "b.json", "--out", self.folder / "out")
            command[2] = "splitllm.regression"
            done = self.call(command)
            self.assertEqual((done.returncode, len(done.stderr.splitlines())), (2, 1), done.stderr)
            self.assertIn(reason, done.stderr)
        failing = FADING | {"repeat": 1, "expect": [{"metric": "tokens", "value": 1, "abs": 0}]}
        self.write("fading.json", json.dumps(failing))
        self.assertIn("FAILED  tokens: 400, expected 1", self.regress(study, "--update", status=1))
        self.assertFalse((self.folder / "b.json").exists())


if __name__ == "__main__":
    unittest.main()
