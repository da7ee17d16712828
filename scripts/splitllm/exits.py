# SPDX-License-Identifier: GPL-2.0-only
"""Early exits: their files, what they compute, and how well their confidence is calibrated.

For the state h after layer L, the residual stream before any norm, an exit computes

    y = rms(h) * input_norm        a = h + up @ silu(down @ y)        logits = E @ (rms(a) * norm)

with the model's tied embedding E and rms(x) = x / sqrt(mean(x^2) + eps). Its confidence is max softmax(logits). With
up = 0 and norm = the model's final norm it is the model's own norm and head, applied early. Layers count from 1.
"""

import json
from pathlib import Path

from splitllm.cli import InputError
from splitllm.files import load_json, whole_folder

PARTS = ("input_norm", "down", "up", "norm")
KEYS = ("model", "layers", "width", "made_by", "trained_on")
BINS = 10


def windows(tokens, length):
    """The pieces in which a text is seen: `length` inputs and the token after the last, so that they share one token.

    Every token but the first is so predicted exactly once; the last window may be shorter."""
    return [tokens[start : start + length + 1] for start in range(0, len(tokens) - 1, length)]


def calibration_error(confidence, right, bins=BINS):
    """Expected calibration error: over equal bins of confidence, (low, high], the share of rows in the bin times the
    distance between their mean confidence and the share of them that is right."""
    import numpy as np

    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = [abs((confidence[which == bin] - right[which == bin]).sum()) for bin in range(bins)]
    return float(sum(gaps) / len(confidence))


def shapes(hidden, width):
    return {"input_norm": (hidden,), "down": (width, hidden), "up": (hidden, width), "norm": (hidden,)}


def save(folder, description, tensors):
    """Writes exits.json and exits.safetensors, fp16. tensors: {layer: {part: array}}."""
    import numpy as np
    from safetensors.numpy import save as save_tensors

    named = {}
    for layer, parts in tensors.items():
        for part in PARTS:
            value = np.asarray(parts[part], dtype=np.float32)
            if not np.all(np.abs(value) <= np.finfo(np.float16).max):
                raise InputError(f"exit.{layer}.{part}.weight: a value that fp16 does not hold")
            named[f"exit.{layer}.{part}.weight"] = value.astype(np.float16)
    with whole_folder(folder) as out:
        text = json.dumps({key: description[key] for key in KEYS}, indent=2)
        (out / "exits.json").write_text(text + "\n", encoding="utf-8")
        (out / "exits.safetensors").write_bytes(save_tensors(named, {"format": "pt"}))


def load(folder):
    """(description, {layer: {part: fp32 array}}) of a folder that save() wrote; every shape is checked."""
    from safetensors.numpy import load_file

    description = load_json(Path(folder) / "exits.json")
    path = Path(folder) / "exits.safetensors"
    if sorted(description) != sorted(KEYS):
        raise InputError(f"{folder}/exits.json: the keys {', '.join(KEYS)} are expected, and no others")
    try:
        tensors = load_file(str(path))
    except Exception as error:  # the library raises several kinds
        raise InputError(f"{path}: not a safetensors file: {error}") from None
    out, hidden = {}, None
    for layer in description["layers"]:
        out[layer] = {}
        for part in PARTS:
            name = f"exit.{layer}.{part}.weight"
            if name not in tensors:
                raise InputError(f"{path}: no tensor {name}")
            hidden = len(tensors[name]) if hidden is None else hidden  # input_norm comes first
            if tensors[name].shape != shapes(hidden, description["width"])[part]:
                raise InputError(f"{path}: {name} is {tensors[name].shape}")
            out[layer][part] = tensors[name].astype("float32")
    return description, out
