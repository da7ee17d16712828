# SPDX-License-Identifier: GPL-2.0-only
"""What was decided about single tokens: by layer (decisions.csv), by early exits (exits.csv), by a gate (gates.csv)."""

import csv
import json

from splitllm.cli import InputError
from splitllm.plots_decisions import read_decisions
from splitllm.plots_decisions import mixed_points as mixed

MOST_CELLS = 1_500_000  # of maps in a page, a byte each
MOST_ANSWERS = 600  # whose tokens are shown by where they came from
SOURCES = ("exit", "cloud", "fallback")


def read_pieces(folder):
    """{(point, request): (texts of the prompt's tokens, of the answer's)} of the first repetition."""
    pieces = {}
    try:
        for line in (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row.get("repetition", 0) == 0:
                pieces[row["point"], row["request"]] = (row.get("prompt_pieces", []), row.get("pieces", []))
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'texts.jsonl'}: not texts of a study: {error}") from None
    return pieces


def read_rows(path, columns):
    """The rows of a table, of the first repetition, as tuples of texts."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            places = [header.index(name) for name in columns]
            repetition = header.index("repetition")
            return [tuple(line[place] for place in places) for line in reader if line[repetition] == "0"]
    except FileNotFoundError:
        return []
    except (IndexError, ValueError) as error:
        raise InputError(f"{path}: not a table with the columns {', '.join(columns)}: {error}") from None


def map_of(cells):
    """Cells {(position, layer): state} as a text of digits for each layer, from layer 1, a blank where nothing was decided."""
    positions = 1 + max(position for position, _ in cells)
    layers = max(layer for _, layer in cells)
    text = lambda position, layer: str(cells[position, layer]) if (position, layer) in cells else " "  # noqa: E731
    return ["".join(text(position, layer) for position in range(positions)) for layer in range(1, layers + 1)]


def maps(folder, points):
    """Maps of layer by token where a policy treats cells differently: the first requests of each such point, as many as
    fit; 0 stays at the edge, 1 was offloaded and nothing came back, 2 came back."""
    decisions = read_decisions(folder / "decisions.csv")
    chosen = {point["number"] for point in mixed(points, decisions, most=None)}
    if not chosen:
        return []
    cells = {}
    columns = ("point", "request", "position", "layer", "offloaded", "returned")
    for row in read_rows(folder / "decisions.csv", columns):
        point, request, position, layer, offloaded, returned = (int(text) for text in row)
        if point in chosen:
            cells.setdefault((request, point), {})[position, layer] = offloaded + returned
    pieces = read_pieces(folder)
    found, size = [], 0
    for request, point in sorted(cells):  # all points' first request, then their second, ...
        size += len(cells[request, point])
        if found and size > MOST_CELLS:
            break
        prompt, answer = pieces.get((point, request), ([], []))
        rows = map_of(cells[request, point])
        tokens = [*prompt, *answer][: len(rows[0])]
        found.append({"point": point, "request": request, "cells": rows, "tokens": tokens, "prompt": len(prompt)})
    return found


def sources(folder, points):
    """Answers that have a text, by where their tokens came from: an exit, the cloud, the last exit for want of the cloud; or what a gate
    said."""
    answers = {}
    for point, request, position, source, layer, confidence in read_rows(
        folder / "exits.csv", ("point", "request", "position", "source", "layer", "confidence")
    ):
        if source not in SOURCES:
            raise InputError(f"{folder / 'exits.csv'}: source is {source!r}; accepted: {', '.join(SOURCES)}")
        name = {"exit": f"exit after layer {layer}", "cloud": "cloud", "fallback": "last exit, cloud not reached"}[source]
        answers.setdefault((int(request), int(point)), {})[int(position)] = (name, confidence)
    for point, request, position, is_open, probability in read_rows(
        folder / "gates.csv", ("point", "request", "position", "open", "probability")
    ):
        name = "gate open: with the side network" if is_open == "1" else "gate closed: the model alone"
        answers.setdefault((int(request), int(point)), {})[int(position)] = (name, probability)
    pieces = read_pieces(folder)
    found = []
    for request, point in sorted(answers)[:MOST_ANSWERS]:
        prompt, answer = pieces.get((point, request), ([], []))
        marks = [mark for _, mark in sorted(answers[request, point].items())]
        if answer:  # shapes have no text
            found.append({"point": point, "request": request, "prompt": "".join(prompt), "tokens": answer, "marks": marks})
    return found
