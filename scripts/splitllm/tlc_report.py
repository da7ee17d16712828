# SPDX-License-Identifier: GPL-2.0-only
"""report.json of a set of calibrators: how labels relate to the output, what single layers and whole policies cost."""

import json

import torch

from splitllm import calibration, evaluation
from splitllm.calibrators import Bytes, Calibrated, Calibrator, fixed_layers, norm_tokens, random_cells
from splitllm.files import load_json, write_text

SEEDS = (1, 2, 3, 4, 5)
END = 2  # <|im_end|>


def single_layers(model, groups, say):
    """Exact match lost where one layer's updates are left out (the paper's Table 1)."""
    full, _ = evaluation.measure(model, groups, fixed_layers(range(model.layers)))
    base, _ = evaluation.measure(model, groups, None)
    out = {"full": evaluation.summary(full), "base": evaluation.summary(base), "without": []}
    for layer in range(model.layers):
        rest = [other for other in range(model.layers) if other != layer]
        rows, _ = evaluation.measure(model, groups, fixed_layers(rest))
        result = evaluation.summary(rows)
        out["without"].append(
            {
                "layer": layer + 1,
                "exact_match_drop": out["full"]["exact_match"] - result["exact_match"],
                "kl_nats": result["kl_nats"],
            }
        )
    worst = max(out["without"], key=lambda entry: entry["exact_match_drop"])
    say(f"exact match {out['full']['exact_match']:.3f}, base {out['base']['exact_match']:.3f}; "
        f"without layer {worst['layer']}: -{worst['exact_match_drop']:.3f}")
    return out


def write_report(path, model, parts, workload, say):
    """Adds to the report what is missing of: correlations, worth of the layers, single layers."""
    groups, metrics, states = parts
    result = load_json(path) if path.is_file() else {}
    if "pearson_with_fls" not in result:
        result["pearson_with_fls"] = calibration.correlations(groups, metrics)
        result["kl_worth_of_layers"] = states.kl.mean(0).tolist()
        write_text(path, json.dumps(result, separators=(",", ":")) + "\n")
    overall = {name: entry["overall"] for name, entry in result["pearson_with_fls"].items()}
    say("Pearson with FLS: " + ", ".join(f"{name} {value:.3f}" for name, value in overall.items()))
    if "single_layers" not in result:
        single = single_layers(model, evaluation.prepare(model, workload[:112]), say)
        result = load_json(path) | {"single_layers": single}
        write_text(path, json.dumps(result, separators=(",", ":")) + "\n")
    return result


def policies(model, half, folder, variants, tuning, search, workload_groups, worth, say, f1=(), order=None, known=()):
    """The table, a row per policy and budget; rows in `known` are kept.

    `half` is the model in bf16, which is enough for choosing layers.
    """
    states_share, cells_share = byte_shares(model, workload_groups)
    keep = {b: (b - states_share) / cells_share * model.layers / (model.layers - 1) for b in calibration.BUDGETS}
    table = list(known)
    there = {(entry["policy"], entry["budget"]) for entry in known}

    def add(name, budget, draws):
        """draws: policies, one a seed; with a single one the interval is over five blocks of questions."""
        if (name, budget) in there:
            return
        policy, runs = draws[0], [evaluation.measure(model, workload_groups, policy) for policy in draws]
        if len(runs) > 1:
            sets = [evaluation.summary(one) for one, _ in runs]
            how = "seeds"
        else:
            sets = [evaluation.summary(block) for block in evaluation.blocks(runs[0][0])]
            how = "blocks"
        whole = [evaluation.summary(one) for one, _ in runs]
        entry = {
            "policy": name,
            "budget": budget,
            "payload_ratio": sum(ratio for _, ratio in runs) / len(runs),
            "interval_over": how,
        }
        for key in whole[0]:
            entry[key] = sum(one[key] for one in whole) / len(whole)
        for key in ("kl_nats", "exact_match", "top1_agreement"):
            entry[f"{key}_interval"] = evaluation.interval([one[key] for one in sets])[1]
        per_group = {}
        for group in ("common", "mixed", "private", "personal"):
            mine = [row for one, _ in runs for row in one if row["group"] == group]
            per_group[group] = evaluation.summary(mine)
        entry["groups"] = per_group
        ordered = [in_order(one) for one, _ in runs]
        mean = lambda same, key: round(sum(row[key] for row in same) / len(same), 4)
        entry["questions"] = [[mean(same, "kl"), mean(same, "exact"), same[0]["tokens"]] for same in zip(*ordered)]
        if policy is not None and (name in f1 or "all" in f1):
            entry["token_f1"] = evaluation.token_f1(half, workload_groups, policy, runs[0][0], END)
        table.append(entry)
        say(
            f"{name:24s} {entry['payload_ratio']:6.1%}  KL {entry['kl_nats']:.4f} +- {entry['kl_nats_interval']:.4f}  "
            f"exact {entry['exact_match']:.3f} +- {entry['exact_match_interval']:.3f}  "
            f"agree {entry['top1_agreement']:.3f}  perplexity {entry['perplexity']:.2f}"
            + (f"  F1 {entry['token_f1']:.3f}" if "token_f1" in entry else "")
        )

    full = fixed_layers(range(model.layers))
    add("linfer", 1.0, [full])
    add("base", 0.0, [None])
    counts = [calibration.layers_for(model, tuning, budget) for budget in calibration.BUDGETS]
    order = [layer - 1 for layer in order or ()]
    if len(order) < max(counts):
        order = calibration.best_layers(half, search, worth, max(counts), say)
    for number, budget in enumerate(calibration.BUDGETS):
        say(f"budget {budget:.0%}")
        add("random", budget, [random_cells(keep[budget], seed) for seed in SEEDS])
        add("fixed-layers", budget, [fixed_layers(order[: counts[number]])])
        policy = dlora(model, tuning, Calibrator.load(folder / variants[0]).statistics, budget)
        add("dlora", budget, [policy])
        for variant in variants:
            calibrator = Calibrator.load(folder / variant)
            chosen = calibrator.description["thresholds"][number]
            add(f"tlc {variant}", budget, [Calibrated(calibrator, chosen["tau1"], chosen["tau2"])])
    against = comparisons(table)
    for entry in against:
        kl, em = entry["kl_nats"], entry["exact_match"]
        say(
            f"{entry['budget']:.0%} {entry['policy']} less {entry['against']}: KL {kl[0]:+.4f} +- {kl[1]:.4f}, "
            f"exact {em[0]:+.3f} +- {em[1]:.3f}{'' if entry['loses_less'] else '   (not better in both)'}"
        )
    return {"fixed_layers": [layer + 1 for layer in order], "table": table, "comparisons": against}


def paired(mine, other, count=5):
    """KL and exact match of `mine` less those of `other` on the same questions: mean and half the 95 % interval of the
    differences of `count` disjoint blocks."""
    kl, exact = [], []
    for start in range(count):
        a, b = mine["questions"][start::count], other["questions"][start::count]
        tokens = sum(question[2] for question in a)
        kl.append((sum(q[0] for q in a) - sum(q[0] for q in b)) / tokens)
        exact.append((sum(q[1] for q in a) - sum(q[1] for q in b)) / len(a))
    return {"kl_nats": evaluation.interval(kl), "exact_match": evaluation.interval(exact)}


def comparisons(table):
    """Every calibrator against every baseline at the same budget, paired by question."""
    out = []
    for mine in table:
        for other in table:
            if mine["policy"].startswith("tlc ") and other["budget"] == mine["budget"] and not (
                other["policy"].startswith("tlc ") or other["policy"] in ("linfer", "base")
            ):
                result = {"policy": mine["policy"], "against": other["policy"], "budget": mine["budget"]}
                result |= paired(mine, other)
                kl, em = result["kl_nats"], result["exact_match"]
                result["loses_less"] = kl[0] + kl[1] < 0 and em[0] - em[1] > 0
                out.append(result)
    return out


def in_order(rows):
    return sorted(rows, key=lambda row: int(row["id"].rsplit("-", 1)[1]))


def byte_shares(model, groups):
    """Share of LInfer's bytes that h0 and hL take, and that all cells would take at most."""
    tally, ones = Bytes(model), Bytes(model)
    for batch in groups:
        zero = torch.zeros(*batch.tokens.shape, model.layers)
        tally.add(batch, zero, zero)
        ones.add(batch, zero + 1, zero + 1)
    return tally.ratio(), ones.ratio() - tally.ratio()


def dlora(model, tuning, statistics, budget):
    """The token share whose bytes on the tuning questions come nearest to the budget, by bisection."""
    low, high = 0.0, 1.0
    best = None
    for _ in range(12):
        keep = (low + high) / 2
        policy = norm_tokens(keep, statistics.token_norm_quantiles)
        tally = Bytes(model)
        for batch in tuning:
            policy.begin(batch, model)
            tally.add(batch, policy.given, policy.given)
        if best is None or abs(tally.ratio() - budget) < best[0]:
            best = (abs(tally.ratio() - budget), policy)
        low, high = (low, keep) if tally.ratio() > budget else (keep, high)
    return best[1]
