# SPDX-License-Identifier: GPL-2.0-only
"""What a fading link did: goodput and latency against its rate, or against another swept quantity."""

from splitllm.plots_base import LINES, MARKERS, fit_axis, wide
from splitllm.units import measure

CHOSEN = {"optimal": "-", "relaxed": ":"}  # rates that the study did not give as numbers, and their line styles


def swept_links(points):
    """[(link, key of its rate or None)] of the fading links that a plot makes sense for."""
    found = []
    names = dict.fromkeys(
        name.removesuffix(".goodput_mbps").removeprefix("link.")
        for point in points.points
        for name in point["metrics"]
        if name.startswith("link.") and name.endswith(".goodput_mbps")
    )
    for link in names:
        key = f"links.{link}.rate"
        numbers = [value for value in points.values(key) if measure(value)[1]]
        if len(numbers) > len(CHOSEN):
            found.append((link, key))
        elif points.axis is not None and points.dimension(points.axis) is not None:
            found.append((link, None))
    return found


def rows_of(points, axis):
    """{label of the other keys: points}, the points of a label apart in what is on the axis alone."""
    others = [key for key in [points.axis, *points.others] if key not in (None, axis)]
    rows = {}
    for point in points.points:
        rows.setdefault(points.label(point, others), []).append(point)
    return rows, others


def plot_link(points, link, rate_key, figure):
    def metric(point, name):
        return point["metrics"].get(f"link.{link}.{name}")

    figure.set_size_inches(6.4, 6.0)
    upper, lower = figure.subplots(2, 1, sharex=True)
    place = (lambda point: metric(point, "rate_mbps")) if rate_key else fit_axis(lower, points)
    rows, others = rows_of(points, rate_key or points.axis)
    times = []
    for number, (label, row) in enumerate(rows.items()):
        row = sorted(row, key=place)
        style = {"color": LINES[number % len(LINES)], "markersize": 4.5}
        marker = MARKERS[number % len(MARKERS)]
        x = [place(point) for point in row]
        mean = [point["metrics"]["token_latency_ms.mean"] for point in row]
        worst = [metric(point, "worst_case_ms") for point in row]
        times += mean + worst
        prefix = f"{label}: " if label else ""
        upper.plot(x, [metric(point, "goodput_mbps") for point in row], marker=marker, label=label or None, **style)
        lower.plot(x, mean, marker=marker, label=f"{prefix}token, mean", **style)
        lower.plot(x, worst, marker=marker, linestyle="--", fillstyle="none", label=f"{prefix}message, worst case", **style)
        for point in row if rate_key else ():
            if point["set"][rate_key] in CHOSEN:
                for axes in (upper, lower):
                    axes.axvline(place(point), color="#555555", linewidth=1, linestyle=CHOSEN[point["set"][rate_key]])
                upper.annotate(point["set"][rate_key], (place(point), 0.02), xycoords=("data", "axes fraction"),
                               xytext=(3, 0), textcoords="offset points", color="#555555",
                               rotation=90, va="bottom", size=8)  # fmt: skip
    if wide(times):
        lower.set_yscale("log")
    else:
        lower.set_ylim(bottom=0)
    upper.set_ylim(bottom=0)
    upper.set_ylabel("goodput (Mbit/s)")
    lower.set_ylabel("latency (ms)")
    lower.set_xlabel("rate (Mbit/s)" if rate_key else points.axis)
    if any(rows):
        upper.legend(title=", ".join(others))
    lower.legend(fontsize=8)
    points.title(figure, f"The fading link {link}" + (" against its rate" if rate_key else f" against {points.axis}"))
