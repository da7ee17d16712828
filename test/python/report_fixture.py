# SPDX-License-Identifier: GPL-2.0-only
"""A results folder with everything that a report can show, and names that would break a careless page."""

import json

SCHEMES = [
    {"name": "server", "label": "Server </script><b>bold</b>"},
    {"name": "tlc", "label": "TLC & co"},
    {"name": "local"},
]
RATES = ("1Mbps", "10Mbps", "100Mbps", "200Mbps", "1Gbps")
TOKENS = ["<|im_start|>", "user", "\n", " <i>", " caf", "é", " yes"]
PROMPT = 4  # of these

METRICS = {  # server, tlc; of the first rate, and what the next one multiplies it by
    "token_latency_ms.mean": ((123.456789, 61.0000001), 0.37),
    "token_latency_ms.p95": ((150.5, 70.25), 0.39),
    "ttft_ms.mean": ((2047.9999, 1000.0), 0.1),
    "component_ms.base.mean": ((100.1, 41.0), 0.37),
    "component_ms.network.mean": ((23.356789, 20.0000001), 0.37),
    "component_ms.queue.mean": ((0.0, 0.0), 1),
    "payload_bytes_per_token.up": ((58752.0, 12345.6789), 1),
    "payload_bytes_per_response.up": ((1.9e6, 4.2e5), 1),
    "quality.kl_nats": ((4.50802948564403e-08, 0.123), 1),
    "quality.exact_match": ((0.9166666666666666, 0.25), 1),
    "memory_bytes.device.peak": ((5.94e7, 6.04e7), 1),
    "unheard.of_ratio": ((0.5, 0.25), 1.1),
}


def summary():
    points = []
    for power, rate in enumerate(RATES):
        for number, scheme in enumerate(SCHEMES):
            if scheme["name"] == "local":  # out of memory before the first token
                metrics, ci95 = {"oom.device": 1.0, "tokens": 0.0}, {}
            else:
                metrics = {name: first[number] * factor**power for name, (first, factor) in METRICS.items()}
                metrics["oom.device"] = 0.0
                ci95 = {"token_latency_ms.mean": 3.0625 * (number + 1), "quality.exact_match": 0.03125}
            points.append({"set": {"links.device-edge.rate": rate, "scheme": scheme}, "metrics": metrics, "ci95": ci95})
    return {"study": "fixture </title><script>", "points": points}


def cells():
    """{(point, position, layer): (offloaded, returned)} of request 0: point 1 mixes, the others return everything."""
    found = {}
    for point in (0, 1):
        for position in range(len(TOKENS) - 1):
            for layer in range(1, 6):
                state = (position * layer + position) % 3 if point == 1 and layer > 1 else 2
                found[point, position, layer] = (int(state > 0), int(state > 1))
    return found


def timeline():
    """Two points of two nodes and a user; the second token of the first lasts from 100 to 250 us."""
    events = []
    for point in (0, 1):
        for number, node in enumerate(("device", "edge", "user 0")):
            pid = 3 * point + number
            events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"{node} (rate = 1Mbps)", "point": point}})
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": 0, "args": {"name": "tokens"}})
        device, edge, user = (3 * point + number for number in range(3))
        span = lambda pid, cat, name, start, took, **args: {  # noqa: E731
            "ph": "X", "pid": pid, "tid": 0, "cat": cat, "name": name, "ts": start, "dur": took, "args": args,
        }  # fmt: skip
        events += [
            span(user, "tokens", "token 1", 0.0, 100.0),
            span(device, "compute", "head", 40.0, 50.0, component="base"),
            span(device, "compute", "adapt", 90.5, 20.25 + point, component="adapter"),
            span(device, "packets out", "58 B", 120.125, 0.464),
            {"ph": "b", "pid": edge, "tid": 2, "cat": "messages in", "id": point, "name": "<deltas>", "ts": 120.125, "args": {}},
            {"ph": "e", "pid": edge, "tid": 2, "cat": "messages in", "id": point, "ts": 180.5},
            span(edge, "compute", "layer", 180.5, 40.0, component="base"),
            span(user, "tokens", "token 2", 100.0, 150.0),
            span(user, "tokens", "token 3", 250.0, 150.0),
            span(edge, "compute", "layer", 260.0, 40.0, component="base"),
        ]
    return {"displayTimeUnit": "ms", "traceEvents": events}


RUN = {
    "study_file": "a study.json", "command": ["build/split-llm-run", "--study=a study.json", "--set=scheme={\"name\": \"x\"}"],
    "folder": "/data/it's", "wall_s": 1.5, "events": 1234, "sessions_lost": ["device-0: <lost>"], "out_of_memory": [],
    "ns3": "3.44", "split_llm": "0.1.0", "gpu": None,
    "study": {"study": "fixture", "mode": "numeric", "model": {"path": "some-model"}, "scheme": {"name": "server"},
              "links": {"device-edge": {"type": "wired", "rate": "1Mbps", "delay": "2ms"}}, "workload": {"requests": 8}},
}  # fmt: skip


def write(folder):
    """Writes the results into a folder."""
    (folder / "summary.json").write_text(json.dumps(summary()))
    (folder / "timeline.json").write_text(json.dumps(timeline()))
    (folder / "run.json").write_text(json.dumps(RUN))
    rows = ["point,repetition,session,request,position,layer,offloaded,returned,score_1,score_2"]
    for (point, position, layer), (offloaded, returned) in cells().items():
        rows.append(f"{point},0,0,0,{position},{layer},{offloaded},{returned},,")
        rows.append(f"{point},1,0,0,{position},{layer},1,1,,")  # another repetition, which is not shown
    (folder / "decisions.csv").write_text("\n".join(rows) + "\n")
    exits = ["point,repetition,session,request,position,source,layer,confidence,asked_ns",
             "1,0,0,0,5,cloud,0,0.5,12", "1,0,0,0,4,exit,8,0.9375,", "1,0,0,0,3,fallback,16,0.25,7"]  # fmt: skip
    (folder / "exits.csv").write_text("\n".join(exits) + "\n")
    texts = [{"point": point, "repetition": 0, "session": 0, "request": 0, "prompt_text": "".join(TOKENS[:PROMPT]),
              "prompt_pieces": TOKENS[:PROMPT], "text": "".join(TOKENS[PROMPT:]), "pieces": TOKENS[PROMPT:]} for point in (0, 1)]  # fmt: skip
    (folder / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
