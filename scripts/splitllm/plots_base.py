# SPDX-License-Identifier: GPL-2.0-only
"""What all plots share: palette and style, the points of a study, the axis of what is swept."""

from splitllm.cli import InputError
from splitllm.study import name_objects
from splitllm.units import measure, written

# Okabe and Ito's palette, told apart with every common kind of colour blindness
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
    """The points of a study that generated tokens, by their numbers, and along which swept key they lie."""

    def __init__(self, summary, origin):
        try:
            self.study = summary["study"]
            points = [{"number": i, "set": p["set"], "metrics": p["metrics"]} for i, p in enumerate(summary["points"])]
            name_objects(points)
            self.everything = points
            self.points = [p for p in points if p["metrics"].get("token_latency_ms.mean") is not None]
            self.without_tokens = len(points) - len(self.points)
            keys = list(dict.fromkeys(key for p in points for key in p["set"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{origin}: not a summary of results: {error}") from None
        # what an override left a single value of is swept no more
        varied = [key for key in keys if len(self.values(key)) > 1] or keys
        self.fixed = [key for key in keys if key not in varied]
        keys = varied
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
        fixed = [f"{key.rsplit('.', 1)[-1]} {written(self.values(key)[0])}" for key in self.fixed if self.values(key)]
        study = ", ".join([f"study {self.study}", *fixed])
        if not self.without_tokens:
            return study
        plural = "s" if self.without_tokens > 1 else ""
        return f"{study}; {self.without_tokens} point{plural} without tokens after the first not shown"

    def title(self, figure, text, note=""):
        figure.suptitle(text, fontsize=11)
        figure.text(0.5, 0, self.caption() + (f"; {note}" if note else ""), ha="center", va="bottom", fontsize=8, color="#555555")
        figure.get_layout_engine().set(rect=(0, 0.16 / figure.get_figheight(), 1, 1 - 0.16 / figure.get_figheight()))


def wide(values):
    values = list(values)
    return min(values) > 0 and max(values) / min(values) > WIDE_RANGE


def log_axis(axes):
    """Makes the y axis logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


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
