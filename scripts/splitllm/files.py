# SPDX-License-Identifier: GPL-2.0-only
"""Files that appear whole or not at all, and bf16, which numpy does not have."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from splitllm.cli import InputError


@contextmanager
def whole_folder(target):
    """A temporary folder beside `target` that takes its place when the block ends without an error."""
    target = Path(target).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target}: is a file; a folder is written here")
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield work
        work.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_text(path, text):
    """Writes a file that is either the old or the new one at every moment."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def load_json(path):
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None


def to_bf16(array):
    """The bits of fp32 values rounded to bf16, half to even, as uint16. NaN stays NaN."""
    import numpy as np

    array = np.ascontiguousarray(array, dtype=np.float32)
    bits = array.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    rounded = rounded.astype(np.uint16)
    nan = np.isnan(array)
    if nan.any():
        rounded[nan] = 0x7FC0
    return rounded


def from_bf16(bits):
    """fp32 values of bf16 bits."""
    import numpy as np

    return (np.ascontiguousarray(bits, dtype=np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def save_bf16(tensors, path):
    """Writes a safetensors file of {name: uint16 array of bf16 bits}, which numpy cannot name to the library."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, bits in sorted(tensors.items()):
        header[name] = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [end, end + bits.nbytes]}
        end += bits.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)  # data on a cache line
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, bits in sorted(tensors.items()):
            file.write(bits.astype("<u2", copy=False).tobytes())
