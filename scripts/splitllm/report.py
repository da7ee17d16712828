# SPDX-License-Identifier: GPL-2.0-only
"""One HTML page about a study: this says what is shown, the files in report_page/ say how."""

import html
import json
import math
import re
import shlex
from importlib import util
from pathlib import Path

from splitllm import plots_quality, report_decisions, report_metrics, report_question, report_timeline
from splitllm.cli import InputError
from splitllm.files import load_json, write_text
from splitllm.plots import COMPONENTS
from splitllm.plots_base import LINES, Points
from splitllm.units import measure, written

PAGE = Path(__file__).parent / "report_page"
SCRIPTS = ("base.js", "table.js", "charts.js", "summary.js", "details.js", "page.js")
SPARSE = 0.25  # of the combinations of all values: fewer points are samples of a space, that no lines join
PLACES = ("edge", "network", "cloud")


def key_list(points):
    """The keys in which points differ: what they are called, and their unit; None where values are only names."""
    keys = [key for key in [points.axis, *points.others] if key is not None]
    return [{"key": key, "name": report_question.key_name(key), "unit": points.dimension(key)} for key in keys]


def is_sampled(points):
    """Whether points are samples of a space of several quantities and no grid."""
    keys = [key for key in [points.axis, *points.others] if key is not None]
    combinations = math.prod(len(points.values(key)) for key in keys)
    quantities = [key for key in keys if points.dimension(key) is not None]
    return len(quantities) > 1 and len(points.points) < SPARSE * combinations


def point_list(points, summary):
    """All points, with the metrics as summary.json has them."""
    keys = [key for key in [points.axis, *points.others] if key is not None]
    curves = points.axis is not None and points.dimension(points.axis) is not None
    nominal = [key for key in keys if points.dimension(key) is None]
    grouping = nominal if is_sampled(points) else points.others
    rows = []
    for point, source in zip(points.everything, summary["points"], strict=True):
        label = points.label(point, keys) or points.study
        rows.append(
            {
                "label": label,
                "group": points.label(point, grouping) if curves else plots_quality.family(label),
                "set": {key: [written(value), measure(value)[0]] for key, value in point["set"].items() if key in keys},
                "metrics": source["metrics"],
                "ci95": source.get("ci95", {}),
            }
        )
    return rows


def stacks(points):
    """What adds up to the time of a token, and of a response: names of parts and their metrics."""
    present = {name for point in points for name, value in point["metrics"].items() if value}
    found = []
    for title, unit, names, metric in (
        ("Latency of a token, mean", "ms", COMPONENTS, "component_ms.{}.mean"),
        ("Time of a response from its start, mean", "s", PLACES, "component_s_per_response.{}"),
    ):
        parts = [[name, metric.format(name)] for name in names if metric.format(name) in present]
        if parts:
            found.append({"title": title, "unit": unit, "parts": parts})
    return found


def again(run):
    """What repeats the run, and what it ran on."""
    command = run.get("command")
    rows = []
    for name, value in run.items():
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and name not in ("command", "folder"):
            rows.append([name, value])
    found = {"rows": rows, "problems": [*run.get("sessions_lost", []), *run.get("out_of_memory", [])]}
    if isinstance(command, list):
        found["command"] = shlex.join(str(word) for word in command)
        found["folder"] = shlex.quote(run["folder"]) if run.get("folder") else ""
    if isinstance(run.get("study"), dict):
        found["study"] = json.dumps(run["study"], indent=2, ensure_ascii=False)
    return found


def contents(folder):
    """Everything that the page shows, as JSON."""
    folder = Path(folder)
    origin = folder / "summary.json"
    summary = load_json(origin)
    points = Points(summary, origin)
    run = load_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    study = run.get("study") if isinstance(run.get("study"), dict) else {}
    rows = point_list(points, summary)
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    fixed = [[report_question.key_name(key), written(points.values(key)[0])] for key in points.fixed if points.values(key)]
    return {
        "study": points.study,
        "description": study.get("description", ""),
        "changes": report_question.changes(points),
        "fixed": fixed + report_question.fixed(study, report_question.case_keys(summary["points"])),
        "keys": key_list(points),
        "sampled": is_sampled(points),
        "metrics": {name: report_metrics.describe(name) for name in names},
        "points": rows,
        "columns": report_metrics.columns(rows),
        "curves": report_metrics.curves(rows),
        "tradeoffs": report_metrics.tradeoffs(rows),
        "stacks": stacks(rows),
        "decisions": report_decisions.maps(folder, points),
        "sources": report_decisions.sources(folder, points),
        "timelines": report_timeline.tokens(folder),
        "again": again(run),
        "palette": LINES,
        "components": COMPONENTS,
    }


def plotly():
    """The chart library, from the Python package that brings it along."""
    package = util.find_spec("plotly")
    if package is None:
        raise ModuleNotFoundError(name="plotly")
    return (Path(package.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def page(report):
    """The page's HTML. JSON and scripts stand inside of <script>, which the first "</script" would end."""
    data = json.dumps(report, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    scripts = [plotly(), *((PAGE / name).read_text(encoding="utf-8") for name in SCRIPTS)]
    parts = {
        "title": html.escape(report["study"]),
        "style": (PAGE / "page.css").read_text(encoding="utf-8"),
        "data": data,
        "scripts": "\n".join(f"<script>{text.replace('</script', '<' + chr(92) + '/script')}</script>" for text in scripts),
    }
    return re.sub("@([a-z]+)@", lambda name: parts[name[1]], (PAGE / "page.html").read_text(encoding="utf-8"))


def write(folder, out):
    """Writes the page about the results in `folder`."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: no such folder; one that a study wrote is expected")
    write_text(out, page(contents(folder)))
