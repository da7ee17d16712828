# SPDX-License-Identifier: GPL-2.0-only
"""A LLaMA model with a LoRA adapter whose update can be switched off per (layer, token), in torch.

The update of cell (layer, token) is gate * scaling * B A x on Q, K and V before the rotary embedding; what a gate does
to K and V holds for all later tokens, as in a real run. Training, labels and evaluation all use this one place.
Batches are padded on the right, where causal attention never looks. Layers count from 0 here and from 1 in words.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from splitllm.cli import InputError
from splitllm.files import load_json, whole_folder

TARGETS = ("q_proj", "k_proj", "v_proj")


def rms_norm(x, weight, eps):
    y = x.float()
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
    return weight * y.to(x.dtype)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos + turned * sin


class GatedModel:
    """The frozen base model; `lora` holds the adapter's factors, A [3r, d] and one B per target, a layer each."""

    def __init__(self, folder, dtype=torch.float32):
        config = load_json(f"{folder}/config.json")
        if config.get("model_type") != "llama" or config.get("rope_scaling"):
            raise InputError(f"{folder}/config.json: a LLaMA model without rope_scaling is expected")
        weights = load_file(str(Path(folder) / "model.safetensors"))
        self.dtype = dtype
        self.layers = config["num_hidden_layers"]
        self.hidden = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config.get("num_key_value_heads") or self.heads
        self.head_dim = config.get("head_dim") or self.hidden // self.heads
        self.query, self.kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.widths = (self.query, self.kv, self.kv)
        self.eps = config["rms_norm_eps"]
        self.theta = config["rope_theta"]
        get = lambda name: weights[name].to(dtype)
        self.embedding = get("model.embed_tokens.weight")
        self.head = self.embedding if config.get("tie_word_embeddings") else get("lm_head.weight")
        self.norm = get("model.norm.weight")
        self.blocks = []
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            self.blocks.append(
                {
                    "norm1": get(at + "input_layernorm.weight"),
                    "qkv": torch.cat([get(f"{at}self_attn.{t}.weight") for t in TARGETS]),
                    "o": get(at + "self_attn.o_proj.weight"),
                    "norm2": get(at + "post_attention_layernorm.weight"),
                    "gate_up": torch.cat([get(at + "mlp.gate_proj.weight"), get(at + "mlp.up_proj.weight")]),
                    "down": get(at + "mlp.down_proj.weight"),
                }
            )
        self.lora, self.scaling = None, 0.0

    # ---- adapter

    def new_adapter(self, rank, alpha, generator):
        self.scaling = alpha / rank
        self.lora = []
        for _ in range(self.layers):
            a = (torch.rand(3 * rank, self.hidden, generator=generator) * 2 - 1) * (3 / self.hidden) ** 0.5
            self.lora.append([a, *(torch.zeros(width, rank) for width in self.widths)])

    def load_adapter(self, folder):
        config = load_json(f"{folder}/adapter_config.json")
        tensors = load_file(str(Path(folder) / "adapter_model.safetensors"))
        self.scaling = config["lora_alpha"] / config["r"]
        self.lora = []
        for layer in range(self.layers):
            at = f"base_model.model.model.layers.{layer}.self_attn."
            part = lambda target, factor: tensors[f"{at}{target}.lora_{factor}.weight"].float()
            self.lora.append([torch.cat([part(t, "A") for t in TARGETS]), *(part(t, "B") for t in TARGETS)])

    def save_adapter(self, folder):
        """PEFT's folder format, in bf16."""
        from safetensors.torch import save_file

        rank = self.lora[0][1].shape[1]
        tensors = {}
        for layer, (a, *bs) in enumerate(self.lora):
            for number, (target, b) in enumerate(zip(TARGETS, bs)):
                at = f"base_model.model.model.layers.{layer}.self_attn.{target}."
                tensors[at + "lora_A.weight"] = a.detach()[number * rank : (number + 1) * rank].bfloat16().contiguous()
                tensors[at + "lora_B.weight"] = b.detach().bfloat16().contiguous()
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": None,
            "r": rank,
            "lora_alpha": int(round(self.scaling * rank)),
            "use_rslora": False,
            "target_modules": list(TARGETS),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        }
        with whole_folder(folder) as out:
            (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            save_file(tensors, str(out / "adapter_model.safetensors"), {"format": "pt"})

    def delta(self, layer, x):
        """[D_Q, D_K, D_V] of the normed inputs x, scaling included."""
        a, *bs = (factor.to(self.dtype) for factor in self.lora[layer])
        inner = x @ a.T
        rank = bs[0].shape[1]
        parts = [inner[..., i * rank : (i + 1) * rank] @ b.T for i, b in enumerate(bs)]
        return self.scaling * torch.cat(parts, -1)

    # ---- forward

    def embed(self, tokens):
        return self.embedding[tokens]

    def rotary(self, length):
        frequency = self.theta ** (-torch.arange(0, self.head_dim, 2).float() / self.head_dim)
        angle = torch.outer(torch.arange(length).float(), frequency)
        angle = torch.cat((angle, angle), -1)
        return angle.cos().to(self.dtype), angle.sin().to(self.dtype)

    def attention(self, qkv, rotary):
        """softmax(QK^T)V of all heads, side by side, before the output projection."""
        batch, length, _ = qkv.shape
        q, k, v = qkv.split(self.widths, -1)
        shape = lambda x, heads: x.view(batch, length, heads, self.head_dim).transpose(1, 2)
        q, k = rotate(shape(q, self.heads), *rotary), rotate(shape(k, self.kv_heads), *rotary)
        repeat = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeat, 1), shape(v, self.kv_heads).repeat_interleave(repeat, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).reshape(batch, length, self.query)

    def forward(self, tokens, gate=None, see=None):
        """The final normed states [B, T, d] of tokens [B, T]; gate and see as in last_state."""
        return rms_norm(self.last_state(tokens, gate, see), self.norm, self.eps)

    def last_state(self, tokens, gate=None, see=None):
        """The states [B, T, d] after the last layer, before the final norm.

        gate: None (no adapter), a tensor [B, T, L], or a function of (layer, h, base, delta) that returns [B, T].
        see: called with (layer, h, base, delta or None, attention output).
        """
        h = self.embed(tokens)
        rotary = self.rotary(tokens.shape[1])
        for layer, block in enumerate(self.blocks):
            x = rms_norm(h, block["norm1"], self.eps)
            base = qkv = x @ block["qkv"].T
            delta = None
            if gate is not None:
                delta = self.delta(layer, x)
                g = gate(layer, h, base, delta) if callable(gate) else gate[:, :, layer]
                qkv = base + g.to(delta.dtype)[..., None] * delta
            attention = self.attention(qkv, rotary)
            if see is not None:
                see(layer, h, base, delta, attention)
            h = h + attention @ block["o"].T
            gate_part, up = (rms_norm(h, block["norm2"], self.eps) @ block["gate_up"].T).chunk(2, -1)
            h = h + (F.silu(gate_part) * up) @ block["down"].T
        return h

    def logits(self, states):
        return (states @ self.head.T).float()


# ---- questions


class Batch:
    """Rows with "tokens" and "answer", padded on the right; the last token of an answer is never an input."""

    def __init__(self, rows):
        self.rows = rows
        sequences = [row["tokens"] + row["answer"] for row in rows]
        width = max(map(len, sequences)) - 1
        self.tokens = torch.tensor([(s[:-1] + [0] * width)[:width] for s in sequences])
        self.valid = torch.tensor([[i < len(s) - 1 for i in range(width)] for s in sequences])
        where, target = [], []
        for number, (row, sequence) in enumerate(zip(rows, sequences)):
            for position in range(len(row["tokens"]) - 1, len(sequence) - 1):
                where.append((number, position))
                target.append(sequence[position + 1])
        self.row, self.position = torch.tensor(where).T
        self.target = torch.tensor(target)

    def answers(self, states):
        """The states that predict the answer's tokens, [A, d]."""
        return states[self.row, self.position]


def batches(rows, size, generator=None):
    """Batches of rows of similar length, in random order if a generator is given."""
    if generator is not None:
        rows = [rows[i] for i in torch.randperm(len(rows), generator=generator)]
    pool = 8 * size  # sorted within pools, so that little is padding
    groups = []
    for start in range(0, len(rows), pool):
        part = sorted(rows[start : start + pool], key=lambda row: len(row["tokens"]) + len(row["answer"]))
        groups += [part[i : i + size] for i in range(0, len(part), size)]
    if generator is not None:
        groups = [groups[i] for i in torch.randperm(len(groups), generator=generator)]
    return [Batch(group) for group in groups]


def exact(logits, batch):
    """Per row: would greedy decoding give the whole answer? (It does where every forced prediction is right.)"""
    right = logits.argmax(-1) == batch.target
    out = torch.ones(len(batch.rows), dtype=torch.bool)
    out[batch.row[~right]] = False
    return out
