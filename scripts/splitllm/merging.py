# SPDX-License-Identifier: GPL-2.0-only
"""One results folder from those of single points, and one table of all of them."""

import csv
import io
import json
import os
import re
import sys

from splitllm.study import name_objects

OPTIONAL = {"exits.csv", "gates.csv", "standalone.csv", "outages.csv", "confidence.csv"}  # not every study has them

PID = re.compile(r'"pid":(\d+)')
ID = re.compile(r',"id":(\d+)')
POINT = re.compile(r'"point":0}}$')
CAPTURE = re.compile(r"^point-\d+-")
POINT = '"point":0}}'  # ends what names a process; the only point of its own folder is number 0 there


def merged_tables(parts):
    """{name: text} of the tables; parts: {name: text} of every point, in order."""
    tables = {}
    for number, files in enumerate(parts):
        for name in sorted(name for name in files if name.endswith(".csv")):
            header, *rows = files[name].splitlines(keepends=True)
            if name not in tables:
                tables[name] = [header]
            # the only point of its own folder is number 0 there
            tables[name] += [f"{number}{row[1:]}" for row in rows]
    return {name: "".join(lines) for name, lines in tables.items()}


def merged_timeline(timelines):
    """The timelines one beside the other, with processes and messages numbered on."""
    events, processes, messages = [], 0, 0
    for point, text in enumerate(timelines):
        first = (processes, messages)
        for line in text.splitlines()[1:-1]:
            event = line.removesuffix(",")
            pid = int(PID.search(event)[1]) + first[0]
            processes = max(processes, pid)
            event = PID.sub(f'"pid":{pid}', event, count=1)
            if event.startswith('{"ph":"M","name":"process_name"'):
                event = POINT.sub(f'"point":{number}}}}}', event)
            if event.startswith(('{"ph":"b"', '{"ph":"e"')):
                identity = int(ID.search(event)[1]) + first[1]
                messages = max(messages, identity)
                event = ID.sub(f',"id":{identity}', event, count=1)
            if event.endswith(POINT):
                event = f'{event.removesuffix(POINT)}"point":{point}}}}}'
            events.append(event)
    return '{"displayTimeUnit":"ms","traceEvents":[' + "".join(
        ("," if number else "") + "\n" + event for number, event in enumerate(events)
    ) + "\n]}\n"


def merged_run(study, command, runs):
    """What varies between runs, of all points together; command: what ran them, in this folder."""
    return {
        "study_file": study,
        "command": command,
        "folder": os.getcwd(),
        "study": runs[0]["study"],
        "command": sys.argv,
        "folder": os.getcwd(),
        "study": runs[0]["study"],
        "wall_s": sum(run["wall_s"] for run in runs),
        "events": sum(run["events"] for run in runs),
        "sessions_lost": [reason for run in runs for reason in run["sessions_lost"]],
        "out_of_memory": [reason for run in runs for reason in run["out_of_memory"]],
        "ns3": runs[0]["ns3"],
        "split_llm": runs[0]["split_llm"],
        "compiler": runs[0]["compiler"],
        "gpu": next((run["gpu"] for run in runs if run["gpu"]), None),
        "host": ", ".join(sorted({run["host"] for run in runs})),
    }


def columns_of(summary):
    """[(name, values)] of the table: the swept keys, the metrics, and where there are some their half intervals."""
    points = [dict(point) for point in summary["points"]]
    name_objects(points)
    columns = {}
    for part, prefix in (("set", ""), ("metrics", ""), ("ci95", "ci95.")):
        for number, point in enumerate(points):
            for name, value in point.get(part, {}).items():
                columns.setdefault(prefix + name, [None] * len(points))[number] = value
    return [("point", list(range(len(points)))), *columns.items()]


def uniform(values):
    """The values of a column as one type: as they are, as floats, or as JSON where they are no numbers alone."""
    there = [value for value in values if value is not None]
    if all(isinstance(value, str) for value in there) or all(type(value) is int for value in there):
        return values
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there):
        return [None if value is None else float(value) for value in values]
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]


def table_files(summary):
    """{name: bytes} of table.csv and table.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [(name, uniform(values)) for name, values in columns_of(summary)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for name, _ in columns])
    for row in zip(*(values for _, values in columns)):
        writer.writerow(["" if value is None else value for value in row])
    sink = io.BytesIO()
    pq.write_table(pa.table([pa.array(values) for _, values in columns], [name for name, _ in columns]), sink)
    return {"table.csv": text.getvalue().encode(), "table.parquet": sink.getvalue()}


def merge(study, command, folders):
    """{name: bytes} of the results folder of all points, which lie in `folders` one each, in order."""
    parts, captures = [], {}
    for number, folder in enumerate(folders):
        parts.append({path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()})
        for path in sorted(folder.glob("pcap/*")):
            captures["pcap/" + CAPTURE.sub(f"point-{number}-", path.name)] = path.read_bytes()
    summaries = [json.loads(files["summary.json"]) for files in parts]
    summary = {"study": summaries[0]["study"], "points": [part["points"][0] for part in summaries]}
    run = merged_run(study, command, [json.loads(files["run.json"]) for files in parts])
    texts = {
        "summary.json": json.dumps(summary, indent=2, ensure_ascii=False) + "\n",
        "timeline.json": merged_timeline([files["timeline.json"] for files in parts]),
        "run.json": json.dumps(run, indent=2, ensure_ascii=False) + "\n",
        **merged_tables(parts),
    }
    return {name: text.encode() for name, text in texts.items()} | table_files(summary) | captures
