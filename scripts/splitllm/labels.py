# SPDX-License-Identifier: GPL-2.0-only
"""What each (layer, token) cell's LoRA update is worth: the labels that calibrators learn, with their features.

Per cell, from the paper: AOD, RDA and VS of the attention's output between the base run and the adapted run. FLS per
answer token is the shift of the logits between the two. Beyond the paper, "kl": what the cell's gate is worth for the
output, as the derivative of -KL(full adapter || gated adapter), summed over the answer, at a random choice of gates;
one backward pass gives it for all cells.
"""

import time

import torch
import torch.nn.functional as F

from splitllm.calibrators import Statistics, update_features

LABELS = ("aod", "rda", "vs", "kl")


def metrics(base, full):
    """AOD, RDA, VS between attention outputs [..., n], on a new last axis."""
    base, full = base.float(), full.float()
    aod = (base - full).norm(dim=-1)
    rda = 1 - F.cosine_similarity(base, full, dim=-1)
    vs = full.var(-1, unbiased=False) / base.var(-1, unbiased=False).clamp(min=1e-30)
    return torch.stack((aod, rda, vs), -1)


def random_choice(shape, generator, keep=(0.2, 0.9)):
    """(sent, merged) [B, T, L]: cells computed on the device, and those of them that come back."""
    ratio = keep[0] + (keep[1] - keep[0]) * torch.rand(shape[0], 1, 1, generator=generator)
    back = 0.6 + 0.4 * torch.rand(shape[0], 1, 1, generator=generator)
    sent = (torch.rand(shape, generator=generator) < ratio).float()
    sent[:, :, 0] = 0
    return sent, sent * (torch.rand(shape, generator=generator) < back).float()


def full_adapter(model, batch):
    return model.logits(batch.answers(model.forward(batch.tokens, torch.ones(*batch.tokens.shape, model.layers))))


def collect_paper_metrics(model, groups, say=print):
    """Per batch {"aod", "rda", "vs"} [B, T, L], "local" AOD, "fls" [answer tokens], and the calibration statistics."""
    out, began = [], time.time()
    for number, batch in enumerate(groups):
        seen = {"base": [], "full": [], "local": []}
        shape = (*batch.tokens.shape, model.layers)
        rotary = model.rotary(shape[1])

        def see_full(layer, h, base, delta, attention):
            seen["full"].append(attention)
            seen["local"].append((attention - model.attention(base, rotary)).norm(dim=-1))

        with torch.no_grad():
            base = model.forward(batch.tokens, None, lambda *cell: seen["base"].append(cell[-1]))
            full = model.forward(batch.tokens, torch.ones(shape), see_full)
            both = [model.logits(batch.answers(states)) for states in (base, full)]
            values = torch.stack([metrics(b, f) for b, f in zip(seen["base"], seen["full"])], 2)
        out.append(
            {
                "aod": values[..., 0],
                "rda": values[..., 1],
                "vs": values[..., 2],
                "local": torch.stack(seen["local"], -1),
                "fls": (both[0] - both[1]).norm(dim=-1),
            }
        )
        if (number + 1) % 10 == 0:
            rest = (time.time() - began) / (number + 1) * (len(groups) - number - 1)
            say(f"labels: batch {number + 1} of {len(groups)}; {rest:.0f} s left")
    return out


class States:
    """Every valid token's states [N, L, d], updates [N, L, q + 2 kv], their features' ingredients and "kl" [N, L]."""

    def __init__(self):
        self.h, self.delta, self.raw, self.kl, self.position, self.batch = [], [], [], [], [], []


def collect_states(model, groups, choice, seed, say=print):
    """One forward and backward pass a batch with gates from choice(batch, generator) -> (sent, merged)."""
    generator = torch.Generator().manual_seed(seed)
    states, began = States(), time.time()
    for number, batch in enumerate(groups):
        with torch.no_grad():
            target = full_adapter(model, batch).log_softmax(-1)
        sent, merged = choice(batch, generator)
        merged.requires_grad_()
        h_all, delta_all, norms, cosines = [], [], [], []
        previous = has = None

        def gate(layer, h, base, delta):
            nonlocal previous, has
            with torch.no_grad():
                valid = batch.valid
                if previous is None:
                    previous, has = torch.zeros_like(delta), torch.zeros(delta.shape[:2])
                zero = torch.zeros(delta.shape[-1])
                # with a mean of zero for now; the diversity is made from the updates later
                cosines.append(update_features(delta, base, previous, has, zero, model.widths)[valid])
                h_all.append(h[valid].half())
                delta_all.append(delta[valid].half())
                on = sent[:, :, layer]
                previous = torch.where(on[..., None] > 0, delta, previous)
                has = torch.maximum(has, on)
            return merged[:, :, layer]

        logits = model.logits(batch.answers(model.forward(batch.tokens, gate)))
        loss = F.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="sum")
        loss.backward()
        states.h.append(torch.stack(h_all, 1))
        states.delta.append(torch.stack(delta_all, 1))
        states.raw.append(torch.stack(cosines, 1))
        states.kl.append(-merged.grad[batch.valid])
        states.position.append(torch.arange(batch.tokens.shape[1]).expand(batch.tokens.shape)[batch.valid])
        if (number + 1) % 10 == 0:
            rest = (time.time() - began) / (number + 1) * (len(groups) - number - 1)
            kl = float(loss.detach()) / len(batch.target)
            say(f"gates: batch {number + 1} of {len(groups)}; KL {kl:.3f}; {rest:.0f} s left")
    for name in ("h", "delta", "raw", "kl", "position"):
        setattr(states, name, torch.cat(getattr(states, name)))
    return states


def join(parts):
    """Several collections as one."""
    out = States()
    for name in ("h", "delta", "raw", "kl", "position"):
        setattr(out, name, torch.cat([getattr(part, name) for part in parts]))
    return out


def features_of(states, statistics, widths):
    """Tier features [N, L, 4] and [N, L, 12] with the calibration set's statistics."""
    first, second = [], states.raw.clone()
    table = statistics.position_mean
    where = states.position.clamp(max=table.shape[1] - 1)
    for layer in range(states.h.shape[1]):
        h = states.h[:, layer].float()
        away = h - table[layer][where].float()
        first.append(torch.stack((h.norm(dim=-1), h.mean(-1), h.amax(-1), away.pow(2).mean(-1).sqrt()), -1))
        mean = statistics.projection_mean[layer]
        parts = zip(states.delta[:, layer].float().split(widths, -1), mean.split(widths, -1))
        second[:, layer, 9:] = torch.stack([(d - m).pow(2).sum(-1) for d, m in parts], -1)
    return torch.stack(first, 1), second


def statistics_of(states, embedding_norms, positions):
    """The calibration set's means and the percentiles of the embedding's norm."""
    last = states.position.clamp(max=positions - 1)
    layers, d = states.h.shape[1:]
    table = torch.zeros(layers, positions, d)
    for position in range(positions):
        here = last == position
        if here.any():
            table[:, position] = states.h[here].float().mean(0)
        elif position:
            table[:, position] = table[:, position - 1]
    quantiles = torch.quantile(embedding_norms, torch.linspace(0, 1, 101))
    return Statistics(table, states.delta.float().mean(0), quantiles)


def percentile(values, normalisation):
    """Ranks of values [N, L] in [0, 1], within each layer or over all cells of all layers but the first."""
    out = torch.zeros_like(values)
    if normalisation == "layer":
        out = values.argsort(0).argsort(0).float() / max(1, len(values) - 1)
    else:
        rest = values[:, 1:].reshape(-1)
        out[:, 1:] = (rest.argsort().argsort().float() / max(1, len(rest) - 1)).view(len(values), -1)
    return out


