# SPDX-License-Identifier: GPL-2.0-only
"""One token of each point on the clock of all nodes, from timeline.json."""

import json

from splitllm.cli import InputError

MOST_EVENTS = 60_000  # in a page
MOST_NODES = 6  # of a token: with thousands of devices the others have nothing to do with it
WANTED_TOKEN = 2  # of the first user; the first one has the whole prompt to process
LANES = ("compute", "messages in", "packets out", "mode")


def read_spans(path):
    """{point: [(node, lane, name, component, start, end)]}, in microseconds; nothing without a file, or in one
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
            component = first["args"].get("component", "")
            spans.setdefault(point, []).append((node, first["cat"], first["name"], component, first["ts"], end))
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a timeline: {error}") from None
    return spans


def token_of(spans):
    """One token's events: (its name, the time it took, [(node, lane, name, component, start, duration)]), the times
    relative to its start; None where there is no token."""
    users = [span for span in spans if span[1] == "tokens"]
    mine = sorted((span for span in users if span[0] == users[0][0]), key=lambda span: span[4])
    if not mine:
        return None
    _, _, name, _, start, end = mine[min(WANTED_TOKEN, len(mine)) - 1]
    inside = [span for span in spans if span[1] in LANES and span[5] > start and span[4] < end]
    counts = {}
    for span in inside:
        counts[span[0]] = counts.get(span[0], 0) + 1
    busiest = sorted(counts, key=lambda node: -counts[node])[:MOST_NODES]
    shown = [span for span in inside if span[0] in busiest]
    events = [
        [node, lane, what, component, round(begin - start, 3), round(finish - begin, 3)]
        for node, lane, what, component, begin, finish in sorted(shown, key=lambda span: span[4])
    ]
    return {"token": name, "took": round(end - start, 3), "events": events, "nodes_left_out": len(counts) - len(busiest)}


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
