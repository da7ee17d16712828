# SPDX-License-Identifier: GPL-2.0-only
"""The plots of a study's results."""

import os
from pathlib import Path

from splitllm.cli import InputError
from splitllm.files import load_json
from splitllm.units import measure, written

# Okabe and Ito's palette, told apart with every common kind of colour blindness
COMPONENTS = {
    "base": "#0072B2",
    "adapter": "#E69F00",
    "calibrator": "#009E73",
    "codec": "#CC79A7",
    "network": "#56B4E9",
    "queue": "#D55E00",
}
LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "osD^vPX"
MOST_TICKS = 8
WIDE_RANGE = 8  # a longer ratio of largest to smallest value goes on a logarithmic axis
STYLE = {
    "figure.dpi": 130,
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}


class Points:
    """The points of a study that generated tokens, and along which swept key they lie."""

    def __init__(self, summary, origin):
        try:
            self.study = summary["study"]
            points = summary["points"]
            self.points = [p for p in points if p["metrics"].get("token_latency_ms.mean") is not None]
            self.without_tokens = len(points) - len(self.points)
            keys = list(dict.fromkeys(key for p in points for key in p["set"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{origin}: not a summary of results: {error}") from None
        # the first key whose values are quantities is the axis; failing that the first key
        quantities = [key for key in keys if self.dimension(key) is not None]
        self.axis = (quantities or keys or [None])[0]
        self.others = [key for key in keys if key != self.axis]

    def values(self, key):
        return list(dict.fromkeys(p["set"][key] for p in self.points if key in p["set"]))

    def dimension(self, key):
        """The one dimension that all values of a key have; None where some value is only a name."""
        dimensions = {measure(value)[1] for value in self.values(key)}
        return dimensions.pop() if len(dimensions) == 1 else None

    def label(self, point, keys):
        return ", ".join(
            written(point["set"][key]) if self.dimension(key) != "" else f"{key.rsplit('.', 1)[-1]} {point['set'][key]}"
            for key in keys
            if key in point["set"]
        )

    def lines(self):
        """{label of the other keys: points along the axis}."""
        lines = {}
        for point in self.points:
            lines.setdefault(self.label(point, self.others), []).append(point)
        return lines

    def caption(self):
        """The line under the title."""
        if not self.without_tokens:
            return f"study {self.study}"
        plural = "s" if self.without_tokens > 1 else ""
        return f"study {self.study}; {self.without_tokens} point{plural} without tokens not shown (out of memory?)"

    def title(self, figure, text):
        figure.suptitle(text, fontsize=11)
        figure.text(0.5, 0, self.caption(), ha="center", va="bottom", fontsize=8, color="#555555")
        figure.get_layout_engine().set(rect=(0, 0.16 / figure.get_figheight(), 1, 1 - 0.16 / figure.get_figheight()))


def wide(values):
    values = list(values)
    return min(values) > 0 and max(values) / min(values) > WIDE_RANGE


def fit_axis(axes, points):
    """Sets up an x axis of quantities; returns the position of a point on it."""
    key = points.axis
    values = points.values(key)
    numbers = sorted(measure(value)[0] for value in values)
    if wide(numbers) and numbers[-1] - numbers[-2] > WIDE_RANGE / 2 * (numbers[1] - numbers[0]):
        axes.set_xscale("log")
    if len(values) <= MOST_TICKS:
        from matplotlib.ticker import NullLocator

        ordered = sorted(values, key=lambda value: measure(value)[0])
        axes.set_xticks(numbers, [written(value) for value in ordered])
        axes.xaxis.set_minor_locator(NullLocator())
    elif points.dimension(key):
        from matplotlib.ticker import EngFormatter

        axes.xaxis.set_major_formatter(EngFormatter(points.dimension(key)))
    return lambda point: measure(point["set"][key])[0]


def plot_latency(points, figure):
    axes = figure.subplots()
    lines = points.lines()
    everything = []
    curves = points.axis is not None and points.dimension(points.axis) is not None
    if curves:
        place = fit_axis(axes, points)
    else:
        names = points.values(points.axis) if points.axis is not None else [points.study]
        axes.set_xticks(range(len(names)), [written(name) for name in names])
        axes.set_xlim(-0.6 - (len(names) == 1), len(names) - 0.4 + (len(names) == 1))
    for number, (label, row) in enumerate(lines.items()):
        colour = LINES[number % len(LINES)]
        if curves:
            row = sorted(row, key=place)
            x = [place(p) for p in row]
        else:
            width = 0.8 / len(lines)
            shift = (number - (len(lines) - 1) / 2) * width
            x = [(names.index(p["set"][points.axis]) if points.axis is not None else 0) + shift for p in row]
        mean, p50, p95 = ([p["metrics"].get(f"token_latency_ms.{name}") for p in row] for name in ("mean", "p50", "p95"))
        band = None not in p50 + p95
        everything += mean + (p95 if band else [])
        if curves:
            axes.plot(x, mean, marker=MARKERS[number % len(MARKERS)], markersize=5, color=colour, label=label)
            if band:
                axes.fill_between(x, p50, p95, color=colour, alpha=0.15, linewidth=0)
        else:
            axes.bar(x, mean, 0.9 * width, color=colour, label=label)
            if band:
                axes.vlines(x, p50, p95, color="black", linewidth=1.2)
                axes.plot(x + x, p50 + p95, "_", color="black", markersize=8)
            for at, value in zip(x, mean):
                axes.annotate(f"{value:.3g}", (at, 0), xytext=(0, 3), textcoords="offset points", ha="center", color="white")
    if curves and wide(everything):
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("token latency (ms): mean" + (", and p50 to p95" if band else ""))
    axes.xaxis.grid(False)
    if points.axis is not None:
        axes.set_xlabel(points.axis)
    if len(lines) > 1:
        axes.legend(title=", ".join(points.others))
    points.title(figure, "Latency of a generated token" + (f" against {points.axis}" if points.axis else ""))


def plot_components(points, figure):
    parts = {
        name: [p["metrics"].get(f"component_ms.{name}.mean") or 0.0 for p in points.points] for name in COMPONENTS
    }
    parts = {name: values for name, values in parts.items() if any(values)}
    totals = [sum(values) for values in zip(*parts.values())]
    keys = [key for key in [points.axis, *points.others] if key is not None]
    # rows of one line of the first plot stay together, a gap between them
    order, place, last = [], [], None
    for label, row in points.lines().items():
        for point in row:
            place.append((place[-1] + (1.0 if label == last else 1.6)) if place else 0.0)
            order.append(points.points.index(point))
            last = label
    absolute, share = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    left = [0.0] * len(order)
    shared = [0.0] * len(order)
    for name, values in parts.items():
        widths = [values[i] for i in order]
        shares = [100 * values[i] / totals[i] if totals[i] else 0.0 for i in order]
        absolute.barh(place, widths, 0.75, left, color=COMPONENTS[name], label=name)
        share.barh(place, shares, 0.75, shared, color=COMPONENTS[name])
        left = [a + b for a, b in zip(left, widths)]
        shared = [a + b for a, b in zip(shared, shares)]
    for y, i in zip(place, order):
        absolute.annotate(f"{totals[i]:.3g}", (totals[i], y), xytext=(3, 0), textcoords="offset points", va="center", size=8)
    absolute.set_yticks(place, [points.label(points.points[i], keys) or points.study for i in order])
    absolute.set_ylim(max(place[-1], 1) + 0.7, min(0, place[-1] - 1) - 0.7)  # downwards
    absolute.margins(x=0.12)
    absolute.set_xlabel("mean per token (ms)")
    share.set_xlabel("share of the latency (%)")
    share.set_xlim(0, 100)
    for axes in (absolute, share):
        axes.yaxis.grid(False)
        axes.tick_params(axis="y", length=0)
    points.title(figure, "Components of a generated token's latency" + (f" by {' and '.join(keys)}" if keys else ""))
    figure.legend(*absolute.get_legend_handles_labels(), loc="outside lower center", ncols=len(parts))


def plot(folder):
    """Writes DIR/plots/*.png from DIR/summary.json; returns the files."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).resolve().parents[2] / "build" / "matplotlib"))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    origin = Path(folder) / "summary.json"
    points = Points(load_json(origin), origin)
    if not points.points:
        print(f"{folder}: no point generated tokens; nothing to plot")
        return []
    target = Path(folder) / "plots"
    target.mkdir(exist_ok=True)
    written_files = []
    bars = len(points.points)
    with pyplot.rc_context(STYLE):
        for name, draw, size in (
            ("token-latency.png", plot_latency, (6.4, 4.0)),
            ("components.png", plot_components, (8.0, 1.7 + 0.3 * max(bars, 2))),
        ):
            figure = pyplot.figure(figsize=size)
            draw(points, figure)
            figure.savefig(target / name, metadata={"Software": None})
            pyplot.close(figure)
            written_files.append(target / name)
    return written_files
