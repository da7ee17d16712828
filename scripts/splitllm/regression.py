# SPDX-License-Identifier: GPL-2.0-only
"""Compares what studies give now with a baseline.

What is the same in every repetition is compared as it is; what repetitions scatter is tested for equivalence.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from splitllm import baselines, cli, equivalence, sweeps
from splitllm.cli import InputError
from splitllm.equivalence import Sample
from splitllm.files import write_text
from splitllm.study import name_objects

PASSES = ("within tolerance", "equivalent", "no change shown", "new metric")


@dataclass
class Row:
    """A line of the diff table: something that is not what it was."""

    study: str
    point: str
    metric: str
    before: float | None
    now: float | None
    change: str
    tolerance: str
    verdict: str

    def passes(self):
        return self.verdict in PASSES

    def cells(self):
        number = lambda value: "-" if value is None else f"{value:.7g}"
        return [self.study, self.point, self.metric, number(self.before), number(self.now), self.change,
                self.tolerance, self.verdict]  # fmt: skip


def tolerance_of(tolerances, study, metric):
    """The first entry that is about the metric; without one everything must be equal."""
    for entry in tolerances:
        if fnmatchcase(metric, entry["metric"]) and fnmatchcase(study, entry.get("study", "*")):
            return entry
    return {}


def relative(value, reference):
    return f"{100 * value / abs(reference):+.3g} %" if reference else f"{value:+.3g}"


def margin_of(before, tolerance):
    return max(tolerance.get("margin", 0.0) * abs(before.mean), tolerance.get("margin_abs", 0.0))


def compare_values(before, now, tolerance):
    """(change, tolerance, verdict) of a metric; before, now: a number, or a Sample of repetitions. None: the same"""
    if before == now:
        return None
    samples = isinstance(before, Sample) and isinstance(now, Sample)
    if samples and (before.deviation or now.deviation):
        margin = margin_of(before, tolerance)
        if before.count < 2 or now.count < 2:
            return "-", f"margin {margin:.3g}", "cannot tell: repeat at least twice"
        verdict, (low, high) = equivalence.judge(before, now, margin)
        change, low, high = (relative(value, before.mean) for value in (now.mean - before.mean, low, high))
        change = f"{change} ({low} to {high})"
        if verdict == "cannot tell" and tolerance.get("unproven") == "passes":
            verdict = "no change shown"
        elif verdict == "cannot tell":
            verdict = "cannot tell: " + remedy(before, now, margin)
        return change, f"margin {margin:.3g}", verdict
    if isinstance(before, Sample) != isinstance(now, Sample):
        scattered = next(value for value in (before, now) if isinstance(value, Sample))
        if scattered.deviation:
            return "-", "-", "cannot tell: repeat as often as in the baseline"
    first, second = (value.mean if isinstance(value, Sample) else value for value in (before, now))
    if first == second:
        return None
    allowed = max(tolerance.get("rel", 0.0) * abs(first), tolerance.get("abs", 0.0))
    verdict = "within tolerance" if abs(second - first) <= allowed else "changed"
    return relative(second - first, first), f"{allowed:.3g}", verdict


def remedy(before, now, margin):
    needed = equivalence.enough(before, now, margin)
    if needed is None:
        return "no number of repetitions would; give it a wider margin"
    count, both = needed
    if both:
        return f"repeat {count} times, in the baseline as well"
    return f"repeat {count - now.count} more"


def value_of(stored):
    return Sample(*stored) if isinstance(stored, list) else stored


def compare_points(study, title, before, now, tolerances):
    """The rows of one point; before, now: as a baseline keeps them."""
    rows = []
    for metric in dict.fromkeys([*before["metrics"], *now["metrics"]]):
        first, second = (value_of(point["metrics"].get(metric)) for point in (before, now))
        if first is None or second is None:
            verdict, change, allowed = ("new metric" if first is None else "gone"), "-", "-"
        else:
            found = compare_values(first, second, tolerance_of(tolerances, study, metric))
            if found is None:
                continue
            change, allowed, verdict = found
        number = lambda value: value.mean if isinstance(value, Sample) else value
        rows.append(Row(study, title, metric, number(first), number(second), change, allowed, verdict))
    return rows


def first_moved(before, now):
    """What is said of the first token (of the first repetition) that has another component or place; None if none has."""
    columns = len(baselines.KEYS) + len(baselines.COMPONENTS)
    old, new = (baselines.unpacked(point["tokens"], columns) for point in (before, now))
    if np.array_equal(old, new):
        return None
    keys = len(baselines.KEYS)
    times = {tuple(row[:keys]): row[keys:] for row in old.tolist()}
    for row in new.tolist():
        token = dict(zip(baselines.KEYS, row[:keys]))
        where = f"session {token['session']}, request {token['request']}, token {token['position']}"
        was = times.pop(tuple(row[:keys]), None)
        if was is None:
            return f"{where} is new"
        moved = [(name, is_now - then) for name, is_now, then in zip(baselines.COMPONENTS, row[keys:], was) if is_now != then]
        if moved:
            parts = ", ".join(f"{name} {by:+d} ns" for name, by in moved)
            return f"{where}: {sum(by for _, by in moved):+d} ns ({parts})"
    if times:
        session, request, position = next(iter(times))
        return f"session {session}, request {request}, token {position} is gone"
    return "the same tokens in another order"


def titles(points):
    """A short name of each point by the values that it sets."""
    named = [{"set": dict(point["set"])} for point in points]
    name_objects(named)
    return [", ".join(f"{key.rsplit('.', 1)[-1]} = {value}" for key, value in point["set"].items()) for point in named]


def compare(baseline, study, points):
    """(rows, notes) of one study; its points as a baseline keeps them."""
    if study not in baseline["studies"]:
        return [Row(study, "-", "-", None, None, "-", "-", "new: not in the baseline")], []
    code = lambda point: json.dumps(point["set"], sort_keys=True)
    before = {code(point): point for point in baseline["studies"][study]}
    rows, notes = [], []
    for point, title in zip(points, titles(points)):
        old = before.pop(code(point), None)
        if old is None:
            rows.append(Row(study, title, "-", None, None, "-", "-", "new: not in the baseline"))
            continue
        rows += compare_points(study, title, old, point, baseline["tolerances"])
        moved = first_moved(old, point)
        if moved:
            notes.append(f"{study}{f' ({title})' if title else ''}: first token that moved: {moved}")
    gone = list(before.values())
    rows += [Row(study, title, "-", None, None, "-", "-", "gone") for title in titles(gone)]
    return rows, notes


def print_table(rows):
    header = ["study", "point", "metric", "baseline", "now", "change", "tolerance", "verdict"]
    lines = [header, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def studies_in(arguments, baseline):
    """The study files among files and folders; the baseline may lie in one."""
    files = []
    for argument in map(Path, arguments):
        found = [argument]
        if argument.is_dir():
            found = sorted(path for path in argument.glob("*.json") if path.resolve() != Path(baseline).resolve())
        if not found:
            raise InputError(f"{argument}: no study (JSON) in this folder")
        files += found
    return files


def run_studies(files, options, out, chosen):
    """({study: points as a baseline keeps them}, whether all points and expectations were well)."""
    with ExitStack() as stack:
        names = {}
        running = []
        for file in files:
            sweep = sweeps.Sweep(file, options, out / file.stem)
            stack.callback(sweep.close)
            running.append(sweep)
            name = sweep.points.title
            if names.setdefault(name, file) != file:
                raise InputError(f"{file}: has the name \"{name}\", as {names[name]} has; accepted: one study a name")
        client, local = stack.enter_context(sweeps.cluster(chosen.scheduler, chosen.workers))
        well = sweeps.run(client, local, running)
        studies = dict(baselines.study_of(sweep.out) for sweep in running if (sweep.out / "summary.json").exists())
    return studies, well


def describe(rows, notes, studies):
    if rows:
        print_table(rows)
    for note in notes:
        print(note)
    bad = sum(not row.passes() for row in rows)
    points = sum(map(len, studies.values()))
    print(f"{len(studies)} studies, {points} points: {bad} differences that fail, {len(rows) - bad} that pass")
    return bad


def undecided(studies, tolerances):
    """Lines about metrics that scatter so much that a run with another seed may not be shown to be equivalent."""
    lines = []
    for study, points in studies.items():
        for point, title in zip(points, titles(points)):
            for metric, stored in point["metrics"].items():
                sample = value_of(stored)
                if not isinstance(sample, Sample) or not sample.deviation:
                    continue
                tolerance = tolerance_of(tolerances, study, metric)
                margin = margin_of(sample, tolerance) / 2  # the other half is for the difference that chance makes
                if tolerance.get("unproven") != "passes" and equivalence.judge(sample, sample, margin)[0] == "cannot tell":
                    lines.append(f"{study}{f' ({title})' if title else ''}: {metric}: {remedy(sample, sample, margin)}")
    return lines


def main():
    parser = argparse.ArgumentParser(prog="scripts/regress", description=__doc__)
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="study files, or folders of them")
    parser.add_argument("--baseline", required=True, metavar="FILE")
    parser.add_argument("--update", action="store_true", help="says what changed, and makes it the baseline")
    chosen = sweeps.parse(parser)
    if not chosen.update and not Path(chosen.baseline).exists():
        raise InputError(f"{chosen.baseline}: no such file; --update writes it")
    baseline = baselines.load(chosen.baseline)
    out = Path(chosen.out or cli.ROOT / "results" / "regress")
    studies, well = run_studies(studies_in(chosen.studies, chosen.baseline), chosen.options, out, chosen)
    rows, notes = [], []
    for study, points in studies.items():
        more = compare(baseline, study, points)
        rows += more[0]
        notes += more[1]
    bad = describe(rows, notes, studies)
    if not well:
        return 1
    if chosen.update:
        baseline["studies"] = dict(sorted((baseline["studies"] | studies).items()))
        write_text(chosen.baseline, json.dumps(baseline, indent=1, ensure_ascii=False) + "\n")
        print(f"Baseline: {chosen.baseline}")
        lines = undecided(studies, baseline["tolerances"])
        if lines:
            print(f"{len(lines)} metrics scatter much for their margin; with another seed these may not be told:")
            print("\n".join(f"    {line}" for line in lines))
        return 0
    return 1 if bad else 0


if __name__ == "__main__":
    sys.argv[0] = "regress"
    cli.run(main)
