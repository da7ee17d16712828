# SPDX-License-Identifier: GPL-2.0-only
"""TLC's two calibrators a layer: features, labels, training, files, and the policy that they are at run time.

Features and scores are those of scripts/make-calibrator-reference, here for whole batches in torch. Cells are
(layer, token); layers count from 0 here. The first layer never offloads.
"""

import json
import math
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from splitllm.files import whole_folder

POSITIONS = 24  # of the table of mean states; its last entry stands for all later positions too
WEIGHTS = ((0.2, 0.3, 0.3, 0.2), (0.3, 0.3, 0.2, 0.2))
CLIP, LOW = 8.0, 2.0**-20
NEURONS, EXTRA = 16, 8
TIERS = ("tier1", "tier2")


# ---- features


def state_features(h, position_mean):
    """Eqs 1-4 of states [B, T, d] at one layer, whose table of mean states is [P, d]."""
    h = h.float()
    where = torch.arange(h.shape[1]).clamp(max=len(position_mean) - 1)
    away = h - position_mean[where].float()
    return torch.stack((h.norm(dim=-1), h.mean(-1), h.amax(-1), away.pow(2).mean(-1).sqrt()), -1)


def update_features(delta, base, previous, has_previous, projection_mean, widths):
    """Eqs 5-9 of updates [B, T, q + 2 kv] at one layer."""
    ratio, similarity, entropy, diversity = [], [], [], []
    parts = (delta.float(), base.float(), previous.float(), projection_mean.expand_as(delta))
    for d, b, p, m in zip(*(part.split(widths, -1) for part in parts)):
        dn, bn, pn = d.norm(dim=-1), b.norm(dim=-1), p.norm(dim=-1)
        ratio.append(torch.where(bn > 0, dn / bn.clamp(min=1e-30), 0.0))
        product = dn * pn
        cosine = torch.where(product > 0, (d * p).sum(-1) / product.clamp(min=1e-30), 0.0)
        similarity.append(cosine * has_previous)
        logs = d.log_softmax(-1)
        entropy.append(-(logs.exp() * logs).sum(-1))
        diversity.append((d - m).pow(2).sum(-1))
    return torch.stack(ratio + similarity + entropy + diversity, -1)


def direction(x):
    """What a projection sees: x scaled to the norm sqrt(width)."""
    x = x.float()
    return x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True).clamp(min=1e-30))


# ---- one tier of all layers


class Tier:
    """Tensors by the names of the file: mean, scale, w1, b1, w2, b2, and projection or none; weights [4]."""

    def __init__(self, tensors, weights):
        self.tensors, self.weights = tensors, weights

    def scores(self, layer, features, extra=None):
        t = {name: value[layer] for name, value in self.tensors.items()}
        weights = torch.tensor(self.weights).repeat_interleave(features.shape[-1] // 4)
        x = 4 * weights * ((features - t["mean"]) / t["scale"]).clamp(-CLIP, CLIP)
        if "projection" in t:
            x = torch.cat((x, direction(extra) @ t["projection"].T), -1)
        hidden = (x @ t["w1"].T + t["b1"]).relu()
        return (hidden @ t["w2"] + t["b2"]).sigmoid().clamp(LOW, 1 - LOW)


def train_tier(features, extra, target, weights, seed, wide, epochs=30, size=512, rate=5e-3):
    """Fits one tier of all layers to target [N, L] in [0, 1] from features [N, L, F] and states [N, L, n]."""
    generator = torch.Generator().manual_seed(seed)
    count, layers, width = features.shape
    mean, scale = features.mean(0), features.std(0).clamp(min=1e-6)
    each = 4 * torch.tensor(weights).repeat_interleave(width // 4)
    z = each * ((features - mean) / scale).clamp(-CLIP, CLIP)
    inputs = width + (EXTRA if wide else 0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    parameters = {
        "w1": draw(layers, NEURONS, inputs) * inputs**-0.5,
        "b1": torch.zeros(layers, NEURONS),
        "w2": draw(layers, NEURONS) * NEURONS**-0.5,
        "b2": torch.zeros(layers),
    }
    if wide:
        parameters["projection"] = draw(layers, EXTRA, extra.shape[-1]) * extra.shape[-1] ** -0.5
    for value in parameters.values():
        value.requires_grad_()
    decay = [parameters[name] for name in ("projection",) if name in parameters]
    plain = [value for name, value in parameters.items() if name != "projection"]
    optimiser = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 1e-4}, {"params": decay, "weight_decay": 0.05, "lr": rate / 5}], lr=rate
    )
    starts = [group["lr"] for group in optimiser.param_groups]
    steps = epochs * math.ceil(count / size)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        for begin in range(0, count, size):
            rows = order[begin : begin + size]
            x = z[rows].transpose(0, 1)  # [L, n, F]
            if wide:
                u = direction(extra[rows]).transpose(0, 1)
                x = torch.cat((x, u @ parameters["projection"].transpose(1, 2)), -1)
            hidden = (x @ parameters["w1"].transpose(1, 2) + parameters["b1"][:, None]).relu()
            score = (hidden * parameters["w2"][:, None]).sum(-1) + parameters["b2"][:, None]
            loss = F.binary_cross_entropy_with_logits(score, target[rows].T)
            optimiser.zero_grad()
            loss.backward()
            for group, start in zip(optimiser.param_groups, starts):
                group["lr"] = start * (0.5 + 0.5 * math.cos(math.pi * step / steps))
            optimiser.step()
            step += 1
    tensors = {"mean": mean, "scale": scale, **{name: value.detach() for name, value in parameters.items()}}
    return Tier({name: value.contiguous() for name, value in tensors.items()}, tuple(weights))


# ---- files


class Statistics:
    def __init__(self, position_mean, projection_mean, token_norm_quantiles):
        self.position_mean, self.projection_mean = position_mean.half(), projection_mean.float()
        self.token_norm_quantiles = token_norm_quantiles.float()

    def save(self, path):
        tensors = {name: getattr(self, name).contiguous() for name in vars(self)}
        save_file(tensors, str(path))
        Path(path).chmod(0o644)

    @staticmethod
    def load(path):
        return Statistics(**load_file(str(path)))


class Calibrator:
    def __init__(self, tier1, tier2, statistics, description):
        self.tiers, self.statistics, self.description = (tier1, tier2), statistics, description

    def save(self, folder):
        with whole_folder(folder) as out:
            tensors = {f"{t}.{name}": v for t, tier in zip(TIERS, self.tiers) for name, v in tier.tensors.items()}
            save_file(tensors, str(out / "calibrator.safetensors"))
            (out / "calibrator.safetensors").chmod(0o644)
            (out / "calibrator.json").write_text(json.dumps(self.description, indent=2) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder):
        description = json.loads((Path(folder) / "calibrator.json").read_text(encoding="utf-8"))
        tensors = load_file(str(Path(folder) / "calibrator.safetensors"))
        tiers = []
        for tier in TIERS:
            mine = {name[len(tier) + 1 :]: value for name, value in tensors.items() if name.startswith(tier + ".")}
            tiers.append(Tier(mine, tuple(description[tier]["weights"])))
        return Calibrator(*tiers, Statistics.load(Path(folder) / description["statistics"]), description)


# ---- policies: gates of one batch, with the count of what crossed


class Policy:
    """Decides cells layer by layer; `sent` and `merged` [B, T, L] are what went down and what came back."""

    def begin(self, batch, model):
        shape = (*batch.tokens.shape, model.layers)
        self.sent, self.merged, self.batch, self.model = torch.zeros(shape), torch.zeros(shape), batch, model

    def gate(self, layer, h, base, delta):
        sent, merged = self.decide(layer, h, base, delta)
        self.sent[:, :, layer], self.merged[:, :, layer] = sent, merged
        return merged


class Calibrated(Policy):
    def __init__(self, calibrator, tau1, tau2):
        self.calibrator, self.tau1, self.tau2 = calibrator, tau1, tau2

    def begin(self, batch, model):
        super().begin(batch, model)
        self.previous = self.has = None
        self.scores = torch.zeros(2, *self.sent.shape)

    def decide(self, layer, h, base, delta):
        if layer == 0:
            self.previous, self.has = torch.zeros_like(delta), torch.zeros(delta.shape[:2])
            return self.has, self.has
        statistics, (tier1, tier2) = self.calibrator.statistics, self.calibrator.tiers
        self.scores[0, :, :, layer] = tier1.scores(layer, state_features(h, statistics.position_mean[layer]), h)
        sent = (self.scores[0, :, :, layer] > self.tau1).float()
        features = update_features(
            delta, base, self.previous, self.has, statistics.projection_mean[layer], self.model.widths
        )
        self.scores[1, :, :, layer] = tier2.scores(layer, features, delta)
        merged = sent * (self.scores[1, :, :, layer] > self.tau2).float()
        self.previous = torch.where(sent[..., None] > 0, delta, self.previous)
        self.has = torch.maximum(self.has, sent)
        return sent, merged


class Given(Policy):
    """Gates that a function of (batch, model) gives in advance, [B, T, L]; all that is sent comes back."""

    def __init__(self, gates):
        self.gates = gates

    def begin(self, batch, model):
        super().begin(batch, model)
        self.given = self.gates(batch, model)

    def decide(self, layer, h, base, delta):
        return self.given[:, :, layer], self.given[:, :, layer]


def random_cells(keep, seed):
    """Each cell by itself; a question's draws depend on the seed and its id alone."""

    def gates(batch, model):
        out = torch.zeros(*batch.tokens.shape, model.layers)
        for row, gate in zip(batch.rows, out):
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {row['id']}".encode()))
            gate.copy_(torch.rand(len(gate), model.layers, generator=generator) < keep)
        out[:, :, 0] = 0
        return out

    return Given(gates)


def fixed_layers(layers):
    def gates(batch, model):
        out = torch.zeros(*batch.tokens.shape, model.layers)
        out[:, :, list(layers)] = 1
        return out

    return Given(gates)


def norm_tokens(keep, quantiles):
    """DLoRA: every layer, also the first, of tokens whose embedding's norm is among the largest."""
    at = torch.linspace(0, 1, len(quantiles))

    def gates(batch, model):
        norm = model.embed(batch.tokens).float().norm(dim=-1)
        high = torch.searchsorted(quantiles.contiguous(), norm.contiguous(), right=True).clamp(1, len(at) - 1)
        low = high - 1
        share = ((norm - quantiles[low]) / (quantiles[high] - quantiles[low]).clamp(min=1e-12)).clamp(0, 1)
        percentile = at[low] + share * (at[high] - at[low])
        return (percentile > 1 - keep).float()[..., None].expand(-1, -1, model.layers).clone()

    return Given(gates)


class Bytes:
    """Payload bytes of TLC against those of LInfer, where every layer offloads and no norms travel."""

    def __init__(self, model):
        d, qkv = model.hidden, model.query + 2 * model.kv
        self.down, self.up, self.state, self.layers = 2 * d + 12, 2 * qkv, 2 * d, model.layers
        self.policy = self.linfer = 0.0

    def add(self, batch, sent, merged):
        valid = batch.valid[..., None]
        common = self.state * (int(batch.valid.sum()) + len(batch.target))
        self.policy += common + float(self.down * (sent * valid).sum() + self.up * (merged * valid).sum())
        self.linfer += common + self.layers * (self.down - 12 + self.up) * int(batch.valid.sum())

    def ratio(self):
        return self.policy / self.linfer


