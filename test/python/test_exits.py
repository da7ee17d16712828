# SPDX-License-Identifier: GPL-2.0-only
"""Early exits: what their files are, what they compute, and the pieces of their training."""

import importlib.machinery
import importlib.util
import json
import math
import unittest

import numpy as np
from safetensors.numpy import load_file, save_file
from support import ROOT, SMOLLM2, FolderTest

from splitllm import exits
from splitllm.cli import InputError
from splitllm.files import from_bf16, load_json

try:
    import torch

    from splitllm import exit_training
except ModuleNotFoundError:
    torch = None

loader = importlib.machinery.SourceFileLoader("train_exits", str(ROOT / "scripts" / "train-exits"))
train_exits = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(train_exits)

TRAINED = ROOT / "scenarios" / "exits"
GOLDEN = ROOT / "test" / "golden" / "smollm2-135m-exits.safetensors"


class Windows(unittest.TestCase):
    def test_every_token_but_the_first_is_predicted_once(self):
        self.assertEqual(exits.windows(list(range(8)), 3), [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7]])
        self.assertEqual(exits.windows(list(range(7)), 3), [[0, 1, 2, 3], [3, 4, 5, 6]])
        self.assertEqual(exits.windows([4, 5], 512), [[4, 5]])
        self.assertEqual(exits.windows([4], 512), [])


class CalibrationError(unittest.TestCase):
    def test_it_is_the_mean_gap_of_the_bins_weighted_by_their_rows(self):
        # (0.8, 0.9]: mean confidence 0.85, 1 of 3 right; (0, 0.1]: 0.1, right; (0.9, 1]: 1, right
        confidence, right = [0.82, 0.83, 0.9, 0.1, 1.0], [False, False, True, True, True]
        self.assertAlmostEqual(exits.calibration_error(confidence, right), (3 * (0.85 - 1 / 3) + 0.9 + 0) / 5)

    def test_gaps_of_opposite_sign_cancel_within_a_bin_and_not_between_bins(self):
        self.assertAlmostEqual(exits.calibration_error([0.55, 0.55], [True, False]), 0.05)
        self.assertAlmostEqual(exits.calibration_error([0.45, 0.55], [True, False]), 0.55)


class Files(FolderTest):
    def written(self, **changes):
        random = np.random.default_rng(7)
        parts = {part: random.normal(size=shape) for part, shape in exits.shapes(6, 3).items()} | changes
        description = {"model": "m", "layers": [2], "width": 3, "made_by": "a test", "trained_on": "nothing"}
        exits.save(self.folder / "exits", description, {2: parts})
        return parts

    def test_what_was_saved_is_loaded_in_fp16(self):
        parts = self.written()
        description, loaded = exits.load(self.folder / "exits")
        self.assertEqual(list(description), ["model", "layers", "width", "made_by", "trained_on"])
        for part, value in parts.items():
            np.testing.assert_array_equal(loaded[2][part], value.astype(np.float16).astype(np.float32))

    def test_values_beyond_fp16_are_refused(self):
        with self.assertRaisesRegex(InputError, "exit.2.norm.weight: a value that fp16 does not hold"):
            self.written(norm=np.full(6, 65520.0))

    def test_a_folder_that_is_not_whole_is_refused(self):
        self.written()
        path = self.folder / "exits" / "exits.safetensors"
        tensors = load_file(path)
        save_file(tensors | {"exit.2.up.weight": np.zeros((3, 6), np.float16)}, path)
        with self.assertRaisesRegex(InputError, r"exit.2.up.weight is \(3, 6\)"):
            exits.load(self.folder / "exits")
        tensors.pop("exit.2.norm.weight")
        save_file(tensors, path)
        with self.assertRaisesRegex(InputError, "no tensor exit.2.norm.weight"):
            exits.load(self.folder / "exits")


class Arguments(unittest.TestCase):
    def test_layers_rise(self):
        self.assertEqual(train_exits.layers_of("8,16"), [8, 16])
        for text in ("16,8", "8,8", "0,8", "8,", "eight", ""):
            with self.subTest(text), self.assertRaises(train_exits.argparse.ArgumentTypeError):
                train_exits.layers_of(text)


class Trained(unittest.TestCase):
    def test_every_folder_is_whole(self):
        folders = [path.parent for path in TRAINED.glob("*/exits.json")]
        self.assertTrue(folders)
        for folder in folders:
            with self.subTest(folder.name):
                description, tensors = exits.load(folder)
                self.assertEqual(list(tensors), description["layers"])
                raw = load_file(folder / "exits.safetensors")
                self.assertEqual(len(raw), 4 * len(tensors))
                for name, value in raw.items():
                    self.assertEqual(value.dtype, np.float16, name)
                    self.assertTrue(np.isfinite(value).all(), name)
                    self.assertTrue(value.any(), name)
                self.assertLessEqual(sum(path.stat().st_size for path in folder.iterdir()), 3_000_000)

    def test_figures_are_there_for_every_exit_and_set(self):
        for path in TRAINED.glob("*/exits.json"):
            with self.subTest(path.parent.name):
                measured = load_json(path.with_name("training.json"))["measured"]
                for name, layers in measured.items():
                    self.assertEqual([int(layer) for layer in layers], load_json(path)["layers"])
                    for layer, kinds in layers.items():
                        better, before = kinds["trained"]["agreement"], kinds["untrained"]["agreement"]
                        self.assertGreater(better, before, (name, layer))

    def test_confidence_is_calibrated_on_text_that_was_held_out(self):
        measured = load_json(TRAINED / "smollm2-135m" / "training.json")["measured"]
        for layer in ("8", "16"):
            self.assertLess(measured["text"][layer]["trained"]["calibration_error"], 0.05)


@unittest.skipUnless((SMOLLM2 / "model.safetensors").is_file(), "models/smollm2-135m-instruct is not there")
class Golden(unittest.TestCase):
    """The reference that torch wrote, computed again from the formulas in numpy and fp64."""

    def test_the_reference_follows_from_the_committed_exits(self):
        raw = (SMOLLM2 / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        entry = json.loads(raw[8 : 8 + length])["model.embed_tokens.weight"]
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        embedding = from_bf16(np.frombuffer(raw[begin:end], "<u2")).reshape(entry["shape"])
        description, tensors = exits.load(TRAINED / "smollm2-135m")
        golden = load_file(GOLDEN)
        rms = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        for layer in description["layers"]:
            parts = {name: value.astype(np.float64) for name, value in tensors[layer].items()}
            h = golden[f"state.{layer}"].astype(np.float64)
            inner = rms(h) * parts["input_norm"] @ parts["down"].T
            a = h + inner / (1 + np.exp(-inner)) @ parts["up"].T
            logits = rms(a) * parts["norm"] @ embedding.T
            ids = np.argsort(-logits, -1, kind="stable")[:, :8]
            best = np.take_along_axis(logits, ids, -1)
            np.testing.assert_array_equal(ids, golden[f"exit.{layer}.top_ids"])
            np.testing.assert_allclose(golden[f"exit.{layer}.top_logits"], best, rtol=1e-4, atol=1e-4)
            confidence = 1 / np.exp(logits - best[:, :1]).sum(-1)
            np.testing.assert_allclose(golden[f"exit.{layer}.confidence"], confidence, rtol=1e-3)


@unittest.skipIf(torch is None, "needs torch (scripts/setup.sh training)")
class Training(unittest.TestCase):
    def setUp(self):
        self.generator = torch.Generator().manual_seed(3)

    def rows(self, count, vocabulary, hidden=5):
        logits = torch.randn(count, vocabulary, generator=self.generator)
        best = logits.softmax(-1).topk(exit_training.TOP, -1)
        states = torch.randn(1, count, hidden, generator=self.generator).half()
        zeros = torch.zeros(count, dtype=torch.int32)
        return exit_training.Rows(states, best.indices.int(), best.values, zeros, zeros)

    def test_a_new_exit_is_the_models_norm_and_a_temperature_divides_its_logits(self):
        norm, h = torch.rand(5) + 0.5, 3 * torch.randn(7, 5, generator=self.generator)
        made = exit_training.Exit(norm, 1e-5, h, 4, self.generator)
        expected = norm * h / (h.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(made(h), expected)
        torch.testing.assert_close(exit_training.normed(made.tensors(2.0), h, 1e-5), expected / 2)

    def test_an_exits_tensors_compute_what_the_exit_computes(self):
        h = 3 * torch.randn(7, 5, generator=self.generator)
        made = exit_training.Exit(torch.rand(5) + 0.5, 1e-5, h, 4, self.generator)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.normal_(generator=self.generator)
        torch.testing.assert_close(exit_training.normed(made.tensors(), h, 1e-5), made(h).detach())
        adapted = made(h) - made.norm * made.model_norm * exit_training.rms(h, 1e-5)
        self.assertGreater(float(adapted.detach().abs().max()), 0.1)

    def test_a_sample_of_everything_gives_the_exact_loss(self):
        batch = self.rows(6, 200)
        sample = exit_training.Sample(batch.top, 200, self.generator)
        self.assertEqual(sorted(sample.tokens.tolist()), list(range(200)))
        logits = torch.randn(6, 200, generator=self.generator)
        logs = logits.log_softmax(-1)
        top = batch.top.long()
        hard = -logs.gather(1, top[:, :1]).mean()
        some = logs.gather(1, top)
        rest = 1 - batch.chance.sum(-1)
        soft = (-(batch.chance * some).sum(-1) - rest * (1 - some.exp().sum(-1)).log()).mean()
        for share, expected in ((1.0, hard), (0.0, soft), (0.25, hard / 4 + 3 * soft / 4)):
            found = exit_training.loss_of(logits[:, sample.tokens], sample, batch.chance, share)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)

    def test_a_samples_denominator_is_right_on_average(self):
        vocabulary = 3 * exit_training.SAMPLED
        batch = self.rows(2, vocabulary)
        logits = torch.randn(2, vocabulary, generator=self.generator)
        sums = []
        for _ in range(50):
            sample = exit_training.Sample(batch.top, vocabulary, self.generator)
            self.assertLess(len(sample.tokens), vocabulary / 2)
            sums.append((logits[:, sample.tokens] + sample.correction).exp().sum(-1))
        torch.testing.assert_close(torch.stack(sums).mean(0), logits.exp().sum(-1), rtol=0.01, atol=0)

    def test_the_temperature_that_draws_follow_is_found(self):
        embedding = torch.eye(9)
        states = 2 * torch.randn(20000, 9, generator=self.generator)
        drawn = torch.multinomial((states / 1.7).softmax(-1), 1, generator=self.generator)[:, 0]
        self.assertAlmostEqual(exit_training.fit_temperature(states, embedding, drawn), 1.7, delta=0.05)

    def test_figures_of_an_exit_whose_predictions_are_known(self):
        # the head of two tokens gives logits (x, -x), x the first coordinate of the normed state
        states = torch.tensor([[3.0, 0.0], [1.0, 2.0], [-4.0, 0.0]])
        parts = {"input_norm": torch.ones(2), "down": torch.zeros(1, 2), "up": torch.zeros(2, 1), "norm": torch.ones(2)}
        column = lambda *values: torch.tensor(values, dtype=torch.int32)
        rows = exit_training.Rows(states[None].half(), column(0, 1, 1)[:, None], None, column(0, 0, 1), None)
        found = exit_training.measure(parts, 0.0, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), states, rows)
        sure, unsure = (1 / (1 + math.exp(-2 * x)) for x in (math.sqrt(2), math.sqrt(0.4)))  # 0.94 and 0.78
        self.assertEqual(found["rows"], 3)
        for name, value in (
            ("agreement", 2 / 3), ("confidence", (2 * sure + unsure) / 3), ("confident", 2 / 3),
            ("calibration_error", (2 * (1 - sure) + unsure) / 3), ("agreement_when_confident", 1),
            ("perplexity", (sure * sure * unsure) ** (-1 / 3)),
        ):  # fmt: skip
            self.assertAlmostEqual(found[name], value, places=5, msg=name)


if __name__ == "__main__":
    unittest.main()
