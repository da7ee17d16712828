# SPDX-License-Identifier: GPL-2.0-only
"""The plots of a study's results."""

import os
from pathlib import Path

from splitllm import plots_collm, plots_decisions, plots_links, plots_opsc, plots_quality, plots_spa
from splitllm.files import load_json
from splitllm.plots_base import LINES, MARKERS, STYLE, Points, fit_axis, log_axis, wide
from splitllm.units import written

COMPONENTS = {
    "base": "#0072B2",
    "adapter": "#E69F00",
    "calibrator": "#009E73",
    "codec": "#CC79A7",
    "network": "#56B4E9",
    "queue": "#D55E00",
}
MOST_LETTERS = 60  # of names side by side under bars; more are slanted


def plot_latency(points, figure):
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    lines = points.lines()
    everything = []
    curves = points.axis is not None and points.dimension(points.axis) is not None
    if curves:
        place = fit_axis(axes, points)
    else:
        names = points.values(points.axis) if points.axis is not None else [points.study]
        texts = [written(name) for name in names]
        slant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if sum(map(len, texts)) > MOST_LETTERS else {}
        axes.set_xticks(range(len(names)), texts, **slant)
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
        log_axis(axes)
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
    figure.set_size_inches(8.0, 1.7 + 0.3 * max(len(points.points), 2))
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
    """Writes DIR/plots/*.png from what a study left in DIR; returns the files."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).resolve().parents[2] / "build" / "matplotlib"))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    origin = Path(folder) / "summary.json"
    points = Points(load_json(origin), origin)
    if not points.points:
        print(f"{folder}: no point generated tokens; nothing to plot")
        return []
    requests = plots_quality.read_requests(Path(folder) / "requests.csv")
    decisions = plots_decisions.read_decisions(Path(folder) / "decisions.csv")
    trades = plots_quality.trades(points, requests)
    mixed = plots_decisions.mixed_points(points, decisions)
    groups = plots_decisions.group_shares(mixed, decisions, requests)
    drawings = [
        ("token-latency.png", True, plot_latency, points),
        ("components.png", True, plot_components, points),
        ("tradeoff.png", trades, plots_quality.plot_tradeoff, points, trades),
        ("decisions-map.png", mixed, plots_decisions.plot_map, points, mixed, decisions, requests),
        ("decisions-by-layer.png", mixed, plots_decisions.plot_layers, points, mixed, decisions),
        ("groups.png", groups, plots_decisions.plot_groups, points, mixed, groups),
    ]
    uploads = plots_opsc.read_uploads(Path(folder) / "tokens.csv", points)
    drawings += [
        ("server-load.png", plots_opsc.counts_users(points), plots_opsc.plot_load, points),
        ("arrivals.png", plots_opsc.counts_arrivals(points), plots_opsc.plot_arrivals, points),
        ("deadlines.png", plots_opsc.has_deadlines(points), plots_opsc.plot_deadlines, points),
        ("uploads.png", uploads, plots_opsc.plot_uploads, points, uploads),
    ]
    confidences = plots_collm.read_confidences(Path(folder), points)
    answers = plots_collm.read_answers(Path(folder), points)
    drawings += [
        ("confidence.png", confidences, plots_collm.plot_confidence, points, confidences),
        ("threshold.png", plots_collm.sweeps_threshold(points), plots_collm.plot_threshold, points),
        ("network.png", plots_collm.sweeps_link(points), plots_collm.plot_link, points),
        ("edges.png", plots_collm.sweeps_edges(points), plots_collm.plot_edges, points),
        ("places.png", plots_collm.has_places(points), plots_collm.plot_places, points),
        ("answer.png", answers, plots_collm.plot_answers, points, answers),
    ]
    drawings += [
        ("gate.png", plots_spa.has_gates(points), plots_spa.plot_gate, points, requests),
        ("training-steps.png", plots_spa.sweeps_steps(points), plots_spa.plot_steps, points, requests),
        ("page.png", plots_spa.compares_cases(points), plots_spa.plot_page, points),
    ]
    for link, rate_key in plots_links.swept_links(points):
        drawings.append((f"link-{link}.png", True, plots_links.plot_link, points, link, rate_key))
    target = Path(folder) / "plots"
    target.mkdir(exist_ok=True)
    written_files = []
    with pyplot.rc_context(STYLE):
        for name, wanted, draw, *data in drawings:
            if not wanted:
                continue
            figure = pyplot.figure()
            draw(*data, figure)
            figure.savefig(target / name, metadata={"Software": None})
            pyplot.close(figure)
            written_files.append(target / name)
    return written_files
