# SPDX-License-Identifier: GPL-2.0-only
"""What doc/accuracy.md says about the committed results holds in them."""

import json
import unittest

from support import ROOT

RESULTS = ROOT / "scenarios" / "opsc" / "accuracy" / "results"


def rows_of(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]


class Results(unittest.TestCase):
    def test_every_quantiser_beats_rounding_to_nearest_at_equal_bits(self):
        found = {(r["split"], r["activation_bits"], r["codec"]): r for r in rows_of("quantisers")}
        for split in (8, 16, 24):
            for bits in (3, 4):
                nearest = found[split, bits, "round-to-nearest"]
                for codec in ("smoothquant", "omniquant", "atom"):
                    row = found[split, bits, codec]
                    self.assertLess(row["perplexity"], nearest["perplexity"])
                    self.assertLess(row["kl_nats"], nearest["kl_nats"])
                    self.assertGreater(row["top1_agreement"], nearest["top1_agreement"])

    def test_threshold_splitting_repairs_what_quantising_alone_breaks(self):
        found = {(r["split"], r["activation_bits"], "tau_quantile" in r["parameters"]): r
                 for r in rows_of("ablation")[1:]}  # fmt: skip
        for split in (8, 16, 24):
            for bits in (3, 4, 8):
                self.assertLess(found[split, bits, True]["perplexity"], found[split, bits, False]["perplexity"])
            # half the bits with it are better than all without
            for key in ("kl_nats", "payload_bytes_per_token"):
                self.assertLess(found[split, 4, True][key], found[split, 8, False][key])

    def test_limiting_a_few_values_ruins_the_predictions(self):
        found = {(r["split"], r["parameters"]["limit"]): r for r in rows_of("clamp")[1:]}
        self.assertGreater(found[16, 1000]["perplexity"], 1000 * rows_of("clamp")[0]["perplexity"])
        self.assertEqual(found[8, 10000]["kl_nats"], 0.0)

    def test_more_layers_of_few_bits_cost_more(self):
        front = [r for r in rows_of("weights") if r["front_bits"] == 4 and r["back_bits"] == 16]
        divergences = [r["kl_nats"] for r in sorted(front, key=lambda r: r["split"])]
        self.assertEqual(divergences, sorted(divergences))
        self.assertEqual(len(front), 6)


if __name__ == "__main__":
    unittest.main()
