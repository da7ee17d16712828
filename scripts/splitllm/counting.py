# SPDX-License-Identifier: GPL-2.0-only
"""
Counts for scripts/test: runs the Python tests, or reads what Catch2 wrote, and prints "PASSED FAILED SKIPPED".

    python -m splitllm.counting unittest DIR        python -m splitllm.counting catch JUNIT_XML

Failures are shown on standard error.
"""

import sys
import unittest
import xml.etree.ElementTree as xml


def run_unittest(folder):
    suite = unittest.defaultTestLoader.discover(folder, "test_*.py")
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=0).run(suite)
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped)
    return max(0, result.testsRun - failed - skipped), failed, skipped


def read_catch(file):
    """A test case counts once, however many sections it has. A report that is not whole is a failure: a crash."""
    try:
        root = xml.parse(file).getroot()
    except (OSError, xml.ParseError) as error:
        print(f"the tests did not finish: {error}", file=sys.stderr)
        return 0, 1, 0
    outcome = {}
    for case in root.iter("testcase"):
        name = case.get("name", "")
        if not case.get("classname", "").endswith(".global"):
            name = name.split("/")[0]  # a case with sections is listed as case/section
        faults = case.findall("failure") + case.findall("error")
        for fault in faults:
            print(f"FAILED {case.get('name')}\n    " + "\n    ".join((fault.text or "").strip().splitlines()), file=sys.stderr)
        state = "failed" if faults else "skipped" if case.find("skipped") is not None else "passed"
        if outcome.get(name) != "failed":
            outcome[name] = "passed" if outcome.get(name) == "passed" and state == "skipped" else state
    states = list(outcome.values())
    if not states:
        print("no test ran", file=sys.stderr)
        return 0, 1, 0
    return tuple(states.count(state) for state in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    count = {"unittest": run_unittest, "catch": read_catch}[sys.argv[1]]
    print(*count(sys.argv[2]))
