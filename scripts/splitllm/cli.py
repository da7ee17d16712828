# SPDX-License-Identifier: GPL-2.0-only
"""How every Python script here starts and fails."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "venv"


class InputError(Exception):
    """Something the user gave cannot be used: one line with where, what is wrong and what would be accepted."""


def in_environment():
    """Continues in build/venv where it exists, unless the user runs an environment of their own."""
    python = VENV / "bin" / "python"
    if sys.prefix == sys.base_prefix and python.exists() and "SPLITLLM_IN_VENV" not in os.environ:
        os.environ["SPLITLLM_IN_VENV"] = "1"
        os.execv(python, [str(python), *sys.argv])


def run(main):
    """Runs main() and ends the process with its status; bad input is one line and status 2."""
    try:
        status = main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        status = 2
    except ModuleNotFoundError as error:
        print(
            f"{Path(sys.argv[0]).name}: the Python package {error.name} is missing; "
            f"run scripts/setup.sh once, or install it in the environment you run this with",
            file=sys.stderr,
        )
        status = 2
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
        status = 0
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
