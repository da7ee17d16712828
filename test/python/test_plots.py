# SPDX-License-Identifier: GPL-2.0-only
"""The numbers that plots of quality and decisions show, against ones computed by hand."""

import io
import json
import os
import unittest
from contextlib import redirect_stdout

from support import FolderTest

from splitllm import plots_decisions, plots_links, plots_quality
from splitllm.cli import InputError
from splitllm.plots import Points, plot

REQUESTS = "point,repetition,request,prompt,group,tokens,exact_match,f1,kl_nats,nll,top1_agreement,answer_tokens"
DECISIONS = "point,repetition,session,request,position,layer,offloaded,returned,score_1,score_2"


def point(swept, up=0.0, down=0.0, latency=1.0, kl=None, exact=None, ratio=None):
    metrics = {f"token_latency_ms.{name}": latency for name in ("mean", "p50", "p95")} | {"component_ms.base.mean": latency}
    metrics |= {"payload_bytes_per_response.up": up, "payload_bytes_per_response.down": down}
    optional = {"quality.kl_nats": kl, "quality.exact_match": exact, "offload_ratio": ratio}
    return {"set": swept, "metrics": metrics | {name: value for name, value in optional.items() if value is not None}}


def points_of(*points):
    return Points({"study": "x", "points": points}, "summary.json")


def figure():
    os.environ.setdefault("MPLCONFIGDIR", "/tmp")
    from matplotlib.figure import Figure

    return Figure(layout="constrained")


def series(axes):
    """The data of every line of the axes."""
    return [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.lines]


class Names(unittest.TestCase):
    def test_objects_are_called_by_label_then_name_then_shape_then_path(self):
        values = [{"name": "tlc", "label": "TLC 40 %"}, {"name": "linfer"}, {"shape": "opt-13b", "dtype": "fp16"}, {"path": "p"},
                  {"keep": 1}, [3, 4]]  # fmt: skip
        texts = [p["set"]["k"] for p in points_of(*(point({"k": value}) for value in values)).points]
        self.assertEqual(texts, ["TLC 40 %", "linfer", "opt-13b", "p", '{"keep": 1}', "[3, 4]"])

    def test_different_objects_get_different_texts_and_equal_ones_the_same(self):
        values = [{"name": "tlc", "a": 1}, {"name": "tlc", "a": 2}, {"name": "tlc", "a": 1}]
        texts = [p["set"]["k"] for p in points_of(*(point({"k": value}) for value in values)).points]
        self.assertEqual(texts, ["tlc", "tlc (2)", "tlc"])

    def test_a_family_is_what_stands_before_the_first_number(self):
        for label, expected in (
            ("TLC 40 %", "TLC"), ("TLC wide 5", "TLC wide"), ("random .6", "random"), ("LInfer fp32", "LInfer fp32"), ("tlc (2)", "tlc"),
            ("tau1 0.5, tau2 0.6", "tau1"), ("never", "never"), ("40 %", "40 %"), ("Fixed, 15 layers", "Fixed"),
        ):  # fmt: skip
            self.assertEqual(plots_quality.family(label), expected)


class Keys(unittest.TestCase):
    def test_a_key_with_a_single_value_is_no_axis(self):
        points = points_of(*(point({"links.l.rate": "1Gbps", "scheme": {"name": name}}) for name in "ab"))
        self.assertEqual((points.axis, points.others, points.fixed), ("scheme", [], ["links.l.rate"]))
        self.assertEqual(points.caption(), "study x, rate 1 Gbps")
        self.assertEqual(points_of(point({"n": 1})).axis, "n")


class Statistics(unittest.TestCase):
    def test_intervals_are_students(self):
        # t (0.975) of 1, 2 and 30 degrees of freedom: 12.706, 4.303, 2.042
        self.assertAlmostEqual(plots_quality.half_interval([1, 3]), 12.706, 3)
        self.assertAlmostEqual(plots_quality.half_interval([1, 2, 3]), 4.3027 / 3**0.5, 3)
        self.assertAlmostEqual(plots_quality.half_interval(list(range(31))), 2.0423 * (31 * 32 / 12 / 31) ** 0.5, 3)
        self.assertEqual(plots_quality.half_interval([5, 5, 5]), 0)
        self.assertIsNone(plots_quality.half_interval([1]))

    def test_the_pareto_front_is_what_nothing_beats_in_both(self):
        pairs = [(4, 1), (3, 3), (1, 5), (2, 4), (2, 3)]
        self.assertEqual(plots_quality.pareto(pairs), [(1, 5), (2, 3), (4, 1)])

    def test_a_logarithmic_axis_ends_below_the_smallest_value_within_five_decades(self):
        self.assertAlmostEqual(plots_quality.lower_edge([2, 0.003, 1e-9, 0, -1e-12]), 0.001)
        self.assertGreater(plots_quality.lower_edge([0, 0]), 0)


class Tradeoff(FolderTest):
    def setUp(self):
        super().setUp()
        scheme = "scheme"
        self.points = points_of(
            point({scheme: {"name": "local"}}, 0, 0, 9, 0.0, 1.0),
            point({scheme: {"name": "tlc", "label": "TLC 60 %"}}, 50_000, 10_000, 6, 0.2, 0.5, 0.6),
            point({scheme: {"name": "tlc", "label": "TLC 40 %"}}, 30_000, 10_000, 4, 0.4, 0.25, 0.4),
            point({scheme: {"name": "tlc", "label": "Poor 60 %"}}, 60_000, 10_000, 8, 0.5, 0.25, 0.6),
            point({scheme: {"name": "linfer"}}, 70_000, 30_000, 12, 1e-9, 1.0, 1.0),
        )
        rows = [REQUESTS]
        # KL a token in two repetitions: (0.1 x 3 + 0.5 x 1) / 4 = 0.2 and (0.3 x 1 + 0.1 x 1) / 2 = 0.2
        # exact: 1 of 2 and 2 of 2
        for repetition, kl, tokens, exact in ((0, 0.1, 3, 1), (0, 0.5, 1, 0), (1, 0.3, 1, 1), (1, 0.1, 1, 1)):
            rows.append(f"1,{repetition},0,p,g,5,{exact},0.5,{kl},0.1,1,{tokens}")
        rows.append("0,0,0,p,g,5,1,1,,,,")
        self.requests = plots_quality.read_requests(self.write("requests.csv", "\n".join(rows) + "\n"))

    def test_repetitions_are_weighted_as_the_metrics_are(self):
        kl, exact = plots_quality.repetition_means(self.requests, 1)
        self.assertEqual([round(value, 12) for value in kl], [0.2, 0.2])
        self.assertEqual(exact, [0.5, 1.0])
        self.assertEqual(plots_quality.repetition_means(self.requests, 0), ([], [1.0]))

    def test_points_become_bytes_latency_and_quality(self):
        rows = plots_quality.trades(self.points, self.requests)
        self.assertEqual([row["family"] for row in rows], ["local", "TLC", "TLC", "Poor", "linfer"])
        first = rows[1]
        self.assertEqual((first["kilobytes"], first["latency"], first["kl"], first["exact"]), (60.0, 6, 0.2, 50.0))
        self.assertAlmostEqual(first["exact_half"], 12.706 * 25, 0)  # 50 and 100 %: 25 from their mean
        self.assertAlmostEqual(first["kl_half"], 0)
        self.assertEqual((rows[0]["exact_half"], rows[2]["kl_half"]), (None, None))

    def test_only_points_with_a_divergence_are_compared(self):
        self.assertEqual(plots_quality.trades(points_of(point({}, exact=1.0)), []), [])

    def test_schemes_are_compared_where_all_else_is_equal(self):
        rate = "links.l.rate"
        rows = plots_quality.trades(points_of(*(point({"scheme": {"name": s}, rate: r}, kl=0.1, exact=1.0)
                                                for s in "ab" for r in ("1Mbps", "2Mbps"))), [])  # fmt: skip
        self.assertEqual([(row["label"], row["setting"]) for row in rows],
                         [("a", "1 Mbps"), ("a", "2 Mbps"), ("b", "1 Mbps"), ("b", "2 Mbps")])  # fmt: skip

    def test_panels_show_a_line_a_family_bars_and_the_front_of_split_schemes(self):
        drawn = figure()
        plots_quality.plot_tradeoff(self.points, plots_quality.trades(self.points, self.requests), drawn)
        kl, exact, latency = drawn.axes
        edge = 0.2 / 3
        self.assertIn([(40, 0.4), (60, 0.2)], series(kl))  # TLC, by rising bytes
        # from 40 to 60 kB the best is 0.4 nats, to 100 kB 0.2; local would beat all and splits nothing
        front = [(40, 0.4), (60, 0.4), (60, 0.2), (100, 0.2), (100, edge), (100, edge)]
        drawn_front = next(line for line in series(kl) if len(line) == 6)
        for (x, y), (fx, fy) in zip(drawn_front, front):
            self.assertEqual((round(x, 9), round(y, 9)), (round(fx, 9), round(fy, 9)))
        self.assertIn([(40, 25), (60, 50)], series(exact))
        self.assertIn([(60, 0), (60, 100)], series(exact))  # its bar, cut off at 0 and 100 %
        self.assertIn([(4, 25), (6, 50)], series(latency))
        self.assertEqual(kl.get_yscale(), "log")
        hollow = [line for line in kl.lines if line.get_markerfacecolor() == "white"]
        self.assertEqual([line.get_xdata()[0] for line in hollow], [0, 100])


class DecisionPlots(FolderTest):
    """Two layers beyond the first, a prompt of 2 tokens, an answer of 2: positions 0 to 2."""

    def setUp(self):
        super().setUp()
        rows = [DECISIONS]

        def add(at, request, cells):
            for position, layers in enumerate(cells):
                for layer, what in enumerate(layers, 1):
                    rows.append(f"{at},0,0,{request},{position},{layer},{int(what > 0)},{int(what > 1)},,")

        add(0, 0, [(0, 1, 2), (0, 0, 2), (0, 2, 0)])
        add(0, 1, [(0, 2, 2)])
        add(1, 0, [(0, 2, 2), (0, 2, 2), (0, 2, 2)])  # everything but layer 1
        add(2, 0, [(2, 2, 2), (0, 0, 0), (2, 2, 2)])
        self.decisions = plots_decisions.read_decisions(self.write("decisions.csv", "\n".join(rows) + "\n"))
        requests = [REQUESTS, "0,0,0,a,warm,2,1,1,,,,", "0,0,1,b,cold,1,0,0,,,,", "1,0,0,a,warm,2,1,1,,,,", "2,0,0,a,,2,1,1,,,,"]
        self.requests = plots_quality.read_requests(self.write("requests.csv", "\n".join(requests) + "\n"))
        self.points = points_of(*(point({"scheme": {"name": name}}) for name in ("tlc", "all", "dlora")))
        self.mixed = plots_decisions.mixed_points(self.points, self.decisions)

    def test_points_that_treat_all_cells_alike_are_left_out(self):
        self.assertEqual([p["number"] for p in self.mixed], [0, 2])

    def test_the_map_shows_layers_upwards_and_where_the_answer_begins(self):
        drawn = figure()
        plots_decisions.plot_map(self.points, self.mixed, self.decisions, self.requests, drawn)
        axes = drawn.axes[0]
        self.assertEqual(axes.images[0].get_array().tolist(), [[0, 0, 0], [1, 0, 2], [2, 2, 0]])
        self.assertEqual(axes.images[0].origin, "lower")
        # two generated tokens, of which the last is decided about no more: 3 positions, 2 of them the prompt's
        self.assertEqual(series(axes), [[(1.5, 0), (1.5, 1)]])
        self.assertEqual(axes.get_title(), "tlc")

    def test_shares_by_layer_are_of_all_requests(self):
        drawn = figure()
        plots_decisions.plot_layers(self.points, self.mixed, self.decisions, drawn)
        offloaded, returned = drawn.axes
        self.assertEqual(series(offloaded)[0], [(1, 0), (2, 75), (3, 75)])
        self.assertEqual(series(returned)[0], [(1, 0), (2, 50), (3, 75)])
        third = 100 * 2 / 3
        self.assertEqual(series(offloaded)[1], [(1, third), (2, third), (3, third)])

    def test_groups_share_out_cells_and_answers(self):
        shares = plots_decisions.group_shares(self.mixed, self.decisions, self.requests)
        self.assertEqual(list(shares), [0])  # the other point's prompts have no group
        warm, cold = shares[0]["warm"], shares[0]["cold"]
        # warm: 4 of 9 cells offloaded, 1 of these 4 not returned; cold: 2 of 3, all returned
        self.assertEqual((warm["offloaded"], warm["kept"], warm["exact"]), (100 * 4 / 9, 25, 100))
        self.assertEqual((cold["offloaded"], cold["kept"], cold["exact"]), (100 * 2 / 3, 0, 0))
        drawn = figure()
        plots_decisions.plot_groups(self.points, self.mixed, shares, drawn)
        marks = {line.get_label(): line.get_xydata().tolist() for line in drawn.axes[0].lines}
        self.assertEqual((marks["warm"], marks["cold"]), ([[100 * 4 / 9, 25]], [[100 * 2 / 3, 0]]))
        self.assertEqual([bar.get_height() for bar in drawn.axes[1].patches], [0, 100])  # cold, warm

    def test_a_group_without_an_exchange_has_no_share_that_returns(self):
        self.assertEqual(plots_decisions.pair([4, 0, 0]), (0, None))


class Links(unittest.TestCase):
    def fading(self, swept, rate, goodput):
        made = point(swept, latency=2.0 * rate)
        made["metrics"] |= {"link.l.rate_mbps": rate, "link.l.goodput_mbps": goodput, "link.l.worst_case_ms": 5.0 * rate}
        return made

    def test_a_swept_rate_is_the_axis_also_where_it_was_chosen(self):
        key = "links.l.rate"
        points = points_of(
            *(self.fading({key: value}, rate, goodput)
              for value, rate, goodput in (("4Mbps", 4, 3), ("1Mbps", 1, 0.5), ("optimal", 2.5, 2), ("3Mbps", 3, 2.5)))
        )  # fmt: skip
        self.assertEqual(plots_links.swept_links(points), [("l", key)])
        drawn = figure()
        plots_links.plot_link(points, "l", key, drawn)
        upper, lower = drawn.axes
        curve, mark = series(upper)
        self.assertEqual(curve, [(1, 0.5), (2.5, 2), (3, 2.5), (4, 3)])
        self.assertEqual([x for x, _ in mark], [2.5, 2.5])
        mean, worst, _ = series(lower)
        self.assertEqual(mean, [(1, 2), (2.5, 5), (3, 6), (4, 8)])
        self.assertEqual(worst, [(1, 5), (2.5, 12.5), (3, 15), (4, 20)])

    def test_another_quantity_is_the_axis_with_a_line_for_each_rate(self):
        points = points_of(
            *(self.fading({"links.l.snr": snr, "links.l.rate": rate}, snr, snr / 2) for snr in (1, 4) for rate in ("optimal", "2Mbps"))
        )
        self.assertEqual(plots_links.swept_links(points), [("l", None)])
        drawn = figure()
        plots_links.plot_link(points, "l", None, drawn)
        self.assertEqual(series(drawn.axes[0]), [[(1, 0.5), (4, 2)]] * 2)
        self.assertEqual(plots_links.swept_links(points_of(point({"n": 1}), point({"n": 2}))), [])


class Files(FolderTest):
    def test_each_plot_is_drawn_where_its_data_are_there(self):
        summary = {"study": "x", "points": [point({}, 9e3, 9e3, kl=0.1, exact=0.5, ratio=0.5)]}
        self.write("summary.json", json.dumps(summary))

        def plotted():
            with redirect_stdout(io.StringIO()):
                return sorted(file.stem for file in plot(self.folder))

        always = ["components", "token-latency", "tradeoff"]
        self.assertEqual(plotted(), always)
        self.write("decisions.csv", DECISIONS + "\n0,0,0,0,0,2,1,0,,\n0,0,0,0,1,2,0,0,,\n")
        self.assertEqual(plotted(), sorted([*always, "decisions-map", "decisions-by-layer"]))
        self.write("requests.csv", REQUESTS + "\n0,0,0,a,warm,2,1,1,0.1,0.1,1,4\n")
        self.assertEqual(plotted(), sorted([*always, "decisions-map", "decisions-by-layer", "groups"]))

    def test_tables_of_another_kind_are_refused(self):
        for read, name in ((plots_quality.read_requests, "requests"), (plots_decisions.read_decisions, "decisions")):
            for text in ("a,b\n1,2\n", {"requests": REQUESTS, "decisions": DECISIONS}[name] + "\nx,0,0,0,0,0,0,0,0,0,0,0\n"):
                with self.assertRaisesRegex(InputError, f"t.csv: not a table of {name}"):
                    read(self.write("t.csv", text))


if __name__ == "__main__":
    unittest.main()
