# SPDX-License-Identifier: GPL-2.0-only
"""Bottleneck adapters (Houlsby et al., 2019): their files.

After the output projection of a layer's attention and after its MLP, before the residual, an adapter adds

    up relu(down y + down.bias) + up.bias

to what the block computed, y. Layers count from 1.
"""

import json
from pathlib import Path

import numpy as np

from splitllm.cli import InputError
from splitllm.files import load_json, whole_folder

KEYS = ("model", "width", "made_by", "trained_on")
PLACES = ("attention", "mlp")
PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")


def shape_of(part, hidden, width):
    shapes = ((width, hidden), (width,), (hidden, width), (hidden,))
    return dict(zip(PARTS, shapes))[part]


def name_of(layer, place, part):
    return f"layers.{layer}.{place}.{part}"


def save(folder, description, adapters):
    """Writes bottleneck.json and bottleneck.safetensors, fp16. adapters: [{place: {part: array}}], a layer each."""
    from safetensors.numpy import save as save_tensors

    named = {}
    for layer, places in enumerate(adapters, 1):
        for place in PLACES:
            for part in PARTS:
                value = np.asarray(places[place][part], dtype=np.float32)
                if not np.all(np.abs(value) <= np.finfo(np.float16).max):
                    raise InputError(f"{name_of(layer, place, part)}: a value that fp16 does not hold")
                named[name_of(layer, place, part)] = value.astype(np.float16)
    with whole_folder(folder) as out:
        text = json.dumps({key: description[key] for key in KEYS}, indent=2)
        (out / "bottleneck.json").write_text(text + "\n", encoding="utf-8")
        (out / "bottleneck.safetensors").write_bytes(save_tensors(named, {"format": "pt"}))


def load(folder):
    """(description, [{place: {part: fp32 array}}]) of a folder that save() wrote; every shape is checked."""
    from safetensors.numpy import load_file

    description = load_json(Path(folder) / "bottleneck.json")
    path = Path(folder) / "bottleneck.safetensors"
    if sorted(description) != sorted(KEYS):
        raise InputError(f"{folder}/bottleneck.json: the keys {', '.join(KEYS)} are expected, and no others")
    try:
        tensors = load_file(str(path))
    except Exception as error:  # the library raises several kinds
        raise InputError(f"{path}: not a safetensors file: {error}") from None
    layers = len(tensors) // (len(PLACES) * len(PARTS))
    expected = {
        name_of(layer, place, part): part for layer in range(1, layers + 1) for place in PLACES for part in PARTS
    }
    if not layers or sorted(tensors) != sorted(expected):
        raise InputError(f"{path}: adapters at attention and mlp of every layer are expected")
    hidden = len(tensors[name_of(1, "attention", "up.bias")])
    for name, part in expected.items():
        if tensors[name].shape != shape_of(part, hidden, description["width"]):
            raise InputError(f"{path}: {name} is {tensors[name].shape}")
    value = lambda *where: tensors[name_of(*where)].astype(np.float32)
    return description, [
        {place: {part: value(layer, place, part) for part in PARTS} for place in PLACES}
        for layer in range(1, layers + 1)
    ]
