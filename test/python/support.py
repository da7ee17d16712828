# SPDX-License-Identifier: GPL-2.0-only
"""What the Python tests share. Run them all: build/venv/bin/python -m unittest discover -s test/python"""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

RUNNER = Path(os.environ.get("SPLITLLM_RUNNER", ROOT / "build/release/split-llm-run"))
SMOLLM2 = ROOT / "models" / "smollm2-135m-instruct"


class FolderTest(unittest.TestCase):
    """A test with an empty folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def run_script(self, name, *arguments):
        return subprocess.run(
            [sys.executable, ROOT / "scripts" / name, *arguments], capture_output=True, text=True, check=False
        )
