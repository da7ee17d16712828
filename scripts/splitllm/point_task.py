# SPDX-License-Identifier: GPL-2.0-only
"""What a worker of a sweep does: it runs the runner on one point and hands back what that wrote.

Sent to the workers as it is, so it uses the standard library and Dask alone.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def threads_here():
    """The cores that each of this worker's threads can have."""
    from distributed import get_worker

    return max(1, len(os.sched_getaffinity(0)) // get_worker().state.nthreads)


def run_point(command, expected, folder, scratch=None):
    """Runs `command` with --out and --threads in `folder`.

    expected: {path: SHA-256} of files that must be the same here; scratch: where its temporary folder goes.
    Gives {"status", "output", "error", "files": {name: bytes}}; a negative status is a signal's.
    """
    for path, digest in expected.items():
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            found = error.strerror
        if found != digest:
            reason = f"{path} on this worker ({os.uname().nodename}) is not that of the sweep: {found}"
            return {"status": 2, "output": "", "error": reason, "files": {}}
    threads = [] if any(part.startswith("--threads=") for part in command) else [f"--threads={threads_here()}"]
    # A runner must not outlive a sweep that is killed. Where setpriv is missing it runs to its end and is forgotten.
    tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    with tempfile.TemporaryDirectory(prefix=".part-", dir=scratch) as temporary:
        out = Path(temporary) / "out"
        done = subprocess.run(
            [*tied, *command, f"--out={out}", *threads],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
        written = sorted(path for path in out.rglob("*") if path.is_file()) if done.returncode in (0, 1) else []
        files = {str(path.relative_to(out)): path.read_bytes() for path in written}
    return {"status": done.returncode, "output": done.stdout, "error": done.stderr, "files": files}
