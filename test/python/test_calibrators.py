# SPDX-License-Identifier: GPL-2.0-only
"""The calibrators' files: the reference is what its script writes, and every trained folder is whole."""

import unittest

import numpy as np
from safetensors.numpy import load_file
from support import ROOT, FolderTest

from splitllm.files import load_json

GOLDEN = ROOT / "test" / "golden" / "calibrator-reference.safetensors"
TINY = ROOT / "test" / "data" / "tiny-calibrator"
TRAINED = ROOT / "scenarios" / "calibrators"


class Reference(FolderTest):
    def setUp(self):
        super().setUp()
        result = self.run_script(
            "make-calibrator-reference", "--golden", self.folder / "golden", "--tiny", self.folder / "tiny"
        )
        self.assertEqual(result.returncode, 0, result.stderr)

    def same(self, mine, committed):
        mine, committed = load_file(mine), load_file(committed)
        self.assertEqual(set(mine), set(committed))
        for name, value in mine.items():
            # the elementary functions of numpy may differ in the last bit between machines
            np.testing.assert_allclose(value, committed[name], rtol=1e-12, err_msg=name)

    def test_the_committed_files_are_what_the_script_writes(self):
        self.same(self.folder / "golden", GOLDEN)
        self.same(self.folder / "tiny" / "statistics.safetensors", TINY / "statistics.safetensors")
        for variant in ("narrow", "wide"):
            for file in ("tiny", TINY):
                self.assertTrue((self.folder / file / variant / "calibrator.json").is_file())
            self.same(
                self.folder / "tiny" / variant / "calibrator.safetensors", TINY / variant / "calibrator.safetensors"
            )

    def test_the_cases_reach_every_branch(self):
        golden = load_file(GOLDEN)
        features = golden["tier2.features"]
        self.assertTrue((features[:, :3] == 0).any(), "no base norm of zero")
        self.assertTrue((golden["case.h"] == 0).all(1).any(), "no state of zero")
        self.assertTrue((golden["case.position"] >= golden["position_mean"].shape[1]).any(), "no late position")
        self.assertTrue((features[golden["case.has_previous"] == 0, 3:6] == 0).all())
        self.assertTrue((features[:, 6:9] < 0.1).any(), "no softmax on one element")
        z = (golden["tier1.features"] - golden["narrow.tier1.mean"][golden["case.layer"]]) / golden[
            "narrow.tier1.scale"
        ][golden["case.layer"]]
        self.assertTrue((abs(z) > 8).any(), "nothing is clipped")


class Trained(unittest.TestCase):
    def test_every_folder_is_whole(self):
        for path in [*TRAINED.glob("*/*/calibrator.json"), *TINY.glob("*/calibrator.json")]:
            with self.subTest(path.relative_to(ROOT)):
                description = load_json(path)
                self.assertEqual((description["format"], description["version"]), ("split-llm-calibrator", 1))
                model = description["model"]
                layers, hidden, updates = model["layers"], model["hidden"], model["query"] + 2 * model["kv"]
                tensors = load_file(path.with_name("calibrator.safetensors"))
                for tier, features, inputs in (("tier1", 4, hidden), ("tier2", 12, updates)):
                    mine = {n.removeprefix(tier + "."): t for n, t in tensors.items() if n.startswith(tier + ".")}
                    neurons, extra = mine["b1"].shape[1], 0
                    if "projection" in mine:
                        extra = mine["projection"].shape[1]
                        self.assertEqual(mine["projection"].shape, (layers, extra, inputs))
                    for name, shape in (
                        ("mean", (features,)),
                        ("scale", (features,)),
                        ("w1", (neurons, features + extra)),
                        ("b1", (neurons,)),
                        ("w2", (neurons,)),
                        ("b2", ()),
                    ):
                        self.assertEqual(mine[name].shape, (layers, *shape), f"{tier}.{name}")
                        self.assertEqual(mine[name].dtype, np.float32)
                        self.assertTrue(np.isfinite(mine[name]).all())
                    self.assertTrue((mine["scale"] > 0).all())
                    self.assertEqual(len(description[tier]["weights"]), 4)
                self.assertTrue(description["thresholds"])
                for entry in description["thresholds"]:
                    self.assertEqual(sorted(entry), ["payload_ratio", "tau1", "tau2"])
                statistics = load_file(path.parent / description["statistics"])
                self.assertEqual(statistics["position_mean"].dtype, np.float16)
                self.assertEqual(statistics["position_mean"].shape[::2], (layers, hidden))
                self.assertEqual(statistics["projection_mean"].shape, (layers, updates))
                quantiles = statistics["token_norm_quantiles"]
                self.assertEqual(quantiles.shape, (101,))
                self.assertTrue((np.diff(quantiles) >= 0).all())


if __name__ == "__main__":
    unittest.main()
