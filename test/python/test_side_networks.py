# SPDX-License-Identifier: GPL-2.0-only
"""Side networks and bottleneck adapters: their files, what they compute, and the pieces of their training."""

import importlib.machinery
import importlib.util
import json
import unittest

import numpy as np
from safetensors.numpy import load_file, save_file
from support import ROOT, SMOLLM2, FolderTest

from splitllm import bottlenecks
from splitllm import side_networks as side
from splitllm.cli import InputError
from splitllm.files import load_json

try:
    import torch

    from splitllm import bottleneck_training, side_training
except ModuleNotFoundError:
    torch = None

loader = importlib.machinery.SourceFileLoader("train_side", str(ROOT / "scripts" / "train-side"))
train_side = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(train_side)

NETWORKS = ROOT / "scenarios" / "side-networks"
BOTTLENECK = ROOT / "adapters" / "private-qa-bottleneck"
GOLDEN = ROOT / "test" / "golden" / "smollm2-135m-side.safetensors"

LAYERS, HIDDEN, WIDTH, INNER = 3, 7, 2, 5


def some_parts(seed=7):
    random = np.random.default_rng(seed)
    out = {}
    for part in (*side.PER_LAYER, "up", "gate.weight", "gate.bias"):
        shape = side.shape_of(part, HIDDEN, WIDTH, INNER)
        out[part] = random.normal(size=(LAYERS, *shape) if part in side.PER_LAYER else shape).astype(np.float32)
    return out


def side_output(parts, states, eps):
    """g of states [rows, L, d], from the formulas alone, in fp64."""
    parts = {name: value.astype(np.float64) for name, value in parts.items()}
    rms = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    h = np.zeros((len(states), parts["down"].shape[1]))
    for layer in range(states.shape[1]):
        h = h + rms(states[:, layer].astype(np.float64)) @ parts["down"][layer].T
        inner = rms(h) @ parts["inner"][layer].T
        h = h + inner / (1 + np.exp(-inner)) @ parts["outer"][layer].T
    return rms(h) @ parts["up"].T


def question(text, answer, group="private"):
    return {"text": text, "answer": list(answer), "group": group}


class Files(FolderTest):
    DESCRIPTION = {
        "model": "m", "width": WIDTH, "inner": INNER, "combination": "sum", "made_by": "a test", "trained_on": "nothing"
    }  # fmt: skip

    def written(self, description=DESCRIPTION, **changes):
        parts = some_parts() | changes
        side.save(self.folder / "side", description, parts)
        return parts

    def test_what_was_saved_is_loaded_in_fp16(self):
        parts = self.written()
        description, loaded = side.load(self.folder / "side")
        self.assertEqual(list(description), list(side.KEYS))
        self.assertEqual(sorted(loaded), sorted(parts))
        for part, value in parts.items():
            np.testing.assert_array_equal(loaded[part], value.astype(np.float16).astype(np.float32))

    def test_layers_count_from_1_in_the_file(self):
        parts = self.written()
        raw = load_file(self.folder / "side" / "side.safetensors")
        self.assertEqual(len(raw), 3 * LAYERS + 3)
        np.testing.assert_array_equal(raw["side.1.inner"], parts["inner"][0].astype(np.float16))
        np.testing.assert_array_equal(raw["side.3.down"], parts["down"][2].astype(np.float16))

    def test_values_beyond_fp16_are_refused(self):
        with self.assertRaisesRegex(InputError, "up: a value that fp16 does not hold"):
            self.written(up=np.full((HIDDEN, WIDTH), 65520.0))

    def test_a_folder_that_is_not_whole_is_refused(self):
        self.written()
        path = self.folder / "side" / "side.safetensors"
        tensors = load_file(path)
        save_file(tensors | {"side.2.inner": np.zeros((INNER + 1, WIDTH), np.float16)}, path)
        with self.assertRaisesRegex(InputError, r"side.2.inner is \(6, 2\)"):
            side.load(self.folder / "side")
        save_file({name: value for name, value in tensors.items() if name != "side.2.inner"}, path)
        with self.assertRaisesRegex(InputError, "of every layer, up and the gate are expected"):
            side.load(self.folder / "side")

    def test_other_keys_and_combinations_are_refused(self):
        self.written(self.DESCRIPTION | {"combination": "product"})
        with self.assertRaisesRegex(InputError, "combination: one of sum, alone is expected"):
            side.load(self.folder / "side")
        self.write("side/side.json", json.dumps(self.DESCRIPTION | {"rank": 4}))
        with self.assertRaisesRegex(InputError, "and no others"):
            side.load(self.folder / "side")


class BottleneckFiles(FolderTest):
    DESCRIPTION = {"model": "m", "width": 3, "made_by": "a test", "trained_on": "nothing"}

    def test_what_was_saved_is_loaded_in_fp16_and_what_is_not_whole_refused(self):
        random = np.random.default_rng(5)
        adapters = [
            {
                place: {part: random.normal(size=bottlenecks.shape_of(part, 7, 3)) for part in bottlenecks.PARTS}
                for place in bottlenecks.PLACES
            }
            for _ in range(2)
        ]
        folder = self.folder / "adapters"
        bottlenecks.save(folder, self.DESCRIPTION, adapters)
        description, loaded = bottlenecks.load(folder)
        self.assertEqual(description, self.DESCRIPTION)
        for places, expected in zip(loaded, adapters, strict=True):
            for place in bottlenecks.PLACES:
                for part in bottlenecks.PARTS:
                    np.testing.assert_array_equal(places[place][part], expected[place][part].astype(np.float16))
        path = folder / "bottleneck.safetensors"
        tensors = load_file(path)
        self.assertEqual(tensors["layers.2.mlp.up.weight"].shape, (7, 3))
        save_file(tensors | {"layers.2.mlp.up.bias": np.zeros(8, np.float16)}, path)
        with self.assertRaisesRegex(InputError, r"layers.2.mlp.up.bias is \(8,\)"):
            bottlenecks.load(folder)
        tensors.pop("layers.1.attention.down.bias")
        save_file(tensors, path)
        with self.assertRaisesRegex(InputError, "at attention and mlp of every layer"):
            bottlenecks.load(folder)


class Folds(unittest.TestCase):
    def test_each_fold_has_every_fact_in_other_words(self):
        words = ("Where did {} hide it?", "Where does {} keep it?", "Where is it, {}?", "Tell me, {}.")
        questions = [question(text.format(owner), [len(owner)]) for text in words for owner in ("Anna", "Jonathan")]
        questions = questions[::2] + questions[:0:-2]  # the order in which they come does not matter
        found = side.folds(questions, 4)
        for fold in range(4):
            chosen = [q for q, f in zip(questions, found) if f == fold]
            self.assertEqual(sorted(q["answer"] for q in chosen), [[4], [8]])
            self.assertEqual(len({q["text"].split()[1] for q in chosen}), 1)

    def test_common_knowledge_stays_together(self):
        questions = [question(text, [answer], "common") for answer in range(6) for text in ("a", "b", "c")]
        found = side.folds(questions, 4).reshape(6, 3)
        self.assertTrue((found == found[:, :1]).all())
        self.assertEqual(set(found[:, 0]), {0, 1, 2, 3})


class Facts(unittest.TestCase):
    def test_a_share_of_each_groups_facts_with_all_their_phrasings(self):
        questions = [question(f"{n}{text}", [n, group], group) for n in range(6) for group in "ab" for text in "xyz"]
        kept = train_side.facts(questions, 0.5)
        self.assertEqual(len(kept), 2 * 3 * 3)
        self.assertEqual({q["answer"][0] for q in kept}, {0, 1, 2})
        self.assertEqual(train_side.facts(questions, 1.0), questions)
        self.assertEqual(len(train_side.facts(questions, 0.01)), 2 * 3)  # never none


class Figures(unittest.TestCase):
    """Two questions: three tokens, of which the middle one needs the side network, and one that it spoils."""

    FOUND = side.Outcomes(
        closed=[0.5, 4.0, 0.1, 0.2], open=[0.4, 0.3, 0.2, 2.2], closed_right=[1, 0, 1, 1], open_right=[1, 1, 1, 0],
        question=[4, 4, 4, 9], score=[0.1, 3.0, -1.0, -2.0],
    )  # fmt: skip

    def test_a_question_is_exact_where_all_its_tokens_are(self):
        opened = self.FOUND.score > 0
        found = self.FOUND.figures(opened)
        self.assertEqual((found["usage"], found["token_accuracy"], found["exact_match"]), (0.5, 1.0, 1.0))
        self.assertAlmostEqual(found["nll"], (0.4 + 0.3 + 0.1 + 0.2) / 4)
        closed, open = self.FOUND.figures(~opened & False), self.FOUND.figures(opened | True)
        self.assertEqual((closed["token_accuracy"], closed["exact_match"]), (0.75, 0.5))
        self.assertEqual((open["token_accuracy"], open["exact_match"]), (0.75, 0.5))

    def test_the_benefit_is_what_opening_saves(self):
        np.testing.assert_allclose(self.FOUND.benefit, [0.1, 3.7, -0.1, -2.0])

    def test_a_budget_opens_the_best_tokens(self):
        best = self.FOUND.best(self.FOUND.score, 0.5)
        np.testing.assert_array_equal(best, [True, True, False, False])
        table = {(row["budget"], row["order"]): row for row in side.budget_table(self.FOUND)}
        self.assertEqual(len(table), 3 * len(side.BUDGETS))
        self.assertAlmostEqual(table[0.2, "oracle"]["nll"], (0.5 + 0.3 + 0.1 + 0.2) / 4)
        self.assertGreater(table[0.2, "random"]["nll"], table[0.2, "gate"]["nll"])

    def test_intervals_are_of_the_mean_over_questions(self):
        random = np.random.default_rng(3)
        values = random.normal(5, 2, 400)
        low, high = side.interval(values, np.ones(400))
        self.assertAlmostEqual((low + high) / 2, values.mean(), delta=0.02)
        self.assertAlmostEqual(high - low, 2 * 1.96 * values.std() / 20, delta=0.04)


class Arguments(unittest.TestCase):
    def test_steps_that_are_kept_rise(self):
        self.assertEqual(train_side.numbers("300,100,300"), [100, 300])
        with self.assertRaises(train_side.argparse.ArgumentTypeError):
            train_side.numbers("100,many")


class Trained(unittest.TestCase):
    def folders(self):
        found = sorted(path.parent for path in NETWORKS.glob("**/side.json"))
        self.assertTrue(found)
        return found

    def test_every_side_network_is_whole_and_small(self):
        for folder in self.folders():
            with self.subTest(str(folder.relative_to(NETWORKS))):
                description, parts = side.load(folder)
                self.assertEqual(len(parts["down"]), 30)
                for name, value in load_file(folder / "side.safetensors").items():
                    self.assertEqual(value.dtype, np.float16, name)
                    self.assertTrue(np.isfinite(value).all() and value.any(), name)
                numbers = sum(value.size for value in parts.values())
                self.assertLess(numbers, 0.002 * 134_515_008)

    def test_its_gate_is_better_than_chance_on_questions_that_were_held_out(self):
        held_out = load_json(NETWORKS / "private-qa" / "training.json")["held_out"]
        rows = {(row["budget"], row["order"]): row for row in held_out["budgets"]}
        for budget in side.BUDGETS:
            gate, random, oracle = (rows[budget, order] for order in ("gate", "random", "oracle"))
            self.assertLess(gate["nll"], random["nll"], budget)
            self.assertGreater(gate["nll_saved_interval"][0], 0, budget)
            self.assertLess(oracle["nll"], gate["nll"], budget)
        self.assertGreater(held_out["open"]["exact_match"], held_out["closed"]["exact_match"])


@unittest.skipUnless((SMOLLM2 / "model.safetensors").is_file(), "models/smollm2-135m-instruct is not there")
class Golden(unittest.TestCase):
    """The reference that torch wrote: what follows the side input is computed again in numpy and fp64."""

    def test_the_reference_follows_from_the_committed_network(self):
        _, parts = side.load(NETWORKS / "private-qa")
        golden = {name: value.astype(np.float64) for name, value in load_file(GOLDEN).items()}
        rms = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        h = np.zeros((len(golden["g"]), parts["down"].shape[1]))
        for x, inner, outer in zip(np.split(golden["side_input"], 30, 1), parts["inner"], parts["outer"]):
            h = h + x
            a = rms(h) @ inner.T
            h = h + a / (1 + np.exp(-a)) @ outer.T
        g = rms(h) @ parts["up"].T
        np.testing.assert_allclose(golden["g"], g, rtol=1e-4, atol=1e-4 * np.abs(g).max())
        self.assertTrue((golden["gate"][:, 0] != golden["gate"][:, 1]).all())
        opened = golden["gate"][1:, 1] > golden["gate"][1:, 0]
        self.assertTrue(opened.any() and not opened.all())
        for name in ("open", "closed"):
            self.assertTrue((np.diff(golden[f"{name}.top_logits"]) <= 0).all())
        self.assertFalse((golden["open.top_ids"] == golden["closed.top_ids"]).all())


@unittest.skipIf(torch is None, "needs torch (scripts/setup.sh training)")
class Training(unittest.TestCase):
    EPS = 1e-5

    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        self.generator = torch.Generator().manual_seed(3)
        self.random = lambda *shape: torch.randn(*shape, generator=self.generator)
        self.base = side_training.Base(self.random(50, HIDDEN), torch.rand(HIDDEN, generator=self.generator), self.EPS)

    def rows(self, count, top=None):
        if top is None:
            top = torch.stack([torch.randperm(50, generator=self.generator)[:16] for _ in range(count)])
        return side_training.Rows(3 * self.random(count, LAYERS, HIDDEN), top, torch.arange(count) // 4)

    def test_a_network_computes_what_its_formulas_say(self):
        parts, states = some_parts(), 3 * self.random(11, LAYERS, HIDDEN)
        network = side_training.network_of(parts, self.EPS)
        with torch.no_grad():
            g = network(side_training.rms(states, self.EPS))
        np.testing.assert_allclose(g, side_output(parts, states.numpy(), self.EPS), rtol=1e-4, atol=1e-4)

    def test_a_networks_tensors_compute_what_it_computes(self):
        network = side_training.SideNetwork((LAYERS, HIDDEN, WIDTH, INNER), self.EPS, 17.0, self.generator)
        with torch.no_grad():
            self.assertEqual(float(network(self.random(4, LAYERS, HIDDEN)).abs().max()), 0)  # a new one adds nothing
            network.up.normal_(generator=self.generator)
            normed = self.random(11, LAYERS, HIDDEN)
            torch.testing.assert_close(side_training.network_of(network.parts(), self.EPS)(normed), network(normed))

    def test_outcomes_are_those_of_the_head_with_and_without_the_network(self):
        rows, parts = self.rows(9), some_parts()
        f = rows.states[:, -1].double().numpy()
        g = side_output(parts, rows.states.numpy(), self.EPS)
        norm, head = self.base.norm.double().numpy(), self.base.head.double().numpy()
        for combination, opened in (("sum", f + g), ("alone", g)):
            found = side_training.outcomes(self.base, parts, combination, rows)
            for states, nll, right in (
                (f, found.closed, found.closed_right),
                (opened, found.open, found.open_right),
            ):
                logits = states / np.sqrt((states**2).mean(-1, keepdims=True) + self.EPS) * norm @ head.T
                target = rows.top[:, 0].numpy()
                expected = np.log(np.exp(logits).sum(-1)) - logits[range(9), target]
                np.testing.assert_allclose(nll, expected, rtol=1e-4, atol=1e-4)
                np.testing.assert_array_equal(right, logits.argmax(-1) == target)

    def settings(self, **changes):
        return side_training.Settings(**{"width": 4, "inner": 4, "steps": 60, "rate": 0.02, "batch": 16} | changes)

    def test_training_learns_and_repeats(self):
        rows = self.rows(32)
        before = side_training.outcomes(self.base, some_parts() | {"up": np.zeros((HIDDEN, WIDTH))}, "sum", rows)
        for combination in side.COMBINATIONS:
            settings = self.settings(combination=combination)
            trained = side_training.train(self.base, rows, settings, (20,))
            self.assertEqual(list(trained), [20, 60])
            after = side_training.outcomes(self.base, trained[60], combination, rows)
            self.assertLess(after.open.mean(), before.closed.mean() - 0.2)
            again = side_training.train(self.base, rows, settings)
            np.testing.assert_array_equal(again[60]["down"], trained[60]["down"])

    def test_a_joint_gate_opens_where_the_network_helps(self):
        # half of the rows already have the right token as the likeliest, by far
        rows = self.rows(64)
        easy = torch.arange(64) % 2 == 0
        self.base = side_training.Base(12 * self.base.head, torch.ones(HIDDEN), self.EPS)
        states = rows.states
        states[:, -1, 0] = torch.where(easy, 4.0, -4.0)  # what the gate can tell them by
        rows.top[easy, 0] = (side_training.rms(states[:, -1], self.EPS) @ self.base.head.T).argmax(-1)[easy]
        trained = side_training.train(self.base, rows, self.settings(loss="joint", rate=0.1, steps=600, cost=0.5))[600]
        score = side_training.score(self.base, trained, states[:, -1])
        self.assertGreater((score[~easy] > 0).mean(), 0.8)
        sure = side_training.outcomes(self.base, trained, "sum", rows).closed < 0.05
        self.assertGreater(sure.sum(), 20)
        self.assertLess((score[sure] > 0).mean(), 0.2)

    def test_a_gate_weighs_what_a_wrong_choice_costs(self):
        # the first coordinate tells the rows apart: one kind gains 2 in one of four, the other loses 0.1 always
        states = torch.ones(400, HIDDEN) + 0.01 * self.random(400, HIDDEN)
        first = torch.arange(400) % 2 == 0
        states[first, 0] = -1.0
        benefit = np.where(first, np.where(np.arange(400) % 8 == 0, 2.0, -0.1), -0.1)
        for cost, expected in ((0.0, True), (0.6, False)):  # the mean gain is 0.425
            gate = side_training.train_gate(self.base, states, benefit, cost, 1e-4)
            score = side_training.score(self.base, gate, states)
            self.assertEqual(bool((score[first] > 0).all()), expected)
            self.assertFalse((score[~first] > 0).any())

    def test_scores_of_left_out_rows_come_from_a_gate_that_has_not_seen_them(self):
        rows, fold = self.rows(40), np.arange(40) % 4
        benefit = np.where(np.arange(40) % 3 == 0, 1.0, -1.0)
        found = side_training.left_out_score(self.base, rows, fold, benefit, 0.0, 0.1)
        other = benefit.copy()
        other[fold == 2] *= -1  # changes every gate but the one that leaves out fold 2
        changed = side_training.left_out_score(self.base, rows, fold, other, 0.0, 0.1)
        np.testing.assert_array_equal(found[fold == 2], changed[fold == 2])
        self.assertTrue((found[fold != 2] != changed[fold != 2]).all())

    @unittest.skipUnless((SMOLLM2 / "model.safetensors").is_file(), "models/smollm2-135m-instruct is not there")
    def test_new_bottleneck_adapters_change_nothing_and_others_do(self):
        tokens = torch.tensor([[1, 4093, 198, 788, 527]])
        plain = bottleneck_training.GatedModel(SMOLLM2).forward(tokens)
        model = bottleneck_training.BottleneckModel(SMOLLM2, torch.float32)
        model.new_adapters(4, self.generator)
        torch.testing.assert_close(model.forward(tokens), plain)
        model.adapters[29]["mlp"]["up.bias"] += 1.0
        h = model.last_state(tokens)
        model.adapters[29]["mlp"]["up.bias"] -= 1.0
        torch.testing.assert_close(h, model.last_state(tokens) + 1.0, rtol=1e-4, atol=1e-3)


if __name__ == "__main__":
    unittest.main()
