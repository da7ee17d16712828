# SPDX-License-Identifier: GPL-2.0-only
"""What reports call the metrics of a study, in which unit, and whether less or more of one is better."""

import re

LOW, HIGH = "low", "high"

# name of a metric -> title, unit, which is better; what a group matches goes into the title
RULES = [
    (re.compile(pattern), title, unit, better)
    for pattern, title, unit, better in (
        (r"token_latency_ms\.mean", "Latency of a token, mean", "ms", LOW),
        (r"token_latency_ms\.(.+)", "Latency of a token, {}", "ms", LOW),
        (r"ttft_ms\.mean", "Time to the first token, mean", "ms", LOW),
        (r"ttft_ms\.(.+)", "Time to the first token, {}", "ms", LOW),
        (r"response_s\.mean", "Time of a response, mean", "s", LOW),
        (r"response_s\.(.+)", "Time of a response, {}", "s", LOW),
        (r"wait_ms\.(.+)", "Wait of a request, {}", "ms", LOW),
        (r"offered_requests_per_s", "Requests that come in", "1/s", None),
        (r"requests_per_s", "Requests answered", "1/s", HIGH),
        (r"tokens_per_s", "Tokens generated a second", "1/s", HIGH),
        (r"component_ms\.(.+)\.mean", "Time of a token: {}", "ms", LOW),
        (r"component_s_per_response\.(.+)", "Time of a response: {}", "s", LOW),
        (r"payload_bytes_per_token\.(.+)", "Payload of a token, {}", "B", LOW),
        (r"payload_bytes_per_response\.(.+)", "Payload of a response, {}", "B", LOW),
        (r"wire_bytes\.(.+)", "Bytes on the wire, {}", "B", LOW),
        (r"messages_per_token\.(.+)", "Messages of a token, {}", "", LOW),
        (r"exchanges_per_token", "Exchanges of a token", "", LOW),
        (r"quality\.kl_nats", "KL from the full model", "nats", LOW),
        (r"quality\.top1_agreement", "Agreement with the full model", "ratio", HIGH),
        (r"quality\.perplexity", "Perplexity of the answers", "", LOW),
        (r"quality\.ece", "Calibration error of exits", "ratio", LOW),
        (r"quality\.exact_match", "Exact match", "ratio", HIGH),
        (r"quality\.f1", "F1 of the answers", "ratio", HIGH),
        (r"quality\.rouge_l", "ROUGE-L of the answers", "ratio", HIGH),
        (r"memory_bytes\.(.+)\.peak", "Peak memory, {}", "B", LOW),
        (r"memory_bytes\.(.+)\.(.+)", "Memory of the {0}: {1}", "B", LOW),
        (r"oom\.(.+)", "Out of memory, {}", "", LOW),
        (r"offload_ratio", "Cells offloaded", "ratio", None),
        (r"return_ratio", "Cells returned", "ratio", None),
        (r"cloud_request_ratio", "Tokens that asked the cloud", "ratio", None),
        (r"early_exit_ratio", "Tokens from early exits", "ratio", None),
        (r"exit_ratio\.layer_(\d+)", "Tokens from the exit after layer {}", "ratio", None),
        (r"fallback_ratio", "Tokens without the cloud in time", "ratio", LOW),
        (r"standalone_s_per_response", "Time without the cloud, a response", "s", LOW),
        (r"gate_ratio", "Tokens with the gate open", "ratio", None),
        (r"deadline_met_ratio", "Uploads within their deadline", "ratio", HIGH),
        (r"opsc\.tokens_per_response", "Tokens of a response", "", HIGH),
        (r"opsc\.eq1_bytes", "Weights on the device, Eq 1", "B", LOW),
        (r"opsc\.eq2_bytes", "Keys, values and states, Eq 2", "B", LOW),
        (r"opsc\.scale_bytes", "Scales of quantised layers", "B", LOW),
        (r"opsc\.kv_ratio", "Uploads with keys and values", "ratio", None),
        (r"opsc\.compressed_ratio", "Uploads that were compressed", "ratio", None),
        (r"opsc\.early_exit_ratio", "Answers cut short", "ratio", LOW),
        (r"link\.(.+)\.goodput_mbps", "Goodput of {}", "Mbit/s", HIGH),
        (r"link\.(.+)\.wire_bytes\.(.+)", "Bytes on {0}, {1}", "B", LOW),
        (r"link\.(.+)\.rate_mbps", "Rate of {}", "Mbit/s", None),
        (r"link\.(.+)\.outage_ratio", "Attempts lost on {}", "ratio", LOW),
        (r"link\.(.+)\.attempts_mean", "Attempts a frame on {}, mean", "", LOW),
        (r"link\.(.+)\.attempts_max", "Attempts a frame on {}, most", "", LOW),
        (r"link\.(.+)\.messages_lost", "Rounds of attempts that failed on {}", "", LOW),
        (r"link\.(.+)\.worst_case_ms", "Worst case of a frame on {}, Eq 9", "ms", LOW),
        (r"server_busy_s", "Time the server computes", "s", None),
        (r"server_tokens", "Tokens with layers on the server", "", None),
        (r"server_batch\.mean", "Operations in a batch, mean", "", None),
        (r"sessions_lost", "Sessions lost", "", LOW),
        (r"tokens", "Tokens generated", "", None),
    )
]
UNITS = (("_per_s", "1/s"), ("_ms", "ms"), ("_s", "s"), ("_bytes", "B"), ("_ratio", "ratio"), ("_mbps", "Mbit/s"))

# what is shown first, most wanted first; a point of the name stands for any part
TABLE = (
    "ttft_ms.mean", "token_latency_ms.mean", "token_latency_ms.p95", "response_s.mean", "response_s.p95", "wait_ms.mean",
    "requests_per_s", "payload_bytes_per_token.up",
    "payload_bytes_per_token.down", "exchanges_per_token", "offload_ratio", "early_exit_ratio", "cloud_request_ratio",
    "fallback_ratio", "gate_ratio", "deadline_met_ratio", "opsc.tokens_per_response", "link.*.goodput_mbps",
    "link.*.outage_ratio", "quality.*", "memory_bytes.*.peak",
)  # fmt: skip
CURVES = (
    (2, ("token_latency_ms.mean", "response_s.mean", "ttft_ms.mean")),
    (2, ("response_s.p95", "requests_per_s")),
    (2, ("quality.kl_nats", "quality.exact_match", "quality.rouge_l", "quality.f1", "quality.perplexity")),
    (1, ("payload_bytes_per_token.up", "payload_bytes_per_response.up", "payload_bytes_per_token.down")),
    (1, ("deadline_met_ratio", "cloud_request_ratio", "gate_ratio", "offload_ratio", "link.*.outage_ratio", "server_busy_s")),
    (1, ("memory_bytes.*.peak",)),
)
COSTS = ("token_latency_ms.mean", "payload_bytes_per_response.up", "memory_bytes.*.peak")
SEEN = 0.001  # of the largest value
WORTHS = ("quality.exact_match", "quality.kl_nats", "quality.rouge_l", "opsc.tokens_per_response")


def describe(name):
    """{"title", "unit", "better"} of a metric; one that no rule knows is called by its name."""
    for pattern, title, unit, better in RULES:
        match = pattern.fullmatch(name)
        if match:
            return {"title": title.format(*match.groups()), "unit": unit, "better": better}
    parts = name.split(".")
    unit = next((unit for ending, unit in UNITS for part in parts if part.endswith(ending)), "")
    return {"title": name, "unit": unit, "better": None}


def select(names, wanted):
    """Those of `names` that `wanted` lists, in its order; "*" stands for any text."""
    patterns = [re.compile(".+".join(re.escape(part) for part in entry.split("*"))) for entry in wanted]
    return list(dict.fromkeys(name for pattern in patterns for name in names if pattern.fullmatch(name)))


def values_of(points):
    """{name of a metric: its values}."""
    values = {}
    for point in points:
        for name, value in point["metrics"].items():
            values.setdefault(name, []).append(value)
    return values


def varying(points):
    """The metrics in which points differ by what can be seen in a chart."""
    return [name for name, values in values_of(points).items() if max(values) - min(values) > SEEN * max(map(abs, values))]


def columns(points):
    """What the table shows until the reader chooses: without what is 0 everywhere."""
    return select([name for name, values in values_of(points).items() if any(values)], TABLE)


def curves(points):
    """What is drawn against the swept keys: of every kind of metric what says most, if it varies."""
    names = varying(points)
    return [name for most, wanted in CURVES for name in select(names, wanted)[:most]]


def tradeoffs(points):
    """[(cost, worth)] whose Pareto fronts are drawn: latency, bytes and memory against quality; failing that, latency
    against the others."""
    names = varying(points)
    costs, worths = select(names, COSTS), select(names, WORTHS)[:2]
    if worths:
        return [(cost, worth) for worth in worths for cost in costs[:2]] + [(cost, worths[0]) for cost in costs[2:3]]
    return [(cost, costs[0]) for cost in costs[1:3]]
