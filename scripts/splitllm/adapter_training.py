# SPDX-License-Identifier: GPL-2.0-only
"""Trains a LoRA adapter on questions and answers, if asked with updates of random (layer, token) cells left out."""

import json
import math
import time

import torch
import torch.nn.functional as F

from splitllm.gated import GatedModel, batches, exact

RANK, ALPHA = 16, 32
BATCH = 12
KEEP = (0.15, 1.0)


def read_rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def random_gates(shape, generator, keep=KEEP):
    """Gates [B, T, L]: per sequence a keep ratio, and by chance single cells, whole layers or whole tokens kept.

    The first layer stays mostly off, since it never offloads under TLC.
    """
    count, length, layers = shape
    ratio = keep[0] + (keep[1] - keep[0]) * torch.rand(count, 1, 1, generator=generator)
    kind = torch.rand(count, 1, 1, generator=generator)
    cell = torch.rand(count, length, layers, generator=generator)
    layer = torch.rand(count, 1, layers, generator=generator).expand(shape)
    token = torch.rand(count, length, 1, generator=generator).expand(shape)
    draw = torch.where(kind < 0.6, cell, torch.where(kind < 0.8, layer, token))
    gates = (draw < ratio).float()
    gates[:, :, :1] *= (torch.rand(count, 1, 1, generator=generator) < 0.1).float()
    return gates


def train(model_folder, rows, steps, rate, seed, robust, start=None, say=print, keep=None):
    """A GatedModel with the trained adapter. `start`: an adapter's folder to go on from.

    keep: called with the model every 50 steps."""
    generator = torch.Generator().manual_seed(seed)
    model = GatedModel(model_folder, torch.bfloat16)
    if start:
        model.load_adapter(start)
    else:
        model.new_adapter(RANK, ALPHA, generator)
    factors = [factor.requires_grad_() for layer in model.lora for factor in layer]
    optimiser = torch.optim.AdamW(factors, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    common = [row for row in rows if row["group"] == "common"]
    queue, began, warm = [], time.time(), max(1, steps // 25)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        if not queue:
            queue = batches(rows + 2 * common, BATCH, generator)  # so that common knowledge stays right
        batch = queue.pop()
        shape = (*batch.tokens.shape, model.layers)
        gates = random_gates(shape, generator) if robust else torch.ones(shape)
        logits = model.logits(batch.answers(model.forward(batch.tokens, gates)))
        loss = F.cross_entropy(logits, batch.target)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(factors, 1.0)
        optimiser.step()
        losses.append((float(loss.detach()), float(exact(logits, batch).float().mean())))
        if (step + 1) % 10 == 0:
            mean, right = (sum(column) / len(column) for column in zip(*losses))
            rest = (time.time() - began) / (step + 1) * (steps - step - 1)
            say(f"step {step + 1} of {steps}: loss {mean:.3f}, exact {right:.2f}; {rest:.0f} s left")
            losses = []
        if keep and (step + 1) % 50 == 0:
            keep(model)
    for factor in factors:
        factor.requires_grad_(False)
    return model
