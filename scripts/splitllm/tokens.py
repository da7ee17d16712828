# SPDX-License-Identifier: GPL-2.0-only
"""Text <-> token ids, with the tokenizer.json of a Hugging Face folder."""

from pathlib import Path

from splitllm.cli import InputError


def load_tokenizer(folder):
    from tokenizers import Tokenizer

    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise InputError(f"{file}: no such file; a folder with a tokenizer.json is expected")
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise InputError(f"{file}: not a tokenizer: {error}") from None
