# SPDX-License-Identifier: GPL-2.0-only
"""OPSC's questions: the load of the server, deadlines, and what an upload takes as the sequence grows."""

import csv

from splitllm.plots_base import LINES, MARKERS, fit_axis, log_axis, wide

GROWS = 1.5  # times: from there on an upload's size against the token is worth a plot


def counts_users(points):
    """Whether the number of user devices is what is on the axis."""
    return points.axis is not None and points.axis.startswith("nodes.") and points.axis.endswith(".count")


def counts_arrivals(points):
    """Whether the rate at which requests come in is what is on the axis."""
    return points.axis == "workload.arrival.rate_per_s"


def has_deadlines(points):
    quantity = points.axis is not None and points.dimension(points.axis) is not None
    return quantity and any("deadline_met_ratio" in point["metrics"] for point in points.points)


def plot_pair(points, figure, upper, lower, title):
    """Two metrics above each other against the axis. \\p upper, \\p lower: (metric, factor, axis label)"""
    figure.set_size_inches(6.4, 6.0)
    for axes, (metric, factor, label) in zip(figure.subplots(2, 1, sharex=True), (upper, lower)):
        place = fit_axis(axes, points)
        for number, (name, row) in enumerate(points.lines().items()):
            row = sorted((point for point in row if metric in point["metrics"]), key=place)
            axes.plot([place(point) for point in row], [factor * point["metrics"][metric] for point in row],
                      marker=MARKERS[number % len(MARKERS)], markersize=5, color=LINES[number % len(LINES)], label=name)  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
    axes.set_xlabel(points.axis)
    if points.others:
        figure.axes[0].legend(title=", ".join(points.others), fontsize=8)
    points.title(figure, title)


def plot_load(points, figure):
    plot_pair(points, figure, ("server_busy_s", 1, "server busy (s)"), ("server_tokens", 1, "tokens by the server"),
              "Load of the server against the number of user devices")  # fmt: skip


def plot_arrivals(points, figure):
    plot_pair(points, figure, ("response_s.p95", 1, "p95 of a response's time (s)"),
              ("requests_per_s", 1, "requests answered a second"), "Responses against the requests that come in")  # fmt: skip


def plot_deadlines(points, figure):
    plot_pair(points, figure, ("deadline_met_ratio", 100, "uploads within their deadline (%)"),
              ("opsc.tokens_per_response", 1, "tokens of an answer"), f"Deadlines and answers against {points.axis}")  # fmt: skip


def read_uploads(file, points):
    """{number of a point: [(token, payload bytes up)]} of the first request, where uploads grow with the sequence."""
    numbers = {point["number"]: point for point in points.points if "opsc.eq1_bytes" in point["metrics"]}
    series = {}
    if numbers and file.exists():
        with open(file, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                point = int(row["point"])
                first = row["repetition"] == "0" and row["request"] == "0"
                if point in numbers and first and int(row["position"]) > 1:
                    series.setdefault(point, []).append((int(row["position"]), int(row["payload_bytes_up"])))
    grows = any(len(row) > 2 and row[-1][1] > GROWS * row[0][1] > 0 for row in series.values())
    return series if grows and len(series) <= len(LINES) else {}  # more lines cannot be told apart


def plot_uploads(points, series, figure):
    figure.set_size_inches(7.6, 4.2)
    axes = figure.subplots()
    keys = [key for key in [points.axis, *points.others] if key is not None]
    sizes = []
    for number, point in enumerate(point for point in points.points if point["number"] in series):
        row = series[point["number"]]
        sizes += [size / 1e3 for _, size in row]
        axes.plot([token for token, _ in row], [size / 1e3 for _, size in row], color=LINES[number % len(LINES)],
                  marker=MARKERS[number % len(MARKERS)], markevery=max(1, len(row) // 8), markersize=5,
                  label=points.label(point, keys))  # fmt: skip
    if wide([size for size in sizes if size > 0]):
        log_axis(axes)
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel("generated token")
    axes.set_ylabel("upload (kB)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    points.title(figure, "Upload for a token as the sequence grows", "first request")
