# SPDX-License-Identifier: GPL-2.0-only
"""From an adapter to trained calibrators: labels, variants, thresholds, and the fixed layers they must beat."""

import platform
import time

import torch

from splitllm import evaluation
from splitllm.adapter_training import BATCH
from splitllm.calibrators import (
    POSITIONS, WEIGHTS, Bytes, Calibrated, Calibrator, fixed_layers, train_tier,
)  # fmt: skip
from splitllm.gated import Batch
from splitllm.labels import (
    collect_paper_metrics, collect_states, features_of, join, percentile, random_choice, statistics_of,
)  # fmt: skip

BUDGETS = (0.25, 0.40, 0.60)
VARIANTS = (
    "kl-global-wide", "kl-global", "aod-layer", "aod-global", "kl-layer", "rda-layer", "vs-layer", "local-global",
)  # fmt: skip
TUNED = ("kl-global-wide", "kl-global")  # whose second tier's share is searched
MIX = {"common": 13, "mixed": 17, "private": 17, "personal": 17}  # of the questions that thresholds are chosen on
SEARCH_MIX = {"common": 5, "mixed": 9, "private": 9, "personal": 9}  # and fixed layers


def in_length_order(rows, size=BATCH):
    rows = sorted(rows, key=lambda row: len(row["tokens"]) + len(row["answer"]))
    return [Batch(rows[i : i + size]) for i in range(0, len(rows), size)]


def tuning_rows(rows, mix=None):
    """Training questions in the workload's mixture of groups."""
    out = []
    for group, count in (mix or MIX).items():
        mine = [row for row in rows if row["group"] == group]
        step = max(1, len(mine) // count)
        out += mine[::step][:count]
    return out


def pearson(x, y):
    x, y = x.double() - x.double().mean(), y.double() - y.double().mean()
    return float((x * y).sum() / (x.norm() * y.norm()).clamp(min=1e-300))


def correlations(groups, metrics):
    """Pearson of each metric with FLS over answer tokens: per layer, and of the mean over layers ("overall")."""
    fls = torch.cat([entry["fls"] for entry in metrics])
    out = {}
    for name in ("aod", "rda", "vs", "local"):
        values = torch.cat([entry[name][batch.row, batch.position] for batch, entry in zip(groups, metrics)])
        per_layer = [pearson(values[:, layer], fls) for layer in range(values.shape[1])]
        out[name] = {
            "overall": pearson(values.mean(1), fls),
            "mean_of_layers": sum(per_layer) / len(per_layer),
            "per_layer": per_layer,
        }
    return out


def collect(model, half, rows, seed, say):
    """(groups, paper's metrics, states): everything that labels and features are made of.

    The paper's metrics are taken in fp32 by `model`, the gates' derivatives by `half` in bf16, twice: at random gates,
    then at gates near those that a first calibrator chooses, where the final ones will have to decide.
    """
    groups = in_length_order(rows)
    metrics = collect_paper_metrics(model, groups, say)

    def choice(batch, generator):
        return random_choice((*batch.tokens.shape, half.layers), generator)

    states = collect_states(half, groups, choice, seed, say)
    statistics = statistics_of(states, embedding_norms(half, groups), POSITIONS)
    labels, features = {"kl": states.kl}, features_of(states, statistics, half.widths)
    first = train_variant("kl-global-wide", labels, features, states, statistics, half, {}, seed, say)
    near = collect_states(half, groups, near_policy(first, half), seed + 1, say)
    return groups, metrics, join([states, near])


def embedding_norms(model, groups):
    return torch.cat([model.embed(batch.tokens[batch.valid]).float().norm(dim=-1) for batch in groups])


def near_policy(calibrator, half, keep=(0.2, 0.65), flipped=0.15):
    """Gates as a calibrator would choose them at a random share of cells, with some flipped at random."""

    def choice(batch, generator):
        draw = lambda low, high: low + (high - low) * float(torch.rand((), generator=generator))
        share, back, tau1, tau2 = draw(*keep), draw(0.6, 1.0), 0.5, 0.0
        for _ in range(2):  # once to see the scores
            policy = Calibrated(calibrator, tau1, tau2)
            policy.begin(batch, half)
            with torch.no_grad():
                half.forward(batch.tokens, policy.gate)
            tau1 = float(policy.scores[0, :, :, 1:][batch.valid].quantile(1 - share))
            tau2 = float(policy.scores[1, :, :, 1:][batch.valid].quantile((1 - back) * share))
        flip = torch.rand(policy.sent.shape, generator=generator) < flipped
        sent = torch.where(flip, 1 - policy.sent, policy.sent)
        merged = torch.where(flip, sent, policy.merged)
        sent[:, :, 0] = merged[:, :, 0] = 0
        return sent, merged

    return choice


def labels_of(groups, metrics, states):
    """Label -> [N, L] in the order of the states, which went over the questions more than once."""
    out = {}
    rounds = len(states.kl) // sum(int(batch.valid.sum()) for batch in groups)
    for name in ("aod", "rda", "vs", "local"):
        once = torch.cat([entry[name][batch.valid] for batch, entry in zip(groups, metrics)])
        out[name] = once.repeat(rounds, 1)
    # one choice of gates says little about a cell: the rounds' values correlate by 0.1
    out["kl"] = states.kl.view(rounds, -1, states.kl.shape[1]).mean(0).repeat(rounds, 1)
    return out


def train_variant(name, labels, features, states, statistics, model, made_by, seed, say=print):
    label, normalisation, *wide = name.split("-")
    began = time.time()
    target = percentile(labels[label], normalisation)
    tiers = []
    for number, (inputs, extra) in enumerate(zip(features, (states.h, states.delta))):
        tiers.append(
            train_tier(inputs, extra, target, WEIGHTS[number], seed + number, bool(wide), 10 if wide else 15)
        )
    description = {
        "format": "split-llm-calibrator",
        "version": 1,
        "model": {"layers": model.layers, "hidden": model.hidden, "query": model.query, "kv": model.kv},
        "statistics": "../statistics.safetensors",
        "label": label,
        "normalisation": normalisation,
        "tier1": {"weights": list(WEIGHTS[0])},
        "tier2": {"weights": list(WEIGHTS[1])},
        "thresholds": [],
        "made_by": made_by,
    }
    fits = []
    for tier, inputs, extra in zip(tiers, features, (states.h, states.delta)):
        with torch.no_grad():
            some = slice(0, None, 7)
            scores = [tier.scores(i, inputs[some, i], extra[some, i]) for i in range(1, model.layers)]
        fits.append(pearson(torch.stack(scores, 1).flatten(), target[some, 1:].flatten()))
    say(f"{name}: scores correlate {fits[0]:.3f} and {fits[1]:.3f} with the label; {time.time() - began:.0f} s")
    return Calibrator(*tiers, statistics, description)


# ---- thresholds


def thresholds_for(model, calibrator, groups, budget, back, start=None, rounds=3):
    """(tau1, tau2, ratio, summary) for bytes of about `budget` of LInfer's, with a share `back` of cells returned."""
    bytes_of = Bytes(model)
    tokens = sum(int(batch.valid.sum()) for batch in groups)
    states = bytes_of.state * (tokens + sum(len(batch.target) for batch in groups))
    linfer = states + model.layers * (bytes_of.down - 12 + bytes_of.up) * tokens
    tau1, tau2 = start or (0.5, 0.0)
    share = (budget * linfer - states) / (bytes_of.down + back * bytes_of.up) / (tokens * (model.layers - 1))
    for attempt in range(rounds + 1):
        first, second = [], []

        class Watched(Calibrated):
            def decide(self, layer, h, base, delta):
                result = super().decide(layer, h, base, delta)
                if layer:
                    valid = self.batch.valid
                    first.append(self.scores[0, :, :, layer][valid])
                    second.append(self.scores[1, :, :, layer][valid & (result[0] > 0)])
                return result

        rows, ratio = evaluation.measure(model, groups, Watched(calibrator, tau1, tau2))
        if attempt == rounds or (attempt and abs(ratio / budget - 1) < 0.01):
            break
        chosen, theirs = torch.cat(first), torch.cat(second)
        tau1 = float(torch.quantile(chosen[torch.randperm(len(chosen))[:400000]], 1 - min(max(share, 1e-4), 1)))
        tau2 = float(torch.quantile(theirs, 1 - back)) if back < 1 and len(theirs) else 0.0
    return tau1, tau2, ratio, evaluation.summary(rows)


def choose_thresholds(model, calibrator, groups, backs, say=print):
    found, start = [], None
    for budget in BUDGETS:
        options = []
        for back in backs:
            tau1, tau2, ratio, result = thresholds_for(model, calibrator, groups, budget, back, start)
            options.append((result["kl_nats"], tau1, tau2, ratio, back))
            start = (tau1, tau2)
        kl, tau1, tau2, ratio, back = min(options)
        say(
            f"  {budget:.0%}: tau1 {tau1:.4f}, tau2 {tau2:.4f} (back {back:.1f}): {ratio:.1%} of the bytes, KL {kl:.4f}"
            f"  [{', '.join(f'{o[0]:.3f}' for o in options)}]"
        )
        found.append({"payload_ratio": budget, "tau1": round(tau1, 6), "tau2": round(tau2, 6)})
    calibrator.description["thresholds"] = found


# ---- the best fixed set of layers


def layers_for(model, groups, budget):
    """How many layers of all tokens come nearest to the budget."""

    def ratio(count):
        tally = Bytes(model)
        for batch in groups:
            gates = torch.zeros(*batch.tokens.shape, model.layers)
            gates[:, :, :count] = 1
            tally.add(batch, gates, gates)
        return tally.ratio()

    return min(range(model.layers + 1), key=lambda count: abs(ratio(count) - budget))


def best_layers(model, groups, worth, most, say=print, width=6):
    """Layers (but the first) in greedy order of what they add on training questions; candidates are the next few
    by their first-order worth [L]."""
    order = [layer for layer in worth.argsort(descending=True).tolist() if layer]
    chosen = []
    while len(chosen) < most:
        candidates = [layer for layer in order if layer not in chosen][:width]
        losses = []
        for layer in candidates:
            rows, _ = evaluation.measure(model, groups, fixed_layers(chosen + [layer]))
            losses.append(evaluation.summary(rows)["kl_nats"])
        best = min(range(len(candidates)), key=losses.__getitem__)
        chosen.append(candidates[best])
        say(f"  fixed layers: {len(chosen)} of {most}, layer {candidates[best] + 1}, KL {losses[best]:.3f}")
    return chosen


def versions():
    import peft
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


