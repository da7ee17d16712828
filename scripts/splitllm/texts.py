# SPDX-License-Identifier: GPL-2.0-only
"""The texts that a study's users got."""

import copy
import csv
import json
import re
from pathlib import Path

from splitllm.cli import InputError
from splitllm.files import load_json, write_text
from splitllm.study import Study, name_objects
from splitllm.tokens import load_tokenizer

# what tells one generated text from another, of which a results folder has at least some
IDENTITY = ("point", "repetition", "user", "session", "request")
SAMPLE = 160  # characters shown of a text


def generated(file):
    """{identity: token ids in order} of a tokens.csv."""
    texts = {}
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            columns = [name for name in IDENTITY if name in (rows.fieldnames or ())]
            if not {"point", "request", "position", "token"} <= set(rows.fieldnames or ()):
                raise InputError(f"{file}: columns point, request, position and token are expected")
            for row in rows:
                identity = tuple((name, int(row[name])) for name in columns)
                texts.setdefault(identity, []).append((int(row["position"]), int(row["token"])))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file; a folder that a study wrote is expected") from None
    except (TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{file}: not a table of tokens: {error}") from None
    return {identity: [token for _, token in sorted(rows)] for identity, rows in texts.items()}


def asked(file):
    """{(point, repetition, request): id of the prompt} of a requests.csv; nothing where there is none."""
    try:
        with open(file, newline="", encoding="utf-8") as stream:
            return {
                (int(row["point"]), int(row["repetition"]), int(row["request"])): row["prompt"]
                for row in csv.DictReader(stream)
            }
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{file}: not a table of requests: {error}") from None


def one_line(text):
    text = re.sub(r"<\|im_start\|>\w+|<\|im_end\|>", " ", text)  # ChatML's marks
    text = " ".join(text.split())
    return text if len(text) <= SAMPLE else text[: SAMPLE - 3] + "..."


def pieces(tokenizer, tokens):
    """The text of each token by itself."""
    return [tokenizer.decode([token], skip_special_tokens=False) for token in tokens]


def decode(folder, arguments):
    """Writes FOLDER/texts.jsonl and prints the first text of every point, equal texts once."""
    folder = Path(folder)
    texts = generated(folder / "tokens.csv")
    prompt_of = asked(folder / "requests.csv")
    points = load_json(folder / "summary.json").get("points", [])
    titled = copy.deepcopy(points)
    name_objects(titled)
    tokenizers, samples, lines = {}, {}, []

    def tokenizer_of(model):
        if model not in tokenizers:
            there = model is not None and (model / "tokenizer.json").is_file()
            tokenizers[model] = load_tokenizer(model) if there else None
        return tokenizers[model]

    settings = {}
    for number, point in enumerate(points):
        study = Study(arguments.study, arguments.set, point["set"], arguments.models) if arguments.study else None
        model = Path(arguments.model) if arguments.model else study and study.model()
        settings[number] = (titled[number]["set"], tokenizer_of(model), study.prompts() if study else {})
    if not any(tokenizer for _, tokenizer, _ in settings.values()):
        print("No texts: there is no tokenizer (shape mode, a replay that names no model, or no tokenizer.json in its folder).")
        return
    for identity, tokens in texts.items():
        row = dict(identity)
        swept, tokenizer, prompts = settings.get(row["point"], ({}, None, {}))
        if tokenizer is None:
            continue
        if prompts:
            by_order = list(prompts)[row["request"] % len(prompts)]
            name = prompt_of.get((row["point"], row.get("repetition", 0), row["request"]), by_order)
            row["prompt_text"], asked_tokens = prompts.get(name, ("", []))
            row["prompt_pieces"] = pieces(tokenizer, asked_tokens)
        row["text"] = tokenizer.decode(tokens, skip_special_tokens=False)
        row["pieces"] = pieces(tokenizer, tokens)
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        samples.setdefault(row["point"], (", ".join(f"{k.rsplit('.', 1)[-1]} = {v}" for k, v in swept.items()), row))
    write_text(folder / "texts.jsonl", "".join(lines))

    titles_of = {}
    for title, row in samples.values():
        titles_of.setdefault((row.get("prompt_text", ""), row["text"]), []).append(title)
    for (prompt, text), titles in titles_of.items():
        if prompt:
            print(f"Prompt: {one_line(prompt)}")
        others = f" (and {len(titles) - 1} more points)" if len(titles) > 1 else ""
        print(f"Answer: {one_line(text)}" + (f"\n    with {titles[0]}{others}" if titles[0] else ""))
