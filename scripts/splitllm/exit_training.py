# SPDX-License-Identifier: GPL-2.0-only
"""Trains early exits to predict what the full model predicts, from states that are computed once.

The model is frozen and its head is the exits' head, so that only the small adaptation of each exit and its norm are
learned. A step looks at the vocabulary that the batch's likeliest tokens make up and at a random sample of the rest,
weighted so that the softmax's denominator is right on average; all measuring is over the whole vocabulary.
"""

import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from splitllm.cli import InputError
from splitllm.exits import calibration_error

TOP = 16  # tokens of the full model's distribution that are kept
SAMPLED = 4096  # tokens of the vocabulary beside those of a batch
ROWS = 1024  # rows of a batch
HIGH = 0.8  # the confidence whose share is reported


@dataclass
class Rows:
    """What exits are trained and measured on, one row per predicted token."""

    states: torch.Tensor  # [exits, rows, d] fp16: after the exits' layers
    top: torch.Tensor  # [rows, TOP] int32: the full model's likeliest tokens, best first
    chance: torch.Tensor  # [rows, TOP] fp32: their probabilities
    next: torch.Tensor  # [rows] int32: the token that follows
    source: torch.Tensor  # [rows] int32: number of the document or prompt

    def __len__(self):
        return len(self.next)

    def part(self, which):
        return Rows(self.states[:, which], self.top[which], self.chance[which], self.next[which], self.source[which])

    @staticmethod
    def join(parts):
        states = torch.cat([part.states for part in parts], 1)
        rest = zip(*((part.top, part.chance, part.next, part.source) for part in parts))
        return Rows(states, *(torch.cat(column) for column in rest))


class FullModel:
    """The model whose states are the exits' input and whose predictions are their target.

    half: matrices in bf16; the residual stream is fp32 in either case."""

    def __init__(self, folder, half):
        from transformers import AutoModelForCausalLM

        self.half = half
        dtype = torch.bfloat16 if half else torch.float32
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        config = self.model.config
        if config.model_type != "llama" or not config.tie_word_embeddings:
            raise InputError(f"{folder}/config.json: a LLaMA model with a tied head is expected")
        self.layers, self.eps = config.num_hidden_layers, config.rms_norm_eps
        self.end = config.eos_token_id
        self.norm = self.model.model.norm.weight.detach().float()

    @property
    def embedding(self):
        return self.model.model.embed_tokens.weight.detach().float()

    def run(self, tokens, cache=None):
        """(states after every layer but the last with the embedding first, logits, cache) of tokens [B, T]."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            embedded = self.model.model.embed_tokens(tokens).float()
            out = self.model(
                inputs_embeds=embedded, past_key_values=cache, use_cache=cache is not None, output_hidden_states=True
            )
        return out.hidden_states, out.logits.float(), out.past_key_values

    def rows(self, layers, states, logits, following, source):
        """Rows of states and logits that were flattened to [rows, .]."""
        best = logits.topk(TOP, -1)
        chance = (best.values - logits.logsumexp(-1, keepdim=True)).exp()
        kept = torch.stack([states[layer].flatten(0, -2) for layer in layers])
        if not kept.abs().max() < torch.finfo(torch.float16).max:
            raise InputError("states are beyond fp16; exits of this model cannot be trained here")
        return Rows(kept.half(), best.indices.int(), chance, following.int(), source.int())

    def text_rows(self, layers, pieces, say):
        """Rows of (source, window) pieces of text."""
        out, began = [], time.time()
        for number, (source, window) in enumerate(pieces):
            tokens = torch.tensor(window)
            states, logits, _ = self.run(tokens[None, :-1])
            sources = torch.full((len(window) - 1,), source)
            out.append(self.rows(layers, states, logits[0], tokens[1:], sources))
            if (number + 1) % 20 == 0 or number + 1 == len(pieces):
                say(f"{number + 1} of {len(pieces)} windows, {left(began, number + 1, len(pieces))} left")
        return Rows.join(out)

    def answer_rows(self, layers, prompts, count, say):
        """Rows of the full model's greedy answers of at most `count` tokens, the end mark included, to prompts."""
        from transformers import DynamicCache

        lengths, out = {}, []
        for source, prompt in enumerate(prompts):
            lengths.setdefault(len(prompt), []).append(source)
        for length, sources in sorted(lengths.items()):  # prompts of one length need no padding
            given, cache = torch.tensor([prompts[source] for source in sources]), DynamicCache()
            sources, going = torch.tensor(sources), torch.ones(len(sources), dtype=torch.bool)
            for _ in range(count):
                states, logits, cache = self.run(given, cache)
                chosen = logits[:, -1].argmax(-1)
                last = [state[going, -1:] for state in states]
                out.append(self.rows(layers, last, logits[going, -1], chosen[going], sources[going]))
                going = going & (chosen != self.end)
                given = chosen[:, None]
                if not going.any():
                    break
            say(f"{len(sources)} prompts of {length} tokens answered")
        return Rows.join(out)


def left(began, done, count):
    return f"{(time.time() - began) / done * (count - done):.0f} s"


def rms(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


class Exit(torch.nn.Module):
    """An exit as splitllm.exits describes it, scaled so that all its parameters learn at one rate."""

    def __init__(self, model_norm, eps, states, width, generator):
        super().__init__()
        hidden = len(model_norm)
        self.eps, self.model_norm = eps, model_norm
        self.scale = float(states.float().pow(2).mean(-1).sqrt().median())
        self.input_norm = torch.nn.Parameter(torch.ones(hidden))
        self.down = torch.nn.Parameter(torch.randn(width, hidden, generator=generator) / math.sqrt(hidden))
        self.up = torch.nn.Parameter(torch.zeros(hidden, width))
        self.norm = torch.nn.Parameter(torch.ones(hidden))

    def forward(self, h):
        """What the head gets."""
        y = rms(h, self.eps) * self.input_norm
        a = h + self.scale * F.linear(F.silu(F.linear(y, self.down)), self.up)
        return rms(a, self.eps) * self.norm * self.model_norm

    def tensors(self, temperature=1.0):
        parts = {
            "input_norm": self.input_norm,
            "down": self.down,
            "up": self.scale * self.up,
            "norm": self.norm * self.model_norm / temperature,
        }
        return {name: part.detach().clone() for name, part in parts.items()}


def normed(parts, h, eps):
    """What the head gets from an exit's tensors, as files hold them."""
    y = rms(h, eps) * parts["input_norm"]
    a = h + F.linear(F.silu(F.linear(y, parts["down"])), parts["up"])
    return rms(a, eps) * parts["norm"]


def untrained(model):
    """The tensors of an exit that is the model's own norm and head."""
    zeros = torch.zeros(1, len(model.norm))
    return {"input_norm": torch.ones_like(model.norm), "down": zeros, "up": zeros.T, "norm": model.norm}


def logits_of(states, embedding):
    """[rows, vocabulary] fp32; the embedding's type is the arithmetic."""
    return F.linear(states.to(embedding.dtype), embedding).float()


class Sample:
    """The part of the vocabulary that a step looks at: the batch's likely tokens and those that are always looked at,
    then a random sample of the rest."""

    def __init__(self, top, vocabulary, generator, count=SAMPLED, always=None):
        likely = top.long() if always is None else torch.cat([top.long().flatten(), always])
        likely = likely.unique()
        drawn = torch.randperm(vocabulary, generator=generator)[:count]
        place = torch.full((vocabulary,), -1)
        place[likely] = torch.arange(len(likely))
        drawn = drawn[place[drawn] < 0]
        self.tokens = torch.cat([likely, drawn])
        self.top = place[top.long()]  # where the batch's likely tokens are
        self.correction = torch.zeros(len(self.tokens))
        if len(drawn):
            self.correction[len(likely) :] = math.log((vocabulary - len(likely)) / len(drawn))


def loss_of(logits, sample, chance, hard):
    """hard * cross-entropy of the full model's choice + (1 - hard) * that of its distribution.

    The distribution is over its TOP tokens and the rest as one."""
    total = (logits + sample.correction).logsumexp(-1, keepdim=True)
    logs = logits.gather(1, sample.top) - total
    rest = torch.log1p(-logs.logsumexp(-1).exp().clamp(max=1 - 1e-6))
    soft = -(chance * logs).sum(-1) - (1 - chance.sum(-1)).clamp(min=0) * rest
    return (hard * -logs[:, 0] + (1 - hard) * soft).mean()


def train(model, layers, rows, width, steps, rate, hard, seed, say):
    """{layer: Exit} after `steps` steps on random batches of rows."""
    generator = torch.Generator().manual_seed(seed)
    exits = [Exit(model.norm, model.eps, rows.states[i, ::97], width, generator) for i in range(len(layers))]
    embedding = model.embedding
    optimiser = torch.optim.Adam([p for exit in exits for p in exit.parameters()], lr=rate, betas=(0.9, 0.98))
    queue, began, warm, losses = [], time.time(), max(1, steps // 25), []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        if not queue:
            queue = list(torch.randperm(len(rows), generator=generator).split(ROWS))
        batch = rows.part(queue.pop())
        sample = Sample(batch.top, len(embedding), generator)
        head = embedding[sample.tokens].bfloat16()
        found = [
            loss_of(logits_of(exit(batch.states[i].float()), head), sample, batch.chance, hard)
            for i, exit in enumerate(exits)
        ]
        optimiser.zero_grad()
        sum(found).backward()
        optimiser.step()
        losses.append([float(loss.detach()) for loss in found])
        if (step + 1) % 25 == 0 or step + 1 == steps:
            means = ", ".join(f"{layer}: {sum(c) / len(c):.3f}" for layer, c in zip(layers, zip(*losses)))
            say(f"step {step + 1} of {steps}, loss {means}; {left(began, step + 1, steps)} left")
            losses = []
    return dict(zip(layers, exits))


def fit_temperature(states, embedding, target):
    """The temperature at which an exit is as confident on average as it is right, over the whole vocabulary."""
    logits = torch.cat([logits_of(part, embedding) for part in states.split(ROWS)])
    right = float((logits.argmax(-1) == target).double().mean())
    low, high = 0.25, 4.0  # of 1 / temperature, with which confidence rises
    for _ in range(12):
        middle = math.sqrt(low * high)
        confidence = float((logits * middle).softmax(-1).amax(-1).double().mean())
        low, high = (low, middle) if confidence > right else (middle, high)
    return 1 / middle


def measure(parts, eps, embedding, states, rows):
    """An exit's figures over the whole vocabulary on rows, whose states after its layer are `states` [rows, d]."""
    confidence, right, likelihood = [], [], []
    with torch.no_grad():
        for at in torch.arange(len(rows)).split(ROWS):
            logits = logits_of(normed(parts, states[at].float(), eps), embedding)
            best = logits.max(-1)
            total = logits.logsumexp(-1)
            confidence.append((best.values - total).exp())
            right.append(best.indices == rows.top[at, 0])
            likelihood.append(logits.gather(1, rows.next[at].long()[:, None])[:, 0] - total)
    confidence, right, likelihood = (torch.cat(column).double() for column in (confidence, right, likelihood))
    return {
        "rows": len(rows),
        "agreement": float(right.mean()),
        "calibration_error": calibration_error(confidence.numpy(), right.numpy()),
        "confidence": float(confidence.mean()),
        "confident": float((confidence >= HIGH).double().mean()),
        "agreement_when_confident": float(right[confidence >= HIGH].mean()) if (confidence >= HIGH).any() else None,
        "perplexity": float((-likelihood.mean()).exp()),
    }


def golden(model, layers, exits, tokens, positions):
    """What exits compute on states of a text, for tests of other implementations: {name: tensor}."""
    states, _, _ = model.run(tokens[None])
    out = {"tokens": tokens.int(), "positions": positions.int()}
    for layer in layers:
        h = states[layer][0, positions]
        logits = logits_of(normed(exits[layer], h, model.eps), model.embedding)
        best = logits.topk(8, -1)
        out[f"state.{layer}"] = h
        out[f"exit.{layer}.top_ids"] = best.indices.int()
        out[f"exit.{layer}.top_logits"] = best.values
        out[f"exit.{layer}.confidence"] = logits.softmax(-1).amax(-1)
    return {name: value.contiguous() for name, value in out.items()}
