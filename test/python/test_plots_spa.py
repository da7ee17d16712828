# SPDX-License-Identifier: GPL-2.0-only
"""The numbers that plots of SPA's studies and of comparisons show, against ones computed by hand."""

import unittest

from test_plots import figure, points_of
from test_plots_collm import with_metrics

from splitllm import plots_spa
from splitllm.plots_quality import STUDENT


def gate(label, ratio, exact):
    return with_metrics({"scheme.policy": {"label": label}}, gate_ratio=ratio, quality__exact_match=exact)


def request(point, repetition, exact):
    return {"point": point, "repetition": repetition, "exact_match": exact, "f1": None, "rouge_l": None}


def errorbars(axes):
    """{label: [(x, y, half)]} of what errorbar drew."""
    drawn = {}
    for container in axes.containers:
        line, _, (bars,) = container
        halves = [(segment[1][1] - segment[0][1]) / 2 for segment in bars.get_segments()]
        drawn[container.get_label()] = list(zip(line.get_xdata(), line.get_ydata(), halves))
    return drawn


class Gates(unittest.TestCase):
    def test_a_line_a_family_over_the_share_that_is_open(self):
        points = points_of(gate("gate 0.5", 0.6, 0.5), gate("random 20 %", 0.25, 0.125), gate("gate 0.9", 0.3, 0.25))
        self.assertTrue(plots_spa.has_gates(points))
        rows = [request(0, 0, 1), request(0, 0, 0), request(0, 1, 1), request(0, 1, 1)]
        drawn = figure()
        plots_spa.plot_gate(points, rows, drawn)
        self.assertEqual(len(drawn.axes), 1)  # no F1, no ROUGE-L
        lines = errorbars(drawn.axes[0])
        self.assertEqual(list(lines), ["gate", "random"])
        (x0, y0, _), (x1, y1, half) = lines["gate"]
        self.assertEqual((x0, y0, x1, y1), (30, 25, 60, 50))
        # means 0.5 and 1 of the two repetitions: their deviation is 0.5 / sqrt 2, that of the mean 0.25
        self.assertAlmostEqual(half, 100 * STUDENT[0] * 0.25)
        self.assertEqual([tuple(row[:2]) for row in lines["random"]], [(25, 12.5)])

    def test_one_share_is_no_trade(self):
        self.assertFalse(plots_spa.has_gates(points_of(gate("a", 0.5, 0.1), gate("b", 0.5, 0.2))))


class Steps(unittest.TestCase):
    def test_points_lie_by_their_steps(self):
        swept = [("1000", "SPA", 0.8), ("100", "SPA", 0.2), ("1000", "LST", 0.7), ("100", "LST", 0.1)]
        points = points_of(*(
            with_metrics({"scheme.side": {"label": f"{steps} steps"}, "scheme.policy": {"label": name}},
                         gate_ratio=0.5, quality__exact_match=exact, quality__f1=exact, quality__rouge_l=exact)
            for steps, name, exact in swept
        ))  # fmt: skip
        self.assertTrue(plots_spa.sweeps_steps(points))
        self.assertFalse(plots_spa.has_gates(points))
        drawn = figure()
        plots_spa.plot_steps(points, [], drawn)
        lines = errorbars(drawn.axes[0])
        self.assertEqual([row[:2] for row in lines["SPA"]], [(100, 20), (1000, 80)])
        self.assertEqual([row[:2] for row in lines["LST"]], [(100, 10), (1000, 70)])


class Page(unittest.TestCase):
    def test_every_case_has_a_bar_a_setting_in_every_panel(self):
        points = points_of(*(
            with_metrics({"case": {"label": case, "scheme": {}}, "links.a-b.rate": rate},
                         token_latency_ms__mean=latency, payload_bytes_per_token__up=1000, payload_bytes_per_token__down=500,
                         memory_bytes__cloud__weights=9, memory_bytes__phone__weights=2, memory_bytes__phone__peak=3e6)
            for case, rate, latency in (("SPA", "1Gbps", 5), ("SPA", "100Mbps", 7), ("TLC", "1Gbps", 40), ("TLC", "100Mbps", 46))
        ))  # fmt: skip
        self.assertTrue(plots_spa.compares_cases(points))
        drawn = figure()
        plots_spa.plot_page(points, drawn)
        panels = {axes.get_xlabel(): axes for axes in drawn.axes if axes.get_visible()}
        widths = lambda label: sorted(bar.get_width() for bar in panels[label].patches)  # noqa: E731
        self.assertEqual(widths("latency of a token (ms)"), [5, 7, 40, 46])
        self.assertEqual(widths("payload a token (kB)"), [1.5] * 4)
        self.assertEqual(widths("memory of the device (MB)"), [3] * 4)
        self.assertNotIn("memory of the server (MB)", panels)  # no peak there
        self.assertEqual([text.get_text() for text in drawn.axes[0].get_yticklabels()], ["SPA", "TLC"])

    def test_other_sweeps_have_no_page(self):
        self.assertFalse(plots_spa.compares_cases(points_of(gate("a", 0.5, 0.1), gate("b", 0.6, 0.2))))


if __name__ == "__main__":
    unittest.main()
