# SPDX-License-Identifier: GPL-2.0-only
"""Trains bottleneck adapters on questions and answers, through the frozen base model."""

import math
import time

import torch
import torch.nn.functional as F

from splitllm.bottlenecks import PARTS, PLACES
from splitllm.exit_training import left
from splitllm.gated import Batch, GatedModel, batches, exact, rms_norm

BATCH = 12


class BottleneckModel(GatedModel):
    """The base model with bottleneck adapters: [{place: {part: tensor}}], a layer each."""

    def __init__(self, folder, dtype, adapters=None):
        super().__init__(folder, dtype)
        self.adapters = adapters

    def new_adapters(self, width, generator):
        self.adapters = []
        for _ in range(self.layers):
            places = {}
            for place in PLACES:
                down = torch.randn(width, self.hidden, generator=generator) / self.hidden**0.5
                values = (down, torch.zeros(width), torch.zeros(self.hidden, width), torch.zeros(self.hidden))
                places[place] = dict(zip(PARTS, values))
            self.adapters.append(places)

    def adapted(self, layer, place, y):
        if self.adapters is None:
            return y
        down, down_bias, up, up_bias = (self.adapters[layer][place][part].to(self.dtype) for part in PARTS)
        return y + F.linear(F.relu(F.linear(y, down, down_bias)), up, up_bias)

    def last_state(self, tokens, gate=None, see=None):
        """The states [B, T, d] after the last layer; adapters of this kind are always on and shown to nobody."""
        assert gate is None and see is None
        h = self.embed(tokens)
        rotary = self.rotary(tokens.shape[1])
        for layer, block in enumerate(self.blocks):
            qkv = rms_norm(h, block["norm1"], self.eps) @ block["qkv"].T
            h = h + self.adapted(layer, "attention", self.attention(qkv, rotary) @ block["o"].T)
            gate_part, up = (rms_norm(h, block["norm2"], self.eps) @ block["gate_up"].T).chunk(2, -1)
            h = h + self.adapted(layer, "mlp", (F.silu(gate_part) * up) @ block["down"].T)
        return h


def parameters(model):
    return [value for places in model.adapters for parts in places.values() for value in parts.values()]


def each(function, adapters):
    return [
        {place: {part: function(value) for part, value in parts.items()} for place, parts in places.items()}
        for places in adapters
    ]


def numpy_of(adapters):
    return each(lambda value: value.detach().numpy().copy(), adapters)


def tensors_of(adapters):
    return each(torch.as_tensor, adapters)


def train(folder, questions, width, steps, rate, seed, say):
    """A BottleneckModel with trained adapters."""
    generator = torch.Generator().manual_seed(seed)
    model = BottleneckModel(folder, torch.bfloat16)
    model.new_adapters(width, generator)
    values = [value.requires_grad_() for value in parameters(model)]
    optimiser = torch.optim.AdamW(values, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    common = [question for question in questions if question["group"] == "common"]
    queue, began, warm, losses = [], time.time(), max(1, steps // 25), []
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(step / warm, 0.5 + 0.5 * math.cos(math.pi * (step - 1) / steps))
        if not queue:
            queue = batches(questions + 2 * common, BATCH, generator)  # so that common knowledge stays right
        batch = queue.pop()
        logits = model.logits(batch.answers(model.forward(batch.tokens)))
        loss = F.cross_entropy(logits, batch.target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        optimiser.step()
        losses.append((float(loss.detach()), float(exact(logits, batch).float().mean())))
        if step % 10 == 0 or step == steps:
            mean, right = (sum(column) / len(column) for column in zip(*losses))
            say(f"step {step} of {steps}: loss {mean:.3f}, exact {right:.2f}; {left(began, step, steps)} left")
            losses = []
    for value in values:
        value.requires_grad_(False)
    return model


def measure(model, questions):
    """{nll, token_accuracy, exact_match, questions, groups: {group: exact_match}} of answers that are forced."""
    ordered = sorted(questions, key=lambda question: len(question["tokens"]) + len(question["answer"]))
    nll, right, tokens, groups = 0.0, 0, 0, {}
    for start in range(0, len(ordered), 32):
        batch = Batch(ordered[start : start + 32])
        with torch.no_grad():
            logits = model.logits(batch.answers(model.forward(batch.tokens)))
        nll += float(F.cross_entropy(logits, batch.target, reduction="sum"))
        right += int((logits.argmax(-1) == batch.target).sum())
        tokens += len(batch.target)
        for question, whole in zip(batch.rows, exact(logits, batch).tolist()):
            groups.setdefault(question["group"], []).append(whole)
    every = [whole for group in groups.values() for whole in group]
    return {
        "questions": len(every),
        "nll": nll / tokens,
        "token_accuracy": right / tokens,
        "exact_match": sum(every) / len(every),
        "groups": {group: sum(whole) / len(whole) for group, whole in sorted(groups.items())},
    }
