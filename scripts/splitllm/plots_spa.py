# SPDX-License-Identifier: GPL-2.0-only
"""SPA's questions: what quality an exchange buys, with the gate and by chance; how it grows with training; and schemes
side by side on one page."""

import re

from splitllm.plots_base import LINES, MARKERS
from splitllm.plots_quality import family, half_interval
from splitllm.units import written

STEPS = "scheme.side"
STEPS_LABEL = re.compile(r"(\d+) steps")
QUALITIES = (
    ("exact_match", "quality.exact_match", 100, "exact match (%)"),
    ("f1", "quality.f1", 100, "F1 (%)"),
    ("rouge_l", "quality.rouge_l", 100, "ROUGE-L (%)"),
)
CASE = "case"
PAGE = (
    ("token_latency_ms.mean", 1, "latency of a token (ms)"),
    ("ttft_ms.mean", 1, "time to the first token (ms)"),
    (("payload_bytes_per_token.up", "payload_bytes_per_token.down"), 1e-3, "payload a token (kB)"),
    (("messages_per_token.up", "messages_per_token.down"), 1, "messages a token"),
    ("memory_bytes.{device}.peak", 1e-6, "memory of the device (MB)"),
    ("memory_bytes.{server}.peak", 1e-6, "memory of the server (MB)"),
    ("quality.exact_match", 100, "exact match (%)"),
    ("quality.rouge_l", 100, "ROUGE-L (%)"),
    ("quality.perplexity", 1, "perplexity of the right answers"),
)


def shares(requests, number, metric):
    """The means of a metric over the requests of each repetition of a point."""
    sums = {}
    for row in requests:
        if row["point"] == number and row[metric] is not None:
            tally = sums.setdefault(row["repetition"], [0.0, 0])
            tally[0] += row[metric]
            tally[1] += 1
    return [total / count for _, (total, count) in sorted(sums.items())]


# What an exchange buys


def has_gates(points):
    """Whether points differ in how often the gate opens."""
    ratios = {point["metrics"].get("gate_ratio") for point in points.points} - {None}
    return len(ratios) > 1 and not sweeps_steps(points)


def plot_gate(points, requests, figure):
    metrics = [quality for quality in QUALITIES if any(quality[1] in point["metrics"] for point in points.points)]
    figure.set_size_inches(4.0 * len(metrics) + 0.8, 4.4)
    keys = [key for key in [points.axis, *points.others] if key is not None]
    families = {}
    for point in points.points:
        if "gate_ratio" in point["metrics"]:
            families.setdefault(family(points.label(point, keys) or points.study), []).append(point)
    for axes, (column, metric, factor, label) in zip(figure.subplots(1, len(metrics), squeeze=False).flat, metrics):
        for number, (name, group) in enumerate(families.items()):
            group = sorted((p for p in group if metric in p["metrics"]), key=lambda p: p["metrics"]["gate_ratio"])
            x = [100 * point["metrics"]["gate_ratio"] for point in group]
            y = [factor * point["metrics"][metric] for point in group]
            half = [factor * (half_interval(shares(requests, point["number"], column)) or 0) for point in group]
            look = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5, "color": LINES[number % len(LINES)]}
            axes.errorbar(x, y, half, label=name, capsize=2.5, linewidth=1.4, elinewidth=0.9, **look)
        axes.set(xlim=(-3, 103), ylim=(0, None), xlabel="tokens at which the device is asked (%)", ylabel=label)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", borderaxespad=1.6, ncols=len(families))
    points.title(figure, "Quality against exchanges with the device", "bars: 95 % of the mean over repetitions")


# How quality grows with training


def sweeps_steps(points):
    """Whether side networks of several numbers of training steps are compared."""
    labels = points.values(STEPS)
    return points.axis == STEPS and len(labels) > 1 and all(STEPS_LABEL.fullmatch(str(label)) for label in labels)


def steps_of(point):
    return int(STEPS_LABEL.fullmatch(point["set"][STEPS])[1])


def plot_steps(points, requests, figure):
    figure.set_size_inches(4.0 * (len(QUALITIES) + 1) + 0.4, 4.2)
    grid = figure.subplots(1, len(QUALITIES) + 1)
    panels = [*QUALITIES, (None, "gate_ratio", 100, "tokens at which the device is asked (%)")]
    for axes, (column, metric, factor, label) in zip(grid, panels):
        for number, (name, row) in enumerate(points.lines().items()):
            row = sorted((p for p in row if metric in p["metrics"]), key=steps_of)
            x = [steps_of(point) for point in row]
            y = [factor * point["metrics"][metric] for point in row]
            half = None
            if column is not None:
                half = [factor * (half_interval(shares(requests, point["number"], column)) or 0) for point in row]
            look = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5, "color": LINES[number % len(LINES)]}
            axes.errorbar(x, y, half, label=name, capsize=2.5, linewidth=1.4, elinewidth=0.9, **look)
        axes.set_xscale("log")
        axes.set_xticks(x, [str(step) for step in x])
        axes.minorticks_off()
        axes.set(ylim=(0, None), xlabel="steps of training", ylabel=label)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", borderaxespad=1.6, ncols=len(labels))
    points.title(figure, "Quality of answers against steps of training", "bars: 95 % of the mean over repetitions")


# Schemes side by side


def compares_cases(points):
    return CASE in (points.axis, *points.others) and len(points.values(CASE)) > 1


def group_of(points, ends):
    """The name of the group of nodes with the least (0) or most (-1) weights in memory in most points."""
    totals = {}
    for point in points.points:
        for name, value in point["metrics"].items():
            parts = name.split(".")
            if parts[0] == "memory_bytes" and parts[-1] == "weights":
                totals[parts[1]] = totals.get(parts[1], 0) + value
    ordered = sorted(totals, key=totals.get)
    return ordered[ends] if ordered else ""


def value_of(point, metric):
    """A metric of a point, or the sum of several."""
    values = [point["metrics"].get(name) for name in (metric if isinstance(metric, tuple) else (metric,))]
    return None if None in values else sum(values)


def plot_page(points, figure):
    names = {"device": group_of(points, 0), "server": group_of(points, -1)}
    cases = points.values(CASE)
    others = [key for key in [points.axis, *points.others] if key not in (None, CASE)]
    settings = list(dict.fromkeys(points.label(point, others) for point in points.points))
    panels = []
    for metric, factor, label in PAGE:
        metric = metric.format(**names) if isinstance(metric, str) else metric
        if any(value_of(point, metric) is not None for point in points.points):
            panels.append((metric, factor, label))
    rows = -(-len(panels) // 3)
    figure.set_size_inches(12.5, 1.3 + rows * (1.0 + 0.3 * len(cases)))
    grid = list(figure.subplots(rows, 3, squeeze=False, sharey=True).flat)
    height = 0.8 / len(settings)
    for axes, (metric, factor, label) in zip(grid, panels):
        for number, setting in enumerate(settings):
            for point in points.points:
                value = value_of(point, metric)
                if points.label(point, others) != setting or value is None:
                    continue
                y = cases.index(point["set"][CASE]) + (number - (len(settings) - 1) / 2) * height
                axes.barh(y, factor * value, 0.92 * height, color=LINES[number % len(LINES)], label=setting)
                axes.annotate(f"{factor * value:.3g}", (factor * value, y), xytext=(3, 0), textcoords="offset points",
                              va="center", size=7.5)  # fmt: skip
        values = [factor * (value_of(point, metric) or 0) for point in points.points]
        positive = [value for value in values if value > 0]
        if positive and max(positive) / min(positive) > 50:
            axes.set_xscale("log")
            axes.set_xlim(min(positive) / 3, 6 * max(values))
        else:
            axes.set_xlim(0, 1.25 * max(values))
        axes.set_yticks(range(len(cases)), [written(case) for case in cases])
        axes.set_ylim(len(cases) - 0.4, -0.6)  # downwards
        axes.set_xlabel(label)
        axes.yaxis.grid(False)
        axes.tick_params(axis="y", length=0)
    for axes in grid[len(panels):]:
        axes.set_visible(False)
    handles = dict(zip(*reversed(grid[0].get_legend_handles_labels())))
    if len(settings) > 1:
        figure.legend(handles.values(), handles, loc="outside lower center", borderaxespad=1.6, ncols=len(settings),
                      title=", ".join(others))  # fmt: skip
    points.title(figure, "Latency, bytes, messages, memory and quality by scheme")
