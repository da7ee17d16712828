# SPDX-License-Identifier: GPL-2.0-only
"""One token of each point on the clock of all nodes, from timeline.json."""

import json
from typing import NamedTuple

from splitllm.cli import InputError

MOST_EVENTS = 60_000  # in a page
MOST_A_TOKEN = 3_000  # beyond that only those of its user are shown
MOST_NODES = 6  # of a token: with thousands of devices the others have nothing to do with it
WANTED_TOKEN = 2  # of the first user; the first one has the whole prompt to process
LANES = ("compute", "messages in", "packets out", "mode")


class Span(NamedTuple):
    """What happened on one lane of a node, in microseconds; packets have no session, and most spans no component."""

    node: str
    lane: str
    name: str
    start: float
    end: float
    component: str = ""
    session: int | None = None


def read_spans(path):
    """{point: spans}; nothing without a file, or in one
    that does not tell points apart."""
    try:
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a timeline: {error}") from None
    nodes, spans, begun = {}, {}, {}
    try:
        for event in events:
            if event["ph"] == "M" and event["name"] == "process_name" and "point" in event["args"]:
                # the title of the point stands behind the name
                node = (event["args"]["point"], event["args"]["name"].split(" (", 1)[0])
                if node in nodes.values():
                    return {}
                nodes[event["pid"]] = node
            if event["ph"] == "M" or event["pid"] not in nodes:
                continue
            point, node = nodes[event["pid"]]
            if event["ph"] == "b":
                begun[event["id"]] = event
                continue
            first = begun.pop(event["id"]) if event["ph"] == "e" else event
            end = event["ts"] if event["ph"] == "e" else event["ts"] + event["dur"]
            details = (first["args"].get("component", ""), first["args"].get("session"))
            spans.setdefault(point, []).append(Span(node, first["cat"], first["name"], first["ts"], end, *details))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a timeline: {error}") from None
    return spans


def token_of(spans):
    """One token: its name, the time it took, [node, lane, name, component, start, duration] of what happened meanwhile,
    times relative to its start, and how many nodes or whether other users are left out; None where there is no token."""
    tokens = [span for span in spans if span.lane == "tokens"]
    mine = sorted((span for span in tokens if span.node == tokens[0].node), key=lambda span: span.start)
    if not mine:
        return None
    token = mine[min(WANTED_TOKEN, len(mine)) - 1]
    session = int(token.node.rsplit(" ", 1)[-1])  # tokens are those of "user 0", "user 1", ...
    inside = [span for span in spans if span.lane in LANES and span.end > token.start and span.start < token.end]
    counts = {}
    for span in inside:
        own, all_of_it = counts.get(span.node, (0, 0))
        counts[span.node] = (own + (span.session == session), all_of_it + 1)
    chosen = sorted(counts, key=counts.get, reverse=True)[:MOST_NODES]
    shown = [span for span in inside if span.node in chosen]
    crowded = len(shown) > MOST_A_TOKEN
    if crowded:
        shown = [span for span in shown if span.session == session]
    events = [
        [span.node, span.lane, span.name, span.component, round(span.start - token.start, 3), round(span.end - span.start, 3)]
        for span in sorted(shown, key=lambda span: span.start)
    ]
    left_out = {"nodes_left_out": len(counts) - len(chosen), "others_left_out": crowded}
    return {"token": token.name, "took": round(token.end - token.start, 3), "events": events, **left_out}


def tokens(folder):
    """A token of each point, of as many as fit."""
    found, size = [], 0
    for point, spans in sorted(read_spans(folder / "timeline.json").items()):
        token = token_of(spans)
        if token and token["events"]:
            size += len(token["events"])
            if found and size > MOST_EVENTS:
                break
            found.append({"point": point, **token})
    return found
