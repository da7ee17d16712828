# SPDX-License-Identifier: GPL-2.0-only
"""What a baseline keeps of a study's results: metrics, and what each token's time consisted of in the first repetition."""

import base64
import zlib
from pathlib import Path

import numpy as np

from splitllm.cli import InputError
from splitllm.equivalence import Sample
from splitllm.files import load_json

FORMAT = {"format": "split-llm-baseline", "version": 1}
TOLERANCES = [  # of a new baseline; the first that is about a metric counts
    {"metric": "token_latency_ms.mean", "rel": 1e-9, "margin": 0.01},
    {"metric": "response_s.mean", "rel": 1e-9, "margin": 0.01},
    {"metric": "*", "rel": 1e-9, "margin": 0.05, "unproven": "passes"},
]
UNPROVEN = (("unproven", "fails"), ("unproven", "passes"))
KEYS = ("session", "request", "position")
COMPONENTS = ("base", "adapter", "calibrator", "codec", "network", "queue")


def packed(array):
    """Text of a two-dimensional int64 array: what each column grows by, compressed."""
    deltas = np.diff(array, axis=0, prepend=0).astype("<i8")
    return {"rows": len(array), "data": base64.b64encode(zlib.compress(deltas.T.tobytes(), 9)).decode("ascii")}


def unpacked(stored, columns):
    """The array of packed()."""
    try:
        rows = int(stored["rows"])
        size = 8 * rows * columns
        data = zlib.decompressobj().decompress(base64.b64decode(stored["data"], validate=True), size + 1)
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"the baseline's tokens cannot be read: {error}") from None
    if rows < 0 or len(data) != size:
        raise InputError(f"the baseline's tokens cannot be read: {rows} are said to be there, which is not true")
    return np.cumsum(np.frombuffer(data, "<i8").reshape(columns, rows).T, axis=0)


def read_tokens(path):
    """{point: [n, keys and components]} of the first repetitions in a tokens.csv, by the time at which tokens started."""
    with open(path, encoding="utf-8") as file:
        names = file.readline().strip().split(",")
        table = np.loadtxt(file, dtype=np.int64, delimiter=",", ndmin=2)
    if not table.size:
        return {}
    wanted = [names.index(name) for name in (*KEYS, *(f"{component}_ns" for component in COMPONENTS))]
    table = table[table[:, names.index("repetition")] == 0]
    table = table[np.lexsort((table[:, names.index("start_ns")], table[:, 0]))]
    return {int(point): table[table[:, 0] == point][:, wanted] for point in np.unique(table[:, 0])}


def values_of(point):
    """{metric: value, or [n, mean, standard deviation] of repetitions} of a summary's point."""
    if "repetitions" not in point:
        return dict(point["metrics"])
    names = dict.fromkeys(name for metrics in point["repetitions"] for name in metrics)
    samples = {name: Sample.of([metrics[name] for metrics in point["repetitions"] if name in metrics]) for name in names}
    return {name: [sample.count, sample.mean, sample.deviation] for name, sample in samples.items()}


def study_of(results):
    """(name, [points]) of a results folder, as a baseline keeps them."""
    summary = load_json(results / "summary.json")
    tokens = read_tokens(results / "tokens.csv")
    none = np.zeros((0, len(KEYS) + len(COMPONENTS)), np.int64)
    return summary["study"], [
        {"set": point["set"], "metrics": values_of(point), "tokens": packed(tokens.get(number, none))}
        for number, point in enumerate(summary["points"])
    ]


def load(path):
    """A baseline, checked as far as everything is there; an empty one where there is no file."""
    if not Path(path).exists():
        return FORMAT | {"tolerances": TOLERANCES, "studies": {}}
    baseline = load_json(path)
    if not isinstance(baseline, dict) or {key: baseline.get(key) for key in FORMAT} != FORMAT:
        raise InputError(f"{path}: no baseline of version 1; scripts/regress --update writes one")
    try:
        for number, entry in enumerate(baseline["tolerances"]):
            for key, value in entry.items():
                number_wanted = key in ("rel", "abs", "margin", "margin_abs")
                is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
                is_text = isinstance(value, str) and key in ("metric", "study")
                if not (is_number if number_wanted else is_text or (key, value) in UNPROVEN):
                    raise InputError(f"{path}: tolerances[{number}].{key}: accepted: metric and study (patterns), rel, abs, "
                                     'margin and margin_abs (numbers, at least 0), unproven ("fails" or "passes")')  # fmt: skip
            entry["metric"]
        for points in baseline["studies"].values():
            for point in points:
                point["set"].items(), point["metrics"].items(), point["tokens"]["rows"]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole baseline: {error}") from None
    return baseline
