# SPDX-License-Identifier: GPL-2.0-only
"""What a model's activations look like on ordinary text, and what quantisers learn from them.

Learning is on the quantisation error weighted by the Fisher information: for tokens t and channels j the sum of
g_tj^2 e_tj^2, where g is the gradient of the log-likelihood of a token that the model itself draws. To second order,
without correlations between elements, that is the divergence that the error e causes at the output.
"""

import json

import torch
import torch.nn.functional as F

from splitllm.cli import InputError
from splitllm.gated import rms_norm, rotate

LEVELS = (0.5, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999, 0.99999, 1.0)
BITS = (2, 3, 4, 5, 6, 7, 8)
TRANSFORM_BITS = 4  # at which shift and scale are learned; the clip factors are learned for every width
LEARN_ON = 1024  # tokens, evenly spread over those that were seen
DIGITS = 5


def windows_of(path, length, count):
    """[count, length] token ids, evenly spread over the documents of a text."""
    tokens = []
    try:
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)["tokens"]
                tokens += [row[i : i + length] for i in range(0, len(row) - length + 1, length)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a text of token ids: {error}") from None
    if len(tokens) < count:
        raise InputError(f"{path}: {len(tokens)} windows of {length} tokens in it; at least {count} are needed")
    return torch.tensor([tokens[i * len(tokens) // count] for i in range(count)])


def quantiles(values):
    """The LEVELS-quantiles of |values|: the smallest magnitude that so large a share does not exceed."""
    magnitudes = values.abs().flatten().sort().values
    places = [max(1, -int(-level * len(magnitudes) // 1)) - 1 for level in LEVELS]
    return magnitudes[places]


def collect(model, windows, say):
    """(states, gradients, sites): states and their gradients [L + 1, tokens, d], embedding first; {kind: quantiles}."""
    states, gradients = [], []
    sites = {"layer-input": [[] for _ in range(model.layers)], "deltas": [[] for _ in range(model.layers)]}
    sites["kv-cache"] = [[] for _ in range(model.layers)]
    rotary = model.rotary(windows.shape[1])
    for number, window in enumerate(windows):
        seen = []

        def see(layer, h, base, _delta, _attention, seen=seen):
            h.retain_grad()
            seen.append(h)
            with torch.no_grad():
                x = rms_norm(h, model.blocks[layer]["norm1"], model.eps)
                key, value = base.split(model.widths, -1)[1:]
                key = key.view(*key.shape[:2], model.kv_heads, model.head_dim).transpose(1, 2)
                sites["kv-cache"][layer] += [rotate(key, *rotary).flatten(), value.flatten()]
                sites["layer-input"][layer].append(x.flatten())
                sites["deltas"][layer].append(model.delta(layer, x).flatten())

        embedded = model.embed(window[None]).requires_grad_(True)
        model.embed = lambda _tokens, embedded=embedded: embedded
        last = model.last_state(window[None], see=see)
        del model.embed
        last.retain_grad()
        logits = model.logits(rms_norm(last, model.norm, model.eps))[0]
        generator = torch.Generator().manual_seed(number)
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
        F.cross_entropy(logits, drawn, reduction="sum").backward()
        seen.append(last)
        states.append(torch.stack([h.detach()[0] for h in seen]))
        gradients.append(torch.stack([h.grad[0] for h in seen]))
        say(f"window {number + 1} of {len(windows)}")
    found = {
        kind: [{"quantiles": quantiles(torch.cat(parts))} for parts in layers] for kind, layers in sites.items()
    }
    return torch.cat(states, 1), torch.cat(gradients, 1), found


class RoundSte(torch.autograd.Function):
    """Rounding whose gradient is that of the identity."""

    @staticmethod
    def forward(_context, x):
        return x.round()

    @staticmethod
    def backward(_context, gradient):
        return gradient


def quantised(x, shift, scale, clip, bits):
    """x [tokens, d] as OmniQuant's codec decodes it (model/codec/baseline-codecs.h)."""
    y = (x - shift) / scale
    low, high = clip[0] * y.amin(-1, keepdim=True), clip[1] * y.amax(-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp(min=1e-30)
    codes = RoundSte.apply((y - low) / step).clamp(0, 2**bits - 1)
    return (low + codes * step) * scale + shift


def learn(x, weight, bits, start=None, steps=100, rate=0.03):
    """(shift, scale, clip, error, error before) for states x [tokens, d] with weights of the same shape.

    With `start` = (shift, scale) these stay as they are. Rounding down and up to bf16 is left out.
    """
    if start is None:
        largest = x.abs().amax(0).clamp(min=1e-6)
        log_scale = (0.5 * largest.log()).requires_grad_(True)
        spread = x.std(0).clamp(min=1e-6)
        move = torch.zeros(x.shape[1]).requires_grad_(True)
        middle = x.median(0).values
        transform = lambda: (middle + move * spread, log_scale.exp())
        parameters = [{"params": [log_scale, move], "lr": rate}]
    else:
        transform = lambda: start
        parameters = []
    logit = torch.full((2,), 4.0).requires_grad_(True)
    optimiser = torch.optim.Adam([*parameters, {"params": [logit], "lr": 0.2}])
    best = None
    first = None
    for _ in range(steps):
        shift, scale = transform()
        clip = logit.sigmoid()
        error = (weight * (quantised(x, shift, scale, clip, bits) - x).pow(2)).sum() / len(x)
        value = float(error.detach())
        first = value if first is None else first
        if best is None or value < best[3]:
            best = (shift.detach().clone(), scale.detach().clone(), clip.detach().clone(), value)
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
    return (*best, first)


def site_of(states, gradients, say, name):
    """Statistics of a hidden state: quantiles, channels, and what a learned transformation knows."""
    some = slice(0, None, max(1, len(states) // LEARN_ON))
    learned, weight = states[some], gradients[some].pow(2)
    shift, scale, clip, error, first = learn(learned, weight, TRANSFORM_BITS)
    clips = {str(TRANSFORM_BITS): clip}
    for bits in BITS:
        if bits != TRANSFORM_BITS:
            clips[str(bits)] = learn(learned, weight, bits, (shift, scale), steps=25)[2]
    say(f"{name}: weighted error at {TRANSFORM_BITS} bits {first:.4g}, learned {error:.4g}")
    return {
        "quantiles": quantiles(states),
        "channel_max": states.abs().amax(0),
        "channel_rms": states.pow(2).mean(0).sqrt(),
        "shift": shift,
        "scale": scale,
        "clip": dict(sorted(clips.items())),
    }


def plain(value):
    """Tensors as lists of numbers with DIGITS significant digits, which is what the file says."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, torch.Tensor):
        return [float(f"{number:.{DIGITS}g}") for number in value.tolist()]
    return value
