# SPDX-License-Identifier: GPL-2.0-only
"""What policies decide: cells of layer and position, shares by layer, shares and answers by group of prompts."""

import csv

from splitllm.cli import InputError
from splitllm.plots_base import LINES, MARKERS

MOST_POINTS = 6
NONE, OFFLOADED, RETURNED = range(3)
MEANINGS = ("stays at the edge", "offloaded, nothing returned", "offloaded and returned")
COLOURS = ("#e4e4e4", "#E69F00", "#0072B2")


class Decisions:
    """decisions.csv, summed up by layer and by request, and whole for the first request of each point."""

    def __init__(self):
        self.layers = {}  # point -> layer -> [cells, offloaded, returned]
        self.requests = {}  # (point, repetition, request) -> the same
        self.first = {}  # point -> (position, layer) -> NONE, OFFLOADED or RETURNED

    def add(self, point, repetition, request, position, layer, offloaded, returned):
        for tally in (
            self.layers.setdefault(point, {}).setdefault(layer, [0, 0, 0]),
            self.requests.setdefault((point, repetition, request), [0, 0, 0]),
        ):
            tally[0] += 1
            tally[1] += offloaded
            tally[2] += returned
        if repetition == 0 and request == 0:
            self.first.setdefault(point, {})[position, layer] = offloaded + returned


def read_decisions(path):
    """The decisions of a study; None where there is no such file or nothing was decided."""
    columns = ("point", "repetition", "request", "position", "layer", "offloaded", "returned")
    decisions = Decisions()
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            places = [header.index(name) for name in columns]
            for line in reader:
                decisions.add(*(int(line[place]) for place in places))
    except FileNotFoundError:
        return None
    except (IndexError, ValueError) as error:
        raise InputError(f"{path}: not a table of decisions: {error}") from None
    return decisions if decisions.layers else None


def mixed_points(points, decisions, most=MOST_POINTS):
    """The points, at most so many, whose policy treats cells differently, layer 1 aside."""
    mixed = []
    for point in points.points if decisions else []:
        layers = decisions.layers.get(point["number"], {})
        cells, offloaded, returned = (sum(tally[i] for layer, tally in layers.items() if layer > 1) for i in range(3))
        if 0 < offloaded < cells or 0 < returned < offloaded:
            mixed.append(point)
    return mixed[:most]


def titles(points, mixed):
    keys = [key for key in [points.axis, *points.others] if key is not None]
    return [points.label(point, keys) or points.study for point in mixed]


def cells_of(decisions, number):
    """The first request's cells as rows by layer, columns by position."""
    cells = decisions.first[number]
    positions = 1 + max(position for position, _ in cells)
    layers = max(layer for _, layer in cells)
    return [[cells.get((position, layer), NONE) for position in range(positions)] for layer in range(1, layers + 1)]


def prompt_length(cells, requests, number):
    """Positions of the first request's prompt: the last token generated is decided about no more."""
    tokens = [r["tokens"] for r in requests if (r["point"], r["repetition"], r["request"]) == (number, 0, 0)]
    return len(cells[0]) - tokens[0] + 1 if tokens else None


def plot_map(points, mixed, decisions, requests, figure):
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator

    mixed = [point for point in mixed if point["number"] in decisions.first]
    columns = min(len(mixed), 3)
    lines = -(-len(mixed) // columns)
    figure.set_size_inches(max(6.0, 3.4 * columns + 0.6), 1.1 + 2.7 * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    colours, norm = ListedColormap(COLOURS), BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
    for axes in grid.flat[len(mixed):]:
        axes.set_visible(False)
    for axes, point, title in zip(grid.flat, mixed, titles(points, mixed)):
        cells = cells_of(decisions, point["number"])
        extent = (-0.5, len(cells[0]) - 0.5, 0.5, len(cells) + 0.5)
        axes.imshow(cells, cmap=colours, norm=norm, aspect="auto", origin="lower", interpolation="nearest", extent=extent)
        axes.grid(False)
        prompt = prompt_length(cells, requests, point["number"])
        if prompt and prompt < len(cells[0]):
            axes.axvline(prompt - 0.5, color="black", linewidth=1.2)
            for at, ha, text in ((prompt - 0.5, "right", "prompt "), (prompt - 0.5, "left", " answer")):
                axes.annotate(text, (at, 1), xycoords=("data", "axes fraction"), ha=ha, va="bottom", size=7.5, color="#333333")
        axes.set_title(title, fontsize=9.5, pad=13)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("position in the sequence")
    for line in grid:
        line[0].set_ylabel("layer")
    points.title(figure, "Decisions about the first request, by layer and position")
    figure.legend(handles=[Patch(color=c, label=m) for c, m in zip(COLOURS, MEANINGS)], loc="outside lower center", ncols=3)


def layer_shares(layers):
    """(layers, % of cells offloaded, % of cells returned) of one point."""
    order = sorted(layers)
    return order, *([100 * layers[layer][i] / layers[layer][0] for layer in order] for i in (1, 2))


def plot_layers(points, mixed, decisions, figure):
    from matplotlib.ticker import MaxNLocator

    figure.set_size_inches(9.0, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    for i, (point, title) in enumerate(zip(mixed, titles(points, mixed))):
        order, *shares = layer_shares(decisions.layers[point["number"]])
        for axes, share in zip(panels, shares):
            axes.plot(order, share, marker=MARKERS[i], markersize=3.5, linewidth=0.7, color=LINES[i], label=title)
    for axes, what in zip(panels, ("Offloaded to the device", "Returned to the edge")):
        axes.set_title(what, fontsize=9.5)
        axes.set_xlabel("layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(-3, 103)
    panels[0].set_ylabel("share of the layer's cells (%)")
    points.title(figure, "Cells offloaded and returned, by layer")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)


def group_shares(mixed, decisions, requests):
    """{point: {group: shares in %}}: offloaded of all cells, not returned of the offloaded, exact matches of requests."""
    shares = {}
    for point in mixed:
        number, groups = point["number"], {}
        for row in requests:
            cells = decisions.requests.get((number, row["repetition"], row["request"]))
            if row["point"] == number and row["group"] and cells:
                group = groups.setdefault(row["group"], {"cells": [0, 0, 0], "requests": 0, "right": [], "each": []})
                group["cells"] = [a + b for a, b in zip(group["cells"], cells)]
                group["requests"] += 1
                group["each"].append(pair(cells))
                if row["exact_match"] is not None:
                    group["right"].append(row["exact_match"])
        for group in groups.values():
            group["offloaded"], group["kept"] = pair(group["cells"])
            group["exact"] = 100 * sum(group["right"]) / len(group["right"]) if group["right"] else None
        if groups:
            shares[number] = groups
    return shares


def pair(cells):
    """(% of cells offloaded, % of those not returned; None where none was)."""
    total, offloaded, returned = cells
    return 100 * offloaded / total, 100 * (offloaded - returned) / offloaded if offloaded else None


def window(shares):
    """Limits of an axis of percentages: the same in all panels, and not so narrow that noise looks like a finding."""
    low, high = min(shares), max(shares)
    spare = max(0.08 * (high - low), 10 - (high - low) / 2)
    edge = 0.05 * (high - low + 2 * spare)
    return max(low - spare, -edge), min(high + spare, 100 + edge)


def plot_groups(points, mixed, shares, figure):
    mixed = [point for point in mixed if point["number"] in shares]
    names = sorted({name for groups in shares.values() for name in groups})
    styles = {name: (LINES[i % len(LINES)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}
    every = [group for groups in shares.values() for group in groups.values()]
    answered = any(group["exact"] is not None for group in every)
    marks = [both for group in every for both in group["each"] if both[1] is not None]
    figure.set_size_inches(max(6.0, 1.0 + 2.4 * len(mixed)), 6.2 if answered else 3.6)
    grid = figure.subplots(2 if answered else 1, len(mixed), squeeze=False, sharey="row")
    for column, (point, title) in enumerate(zip(mixed, titles(points, mixed))):
        groups = shares[point["number"]]
        axes = grid[0][column]
        for name, (colour, marker) in styles.items():
            group = groups.get(name)
            if group is None:
                continue
            each = [both for both in group["each"] if both[1] is not None]
            axes.plot([x for x, _ in each], [y for _, y in each], "o", markersize=3, alpha=0.4, color=colour, markeredgewidth=0)
            if group["kept"] is not None:
                axes.plot(group["offloaded"], group["kept"], marker, markersize=7.5, color=colour, markeredgecolor="white",
                          label=name)  # fmt: skip
        axes.set_title(title, fontsize=9.5)
        axes.set_xlabel("cells offloaded (%)")
        axes.set(xlim=window([x for x, _ in marks]), ylim=window([y for _, y in marks]))
        if answered:
            axes = grid[1][column]
            bars = [(i, groups[name]) for i, name in enumerate(names) if name in groups and groups[name]["exact"] is not None]
            axes.bar([i for i, _ in bars], [g["exact"] for _, g in bars], 0.7, color=[styles[names[i]][0] for i, _ in bars])
            for i, group in bars:
                axes.annotate(f"{group['exact']:.0f}", (i, group["exact"]), xytext=(0, 2), textcoords="offset points",
                              ha="center", size=8)  # fmt: skip
            ticks = [f"{name}\n({groups[name]['requests']})" if name in groups else name for name in names]
            axes.set_xticks(range(len(names)), ticks, fontsize=8)
            axes.set_ylim(0, 108)
            axes.xaxis.grid(False)
            axes.tick_params(axis="x", length=0)
    grid[0][0].set_ylabel("offloaded cells not returned (%)")
    if answered:
        grid[1][0].set_ylabel("exact match (%)")
    what = "Exchanges and exact answers" if answered else "Exchanges"
    note = "small marks: single requests" + ("; in brackets: their number" if answered else "")
    points.title(figure, f"{what} by group of prompts", note)
    figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
