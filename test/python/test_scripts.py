# SPDX-License-Identifier: GPL-2.0-only
"""check-rooms, the counting of tests, and the steps of the set-up."""

import io
import os
import shutil
import subprocess
import unittest
from contextlib import redirect_stderr

from support import ROOT, FolderTest

from splitllm.counting import read_catch


class CheckRooms(FolderTest):
    def check(self):
        result = self.run_script("check-rooms", self.folder)
        return result.returncode, result.stdout

    def test_a_room_may_use_itself_and_those_before_it(self):
        self.write("model/base/a.h", '#include <vector>\n#include "base/b.h"\n')
        self.write("model/base/b.h", "")
        self.write("model/llm/c.cc", '#include "c.h"\n#include "base/a.h"\n#include "nlohmann/json.hpp"\n')
        self.write("model/llm/c.h", "")
        self.write("model/sim/d.h", '#include "ns3/nstime.h"\n#include "llm/c.h"\n')
        self.write("helper/e.cc", '#include "sim/d.h"\n#include "e.h"\n')
        self.write("helper/e.h", "")
        self.write("test/unit/f-test.cc", '#include "sim/d.h"\n')
        self.assertEqual(self.check(), (0, "check-rooms: 8 files, 0 faults\n"))

    def test_every_way_up_is_a_fault(self):
        self.write("model/llm/c.h", "")
        self.write("helper/e.h", "")
        for name, include, fault in (
            ("model/base/a.h", '"llm/c.h"', "base may use only base"),
            ("model/base/a.h", '"../llm/c.h"', "base may use only base"),
            ("model/base/a.h", '"c.h"', "base may use only base"),
            ("model/apps/a.cc", '"e.h"', "apps may use only"),
            ("model/compute/cpu/a.cc", '"ns3/nstime.h"', "compute builds without ns-3"),
            ("model/codec/a.cc", "<ns3/nstime.h>", "codec builds without ns-3"),
        ):
            path = self.write(name, f"\n#  include {include}\n")
            status, output = self.check()
            path.unlink()
            self.assertEqual(status, 1, include)
            self.assertIn(f"{name}:2: includes", output)
            self.assertIn(fault, output)

    def test_what_gcc_12_miscompiles_is_a_fault(self):
        for line, fault in (
            ("if (co_await Ready()) {}", True),
            ("while (n < 3 && co_await Next()) {}", True),
            ("co_await (first ? F() : G());", True),
            ("if (ready) { co_await Next(); }", False),
            ("const int x = co_await Next(a > 0 ? a : 0);", False),
            ("// if (co_await Ready())", False),
            (" * while (co_await Next())", False),
        ):
            self.write("model/sim/a.cc", f"{line}\n")
            status, output = self.check()
            self.assertEqual((status, "miscompiles" in output), (int(fault), fault), line)

    def test_a_file_outside_every_room_and_a_personal_path_are_faults(self):
        self.write("model/attic/a.h", "")
        self.write("doc/b.md", "cd /" + "home/someone/split-llm\n")
        status, output = self.check()
        self.assertEqual(status, 1)
        self.assertIn("model/attic/a.h: lies in no room", output)
        self.assertIn("doc/b.md:1: names", output)


class Counting(FolderTest):
    def count(self, cases, end='<OverallResultsCases successes="1" failures="0"/></Catch>'):
        self.said = io.StringIO()
        with redirect_stderr(self.said):
            return read_catch(self.write("report.xml", f'<?xml version="1.0"?><Catch name="tests">{cases}{end}'))

    def test_cases_are_counted_by_their_result(self):
        good = '<TestCase name="a/b"><Section name="s"/><OverallResult success="true"/></TestCase>'
        skip = '<TestCase name="c"><OverallResult success="true" skips="1"/></TestCase>'
        bad = (
            '<TestCase name="d"><Section name="s"><Expression success="false" filename="x.cc" line="7">'
            '<Original>a == b</Original><Expanded>1 == 2</Expanded></Expression></Section>'
            '<OverallResult success="false"/></TestCase>'
        )
        warned = (
            '<TestCase name="e"><Warning>\n   skipped: no GPU\n</Warning><OverallResult success="true"/></TestCase>'
            '<TestCase name="f"><Warning>slow</Warning><OverallResult success="true"/></TestCase>'
        )
        self.assertEqual(self.count(good + skip + good + bad + warned), (3, 1, 2))
        self.assertEqual(
            self.said.getvalue(),
            'skipped "c"\nFAILED "d"\n    x.cc:7: a == b 1 == 2\nskipped "e": no GPU\n',
        )

    def test_a_crash_is_a_failure_of_the_case_that_ran(self):
        good = '<TestCase name="a"><OverallResult success="true"/></TestCase>'
        self.assertEqual(self.count(good + '<TestCase name="crashing"><Section name="s">', ""), (1, 1, 0))
        self.assertIn('"crashing" did not end', self.said.getvalue())
        self.assertEqual(self.count(""), (0, 1, 0))
        with redirect_stderr(io.StringIO()):
            self.assertEqual(read_catch(self.folder / "none.xml"), (0, 1, 0))


class Setup(FolderTest):
    """The steps of setup.sh in a checkout of its own, with stand-ins for the programs that it calls."""

    def setUp(self):
        super().setUp()
        shutil.copytree(ROOT / "scripts", self.folder / "scripts")

    def program(self, name, text):
        path = self.write(f"bin/{name}", f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        return path

    def bash(self, text, **environment):
        return subprocess.run(
            ["bash", "-c", f". {self.folder}/scripts/setup.sh\n{text}"],
            capture_output=True, text=True, check=False, cwd=self.folder,
            env=os.environ | {"PATH": f"{self.folder}/bin:{os.environ['PATH']}"} | environment,
        )  # fmt: skip

    def calls(self):
        file = self.folder / "calls"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def test_the_model_is_imported_once_until_its_script_or_pins_change(self):
        python = self.program("fake-python", f"""
            echo "$1" >>{self.folder}/calls
            while [ "$1" != --out ]; do shift; done
            mkdir -p "$2"; touch "$2"/model.safetensors "$2"/adapter_model.safetensors""")  # fmt: skip
        step = f"PYTHON={python}; need_model"
        for expected in (4, 4):
            self.assertEqual(self.bash(step).returncode, 0)
            self.assertEqual(self.calls(), expected)
        with open(self.folder / "scripts/requirements.txt", "a", encoding="utf-8") as file:
            file.write("gguf==99\n")
        self.bash(step)
        self.assertEqual(self.calls(), 8)
        shutil.rmtree(self.folder / "models/smollm2-135m-lora-seed1")
        self.bash(step)
        self.assertEqual(self.calls(), 12)

    def test_a_build_is_configured_again_only_where_its_options_change(self):
        self.program("cmake", f'echo cmake >>{self.folder}/calls; mkdir -p "$4"; touch "$4/build.ninja"')
        self.program("ninja", "true")
        for options, expected in (("-DA=1", 1), ("-DA=1", 1), ("-DA=2", 2)):
            self.assertEqual(self.bash(f"need_build release /ns3 target {options}").returncode, 0)
            self.assertEqual(self.calls(), expected)
        self.program("cmake", "echo no compiler; false")
        result = self.bash("need_build release /ns3 target -DA=3 || exit")
        self.assertEqual(result.returncode, 2)
        self.assertIn("    no compiler", result.stderr)
        self.assertIn("build/logs/configure-release.log", result.stderr)

    def test_packages_that_are_there_are_not_installed_again(self):
        self.program("dpkg-query", 'echo -n "installed=g++ installed=cmake "')
        self.program("apt-get", f'echo "$*" >>{self.folder}/calls')
        self.assertEqual(self.bash("need_packages g++ cmake", ).returncode, 0)
        self.assertEqual(self.calls(), 0)

    def test_missing_packages_are_installed_by_root_and_listed_to_others(self):
        self.program("dpkg-query", 'echo -n "installed=g++ half-installed=cmake "; false')
        self.program("apt-get", f'echo "$*" >>{self.folder}/calls')
        self.program("id", "echo 0")
        self.assertEqual(self.bash("need_packages g++ cmake catch2").returncode, 0)
        self.assertEqual([line.split()[-2:] for line in (self.folder / "calls").read_text().splitlines()],
                         [["update"], ["cmake", "catch2"]])  # fmt: skip
        self.program("id", "echo 1000")
        self.program("sudo", "false")
        result = self.bash("need_packages g++ cmake catch2 </dev/null || exit")
        self.assertEqual(result.returncode, 2)
        self.assertIn("apt-get install -y --no-install-recommends cmake catch2\n", result.stderr)
        self.assertEqual(self.calls(), 2)

    def test_run_refuses_what_it_cannot_use_before_setting_anything_up(self):
        for arguments, reason in (
            (["none.json"], "none.json: no such file"),
            (["a.json", "b.json"], "two studies"),
            (["--set"], "needs a value"),
        ):
            result = subprocess.run(["bash", self.folder / "scripts/run", *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(result.returncode, 2)
            self.assertIn(reason, result.stderr)
            self.assertFalse((self.folder / "build").exists())

    def test_profile_device_refuses_what_it_cannot_use_before_setting_anything_up(self):
        there = self.write("scenarios/hardware/there.json", "{}")
        for arguments, reason in (
            ([], '"" is no name'),
            (["../there"], '"../there" is no name'),
            (["Mine"], '"Mine" is no name'),
            (["one", "two"], "two names given: one and two"),
            (["there"], f"{there} is there; --force replaces it"),
            (["mine", "--out=other.json"], "other.json; a file that is called mine.json is expected"),
        ):
            result = subprocess.run(
                ["bash", self.folder / "scripts/profile-device", *arguments], capture_output=True, text=True, check=False
            )
            self.assertEqual(result.returncode, 2)
            self.assertIn(reason, result.stderr)
            self.assertEqual(len(result.stderr.splitlines()), 1)
            self.assertFalse((self.folder / "build").exists())

    def test_profile_device_measures_into_the_hardware_folder_and_says_how_to_use_it(self):
        self.program("split-llm-profile", f'printf "%s\\n" "$@" >{self.folder}/calls')
        (self.folder / "scripts/setup.sh").write_text(
            f'ROOT={self.folder} BUILD={self.folder} MODELS=/models\nlock() {{ :; }}\nunlock() {{ :; }}\n'
            f'setup_run() {{ mkdir -p {self.folder}/release; cp {self.folder}/bin/split-llm-profile {self.folder}/release; }}\n',
            encoding="utf-8",
        )
        run = ["bash", self.folder / "scripts/profile-device", "mine", "--repeats=3"]
        result = subprocess.run(run, capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("scripts/run --set nodes.edge.hardware=mine\n", result.stdout)
        calls = (self.folder / "calls").read_text().splitlines()
        self.assertEqual(calls[0], "--model=/models/smollm2-135m-instruct")
        self.assertEqual(calls[1], f"--out={self.folder}/scenarios/hardware/mine.json")
        self.assertRegex(calls[2], r"^--date=\d{4}-\d{2}-\d{2}$")
        self.assertEqual(calls[3:], ["--repeats=3"])
        other = subprocess.run([*run, f"--out={self.folder}/mine.json", "--force", "--model=/m"], capture_output=True, text=True, check=False)
        self.assertIn(f"scripts/run --profiles={self.folder} --set", other.stdout)
        calls = (self.folder / "calls").read_text().splitlines()
        self.assertEqual([calls[0], calls[1], calls[3]], ["--model=/m", f"--out={self.folder}/mine.json", "--force"])


if __name__ == "__main__":
    unittest.main()
