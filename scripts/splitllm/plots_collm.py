# SPDX-License-Identifier: GPL-2.0-only
"""CE-CoLLM's questions: how confident exits are and whether they are right, what the threshold and the link cost, where
a response's time goes, and what an answer looks like while the cloud is away."""

import csv
import math

from splitllm.cli import InputError
from splitllm.plots_base import LINES, MARKERS, fit_axis

THRESHOLD = "scheme.policy.threshold"
BINS = 10  # of confidence, of equal width, the right end in each
MOST_POINTS = 4  # side by side or above each other
PLACES = {"edge": "#0072B2", "network": "#56B4E9", "cloud": "#D55E00"}
SOURCES = {"exit": "#0072B2", "cloud": "#E69F00", "fallback": "#CC79A7"}
SOURCE_NAMES = {"exit": "an exit", "cloud": "the cloud", "fallback": "the last exit, in place of the cloud"}
STANDALONE = "#999999"
OUTAGE = "#000000"
STATISTICS = {"mean": "-", "p95": "--"}  # a median would jump where half of the tokens are the cloud's
CROWDED = 5  # ticks; more are slanted
BELOW = {"loc": "outside lower center", "borderaxespad": 1.6}  # a legend above the caption


def read_table(path, columns):
    """The rows of a table with the columns parsed; an empty field is None. No rows where there is no such file."""
    rows = []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                rows.append({name: None if line[name] == "" else parse(line[name]) for name, parse in columns.items()})
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a table of {path.stem}: {error}") from None
    return rows


def by_point(points, rows):
    """{number of a point: its rows}, of the points that are drawn."""
    groups = {point["number"]: [] for point in points.points}
    for row in rows:
        if row["point"] in groups:
            groups[row["point"]].append(row)
    return {number: group for number, group in groups.items() if group}


def title_of(points, number):
    keys = [key for key in [points.axis, *points.others] if key is not None]
    point = next(point for point in points.points if point["number"] == number)
    return points.label(point, keys) or points.study


def in_exits(points):
    """Whether some point has early exits."""
    return any("early_exit_ratio" in point["metrics"] for point in points.points)


# How confident exits are, and whether they are right


def read_confidences(folder, points):
    """{number of a point: ([confidence of a generated token], [(confidence, agrees) of a token of an answer])}"""
    number = {"point": int, "confidence": float}
    generated = by_point(points, (row for row in read_table(folder / "exits.csv", number) if row["confidence"] is not None))
    judged = by_point(points, read_table(folder / "confidence.csv", number | {"agrees": int}))
    return {
        number: ([row["confidence"] for row in group], [(row["confidence"], row["agrees"]) for row in judged.get(number, [])])
        for number, group in generated.items()
    }


def quantile(values, share):
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def calibration(judged):
    """([(mean confidence, share that agrees, tokens) of a bin], expected calibration error)"""
    bins = {}
    for confidence, agrees in judged:
        tally = bins.setdefault(min(max(math.ceil(confidence * BINS), 1), BINS), [0.0, 0, 0])
        tally[0] += confidence
        tally[1] += agrees
        tally[2] += 1
    curve = [(sure / n, right / n, n) for _, (sure, right, n) in sorted(bins.items())]
    return curve, sum(n * abs(sure - right) for sure, right, n in curve) / len(judged)


def plot_confidence(points, confidences, figure):
    shown = list(confidences)[:MOST_POINTS]
    figure.set_size_inches(8.6, 0.9 + 2.7 * len(shown))
    for line, number in zip(figure.subplots(len(shown), 2, squeeze=False, width_ratios=[3, 2]), shown):
        generated, judged = confidences[number]
        histogram, curve_axes = line
        weights = [100 / len(generated)] * len(generated)
        histogram.hist(generated, 2 * BINS, range=(0, 1), weights=weights, color=LINES[5], edgecolor="white", linewidth=0.5)
        for share, style in ((0.25, ":"), (0.5, "-"), (0.75, "--")):
            at = quantile(generated, share)
            text = f"{100 * (1 - share):.0f} % are above {at:.2f}"
            histogram.axvline(at, color=LINES[1], linestyle=style, linewidth=1.3, label=text)
        histogram.set(xlim=(0, 1), xlabel="confidence: largest probability of the exit", ylabel="tokens (%)")
        histogram.set_title(f"{title_of(points, number)}: {len(generated)} tokens", fontsize=9.5)
        histogram.legend(loc="best", fontsize=8)
        if not judged:
            curve_axes.set_visible(False)
            continue
        curve, error = calibration(judged)
        curve_axes.plot([0, 1], [0, 100], color="#777777", linewidth=0.8, linestyle="--")
        curve_axes.plot([sure for sure, _, _ in curve], [100 * right for _, right, _ in curve], marker="o", markersize=5,
                        color=LINES[0])  # fmt: skip
        curve_axes.set(xlim=(0, 1), ylim=(-3, 103), xlabel="mean confidence of a bin", ylabel="agree with the full model (%)")
        curve_axes.set_title(f"ECE {error:.3f} over {len(judged)} tokens of answers", fontsize=9.5)
    left = len(confidences) - len(shown)
    note = "at the exit that a token came from, or the last one evaluated" + (f"; {left} more points not shown" if left else "")
    points.title(figure, "Confidence of the exits, and how often they are right", note)


# Metrics against what is swept

THRESHOLD_PANELS = (
    ("cloud_request_ratio", 100, "tokens that the cloud is asked for (%)"),
    ("response_s.mean", 1, "time of a response (s)"),
    ("token_latency_ms.mean", 1, "latency of a token (ms)"),
    ("quality.top1_agreement", 100, "agree with the full model (%)"),
    ("quality.f1", 100, "F1 (%)"),
    ("quality.rouge_l", 100, "ROUGE-L (%)"),
)
LINK_PANELS = (
    ("response_s.mean", 1, "time of a response (s)"),
    ("component_s_per_response.network", 1, "of it on the network (s)"),
    ("component_s_per_response.cloud", 1, "of it in the cloud (s)"),
    ("fallback_ratio", 100, "tokens in place of the cloud's (%)"),
)


def sweeps_threshold(points):
    return points.axis == THRESHOLD and points.dimension(THRESHOLD) is not None and in_exits(points)


def sweeps_link(points):
    """Whether the rate or the delay of a link is on the axis, and some point has early exits."""
    key = points.axis or ""
    named = key.startswith("links.") and key.rsplit(".", 1)[-1] in ("rate", "delay")
    return named and points.dimension(key) is not None and in_exits(points)


def sweeps_edges(points):
    """Whether the number of edges is on the axis, and some point has early exits."""
    key = points.axis or ""
    return key.startswith("nodes.") and key.endswith(".count") and in_exits(points)


def draw_lines(points, axes, metric, factor, style=None):
    """A line a label over the axis, of the points that have the metric."""
    place = fit_axis(axes, points)
    for number, (label, row) in enumerate(points.lines().items()):
        row = sorted((point for point in row if metric in point["metrics"]), key=place)
        if row:
            look = {"marker": MARKERS[number % len(MARKERS)], "markersize": 4.5, "color": LINES[number % len(LINES)]}
            axes.plot([place(point) for point in row], [factor * point["metrics"][metric] for point in row],
                      label=label, **look | (style or {}))  # fmt: skip


def plot_metrics(points, panels, title, figure):
    """A panel for each metric that some point has, and that is not 0 everywhere."""
    panels = [panel for panel in panels if any(point["metrics"].get(panel[0]) for point in points.points)]
    columns = 2 if len(panels) in (2, 4) else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure.set_size_inches(3.5 * columns + 0.6, 1.2 + 2.6 * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (metric, factor, label) in zip(grid, panels):
        draw_lines(points, axes, metric, factor)
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
        axes.set_xlabel(points.axis)
        axes.set_ylabel(label)
        if len(points.values(points.axis)) > CROWDED:
            axes.tick_params(axis="x", labelrotation=40, labelsize=8)
    for axes in grid[len(panels):]:
        axes.set_visible(False)
    if points.others:
        handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels())}
        figure.legend(handles.values(), handles, **BELOW, ncols=3, title=", ".join(points.others),
                      fontsize=8)  # fmt: skip
    points.title(figure, title)


def plot_threshold(points, figure):
    plot_metrics(points, THRESHOLD_PANELS, "Requests to the cloud, time and quality against the exits' threshold", figure)


def plot_link(points, figure):
    plot_metrics(points, LINK_PANELS, f"Time of a response against {points.axis}", figure)


def plot_edges(points, figure):
    from matplotlib.lines import Line2D

    figure.set_size_inches(6.4, 6.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, dashes in STATISTICS.items():
        draw_lines(points, upper, f"token_latency_ms.{name}", 1, {"linestyle": dashes})
    draw_lines(points, lower, "server_busy_s", 1)
    for axes, label in ((upper, "latency of a token (ms)"), (lower, "cloud busy (s)")):
        axes.set_ylim(0, 1.08 * axes.dataLim.y1)
        axes.set_ylabel(label)
    lower.set_xlabel(points.axis)
    upper.legend(handles=[Line2D([], [], color="#333333", linestyle=dashes, label=name) for name, dashes in STATISTICS.items()])
    if points.others:
        lower.legend(title=", ".join(points.others), fontsize=8)
    points.title(figure, "Latency and load of the cloud against the number of edges")


# Where a response's time goes


def has_places(points):
    """Whether some response spent time in a cloud."""
    return any(point["metrics"].get("component_s_per_response.cloud") for point in points.points)


def plot_places(points, figure):
    rows = [point for point in points.points if "component_s_per_response.edge" in point["metrics"]]
    figure.set_size_inches(7.2, 1.5 + 0.34 * max(len(rows), 2))
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for name, colour in PLACES.items():
        widths = [point["metrics"][f"component_s_per_response.{name}"] for point in rows]
        axes.barh(range(len(rows)), widths, 0.72, left, color=colour, label=name)
        left = [a + b for a, b in zip(left, widths)]
    for at, total in enumerate(left):
        axes.annotate(f"{total:.3g}", (total, at), xytext=(3, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(range(len(rows)), [title_of(points, point["number"]) for point in rows])
    axes.set_ylim(max(len(rows), 2) - 0.4, -0.6)  # downwards
    axes.margins(x=0.1)
    axes.set_xlabel("mean time of a response (s)")
    axes.yaxis.grid(False)
    axes.tick_params(axis="y", length=0)
    points.title(figure, "Where the time of a response is spent")
    figure.legend(*axes.get_legend_handles_labels(), **BELOW, ncols=len(PLACES))


# An answer while the cloud is away


def overlaps(span, start, end):
    return span["start_ns"] < end and (span["end_ns"] is None or span["end_ns"] > start)


def read_answers(folder, points):
    """
    [{number of the point, tokens: [(start, end, source)], standalone, outages: [(start, end)]}] in seconds: of each point
    with a stretch on its own or an outage, the first answer of the first repetition that one falls into.
    """
    spans = {"point": int, "repetition": int, "start_ns": int, "end_ns": int}
    standalone = by_point(points, read_table(folder / "standalone.csv", spans | {"session": int}))
    outages = by_point(points, read_table(folder / "outages.csv", spans))
    if not standalone and not outages:
        return []
    answer = {"point": int, "repetition": int, "session": int, "request": int}
    exits = by_point(points, read_table(folder / "exits.csv", answer | {"source": str}))
    tokens = by_point(points, read_table(folder / "tokens.csv", answer | {"start_ns": int, "latency_ns": int}))
    answers = []
    for point in points.points:
        number = point["number"]
        key = lambda row: (row["session"], row["request"])  # noqa: E731
        first = lambda rows: [row for row in rows.get(number, []) if row["repetition"] == 0]  # noqa: E731
        alone, away = first(standalone), first(outages)
        sources = {}
        for row in first(exits):
            sources.setdefault(key(row), []).append(row["source"])
        times = {}
        for row in first(tokens):
            times.setdefault(key(row), []).append((row["start_ns"], row["start_ns"] + row["latency_ns"]))
        for (session, request), row in times.items():
            begin, end = row[0][0], row[-1][1]
            mine = [span for span in alone if span["session"] == session and overlaps(span, begin, end)]
            broken = [span for span in away if overlaps(span, begin, end)]
            if (mine or broken) and len(sources.get((session, request), [])) == len(row):
                cut = lambda span: (max(span["start_ns"], begin) / 1e9, min(span["end_ns"] or end, end) / 1e9)  # noqa: E731
                answers.append({
                    "number": number,
                    "tokens": [(a / 1e9, b / 1e9, source) for (a, b), source in zip(row, sources[session, request])],
                    "standalone": [cut(span) for span in mine],
                    "outages": [cut(span) for span in broken],
                })  # fmt: skip
                break
    return answers


def plot_answers(points, answers, figure):
    from matplotlib.patches import Patch

    shown = answers[:MOST_POINTS]
    figure.set_size_inches(8.0, 1.3 + 2.6 * len(shown))
    for axes, answer in zip(figure.subplots(len(shown), 1, squeeze=False).flat, shown):
        for start, end in answer["standalone"]:
            axes.axvspan(start, end, color=STANDALONE, alpha=0.35, linewidth=0)
        for start, end in answer["outages"]:
            axes.axvspan(start, end, facecolor="none", edgecolor=OUTAGE, hatch="///", alpha=0.25, linewidth=0)
        for source, colour in SOURCES.items():
            mine = [(k, a, b) for k, (a, b, from_) in enumerate(answer["tokens"], 1) if from_ == source]
            axes.hlines([k for k, _, _ in mine], [a for _, a, _ in mine], [b for _, _, b in mine], color=colour, linewidth=1.6)
            axes.plot([b for _, _, b in mine], [k for k, _, _ in mine], "o", markersize=4, color=colour)
        axes.set_xlim(answer["tokens"][0][0], answer["tokens"][-1][1])
        axes.margins(x=0.02)
        axes.set_ylim(0, len(answer["tokens"]) + 1)
        axes.set_ylabel("token of the answer")
        axes.set_title(title_of(points, answer["number"]), fontsize=9.5)
    axes.set_xlabel("simulated time (s)")
    used = {source for answer in shown for _, _, source in answer["tokens"]}
    handles = [Patch(color=SOURCES[source], label=f"from {SOURCE_NAMES[source]}") for source in SOURCES if source in used]
    if any(answer["standalone"] for answer in shown):
        handles.append(Patch(facecolor=STANDALONE, alpha=0.35, label="the edge on its own"))
    if any(answer["outages"] for answer in shown):
        handles.append(Patch(facecolor="none", edgecolor=OUTAGE, alpha=0.4, hatch="///", label="outage"))
    left = len(answers) - len(shown)
    points.title(figure, "Tokens of an answer in time, by what they come from", f"{left} more points not shown" if left else "")
    figure.legend(handles=handles, **BELOW, ncols=3, fontsize=8)
