# SPDX-License-Identifier: GPL-2.0-only
"""What a report says about a study, against results written by hand."""

import json
import re
import unittest

import report_fixture
from support import SMOLLM2, FolderTest

from splitllm import report, report_metrics, report_question, report_timeline, texts
from splitllm.report_timeline import Span


def embedded(page):
    """The data in a page, as a browser reads it: up to the first end of the element."""
    return json.loads(re.search(r'<script type="application/json" id="report">(.*?)</script', page, re.S)[1])


class Metrics(unittest.TestCase):
    def test_names_become_titles_with_units_and_the_better_side(self):
        for name, title, unit, better in (
            ("token_latency_ms.mean", "Latency of a token, mean", "ms", "low"),
            ("token_latency_ms.p99", "Latency of a token, p99", "ms", "low"),
            ("memory_bytes.edge.peak", "Peak memory, edge", "B", "low"),
            ("memory_bytes.edge.kv", "Memory of the edge: kv", "B", "low"),
            ("quality.rouge_l", "ROUGE-L of the answers", "ratio", "high"),
            ("link.device-edge.goodput_mbps", "Goodput of device-edge", "Mbit/s", "high"),
            ("offload_ratio", "Cells offloaded", "ratio", None),
            ("offered_requests_per_s", "Requests that come in", "1/s", None),
            ("new.things_per_s", "new.things_per_s", "1/s", None),
            ("new.thing_ms.mean", "new.thing_ms.mean", "ms", None),
            ("new_thing", "new_thing", "", None),
        ):
            self.assertEqual(report_metrics.describe(name), {"title": title, "unit": unit, "better": better})

    def test_a_star_stands_for_any_part_and_the_order_is_that_of_the_wish(self):
        names = ["memory_bytes.a.kv", "memory_bytes.b.peak", "x", "memory_bytes.a.peak"]
        self.assertEqual(report_metrics.select(names, ("x", "y", "memory_bytes.*.peak")),
                         ["x", "memory_bytes.b.peak", "memory_bytes.a.peak"])  # fmt: skip

    def test_what_is_the_same_everywhere_is_not_drawn(self):
        points = [{"metrics": {"token_latency_ms.mean": 1.0 + i, "ttft_ms.mean": 5.0, "quality.exact_match": i / 2}} for i in range(2)]
        self.assertEqual(report_metrics.curves(points), ["token_latency_ms.mean", "quality.exact_match"])
        self.assertEqual(report_metrics.tradeoffs(points), [("token_latency_ms.mean", "quality.exact_match")])

    def test_without_quality_latency_is_what_bytes_and_memory_are_held_against(self):
        points = [{"metrics": {"token_latency_ms.mean": i, "payload_bytes_per_response.up": 9 - i, "memory_bytes.d.peak": i}} for i in (1, 2)]
        self.assertEqual(report_metrics.tradeoffs(points), [
            ("payload_bytes_per_response.up", "token_latency_ms.mean"), ("memory_bytes.d.peak", "token_latency_ms.mean")])  # fmt: skip


class Question(unittest.TestCase):
    def test_few_values_are_listed_and_many_numbers_are_a_range(self):
        self.assertEqual(report_question.listed(["1Mbps", "2ms", True]), "1 Mbps, 2 ms, true")
        self.assertEqual(report_question.listed([f"{n}ms" for n in (9, 3, 5, 1, 2, 4, 8)]), "7 values from 1 ms to 9 ms")
        self.assertEqual(report_question.listed(list("abcdefgh")), "a, b, c, d, e, f and 2 more")

    def test_what_is_swept_is_not_among_what_stays(self):
        study = {"mode": "shape", "seed": 3, "links": {"a-b": {"type": "wired", "rate": "1Gbps", "delay": "2ms"}},
                 "nodes": {"a": {"role": "user-device", "hardware": {"profile": "x", "memory": "2GB"}}},
                 "scheme": {"name": "linfer"}, "workload": {"prompt_tokens": [{"tokens": 20, "requests": 4}]}}  # fmt: skip
        rows = report_question.fixed(study, ["links.a-b.rate", "scheme", "case"])
        self.assertEqual(rows, [
            ["mode", "shape"], ["a", "user-device, hardware x, memory 2 GB"], ["a-b", "wired, delay 2 ms"],
            ["workload", "prompt tokens tokens 20, requests 4"], ["seed", "3"]])  # fmt: skip

    def test_the_keys_that_a_case_sets_are_swept_too(self):
        points = [{"set": {"case": {"label": "x", "scheme": {"name": "a"}}, "seed": 1}}]
        self.assertEqual(report_question.case_keys(points), ["case", "seed", "label", "scheme"])


class Timeline(FolderTest):
    def test_the_second_token_is_shown_with_all_that_overlaps_it(self):
        spans = [Span("user 0", "tokens", "t1", 0, 10), Span("user 0", "tokens", "t2", 10, 30), Span("user 1", "tokens", "u1", 0, 99),
                 Span("device", "compute", "before", 5, 10, "base", 0), Span("device", "compute", "across", 8, 10.5, "base", 0),
                 Span("edge", "packets out", "in", 29.5, 40), Span("edge", "compute", "behind", 30, 31, "base", 0)]  # fmt: skip
        token = report_timeline.token_of(spans)
        self.assertEqual((token["token"], token["took"], token["nodes_left_out"], token["others_left_out"]), ("t2", 20, 0, False))
        self.assertEqual(token["events"], [["device", "compute", "across", "base", -2, 2.5], ["edge", "packets out", "in", "", 19.5, 10.5]])

    def test_of_a_thousand_nodes_those_are_shown_that_do_most_for_the_user(self):
        spans = [Span("user 3", "tokens", "t", 0, 10)]
        spans += [Span(f"device-{n}", "compute", "x", 1, 2, "", n) for n in range(9) for _ in range(n + 1)]
        spans += [Span("edge", "compute", "x", 1, 2, "", 3), Span("gateway", "packets out", "58 B", 1, 2)]
        token = report_timeline.token_of(spans)
        self.assertEqual({event[0] for event in token["events"]}, {"device-3", "edge", "device-8", "device-7", "device-6", "device-5"})
        self.assertEqual(token["nodes_left_out"], 5)

    def test_what_is_too_much_to_draw_is_shown_for_the_user_alone(self):
        spans = [Span("user 3", "tokens", "t", 0, 10), Span("edge", "compute", "mine", 1, 2, "base", 3)]
        spans += [Span("edge", "compute", "theirs", 1, 2, "base", n) for n in range(10, 4000)]
        token = report_timeline.token_of(spans)
        self.assertEqual([event[2] for event in token["events"]], ["mine"])
        self.assertTrue(token["others_left_out"])

    def test_where_points_are_not_told_apart_none_is_shown(self):
        node = lambda pid, **point: {"ph": "M", "name": "process_name", "pid": pid, "args": {"name": f"edge (rate = {pid})", **point}}  # noqa: E731
        span = {"ph": "X", "pid": 1, "cat": "tokens", "name": "t", "ts": 0.0, "dur": 2.0, "args": {}}
        for events, points in (([node(1, point=4)], {4}), ([node(1)], set()), ([node(1, point=0), node(2, point=0)], set())):
            file = self.write("timeline.json", json.dumps({"traceEvents": [*events, span]}))
            self.assertEqual(set(report_timeline.read_spans(file)), points)

    def test_without_a_token_there_is_nothing(self):
        self.assertIsNone(report_timeline.token_of([Span("a", "compute", "x", 0, 1)]))


class Pages(FolderTest):
    def setUp(self):
        super().setUp()
        report_fixture.write(self.folder)
        self.contents = report.contents(self.folder)

    def test_metrics_and_intervals_are_those_of_the_summary(self):
        page = embedded(report.page(self.contents))
        for shown, point in zip(page["points"], report_fixture.summary()["points"], strict=True):
            self.assertEqual(shown["metrics"], point["metrics"])
            self.assertEqual(shown["ci95"], point["ci95"])
        self.assertEqual(page["study"], "fixture </title><script>")
        self.assertEqual(set(page["metrics"]), set(report_fixture.METRICS) | {"oom.device", "tokens"})

    def test_points_are_named_by_what_is_swept(self):
        first = self.contents["points"][0]
        self.assertEqual(first["set"]["links.device-edge.rate"], ["1 Mbps", 1e6])
        self.assertEqual([key["name"] for key in self.contents["keys"]], ["device-edge rate", "scheme"])
        self.assertEqual([key["unit"] for key in self.contents["keys"]], ["bit/s", None])
        self.assertEqual(first["label"], "1 Mbps, Server </script><b>bold</b>")
        self.assertFalse(self.contents["sampled"])

    def test_a_page_needs_nothing_else_and_cannot_be_broken_by_names(self):
        page = report.page(self.contents)
        head = page.split('<script type="application/json"')[0]
        self.assertEqual(head.count("</title>"), 1)
        self.assertNotIn("<script", head)
        self.assertNotRegex(head, r"(src|href)=\"(?!data:)")
        self.assertEqual(page.count("</script>"), page.count("<script>") + 1)  # that with the data has attributes

    def test_maps_hold_the_decisions_of_points_that_treat_cells_differently(self):
        (only,) = self.contents["decisions"]
        self.assertEqual((only["point"], only["request"], only["prompt"]), (1, 0, report_fixture.PROMPT))
        for (point, position, layer), (offloaded, returned) in report_fixture.cells().items():
            if point == 1:
                self.assertEqual(int(only["cells"][layer - 1][position]), offloaded + returned)
        self.assertEqual(only["tokens"], report_fixture.TOKENS[:-1])  # the last one is not decided about

    def test_tokens_are_shown_by_where_they_came_from_in_their_order(self):
        (only,) = self.contents["sources"]
        self.assertEqual(only["marks"], [("last exit, cloud not reached", "0.25"), ("exit after layer 8", "0.9375"), ("cloud", "0.5")])
        self.assertEqual("".join(only["tokens"]), " café yes")

    def test_the_command_can_be_pasted_into_a_shell(self):
        again = self.contents["again"]
        self.assertEqual(again["command"], """build/split-llm-run '--study=a study.json' '--set=scheme={"name": "x"}'""")
        self.assertEqual(again["folder"], """'/data/it'"'"'s'""")
        self.assertEqual(again["problems"], ["device-0: <lost>"])

    def test_what_is_not_there_is_left_out(self):
        for name in ("run.json", "timeline.json", "decisions.csv", "exits.csv", "texts.jsonl"):
            (self.folder / name).unlink()
        contents = report.contents(self.folder)
        self.assertEqual([contents[name] for name in ("decisions", "sources", "timelines")], [[], [], []])
        self.assertEqual(contents["again"], {"rows": [], "problems": []})
        self.assertEqual(len(contents["points"]), 15)

    def test_samples_of_a_space_are_no_grid(self):
        points = [{"set": {"links.l.rate": f"{7 * i % 11 + 1}Mbps", "links.l.delay": f"{5 * i % 13 + 1}ms", "scheme.name": "ab"[i % 2]},
                   "metrics": {"token_latency_ms.mean": float(i)}} for i in range(11)]  # fmt: skip
        self.write("summary.json", json.dumps({"study": "s", "points": points}))
        contents = report.contents(self.folder)
        self.assertTrue(contents["sampled"])
        self.assertEqual({point["group"] for point in contents["points"]}, {"a", "b"})
        for number, point in enumerate(points):  # of 12 combinations all but one
            point["set"] = {"links.l.rate": f"{number % 4 + 1}Mbps", "links.l.delay": f"{number // 4 + 1}ms"}
        self.write("summary.json", json.dumps({"study": "s", "points": points}))
        self.assertFalse(report.contents(self.folder)["sampled"])

    def test_the_script_writes_the_page_and_refuses_other_folders_in_one_line(self):
        result = self.run_script("report", self.folder)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("Plotly", (self.folder / "report.html").read_text(encoding="utf-8"))
        for folder, reason in ((self.folder / "none", "no such folder"), (self.folder, "not a summary")):
            self.write("summary.json", "{}")
            result = self.run_script("report", folder)
            self.assertEqual(result.returncode, 2)
            self.assertIn(reason, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)


class Pieces(FolderTest):
    @unittest.skipUnless((SMOLLM2 / "tokenizer.json").is_file(), "needs the model's tokenizer")
    def test_texts_come_with_the_text_of_each_token(self):
        from splitllm.tokens import load_tokenizer

        tokenizer = load_tokenizer(SMOLLM2)
        ids = tokenizer.encode("The capital of France is Paris.").ids
        pieces = texts.pieces(tokenizer, ids)
        self.assertEqual(len(pieces), len(ids))
        self.assertEqual(pieces[-2:], [" Paris", "."])
        self.assertEqual("".join(pieces), "The capital of France is Paris.")
