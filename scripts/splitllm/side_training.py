# SPDX-License-Identifier: GPL-2.0-only
"""Trains side networks and their gates, from states of the base model that are computed once.

A side network is local to a position and feeds nothing back, so that all it ever needs are the base model's states of
the positions that predict tokens of answers. A step looks at the tokens of all answers, at those that the base model
finds likely in its batch, and at a random sample of the vocabulary; all measuring is over the whole vocabulary.
"""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from splitllm.exit_training import TOP, Sample, left, rms
from splitllm.gated import Batch, rms_norm
from splitllm.side_networks import Outcomes

LIKELY = 8  # tokens of a row that a step looks at: the right one and the base model's likeliest
SAMPLED = 1024  # of the vocabulary
CHUNK = 512  # rows that are measured at a time


@dataclass
class Rows:
    """One row per token of an answer."""

    states: torch.Tensor  # [rows, L, d] fp32: the base model's, after every layer
    top: torch.Tensor  # [rows, TOP]: the right next token, then those that the base model finds likely
    question: torch.Tensor  # [rows]

    def __len__(self):
        return len(self.top)

    def part(self, which):
        return Rows(self.states[which], self.top[which], self.question[which])


def rows_of(model, questions, say, size=16):
    """Rows of questions, in the order of the questions; model: a GatedModel."""
    order = sorted(range(len(questions)), key=lambda i: len(questions[i]["tokens"]) + len(questions[i]["answer"]))
    parts, began = [], time.time()
    for start in range(0, len(order), size):
        numbers = order[start : start + size]
        batch, seen = Batch([questions[i] for i in numbers]), []
        with torch.no_grad():
            note = lambda layer, h, *rest: seen.append(batch.answers(h)) if layer else None
            seen.append(batch.answers(model.last_state(batch.tokens, see=note)))
            logits = model.logits(rms_norm(seen[-1], model.norm, model.eps))
            logits.scatter_(1, batch.target[:, None], float("inf"))
        parts.append(Rows(torch.stack(seen, 1).float(), logits.topk(TOP, -1).indices, torch.tensor(numbers)[batch.row]))
        if (start // size) % 10 == 9 or start + size >= len(order):
            say(f"states of {min(start + size, len(order))} of {len(order)} questions")
    states, top, question = zip(*((part.states, part.top, part.question) for part in parts))
    rows = Rows(torch.cat(states), torch.cat(top), torch.cat(question))
    return rows.part(torch.argsort(rows.question, stable=True))


@dataclass
class Base:
    """What of the base model the side network's output goes through."""

    head: torch.Tensor  # [V, d]
    norm: torch.Tensor  # [d]
    eps: float

    @staticmethod
    def of(model):
        return Base(model.head.float(), model.norm.float(), model.eps)

    def normed(self, states):
        return rms(states, self.eps) * self.norm


class SideNetwork(torch.nn.Module):
    """A side network as splitllm.side_networks describes it, scaled so that all its parameters learn at one rate."""

    def __init__(self, shape, eps, scale, generator):
        super().__init__()
        layers, hidden, width, inner = shape
        random = lambda *sizes, scale: torch.nn.Parameter(torch.randn(*sizes, generator=generator) * scale)
        self.eps, self.scale = eps, scale
        self.down = random(layers, width, hidden, scale=hidden**-0.5)
        self.inner = random(layers, inner, width, scale=width**-0.5)
        self.outer = random(layers, width, inner, scale=0.5 * inner**-0.5)
        self.up = torch.nn.Parameter(torch.zeros(hidden, width))

    def forward(self, normed):
        """g [rows, d] of normed states [rows, L, d]."""
        projected = torch.einsum("nld,lsd->lns", normed, self.down.to(normed.dtype)).float()
        h = torch.zeros_like(projected[0])
        for x, inner, outer in zip(projected, self.inner, self.outer):
            h = h + x
            h = h + F.linear(F.silu(F.linear(rms(h, self.eps), inner)), outer)
        return self.scale * F.linear(rms(h, self.eps), self.up)

    def parts(self):
        """The tensors as files have them, fp32."""
        parts = {"down": self.down, "inner": self.inner, "outer": self.outer, "up": self.scale * self.up}
        return {name: part.detach().clone().numpy() for name, part in parts.items()}


def network_of(parts, eps):
    """A SideNetwork that computes what `parts` say."""
    layers, width, hidden = parts["down"].shape
    network = SideNetwork((layers, hidden, width, parts["inner"].shape[1]), eps, 1.0, None)
    with torch.no_grad():
        for name in ("down", "inner", "outer", "up"):
            getattr(network, name).copy_(torch.as_tensor(parts[name]))
    return network


class Gate(torch.nn.Module):
    """A linear choice between closed and open, trained on inputs that are brought to mean 0 and deviation 1."""

    def __init__(self, states, eps):
        super().__init__()
        x = rms(states, eps)
        self.mean, self.deviation = x.mean(0), x.std(0) + 1e-6
        self.inputs = (x - self.mean) / self.deviation  # [rows, d], of all the rows that it is trained on
        self.weight = torch.nn.Parameter(torch.zeros(2, x.shape[1]))
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def forward(self, which=slice(None)):
        """z [rows, 2] of some of its inputs."""
        return F.linear(self.inputs[which], self.weight, self.bias)

    def parts(self):
        """The tensors as files have them, for rms(f_L) as it is."""
        weight = self.weight.detach() / self.deviation
        return {"gate.weight": weight.numpy(), "gate.bias": (self.bias.detach() - weight @ self.mean).numpy()}


def train_gate(base, states, benefit, cost, penalty):
    """The tensors of a gate on the model's last states [rows, d].

    Open is right where the benefit is more than the cost, and a wrong choice weighs what it costs. penalty: of the
    squared weights; the problem is convex."""
    gate = Gate(states, base.eps)
    worth = torch.as_tensor(benefit, dtype=torch.float32) - cost
    label, stake = (worth > 0).long(), worth.abs() / worth.abs().mean()
    optimiser = torch.optim.LBFGS(gate.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = (stake * F.cross_entropy(gate(), label, reduction="none")).mean()
        loss = loss + penalty * gate.weight.pow(2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return gate.parts()


@dataclass
class Settings:
    width: int = 14
    inner: int = 16
    steps: int = 1500
    rate: float = 1.2e-2
    batch: int = 128
    decay: float = 0.01
    combination: str = "sum"
    seed: int = 1
    loss: str = "benefit"  # or "joint": the gate is trained with the side network
    cost: float = 1.0  # of opening, in the joint loss: nats a token
    effect: float = 1.0  # weight of the estimated effect of opening in the joint loss


def train(base, rows, settings, checkpoints=(), say=None):
    """{step: parts} of a side network at `checkpoints` and after the last step; with its gate if the loss is joint.

    The joint loss goes through sigma, the gate's probability of open: the cross-entropy of f + sigma g, and sigma times
    the effect of opening on the loss as the side network now is, with the cost of opening added (CE of the token with
    g less that without)."""
    generator = torch.Generator().manual_seed(settings.seed)
    last, normed = rows.states[:, -1].clone(), rms(rows.states, base.eps).bfloat16()
    scale = float(last.pow(2).mean(-1).sqrt().median())
    _, layers, hidden = normed.shape
    network = SideNetwork((layers, hidden, settings.width, settings.inner), base.eps, scale, generator)
    groups = [{"params": list(network.parameters()), "rate": settings.rate}]
    joint = settings.loss == "joint"
    if joint:
        gate = Gate(last, base.eps)
        groups.append({"params": list(gate.parameters()), "rate": settings.rate / 20})
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=settings.decay)
    kept = 0.0 if settings.combination == "alone" else 1.0  # of f where the gate is open
    head, answers = base.head.bfloat16(), rows.top[:, 0].unique()  # what a wrong answer may be made of
    queue, began, losses, out = [], time.time(), [], {}
    for step in range(1, settings.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = group["rate"] * min(step / 50, 0.5 + 0.5 * math.cos(math.pi * (step - 1) / settings.steps))
        if not queue:
            queue = list(torch.randperm(len(rows), generator=generator).split(settings.batch))
        at = queue.pop()
        sample = Sample(rows.top[at, :LIKELY], len(head), generator, SAMPLED, answers)
        sampled = head[sample.tokens]

        def costs(states, sample=sample, sampled=sampled):
            logits = F.linear(base.normed(states).bfloat16(), sampled).float() + sample.correction
            return F.cross_entropy(logits, sample.top[:, 0], reduction="none")

        f, g = last[at], network(normed[at])
        if joint:
            sigma = gate(at).softmax(-1)[:, 1]
            with torch.no_grad():
                effect = costs(kept * f + g) - costs(f) + settings.cost
            mixed = (1 - sigma[:, None] * (1 - kept)) * f + sigma[:, None] * g
            loss = (costs(mixed) + settings.effect * sigma * effect).mean()
        else:
            loss = costs(kept * f + g).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        if say and (step % 200 == 0 or step == settings.steps):
            mean = sum(losses) / len(losses)
            say(f"step {step} of {settings.steps}, loss {mean:.3f}; {left(began, step, settings.steps)} left")
            losses = []
        if step in checkpoints or step == settings.steps:
            out[step] = network.parts() | (gate.parts() if joint else {})
    return out


def outcomes(base, parts, combination, rows):
    """What opening does for every row."""
    network, closed, opened = network_of(parts, base.eps), [], []
    with torch.no_grad():
        for at in torch.arange(len(rows)).split(CHUNK):
            f, target = rows.states[at, -1], rows.top[at, :1]
            g = network(rms(rows.states[at], base.eps))
            for states, column in ((f, closed), (f + g if combination == "sum" else g, opened)):
                logits = F.linear(base.normed(states), base.head)
                nll = logits.logsumexp(-1) - logits.gather(1, target)[:, 0]
                column.append(torch.stack([nll, (logits.argmax(-1) == target[:, 0]).float()]))
    closed, opened = torch.cat(closed, 1).numpy(), torch.cat(opened, 1).numpy()
    return Outcomes(closed[0], opened[0], closed[1], opened[1], rows.question.numpy())


def score(base, gate, states):
    """z[1] - z[0] of the model's last states [rows, d]."""
    z = F.linear(rms(states, base.eps), *(torch.as_tensor(gate[name]).float() for name in ("gate.weight", "gate.bias")))
    return (z[:, 1] - z[:, 0]).numpy()


def left_out_score(base, rows, fold, benefit, cost, penalty):
    """The score of every row, from a gate that was not trained on its fold."""
    out, last = np.zeros(len(rows)), rows.states[:, -1]
    for number in np.unique(fold):
        mine = torch.as_tensor(fold == number)
        gate = train_gate(base, last[~mine], benefit[fold != number], cost, penalty)
        out[fold == number] = score(base, gate, last[mine])
    return out


def left_out_outcomes(base, rows, fold, settings, checkpoints, say):
    """{step: Outcomes of every row, from a side network that was not trained on its fold}."""
    columns = {}
    for number in np.unique(fold):
        say(f"without the questions of fold {number + 1} of {len(np.unique(fold))}")
        mine = torch.as_tensor(fold == number)
        for step, parts in train(base, rows.part(~mine), settings, checkpoints, say).items():
            found = outcomes(base, parts, settings.combination, rows.part(mine))
            whole = columns.setdefault(step, np.zeros((4, len(rows))))
            whole[:, fold == number] = (found.closed, found.open, found.closed_right, found.open_right)
    return {step: Outcomes(*whole, rows.question.numpy()) for step, whole in columns.items()}


def golden(model, description, parts, question):
    """What a side network computes for a question and its answer, for tests of other implementations: {name: tensor}.

    At the first token, whose states are far larger than others, and wherever a token of the answer is predicted."""
    base, batch = Base.of(model), Batch([question])
    positions, seen = torch.cat([torch.tensor([0]), batch.position]), []
    with torch.no_grad():
        note = lambda layer, h, *rest: seen.append(h[0, positions]) if layer else None
        seen.append(model.last_state(batch.tokens, see=note)[0, positions])
        states = torch.stack(seen, 1)
        network, normed = network_of(parts, base.eps), rms(states, base.eps)
        g = network(normed)
        opened = g if description["combination"] == "alone" else states[:, -1] + g
        out = {
            "tokens": batch.tokens[0].int(),
            "positions": positions.int(),
            "side_input": torch.einsum("nld,lsd->nls", normed, network.down).flatten(1),
            "g": g,
            "gate": F.linear(normed[:, -1], *(torch.as_tensor(parts[f"gate.{name}"]) for name in ("weight", "bias"))),
        }
        for name, last in (("open", opened), ("closed", states[:, -1])):
            best = F.linear(base.normed(last), base.head).topk(8, -1)
            out |= {f"{name}.top_ids": best.indices.int(), f"{name}.top_logits": best.values}
    return {name: value.contiguous() for name, value in out.items()}
