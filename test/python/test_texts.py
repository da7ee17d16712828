# SPDX-License-Identifier: GPL-2.0-only
import importlib.machinery
import importlib.util
import json
import unittest

from support import ROOT, SMOLLM2, FolderTest

loader = importlib.machinery.SourceFileLoader("make_text", str(ROOT / "scripts" / "make-text"))
make_text = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(make_text)

try:
    import torch
except ModuleNotFoundError:
    torch = None

TEXTS = ROOT / "scenarios" / "texts"

PAGE = """<html><head><title>not this</title><link rel="next" href="{next}"/><link rel="up" href="{up}" title="t"/></head>
<body><ul class="docnav"><li>nor this</li></ul><h2>1.1. A <code>title</code></h2>
<a class="indexterm">nor that</a><div class="para">One
paragraph<br/>with <em>parts</em>.<ul><li><div class="para">An item.</div></li></ul><pre>no listing</pre>And its end.</div>
<div class="table"><table><tr><td><div class="para">no cell</div></td></tr></table></div></body></html>"""


class Book(FolderTest):
    def test_titles_and_paragraphs_are_kept_and_nothing_else(self):
        page = make_text.Page(PAGE.format(next="b.html", up="index.html"))
        self.assertEqual(page.paragraphs, ["1.1. A title", "One paragraph with parts.", "An item.", "And its end."])
        self.assertEqual(page.links["next"][0], "b.html")

    def test_pages_belong_to_the_chapter_above_them_in_the_order_of_the_book(self):
        for name, following, up in (
            ("index", "two.html", ""), ("two", "two-one.html", "index.html"), ("two-one", "one.html", "two.html"),
            ("one", "", "index.html"),
        ):  # fmt: skip
            self.write(f"{name}.html", PAGE.format(next=following, up=up))
        documents = make_text.documents_of(self.folder)
        self.assertEqual([(name, len(paragraphs)) for name, paragraphs in documents.items()], [("two", 8), ("one", 4)])

    def test_a_folder_without_a_book_is_refused(self):
        result = self.run_script("make-text", self.folder, "--name", "x", "--source", "s", "--model", self.folder,
                                 "--out", self.folder)  # fmt: skip
        self.assertEqual(result.returncode, 2)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1)

    def test_only_long_documents_are_held_out_one_of_five(self):
        lengths = [3000, 10, 3000, 3000, 3000, 20, 3000, 3000, 3000, 3000]
        held_out = make_text.split(lengths)
        self.assertEqual(held_out, {3, 9})
        self.assertEqual(make_text.split([5, 5, 5, 5, 5]), set())


class Committed(unittest.TestCase):
    def test_no_document_is_both_trained_on_and_held_out(self):
        parts = {}
        for part in ("train", "held-out"):
            lines = (TEXTS / f"debian-handbook-{part}.jsonl").read_text(encoding="utf-8").splitlines()
            parts[part] = [json.loads(line) for line in lines]
        ids = [{row["id"] for row in rows} for rows in parts.values()]
        self.assertFalse(ids[0] & ids[1])
        self.assertEqual({row["source"] for rows in parts.values() for row in rows},
                         {"debian-handbook 11.20220922, GPL-2.0+"})  # fmt: skip
        self.assertGreaterEqual(sum(len(row["tokens"]) for row in parts["train"]), 150000)
        self.assertGreaterEqual(sum(len(row["tokens"]) for row in parts["held-out"]), 20000)

    @unittest.skipUnless((SMOLLM2 / "tokenizer.json").is_file(), "needs the model's tokenizer")
    def test_the_tokens_are_prose(self):
        from splitllm.tokens import load_tokenizer

        tokenizer = load_tokenizer(SMOLLM2)
        line = (TEXTS / "debian-handbook-held-out.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        text = tokenizer.decode(json.loads(line)["tokens"])
        self.assertTrue(text.startswith("Appendix B. Short Remedial Course\n\nEven though this book"))


@unittest.skipIf(torch is None, "needs torch (scripts/setup.sh training)")
class Activations(FolderTest):
    def setUp(self):
        super().setUp()
        from splitllm import activations

        self.activations = activations

    def test_windows_lie_within_documents_and_are_evenly_spread(self):
        rows = [{"tokens": list(range(10))}, {"tokens": list(range(100, 107))}, {"tokens": [1]}]
        path = self.write("text.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        self.assertEqual(self.activations.windows_of(path, 3, 5).tolist(),
                         [[0, 1, 2], [3, 4, 5], [6, 7, 8], [100, 101, 102], [103, 104, 105]])  # fmt: skip
        self.assertEqual(self.activations.windows_of(path, 3, 2).tolist(), [[0, 1, 2], [6, 7, 8]])

    def test_a_quantile_is_the_smallest_magnitude_that_covers_its_share(self):
        values = -torch.arange(1, 1001).float()
        expected = {0.5: 500, 0.9: 900, 0.99: 990, 0.999: 999, 1.0: 1000}
        found = dict(zip(self.activations.LEVELS, self.activations.quantiles(values).tolist()))
        for level, value in expected.items():
            self.assertEqual(found[level], value)

    def test_quantising_is_what_the_codec_does(self):
        # the example of the C++ test: (x - shift) / scale is -4, 0, 1, 8, clipped to [-2, 4], a step of 2
        x = torch.tensor([[6.0, 0.0, 0.5, 0.0]])
        shift, scale = torch.tensor([10.0, 0.0, 0.0, -8.0]), torch.tensor([1.0, 2.0, 0.5, 1.0])
        found = self.activations.quantised(x, shift, scale, torch.tensor([0.5, 0.5]), 2)
        self.assertEqual(found.tolist(), [[8.0, 0.0, 1.0, -4.0]])

    def test_learning_lowers_the_weighted_error(self):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(64, 16, generator=generator)
        x[:, 3] = 50 + x[:, 3]  # one channel is large in every row
        *_, error, before = self.activations.learn(x, torch.ones_like(x), 3, steps=60)
        self.assertLess(error, 0.7 * before)
        plain = self.activations.quantised(x, torch.zeros(16), torch.ones(16), torch.ones(2), 3)
        self.assertLess(error, 0.1 * float((plain - x).pow(2).sum()) / len(x))


if __name__ == "__main__":
    unittest.main()
