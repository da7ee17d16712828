# SPDX-License-Identifier: GPL-2.0-only
import json
import unittest

from support import ROOT, FolderTest

try:
    import matplotlib
except ModuleNotFoundError:
    matplotlib = None


@unittest.skipIf(matplotlib is None, "needs matplotlib (scripts/setup.sh)")
class Plots(FolderTest):
    def row(self, split, codec, kl, **parameters):
        return {"split": split, "codec": codec, "kl_nats": kl, "payload_bytes_per_token": 10.0, "parameters": parameters}

    def test_a_result_has_a_panel_for_every_split(self):
        rows = [{"split": 0, "codec": "none", "kl_nats": 0.0}]
        rows += [self.row(split, codec, 0.1, bits=3) for split in (8, 16) for codec in ("atom", "omniquant")]
        self.write("result.json", json.dumps({"rows": rows}))
        result = self.run_script("plot-accuracy", self.folder / "result.json", "--out", self.folder / "plots")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue((self.folder / "plots" / "result.png").read_bytes().startswith(b"\x89PNG"))

    def test_the_committed_statistics_are_drawn(self):
        statistics = ROOT / "scenarios" / "calibrations" / "smollm2-135m.json"
        result = self.run_script("plot-accuracy", statistics, "--out", self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue((self.folder / "smollm2-135m.png").is_file())

    def test_what_cannot_be_drawn_is_an_error_of_one_line(self):
        for name, text in (("a.json", "[1]"), ("b.json", '{"rows": []}'), ("c.json", "{")):
            result = self.run_script("plot-accuracy", self.write(name, text), "--out", self.folder)
            self.assertEqual(result.returncode, 2)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()
