# SPDX-License-Identifier: GPL-2.0-only
"""The numbers that plots of CE-CoLLM's studies show, against ones computed by hand."""

import io
import json
import unittest
from contextlib import redirect_stdout

from support import FolderTest
from test_plots import figure, point, points_of, series

from splitllm import plots_collm
from splitllm.cli import InputError
from splitllm.plots import plot

EXITS = "point,repetition,session,request,position,source,layer,confidence,asked_ns"
CONFIDENCE = "point,repetition,request,position,layer,confidence,agrees"
TOKENS = "point,repetition,session,request,position,token,start_ns,latency_ns"
STANDALONE = "point,repetition,session,start_ns,end_ns,reason"
OUTAGES = "point,repetition,name,start_ns,end_ns"


def with_metrics(swept, **metrics):
    made = point(swept)
    made["metrics"] |= {name.replace("__", "."): value for name, value in metrics.items()}
    return made


class Tables(FolderTest):
    def table(self, name, header, *rows):
        self.write(name, "\n".join([header, *rows]) + "\n")


class Confidence(Tables):
    def test_quartiles_lie_between_order_statistics(self):
        self.assertEqual([plots_collm.quantile([4, 1, 2, 3], share) for share in (0, 0.25, 0.5, 1)], [1, 1.75, 2.5, 4])

    def test_calibration_is_by_bins_with_their_right_ends(self):
        # 0.5 lies with 0.45 and not with 0.55; of (0.9, 1] two of three agree
        curve, error = plots_collm.calibration([(0.5, 1), (0.45, 0), (0.55, 1), (1.0, 1), (1.0, 0), (0.94, 1)])
        self.assertEqual([(round(sure, 9), round(right, 9), n) for sure, right, n in curve],
                         [(0.475, 0.5, 2), (0.55, 1.0, 1), (0.98, 0.666666667, 3)])  # fmt: skip
        self.assertAlmostEqual(error, (2 * 0.025 + 0.45 + 3 * (0.98 - 2 / 3)) / 6)

    def test_the_table_s_tokens_are_drawn_by_point(self):
        points = points_of(point({"scheme": "a"}), point({"scheme": "b"}))
        self.assertEqual(plots_collm.read_confidences(self.folder, points), {})
        self.table("exits.csv", EXITS, *(f"1,0,0,0,{k},exit,8,{c}," for k, c in enumerate((0.25, 0.75, 1.0, 0.5))),
                   "1,0,0,0,9,cloud,0,,7", "5,0,0,0,1,exit,8,0.1,")  # fmt: skip
        self.table("confidence.csv", CONFIDENCE, "1,0,0,1,8,0.75,1", "1,0,0,2,8,0.75,0")
        confidences = plots_collm.read_confidences(self.folder, points)
        self.assertEqual(confidences, {1: ([0.25, 0.75, 1.0, 0.5], [(0.75, 1), (0.75, 0)])})
        drawn = figure()
        plots_collm.plot_confidence(points, confidences, drawn)
        histogram, curve = drawn.axes
        self.assertEqual([line[0][0] for line in series(histogram)], [0.4375, 0.625, 0.8125])  # quartiles
        self.assertAlmostEqual(sum(bar.get_height() for bar in histogram.patches), 100)
        self.assertEqual(histogram.get_title(), "b: 4 tokens")
        self.assertEqual(series(curve)[1], [(0.75, 50.0)])
        self.assertEqual(curve.get_title(), "ECE 0.250 over 2 tokens of answers")

    def test_without_judged_tokens_there_is_no_curve(self):
        self.table("exits.csv", EXITS, "0,0,0,0,1,exit,8,0.5,")
        points = points_of(point({}))
        drawn = figure()
        plots_collm.plot_confidence(points, plots_collm.read_confidences(self.folder, points), drawn)
        self.assertEqual([axes.get_visible() for axes in drawn.axes], [True, False])

    def test_other_tables_are_refused_in_one_line(self):
        for text in ("a,b\n1,2\n", f"{EXITS}\n0,0,0,0,1,exit,8,high,\n", f"{EXITS}\n0\n"):
            self.write("exits.csv", text)
            with self.assertRaisesRegex(InputError, "exits.csv: not a table of exits"):
                plots_collm.read_confidences(self.folder, points_of(point({})))


class Sweeps(unittest.TestCase):
    def test_metrics_lie_over_the_threshold_in_per_cent_and_seconds(self):
        points = points_of(*(with_metrics({"scheme.policy.threshold": theta}, early_exit_ratio=1 - r, cloud_request_ratio=r,
                                          response_s__mean=s, quality__f1=f) for theta, r, s, f in ((0.9, 0.5, 4.0, 0.75),
                                                                                                    (0.8, 0.25, 3.0, 0.5))))  # fmt: skip
        self.assertTrue(plots_collm.sweeps_threshold(points))
        self.assertFalse(plots_collm.sweeps_link(points))
        drawn = figure()
        plots_collm.plot_threshold(points, drawn)
        panels = {axes.get_ylabel(): series(axes) for axes in drawn.axes if axes.get_visible()}
        self.assertEqual(panels, {
            "tokens that the cloud is asked for (%)": [[(0.8, 25.0), (0.9, 50.0)]],
            "time of a response (s)": [[(0.8, 3.0), (0.9, 4.0)]],
            "latency of a token (ms)": [[(0.8, 1.0), (0.9, 1.0)]],
            "F1 (%)": [[(0.8, 50.0), (0.9, 75.0)]],
        })  # fmt: skip

    def test_thresholds_of_each_exit_are_no_axis(self):
        lists = [with_metrics({"scheme.policy.threshold": theta}, early_exit_ratio=1) for theta in ([0.8, 0.9], [0.7, 0.9])]
        self.assertFalse(plots_collm.sweeps_threshold(points_of(*lists)))

    def test_time_lies_over_the_rate_with_a_line_a_delay(self):
        points = points_of(*(with_metrics({"links.edge-cloud.rate": rate, "links.edge-cloud.delay": delay}, early_exit_ratio=1,
                                          response_s__mean=s, fallback_ratio=0.0) for rate, delay, s in
                             (("1Mbps", "1ms", 4.0), ("9Mbps", "1ms", 2.0), ("1Mbps", "5ms", 6.0), ("9Mbps", "5ms", 3.0))))  # fmt: skip
        self.assertTrue(plots_collm.sweeps_link(points))
        drawn = figure()
        plots_collm.plot_link(points, drawn)
        shown = [axes for axes in drawn.axes if axes.get_visible()]
        self.assertEqual([axes.get_ylabel() for axes in shown], ["time of a response (s)"])  # no fallbacks anywhere
        self.assertEqual(series(shown[0]), [[(1e6, 4.0), (9e6, 2.0)], [(1e6, 6.0), (9e6, 3.0)]])
        self.assertFalse(plots_collm.sweeps_link(points_of(point({"links.a.rate": "1Mbps"}), point({"links.a.rate": "2Mbps"}))))

    def test_latency_and_the_cloud_s_load_lie_over_the_number_of_edges(self):
        made = [with_metrics({"nodes.edge.count": n}, early_exit_ratio=1, server_busy_s=2.0 * n, token_latency_ms__p95=3.0 * n)
                for n in (4, 1)]  # fmt: skip
        points = points_of(*made)
        self.assertTrue(plots_collm.sweeps_edges(points))
        drawn = figure()
        plots_collm.plot_edges(points, drawn)
        self.assertEqual(series(drawn.axes[0]), [[(1, 1), (4, 1)], [(1, 3), (4, 12)]])
        self.assertEqual(series(drawn.axes[1]), [[(1, 2), (4, 8)]])
        del made[0]["metrics"]["early_exit_ratio"], made[1]["metrics"]["early_exit_ratio"]
        self.assertFalse(plots_collm.sweeps_edges(points_of(*made)))


class Places(unittest.TestCase):
    def test_bars_stand_on_each_other(self):
        def spent(scheme, edge, cloud, network):
            parts = {f"component_s_per_response__{name}": value
                     for name, value in (("edge", edge), ("cloud", cloud), ("network", network))}  # fmt: skip
            return with_metrics({"scheme": scheme}, **parts)

        alone = spent("standalone", 2.0, 0.0, 0.0)
        self.assertFalse(plots_collm.has_places(points_of(alone)))
        points = points_of(alone, spent("collaborative", 1.5, 1.0, 0.25), point({"scheme": "without"}))
        self.assertTrue(plots_collm.has_places(points))
        drawn = figure()
        plots_collm.plot_places(points, drawn)
        axes = drawn.axes[0]
        bars = {container.get_label(): [(bar.get_x(), bar.get_width()) for bar in container] for container in axes.containers}
        self.assertEqual(bars, {"edge": [(0, 2.0), (0, 1.5)], "network": [(2.0, 0), (1.5, 0.25)], "cloud": [(2.0, 0), (1.75, 1.0)]})
        self.assertEqual([tick.get_text() for tick in axes.get_yticklabels()], ["standalone", "collaborative"])


class Answers(Tables):
    def answer(self, *stretches, outages=()):
        """Two answers of session 0 and one of session 1 at the same time as the second, tokens of 1 s and 2 s."""
        second = 10**9
        rows = [(0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 3, 1), (0, 1, 4, 2), (1, 2, 3, 1)]
        self.table("tokens.csv", TOKENS, *(f"0,0,{s},{r},{k},5,{at * second},{took * second}"
                                           for k, (s, r, at, took) in enumerate(rows, 1)))  # fmt: skip
        sources = ("exit", "cloud", "fallback", "exit", "exit")
        self.table("exits.csv", EXITS, *(f"0,0,{s},{r},{k},{source},8,," for k, ((s, r, _, _), source) in
                                         enumerate(zip(rows, sources))))  # fmt: skip
        self.table("standalone.csv", STANDALONE, *stretches)
        if outages:
            self.table("outages.csv", OUTAGES, *outages)
        return plots_collm.read_answers(self.folder, self.points)

    points = points_of(with_metrics({}, early_exit_ratio=1))

    def test_the_first_answer_that_a_stretch_falls_into_is_shown(self):
        answers = self.answer("0,0,0,3500000000,9000000000,timeout", "0,1,0,0,1000000000,timeout",
                              outages=["0,0,edge-cloud,3250000000,"])  # fmt: skip
        self.assertEqual(answers, [{
            "number": 0,
            "tokens": [(3.0, 4.0, "fallback"), (4.0, 6.0, "exit")],
            "standalone": [(3.5, 6.0)],  # cut where the answer ends
            "outages": [(3.25, 6.0)],
        }])  # fmt: skip
        drawn = figure()
        plots_collm.plot_answers(self.points, answers, drawn)
        axes = drawn.axes[0]
        marks = {line.get_color(): [tuple(map(float, at)) for at in line.get_xydata()] for line in axes.lines}
        self.assertEqual(marks, {plots_collm.SOURCES["exit"]: [(6.0, 2.0)], plots_collm.SOURCES["cloud"]: [],
                                 plots_collm.SOURCES["fallback"]: [(4.0, 1.0)]})  # fmt: skip
        labels = [text.get_text() for text in drawn.legends[0].get_texts()]
        self.assertEqual(labels, ["from an exit", "from the last exit, in place of the cloud", "the edge on its own", "outage"])

    def test_a_stretch_of_another_session_is_none_of_this_answer(self):
        self.assertEqual([a["tokens"] for a in self.answer("0,0,1,3500000000,3600000000,timeout")], [[(3.0, 4.0, "exit")]])

    def test_an_outage_is_everybody_s(self):
        answers = self.answer("0,0,0,70000000000,80000000000,timeout", outages=["0,0,edge-cloud,2500000000,2600000000"])
        self.assertEqual([(a["tokens"][0], a["standalone"], a["outages"]) for a in answers], [((0.0, 1.0, "exit"), [], [(2.5, 2.6)])])

    def test_without_stretches_and_outages_there_is_no_plot(self):
        self.assertEqual(self.answer(), [])


class Registered(Tables):
    def test_a_study_s_plots_are_written(self):
        parts = {f"component_s_per_response__{name}": 1.0 for name in plots_collm.PLACES}
        made = [with_metrics({"scheme.policy.threshold": t}, early_exit_ratio=0.5, cloud_request_ratio=0.5, **parts)
                for t in (0.7, 0.8)]  # fmt: skip
        self.write("summary.json", json.dumps({"study": "x", "points": made}))
        self.table("exits.csv", EXITS, "0,0,0,0,1,exit,8,0.5,", "0,0,0,0,2,cloud,0,0.25,3")
        self.table("confidence.csv", CONFIDENCE, "0,0,0,1,8,0.75,1")
        self.table("tokens.csv", TOKENS, "0,0,0,0,1,5,0,1000", "0,0,0,0,2,5,1000,1000")
        self.table("standalone.csv", STANDALONE, "0,0,0,500,1500,timeout")
        with redirect_stdout(io.StringIO()):
            files = {file.name for file in plot(self.folder)}
        self.assertLessEqual({"confidence.png", "threshold.png", "places.png", "answer.png"}, files)
        self.assertTrue(files.isdisjoint({"network.png", "edges.png"}))


if __name__ == "__main__":
    unittest.main()
