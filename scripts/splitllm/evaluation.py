# SPDX-License-Identifier: GPL-2.0-only
"""What a policy costs in bytes and loses in answers, on questions with known answers."""

import torch
import torch.nn.functional as F

from splitllm.calibrators import Bytes
from splitllm.gated import Batch, exact

NEW_TOKENS = 12  # of an answer generated for the token F1


def prepare(model, rows, size=32):
    """Batches of rows in length order, each with the full adapter's log-probabilities."""
    rows = sorted(rows, key=lambda row: len(row["tokens"]) + len(row["answer"]))
    out = []
    for start in range(0, len(rows), size):
        batch = Batch(rows[start : start + size])
        with torch.no_grad():
            ones = torch.ones(*batch.tokens.shape, model.layers)
            batch.full = model.logits(batch.answers(model.forward(batch.tokens, ones))).log_softmax(-1)
        out.append(batch)
    return out


def measure(model, groups, policy):
    """A row per question: KL, tokens, agreement, negative log-likelihood, exact; and the share of LInfer's bytes.

    Answers are forced; greedy decoding gives the whole answer exactly where every forced prediction is right.
    policy None is the base model without adapter.
    """
    rows, count = [], Bytes(model)
    for batch in groups:
        with torch.no_grad():
            if policy is None:
                states = model.forward(batch.tokens)
            else:
                policy.begin(batch, model)
                states = model.forward(batch.tokens, policy.gate)
                count.add(batch, policy.sent, policy.merged)
            logits = model.logits(batch.answers(states))
        logs = logits.log_softmax(-1)
        kl = F.kl_div(logs, batch.full, log_target=True, reduction="none").sum(-1)
        agree = (logs.argmax(-1) == batch.full.argmax(-1)).float()
        nll = -logs.gather(1, batch.target[:, None])[:, 0]
        right = exact(logits, batch)
        for number, row in enumerate(batch.rows):
            mine = batch.row == number
            entry = {
                "id": row["id"],
                "group": row["group"],
                "tokens": int(mine.sum()),
                "kl": float(kl[mine].sum()),
                "agree": float(agree[mine].sum()),
                "nll": float(nll[mine].sum()),
                "exact": float(right[number]),
            }
            if policy is not None:
                valid = batch.valid[number]
                cells = int(valid.sum()) * model.layers
                entry["offload"] = float(policy.sent[number][valid].sum()) / cells
                entry["return"] = float(policy.merged[number][valid].sum()) / cells
            rows.append(entry)
    return rows, count.ratio() if policy is not None else 0.0


def summary(rows):
    tokens = sum(row["tokens"] for row in rows)
    total = lambda key: sum(row[key] for row in rows)
    out = {
        "kl_nats": total("kl") / tokens,
        "top1_agreement": total("agree") / tokens,
        "perplexity": float(torch.tensor(total("nll") / tokens).exp()),
        "exact_match": total("exact") / len(rows),
    }
    if "offload" in rows[0]:
        out |= {key: total(key) / len(rows) for key in ("offload", "return")}
    return out


def token_f1(model, groups, policy, rows, end):
    """Mean F1 of greedy answers as bags of tokens. Only rows that are not exact are generated, all at once."""
    known = {row["id"]: row["exact"] for row in rows}
    wrong = [row for batch in groups for row in batch.rows if not known[row["id"]]]
    given = {row["id"]: [] for row in wrong}
    for _ in range(NEW_TOKENS):
        going = [row for row in wrong if end not in given[row["id"]]]
        for start in range(0, len(going), 32):
            part = going[start : start + 32]
            batch = Batch([row | {"answer": given[row["id"]] + [end]} for row in part])
            last = torch.tensor([len(row["tokens"]) + len(given[row["id"]]) - 1 for row in part])
            with torch.no_grad():
                if policy is not None:
                    policy.begin(batch, model)
                states = model.forward(batch.tokens, policy.gate if policy is not None else None)
                best = model.logits(states[torch.arange(len(part)), last]).argmax(-1)
            for row, token in zip(part, best.tolist()):
                given[row["id"]].append(token)
    total = 0.0
    for row in (row for batch in groups for row in batch.rows):
        if known[row["id"]]:
            total += 1
            continue
        mine = [token for token in given[row["id"]] if token != end]
        right = [token for token in row["answer"] if token != end]
        common = sum(min(mine.count(token), right.count(token)) for token in set(mine))
        total += 2 * common / (len(mine) + len(right)) if mine else 0.0
    return total / len(known)


def interval(values):
    """Mean and half the 95 % interval of it (Student's t)."""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
    values = torch.tensor(values, dtype=torch.float64)
    return float(values.mean()), float(t[len(values)] * values.std() / len(values) ** 0.5)


def blocks(rows, count=5):
    """Disjoint blocks of the workload, in its own order, whose prefixes are representative."""
    ordered = sorted(rows, key=lambda row: int(row["id"].rsplit("-", 1)[1]))
    return [ordered[i::count] for i in range(count)]
