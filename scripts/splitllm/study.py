# SPDX-License-Identifier: GPL-2.0-only
"""What the scripts look up in a study file; the runner is who checks it."""

import json
from pathlib import Path

from splitllm.cli import ROOT, InputError
from splitllm.files import load_json


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
            self._set(path, value)

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
        """The texts of the workload's prompts; request number i has text i modulo their count."""
        name = self._string("workload.prompts")
        if name is None:
            return []
        file = Path(name if name.endswith(".jsonl") else f"{name}.jsonl")
        if "/" not in name:
            file = ROOT / "scenarios" / "prompts" / file
        try:
            return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, KeyError, TypeError):
            return []
