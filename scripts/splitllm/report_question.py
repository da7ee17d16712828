# SPDX-License-Identifier: GPL-2.0-only
"""What a study asks, in words: what it changes, and what it leaves as it is."""

from splitllm.study import NAMES
from splitllm.units import measure, written

MOST_VALUES = 6
FIRST = ("mode", "backend", "model", "nodes", "links", "scheme", "workload")
NOT_ASKED = ("study", "description", "timeline")  # what changes nothing in the numbers


def key_name(key):
    """A swept key for people: links.device-edge.rate is "device-edge rate"."""
    parts = key.split(".")
    return " ".join(parts[1:] if parts[0] in ("links", "nodes", "workload") and len(parts) > 2 else parts[-2:])


def listed(values):
    """The values of a key as a text; of many numbers the range, of many names the first ones."""
    texts = [written(value) for value in values]
    if len(values) <= MOST_VALUES:
        return ", ".join(texts)
    if all(measure(value)[1] is not None for value in values):
        ordered = sorted(values, key=lambda value: measure(value)[0])
        return f"{len(values)} values from {written(ordered[0])} to {written(ordered[-1])}"
    return ", ".join(texts[:MOST_VALUES]) + f" and {len(values) - MOST_VALUES} more"


def changes(points):
    """[[key, values as a text]] of what differs between points."""
    keys = [key for key in [points.axis, *points.others] if key is not None]
    values = {key: list(dict.fromkeys(point["set"][key] for point in points.everything if key in point["set"])) for key in keys}
    return [[key_name(key), listed(values[key])] for key in keys]


def brief(value):
    """A part of a study in few words: names stand for what they name."""
    if isinstance(value, list):
        return ", ".join(brief(entry) for entry in value)
    if not isinstance(value, dict):
        return written(value)
    called = [name for name in (*NAMES, "profile", "type", "role") if isinstance(value.get(name), str)]
    rest = [f"{key.replace('_', ' ')} {brief(part)}" for key, part in value.items() if key not in called and part not in ({}, [])]
    return ", ".join([*(written(value[name]) for name in called), *rest])


def without(value, paths):
    """A part of a study without what is swept."""
    if not isinstance(value, dict):
        return value
    left = {}
    for key, part in value.items():
        deeper = [path[1:] for path in paths if path[0] == key]
        if [] not in deeper:
            left[key] = without(part, deeper)
    return left


def case_keys(points):
    """All keys that are swept, those that cases set among them."""
    keys = dict.fromkeys(key for point in points for key in point["set"])
    for point in points:
        case = point["set"].get("case")
        keys.update(dict.fromkeys(case if isinstance(case, dict) else ()))
    return list(keys)


def fixed(study, swept):
    """[[part, words]] of a study without the keys that are swept."""
    left = without(study, [key.split(".") for key in swept])
    rows = []
    for part in [*FIRST, *(name for name in left if name not in (*FIRST, *NOT_ASKED))]:
        value = left.get(part)
        if part in ("nodes", "links"):
            rows += [[name, brief(entry)] for name, entry in (value or {}).items() if brief(entry)]
        elif value not in (None, {}, ""):
            rows.append([part, brief(value)])
    return rows
