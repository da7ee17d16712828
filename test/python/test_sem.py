# SPDX-License-Identifier: GPL-2.0-only
"""A campaign of sem, the ns-3 simulation execution manager, with the real runner.

sem works on an ns-3 tree. Of that it reads the file in which ./ns3 lists the programs that were built, and calls ./ns3 to
configure and build; what is here has those two, and the runner in the place of a program of the tree.
"""

import importlib.util
import io
import json
import sys
import unittest
import warnings
from contextlib import redirect_stderr

from test_sweeps import STUDY, SweepTest, has_runner

from splitllm.points import runner

HAS_SEM = importlib.util.find_spec("sem") is not None


@unittest.skipUnless(HAS_SEM, "the Python package sem is not installed: scripts/requirements-test.txt")
@unittest.skipUnless(has_runner(), "no runner: SPLITLLM_RUNNER names none, and there is no release build")
class Campaign(SweepTest):
    def tree(self):
        """What sem reads of an ns-3 tree."""
        program = "build/optimized/contrib/split-llm/split-llm-run"
        self.write("tree/ns3", "# nothing to configure or to build: the program is there\n")
        self.write(f"tree/.lock-ns3_{sys.platform}_build", f"ns3_runnable_programs = [{program!r}]\n")
        link = self.folder / "tree" / program
        link.parent.mkdir(parents=True)
        link.symlink_to(runner())
        return self.folder / "tree"

    def test_a_campaign_runs_a_study_and_finds_the_results_of_plain_runs(self):
        warnings.simplefilter("ignore")  # sem leaves files to the garbage collector
        self.enterContext(redirect_stderr(io.StringIO()))  # and draws a bar
        import sem

        study = self.write("study.json", json.dumps(STUDY | {"repeat": 1, "sweep": {"links.device-edge.loss": [0.0, 0.1]}}))
        campaign = sem.CampaignManager.new(
            str(self.tree()), "split-llm-run", str(self.folder / "campaign"), runner_type="ParallelRunner",
            check_repo=False, max_parallel_processes=2,
        )  # fmt: skip
        self.assertLessEqual({"study", "out", "point", "set", "models", "threads"}, set(campaign.db.get_params()))
        rates = [f"links.device-edge.rate={rate}" for rate in ("10Mbps", "100Mbps")]
        campaign.run_missing_simulations({"study": [str(study)], "out": ["."], "point": [0, 1], "set": rates}, runs=2)
        results = campaign.db.get_results()
        self.assertEqual(len(results), 8)
        self.assertEqual({result["meta"]["exitcode"] for result in results}, {0})

        found = {}
        for result in results:
            params = result["params"]
            file = campaign.db.get_result_files(result)["summary.json"]
            with open(file, encoding="utf-8") as stream:
                (point,) = json.load(stream)["points"]
            found[params["set"], params["point"], params["RngRun"]] = point
        self.assertEqual(len(found), 8)
        for rate in rates:
            # no loss, no chance; with losses sem's runs are ns-3's run numbers, each another
            without, *others = [point for (setting, number, _), point in found.items() if (setting, number) == (rate, 0)]
            self.assertEqual([point["metrics"] for point in others], [without["metrics"]])
            runs = {run: point for (setting, number, run), point in found.items() if (setting, number) == (rate, 1)}
            self.assertEqual(len({point["metrics"]["wire_bytes.up"] + point["metrics"]["ttft_ms.mean"] for point in runs.values()}), 2)
            for run, point in runs.items():
                out = self.folder / f"plain-{run}"
                self.assertEqual(self.plain(study, out, f"--set={rate}", f"--RngRun={run}").returncode, 0)
                self.assertEqual(json.loads((out / "summary.json").read_text())["points"][1], point)


if __name__ == "__main__":
    unittest.main()
