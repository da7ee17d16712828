# SPDX-License-Identifier: GPL-2.0-only
"""The points of a study, as the runner lists them, and what the result of each depends on."""

import functools
import hashlib
import json
import os
import subprocess
from pathlib import Path

from splitllm.cli import ROOT, InputError

FORMAT = 1  # of a point's results; a change makes all of them stale


def runner():
    """The runner's path: SPLITLLM_RUNNER, or that of scripts/run."""
    path = Path(os.environ.get("SPLITLLM_RUNNER", ROOT / "build" / "release" / "split-llm-run"))
    if not os.access(path, os.X_OK):
        raise InputError(f"{path}: no program; scripts/setup.sh builds it, SPLITLLM_RUNNER names another")
    return path.absolute()


@functools.cache
def file_digest(path, _stamp):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(path):
    """SHA-256 of a file, or of a folder's files and their names."""
    if path.is_file():
        stat = path.stat()
        return file_digest(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))
    parts = sorted((str(part.relative_to(path)), digest(part)) for part in path.rglob("*") if part.is_file())
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def strings(value):
    """Every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


class Points:
    """The points of a study with the runner's options (--set and others, each with its value after "=")."""

    def __init__(self, study, options):
        self.study = Path(study).absolute()
        self.options = list(options)
        self.runner = runner()
        self.command = [str(self.runner), f"--study={self.study}", *self.options]
        self._seen = self._stamps()
        listed = subprocess.run([*self.command, "--points"], capture_output=True, text=True, check=False)
        if listed.returncode != 0:
            message = listed.stderr.strip().removeprefix("split-llm-run: ")
            raise InputError(message.splitlines()[-1] if message else f"split-llm-run ended with {listed.returncode}")
        listing = json.loads(listed.stdout)
        self.title = listing["study"]
        self.points = listing["points"]
        self._folders = [Path(folder) for folder in listing["folders"].values()]
        self._digests = {}  # by string of a study
        self.digests = {str(path): digest(path) for path in (self.runner, self.study)}
        self.names = [self._name(point) for point in self.points]

    def _stamps(self):
        try:
            return [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, (self.runner, self.study))]
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}; a study (JSON) is expected, see scenarios/") from None

    def changed(self):
        """Whether study or runner are not those of the beginning any more."""
        try:
            return self._stamps() != self._seen
        except InputError:
            return True

    def _read(self, text):
        """{path: digest} of the files and folders that a string of a study may name."""
        if text not in self._digests:
            names = [f"{text}{end}" for end in ("", ".json", ".jsonl")]
            found = [folder / name for folder in self._folders for name in names] if text.strip("./") else []
            found += [Path(name).absolute() for name in names] if "/" in text.strip("/") else []
            beside = [folder / name for folder in (self.study.parent, Path.cwd()) for name in names]
            found += [path for path in beside if os.path.isfile(path)]
            self._digests[text] = {str(path): digest(path) for path in found if os.path.exists(path)}
        return self._digests[text]

    def _name(self, point):
        """Of everything that the point's result depends on, so that none of another study is ever taken for it.

        What --set says is in the point. Threads change no result.
        """
        files = {}
        for text in strings(point["study"]):
            files |= self._read(text)
        content = {
            "format": FORMAT,
            "runner": self.digests[str(self.runner)],
            "options": [option for option in self.options if not option.startswith(("--threads=", "--set="))],
            "point": point,
            "files": files,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    def command_of(self, number):
        return [*self.command, f"--point={number}"]
