# SPDX-License-Identifier: GPL-2.0-only
"""Side networks: their files, and what their gate is worth.

A side network is local to a position. From the states f_1 .. f_L of that position after every layer it computes, with
rms(x) = x / sqrt(mean(x^2) + eps) and the model's eps,

    h = 0;  for l = 1 .. L:  h = h + down_l rms(f_l);  h = h + outer_l silu(inner_l rms(h))        g = up rms(h)

Where the gate is open the model's last state f_L becomes f_L + g (combination "sum") or g ("alone"); where it is closed
it stays f_L. The gate decides by z = weight rms(f_L) + bias: index 0 is closed, 1 is open, softmax(z)[1] the
probability of open. Layers count from 1.
"""

import json
from pathlib import Path

import numpy as np

from splitllm.cli import InputError
from splitllm.files import load_json, whole_folder

KEYS = ("model", "width", "inner", "combination", "made_by", "trained_on")
COMBINATIONS = ("sum", "alone")
PER_LAYER = ("down", "inner", "outer")
BUDGETS = (0.2, 0.4, 0.6, 0.8)  # shares of tokens with an open gate


def names(layers):
    """{name in the file: (part, layer or None)}; stacked parts have their layer, from 1, in the name."""
    out = {f"side.{layer}.{part}": (part, layer) for layer in range(1, layers + 1) for part in PER_LAYER}
    return out | {name: (name, None) for name in ("up", "gate.weight", "gate.bias")}


def shape_of(part, hidden, width, inner):
    return {
        "down": (width, hidden), "inner": (inner, width), "outer": (width, inner), "up": (hidden, width),
        "gate.weight": (2, hidden), "gate.bias": (2,),
    }[part]  # fmt: skip


def rounded(parts):
    """The tensors as the file has them: fp16."""
    out = {}
    for part, value in parts.items():
        value = np.asarray(value, dtype=np.float32)
        if not np.all(np.abs(value) <= np.finfo(np.float16).max):
            raise InputError(f"{part}: a value that fp16 does not hold")
        out[part] = value.astype(np.float16)
    return out


def save(folder, description, parts):
    """Writes side.json and side.safetensors, fp16. parts: {part: array}, those of all layers stacked."""
    from safetensors.numpy import save as save_tensors

    half = rounded(parts)
    named = {
        name: np.ascontiguousarray(half[part] if layer is None else half[part][layer - 1])
        for name, (part, layer) in names(len(half["down"])).items()
    }
    with whole_folder(folder) as out:
        text = json.dumps({key: description[key] for key in KEYS}, indent=2)
        (out / "side.json").write_text(text + "\n", encoding="utf-8")
        (out / "side.safetensors").write_bytes(save_tensors(named, {"format": "pt"}))


def load(folder):
    """(description, {part: fp32 array}) of a folder that save() wrote; every shape is checked."""
    from safetensors.numpy import load_file

    description = load_json(Path(folder) / "side.json")
    path = Path(folder) / "side.safetensors"
    if sorted(description) != sorted(KEYS):
        raise InputError(f"{folder}/side.json: the keys {', '.join(KEYS)} are expected, and no others")
    if description["combination"] not in COMBINATIONS:
        raise InputError(f"{folder}/side.json: combination: one of {', '.join(COMBINATIONS)} is expected")
    try:
        tensors = load_file(str(path))
    except Exception as error:  # the library raises several kinds
        raise InputError(f"{path}: not a safetensors file: {error}") from None
    layers = sum(name.endswith(".down") for name in tensors)
    expected = names(layers)
    if sorted(tensors) != sorted(expected):
        raise InputError(f"{path}: side.L.down, .inner and .outer of every layer, up and the gate are expected")
    hidden = len(tensors["up"])
    stacked = {}
    for name, (part, _) in expected.items():
        if tensors[name].shape != shape_of(part, hidden, description["width"], description["inner"]):
            raise InputError(f"{path}: {name} is {tensors[name].shape}")
        stacked.setdefault(part, []).append(tensors[name].astype(np.float32))
    return description, {part: np.stack(v) if part in PER_LAYER else v[0] for part, v in stacked.items()}


def folds(questions, count):
    """A fold for each question, so that every fact is asked in every fold but in other words.

    Questions with one answer are dealt out in the order of their text, which puts phrasings together. What is common
    knowledge is dealt out whole, answer by answer: there it is new subjects that count."""
    same = {}
    for number, question in enumerate(questions):
        same.setdefault(tuple(question["answer"]), []).append(number)
    out, commons = [0] * len(questions), 0
    for numbers in same.values():
        numbers.sort(key=lambda number: questions[number]["text"])
        if questions[numbers[0]]["group"] == "common":
            for number in numbers:
                out[number] = commons % count
            commons += 1
            continue
        for rank, number in enumerate(numbers):
            out[number] = rank * count // len(numbers)
    return np.array(out)


class Outcomes:
    """What the right next tokens cost with the gate closed and open, one entry a token of an answer.

    closed, open: negative log-likelihoods in nats; closed_right, open_right: is it the likeliest token; question: its
    number; score: by how much the gate prefers open, z[1] - z[0]."""

    def __init__(self, closed, open, closed_right, open_right, question, score=None):
        self.closed, self.open = np.asarray(closed, np.float64), np.asarray(open, np.float64)
        self.closed_right, self.open_right = np.asarray(closed_right, bool), np.asarray(open_right, bool)
        self.question = np.asarray(question)
        self.score = None if score is None else np.asarray(score, np.float64)

    @property
    def benefit(self):
        return self.closed - self.open

    def with_score(self, score):
        return Outcomes(self.closed, self.open, self.closed_right, self.open_right, self.question, score)

    def part(self, which):
        score = None if self.score is None else self.score[which]
        return Outcomes(
            self.closed[which], self.open[which], self.closed_right[which], self.open_right[which],
            self.question[which], score,
        )  # fmt: skip

    def figures(self, opened):
        """{usage, nll, token_accuracy, exact_match} where the gate is open at the tokens `opened`."""
        per_token = self.per_token(opened)
        return {"usage": float(np.mean(opened)), **{name: means(*columns) for name, columns in per_token.items()}}

    def per_token(self, opened):
        """{figure: (sums by question, counts by question)}: a figure is the one's sum over the other's."""
        _, number = np.unique(self.question, return_inverse=True)
        right = np.where(opened, self.open_right, self.closed_right)
        nll = np.where(opened, self.open, self.closed)
        tokens = np.bincount(number)
        hits = np.bincount(number, right)
        exact = (hits == tokens).astype(float)
        return {
            "nll": (np.bincount(number, nll), tokens),
            "token_accuracy": (hits, tokens),
            "exact_match": (exact, np.ones_like(exact)),
        }

    def best(self, order, share):
        """Is a token among the share with the highest `order`?"""
        out = np.zeros(len(order), bool)
        out[np.argsort(-order, kind="stable")[: round(share * len(order))]] = True
        return out


def means(sums, counts):
    return float(sums.sum() / counts.sum())


def interval(sums, counts, seed=1, draws=2000):
    """The bootstrap's 95 % interval over questions of a figure."""
    drawn = np.random.default_rng(seed).integers(0, len(sums), (draws, len(sums)))
    values = sums[drawn].sum(1) / counts[drawn].sum(1)
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]


def budget_table(outcomes, seed=1, draws=20):
    """[{budget, order, nll, nll_interval, exact_match, ...}]: the same share of open gates, chosen by the gate, at
    random (the mean of some draws) and by the benefit itself; nll_saved is the difference to random, question by
    question."""
    generator = np.random.default_rng(seed)
    orders = {
        "random": [generator.random(len(outcomes.closed)) for _ in range(draws)],
        "gate": [outcomes.score],
        "oracle": [outcomes.benefit],
    }
    table = []
    for budget in BUDGETS:
        sums = {}
        for name, drawn in orders.items():
            runs = [outcomes.per_token(outcomes.best(order, budget)) for order in drawn]
            row = {"budget": budget, "order": name}
            for figure in ("nll", "exact_match"):
                sums[name, figure] = sum(run[figure][0] for run in runs) / len(runs)
                counts = runs[0][figure][1]
                row |= {figure: means(sums[name, figure], counts)}
                row |= {f"{figure}_interval": interval(sums[name, figure], counts, seed)}
            if name != "random":
                tokens = runs[0]["nll"][1]
                saved = sums["random", "nll"] - sums[name, "nll"]
                row |= {"nll_saved": means(saved, tokens), "nll_saved_interval": interval(saved, tokens, seed)}
            table.append(row)
    return table
