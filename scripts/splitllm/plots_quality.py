# SPDX-License-Identifier: GPL-2.0-only
"""Latency, communication and quality together: what a scheme gives up for the bytes and the time that it saves."""

import csv
import math
import re

from splitllm.cli import InputError
from splitllm.plots_base import LINES, MARKERS

DECADES = 5  # of KL below the largest that are shown at most
MOST_SETTINGS = 4
TEXT = "#333333"
FRONT = "#777777"
DASHES = (0, (4, 2))
# Student's t for 95 % of both sides, by degrees of freedom from 1
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
NORMAL = 1.959964
LABEL_SIZE = 8
BESIDE = ((7, 0), (-7, 0), (0, 7), (0, -7), (6, 6), (-6, 6), (6, -6), (-6, -6))  # points from a mark to its label


def read_requests(path):
    """The rows of requests.csv with numbers in place of texts; none where there is no such file."""
    numbers = {"point": int, "repetition": int, "request": int, "tokens": int}
    optional = {"exact_match": int, "f1": float, "rouge_l": float, "kl_nats": float, "answer_tokens": int}
    rows = []
    try:
        with open(path, encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                row = {name: parse(line[name]) for name, parse in numbers.items()}
                row |= {name: parse(line[name]) if line.get(name) else None for name, parse in optional.items()}
                rows.append(row | {"group": line["group"]})
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a table of requests: {error}") from None
    return rows


def half_interval(values):
    """Half the 95 % confidence interval of the mean of `values` (Student's t); None for a single one."""
    freedom = len(values) - 1
    if freedom < 1:
        return None
    if freedom <= len(STUDENT):
        t = STUDENT[freedom - 1]
    else:  # Fisher's expansion about the normal quantile, to 1e-4 here
        z = NORMAL
        t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / freedom
    return t * math.sqrt(variance / len(values))


def repetition_means(requests, number):
    """[KL a token] and [exact match a request] of the repetitions of a point."""
    sums = {}
    for row in requests:
        if row["point"] == number:
            tally = sums.setdefault(row["repetition"], [0.0, 0, 0, 0])
            if row["kl_nats"] is not None:
                tally[0] += row["kl_nats"] * row["answer_tokens"]
                tally[1] += row["answer_tokens"]
            if row["exact_match"] is not None:
                tally[2] += row["exact_match"]
                tally[3] += 1
    tallies = [sums[repetition] for repetition in sorted(sums)]
    return [kl / n for kl, n, _, _ in tallies if n], [right / n for _, _, right, n in tallies if n]


def family(label):
    """What stands before the first number of a label: "TLC 40 %" and "TLC 60 %" are one family."""
    name = re.split(r"(?<![\w.])[.(]*\d", label, maxsplit=1)[0]
    return name.strip(" ,=<>~(-") or label


def trades(points, requests):
    """What each point with a KL gives and takes. Schemes are compared where everything else is the same: in a setting."""
    keys = [key for key in [points.axis, *points.others] if key is not None]
    inner = [key for key in keys if key.split(".")[0] == "scheme"] or keys
    outer = [key for key in keys if key not in inner]
    rows = []
    for point in points.points:
        metrics = point["metrics"]
        needed = ("quality.kl_nats", "quality.exact_match", "payload_bytes_per_response.up")
        if any(metrics.get(name) is None for name in needed):
            continue
        kl, exact = repetition_means(requests, point["number"])
        label = points.label(point, inner) or points.study
        rows.append(
            {
                "label": label,
                "family": family(label),
                "setting": points.label(point, outer),
                "kilobytes": (metrics["payload_bytes_per_response.up"] + metrics["payload_bytes_per_response.down"]) / 1e3,
                "latency": metrics["token_latency_ms.mean"],
                "kl": metrics["quality.kl_nats"],
                "kl_half": half_interval(kl),
                "exact": 100 * metrics["quality.exact_match"],
                "exact_half": None if len(exact) < 2 else 100 * half_interval(exact),
                "splits": "offload_ratio" in metrics,
            }
        )
    return rows


def pareto(pairs):
    """Those of the (cost, loss) pairs that no other pair beats in both, by rising cost."""
    front = []
    for cost, loss in sorted(set(pairs)):
        if not front or loss < front[-1][1]:
            front.append((cost, loss))
    return front


def lower_edge(values):
    """Where a logarithmic axis of `values` begins: what is far below the largest is drawn at the edge."""
    shown = [value for value in values if value > 0 and value >= max(values) / 10**DECADES]
    return min(shown) / 3 if shown else 1e-12


def plot_panel(axes, rows, styles, x, y, floor=None):
    """One mark a point, a line a family; returns the marks' places."""
    value = lambda row: max(row[y], floor) if floor else row[y]  # noqa: E731
    front = [(a, abs(b)) for a, b in pareto([(row[x], value(row) if floor else -row[y]) for row in rows if row["splits"]])]
    if len(front) > 1:
        corners = [(at, height) for (_, height), (at, _) in zip(front, front[1:])]
        steps = [step for both in zip(front, [*corners, front[-1]]) for step in both]
        axes.plot(*zip(*steps), color=FRONT, linewidth=0.8, linestyle=DASHES, zorder=1)
    for name, (colour, marker) in styles.items():
        mine = sorted((row for row in rows if row["family"] == name), key=lambda row: row[x])
        axes.plot([row[x] for row in mine], [value(row) for row in mine], color=colour, linewidth=1.2, alpha=0.6)
        for row in mine:
            hollow = floor is not None and row[y] < floor
            if row[f"{y}_half"]:
                low, high = row[y] - row[f"{y}_half"], row[y] + row[f"{y}_half"]
                bar = (max(low, floor), max(high, floor)) if floor else (max(low, 0), min(high, 100))
                axes.plot([row[x]] * 2, bar, color=colour, linewidth=1)
            axes.plot(row[x], value(row), marker, color=colour, markersize=6.5, markerfacecolor="white" if hollow else colour,
                      clip_on=False, zorder=3)  # fmt: skip
    return [(row[x], value(row), row) for row in rows]


def place_labels(axes, wanted, places):
    """Writes each (x, y, text) beside its mark where nothing is in the way; returns those that found no place."""
    from matplotlib.transforms import Bbox

    figure = axes.figure
    pixels = figure.dpi / 72
    marks = [axes.transData.transform((x, y)) for x, y, _ in places]
    boxes = [Bbox.from_bounds(x - 5 * pixels, y - 5 * pixels, 10 * pixels, 10 * pixels) for x, y in marks]
    lines = []
    for line in axes.lines:
        ends = line.get_transform().transform(line.get_xydata())
        for (x1, y1), (x2, y2) in zip(ends, ends[1:]):
            steps = 2 + int(math.hypot(x2 - x1, y2 - y1) / 4)
            lines += [(x1 + (x2 - x1) * i / steps, y1 + (y2 - y1) * i / steps) for i in range(steps + 1)]
    frame = axes.get_window_extent()
    right_edge = min(frame.x1 + 12 * pixels, figure.bbox.x1)
    done, left = [], []
    for x, y, text in wanted:
        for right, up in BESIDE:
            note = axes.annotate(
                text, (x, y), xytext=(right, up), textcoords="offset points", size=LABEL_SIZE, color=TEXT,
                ha="center" if right == 0 else "left" if right > 0 else "right",
                va="center" if up == 0 else "bottom" if up > 0 else "top",
            )  # fmt: skip
            note.set_in_layout(False)
            box = note.get_window_extent()
            inside = frame.x0 <= box.x0 and box.x1 <= right_edge and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in boxes) and not any(box.contains(*at) for at in lines):
                boxes.append(box.padded(2 * pixels))
                done.append(note)
                break
            note.remove()
        else:
            left.append(text)
    return done, left


def plot_tradeoff(points, rows, figure):
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    settings = list(dict.fromkeys(row["setting"] for row in rows))
    shown = settings[:MOST_SETTINGS]
    rows = [row for row in rows if row["setting"] in shown]
    families = list(dict.fromkeys(row["family"] for row in rows))
    styles = {name: (LINES[i % len(LINES)], MARKERS[(i + i // len(LINES)) % len(MARKERS)]) for i, name in enumerate(families)}
    figure.set_size_inches(10.5, 0.9 + 3.2 * len(shown))
    largest = max(row["kl"] for row in rows)
    floor = lower_edge([row["kl"] for row in rows])
    panels = []
    grid = figure.subplots(len(shown), 3, squeeze=False)
    for setting, line in zip(shown, grid):
        mine = [row for row in rows if row["setting"] == setting]
        for axes, (x, y, title) in zip(
            line,
            (
                ("kilobytes", "kl", "KL against bytes that cross"),
                ("kilobytes", "exact", "Exact match against bytes that cross"),
                ("latency", "exact", "Exact match against latency"),
            ),
        ):
            places = plot_panel(axes, mine, styles, x, y, floor if y == "kl" else None)
            if y == "kl":
                axes.set_yscale("log")
                axes.set_ylim(floor / 1.5, 2 * max(largest, floor))
                narrow = largest < 100 * floor
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=2 * DECADES))
                axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
                axes.set_ylabel("KL(full || scheme) (nats a token)")
            else:
                axes.set_ylim(-4, 104)
                axes.set_ylabel("exact match (%)")
            if x == "kilobytes":
                axes.set_xlim(left=-0.03 * max(max(row[x] for row in mine), 1))
                axes.set_xlabel("payload a response, up and down (kB)")
            else:
                axes.set_xlabel("mean token latency (ms)")
            axes.margins(x=0.08)
            axes.set_title(title + (f", {setting}" if setting else ""), fontsize=9.5)
            panels.append((axes, places))
    notes = []
    if any(row["kl"] < floor for row in rows):
        notes.append(f"hollow: below {floor:.1g} nats")
    if any(row["kl_half"] or row["exact_half"] for row in rows):
        notes.append("bars: 95 % over repetitions")
    if len(settings) > len(shown):
        notes.append(f"{len(settings) - len(shown)} more settings not shown")
    points.title(figure, "Quality against bytes that cross, and against latency", "; ".join(notes))
    front = Line2D([], [], color=FRONT, linewidth=0.8, linestyle=DASHES, label="Pareto front of what splits the model")
    figure.legend(handles=[front], loc="outside lower center")
    figure.canvas.draw()
    named = [place_labels(axes, [(x, y, row["label"]) for x, y, row in places], places) for axes, places in panels]
    if any(left for _, left in named):
        for done, _ in named:
            for note in done:
                note.remove()
        figure.legends[0].remove()
        marks = [Line2D([], [], color=c, marker=m, linewidth=0, label=name) for name, (c, m) in styles.items()]
        figure.legend(handles=[*marks, front], loc="outside lower center", ncols=min(len(marks) + 1, 6))
        figure.canvas.draw()
        for axes, places in panels:
            short = [(x, y, row["label"][len(row["family"]):].strip(" ,=(")) for x, y, row in places]
            place_labels(axes, [each for each in short if each[2]], places)
