# SPDX-License-Identifier: GPL-2.0-only
"""plot and decode-text, on results as a study writes them."""

import io
import json
import unittest
from contextlib import redirect_stdout

from support import FolderTest

from splitllm.cli import InputError
from splitllm.plots import Points, plot
from splitllm.units import measure, written


def point(swept, **components):
    total = sum(components.values())
    metrics = {f"token_latency_ms.{name}": total * factor for name, factor in (("mean", 1), ("p50", 0.9), ("p95", 1.4))}
    metrics |= {f"component_ms.{name}.mean": value for name, value in components.items()}
    return {"set": swept, "metrics": metrics}


class Units(unittest.TestCase):
    def test_quantities_are_told_from_names(self):
        for value, expected in (
            ("100Mbps", (1e8, "bit/s")), ("1.5Gbps", (1.5e9, "bit/s")), ("2MB/s", (1.6e7, "bit/s")), ("3", (None, None)),
            ("250us", (2.5e-4, "s")), ("1MB", (1e6, "byte")), (16, (16.0, "")), (0.5, (0.5, "")), (True, (None, None)),
            ("linfer", (None, None)), ("a100-80gb", (None, None)), ("7b", (None, None)),
        ):  # fmt: skip
            number, dimension = measure(value)
            self.assertEqual((number if number is None else round(number, 9), dimension), expected, value)

    def test_values_are_written_for_people(self):
        self.assertEqual([written(v) for v in ("100Mbps", "1.5ms", 8, "tlc", True)], ["100 Mbps", "1.5 ms", "8", "tlc", "true"])


class Plot(FolderTest):
    def plot(self, *points):
        self.write("summary.json", json.dumps({"study": "x", "points": points}))
        with redirect_stdout(io.StringIO()):
            files = plot(self.folder)
        return sorted(file.name for file in files)

    def test_studies_of_every_number_of_swept_keys_are_plotted(self):
        rate, scheme = "links.device-edge.rate", "scheme.name"
        both = ["components.png", "token-latency.png"]
        self.assertEqual(self.plot(point({}, base=3.0)), both)
        self.assertEqual(self.plot(point({rate: "1Mbps"}, base=3.0), point({rate: "1Gbps"}, base=3.0, network=1.0)), both)
        self.assertEqual(self.plot(point({scheme: "server"}, base=3.0), point({scheme: "local"}, base=9.0)), both)
        self.assertEqual(self.plot(*(point({scheme: s, rate: r, "seed": i}, base=1.0, queue=i) for s in "ab"
                                     for r in ("1Mbps", "9Mbps") for i in (1, 2))), both)  # fmt: skip
        for name in both:
            self.assertEqual((self.folder / "plots" / name).read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_points_that_ran_out_of_memory_are_left_out(self):
        self.assertEqual(self.plot({"set": {}, "metrics": {"oom.edge": 1}}), [])
        self.assertEqual(len(self.plot({"set": {"n": 1}, "metrics": {"oom.edge": 1}}, point({"n": 2}, base=1.0))), 2)

    def test_the_axis_is_the_first_key_that_is_a_quantity(self):
        points = [point({"scheme.name": s, "links.l.rate": r}, base=1.0) for s in "ab" for r in ("1Mbps", "2Mbps")]
        plotted = Points({"study": "x", "points": points}, "summary.json")
        self.assertEqual((plotted.axis, plotted.others), ("links.l.rate", ["scheme.name"]))
        self.assertEqual({label: len(row) for label, row in plotted.lines().items()}, {"a": 2, "b": 2})

    def test_other_files_are_refused_in_one_line(self):
        for text in ("[]", '{"study": "x", "points": [1]}', '{"points": []}'):
            self.write("summary.json", text)
            with self.assertRaisesRegex(InputError, "summary.json: not a summary"):
                plot(self.folder)
        self.write("summary.json", "{")
        result = self.run_script("plot", self.folder)
        self.assertEqual((result.returncode, len(result.stderr.splitlines())), (2, 1), result.stderr)
        self.assertIn("summary.json: cannot be read as JSON", result.stderr)


class DecodeText(FolderTest):
    def setUp(self):
        super().setUp()
        from tokenizers import Tokenizer, models

        vocabulary = {"red": 0, "green": 1, "blue": 2}
        (self.folder / "model").mkdir()
        Tokenizer(models.WordLevel(vocabulary, unk_token="red")).save(str(self.folder / "model/tokenizer.json"))
        rows = ["point,repetition,session,request,position,token,latency_ns"]
        for at, request, position, token in ((0, 0, 2, 1), (0, 0, 1, 2), (0, 1, 1, 0), (1, 0, 1, 2), (1, 0, 2, 1)):
            rows.append(f"{at},0,0,{request},{position},{token},5")
        self.write("tokens.csv", "\n".join(rows) + "\n")
        self.write("summary.json", json.dumps({"study": "x", "points": [{"set": {"k.seed": 1}}, {"set": {"k.seed": 2}}]}))

    def decoded(self):
        return [json.loads(line) for line in (self.folder / "texts.jsonl").read_text().splitlines()]

    def test_tokens_become_texts_in_the_order_of_their_positions(self):
        result = self.run_script("decode-text", self.folder, "--model", self.folder / "model")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([(row["point"], row["request"], row["text"]) for row in self.decoded()],
                         [(0, 0, "blue green"), (0, 1, "red"), (1, 0, "blue green")])  # fmt: skip
        # both points gave the first user the same text, which is shown once
        self.assertEqual(result.stdout.count("blue green"), 1)
        self.assertIn("seed = 1 (and 1 more point", result.stdout)

    def test_the_study_leads_to_the_model_and_its_prompts(self):
        prompts = self.write("p.jsonl", '{"id": "1", "text": "Which?", "tokens": [0]}\n')
        study = {"mode": "numeric", "model": {"path": "model"}, "workload": {"prompts": str(prompts)}}
        study = self.write("study.json", json.dumps(study))
        arguments = (self.folder, "--study", study, "--models", self.folder)
        self.assertEqual(self.run_script("decode-text", *arguments).returncode, 0)
        self.assertEqual([row["prompt_text"] for row in self.decoded()], ["Which?"] * 3)
        (self.folder / "texts.jsonl").unlink()
        for override in ("model.path=none", "mode=shape"):
            result = self.run_script("decode-text", *arguments, "--set", override)
            self.assertEqual((result.returncode, len(result.stdout.splitlines())), (0, 1))
            self.assertFalse((self.folder / "texts.jsonl").exists())

    def test_requests_drawn_in_another_order_have_their_own_prompts(self):
        lines = ['{"id": "a", "text": "Which?", "tokens": [0]}', '{"id": "b", "text": "What?", "tokens": [0]}']
        prompts = self.write("p.jsonl", "\n".join(lines) + "\n")
        study = {"mode": "numeric", "model": {"path": "model"}, "workload": {"prompts": str(prompts)}}
        study = self.write("study.json", json.dumps(study))
        self.write("requests.csv", "point,repetition,request,prompt\n0,0,0,b\n0,0,1,a\n1,0,0,a\n")
        arguments = (self.folder, "--study", study, "--models", self.folder)
        self.assertEqual(self.run_script("decode-text", *arguments).returncode, 0)
        self.assertEqual([row["prompt_text"] for row in self.decoded()], ["What?", "Which?", "Which?"])

    def test_other_tables_are_refused(self):
        for text in ("", "a,b\n1,2\n", "point,request,position,token\n0,0,1,x\n"):
            self.write("tokens.csv", text)
            result = self.run_script("decode-text", self.folder, "--model", self.folder / "model")
            self.assertEqual((result.returncode, len(result.stderr.splitlines())), (2, 1), result.stderr)


if __name__ == "__main__":
    unittest.main()
