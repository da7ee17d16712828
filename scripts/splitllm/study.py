# SPDX-License-Identifier: GPL-2.0-only
"""What the scripts look up in a study file; the runner is who checks it."""

import json
from pathlib import Path

from splitllm.cli import ROOT, InputError
from splitllm.files import load_json


NAMES = ("label", "name", "shape", "path")  # by which of its keys an object is called


def name_objects(points):
    """Puts a text in the place of every swept value that is an object or a list, different ones for different values."""
    texts = {}  # key -> text -> the values called so, as JSON
    for point in points:
        point["set"] = dict(point["set"])
        for key, value in point["set"].items():
            if not isinstance(value, (dict, list)):
                continue
            code = json.dumps(value)
            names = [value.get(name) for name in NAMES] if isinstance(value, dict) else []
            text = next((name for name in names if isinstance(name, str)), code)
            same = texts.setdefault(key, {}).setdefault(text, [])
            if code not in same:
                same.append(code)
            at = same.index(code)
            point["set"][key] = text if at == 0 else f"{text} ({at + 1})"


class Study:
    """The values of one point: the study file, then the overrides of the command line, then what is swept."""

    def __init__(self, file, overrides, swept, models):
        self.values = load_json(file)
        self.models = Path(models)
        for override in overrides:
            path, equals, value = override.partition("=")
            if not equals:
                raise InputError(f"--set {override}: PATH=VALUE is expected")
            self._set(path, value)
        for path, value in swept.items():
            together = path == "case" and isinstance(value, dict)  # keys that are set as one
            for key, part in value.items() if together else [(path, value)]:
                self._set(key, part)

    def _set(self, path, value):
        *parents, last = path.split(".")
        place = self.values
        for parent in parents:
            place = place.setdefault(parent, {}) if isinstance(place, dict) else {}
        if isinstance(place, dict):
            place[last] = value

    def _string(self, path):
        place = self.values
        for part in path.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        return place if isinstance(place, str) else None

    def model(self):
        """The model's folder, or None in shape mode."""
        name = self._string("model.path")
        if name is None or self._string("mode") == "shape":
            return None
        return Path(name) if "/" in name else self.models / name

    def prompts(self):
        """{id: (text, token ids)} of the workload's prompts, in the order of the file."""
        name = self._string("workload.prompts")
        if name is None:
            return {}
        file = Path(name if name.endswith(".jsonl") else f"{name}.jsonl")
        if "/" not in name:
            file = ROOT / "scenarios" / "prompts" / file
        try:
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            return {row["id"]: (row["text"], row["tokens"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
