# SPDX-License-Identifier: GPL-2.0-only
"""
Counts for scripts/test: runs the Python tests, or reads what Catch2 wrote, and prints "PASSED FAILED SKIPPED".

    python -m splitllm.counting unittest DIR        python -m splitllm.counting catch REPORT_XML

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
    """Counts test cases. A report that is not whole means a crash, in the case that it ends in."""
    cases, faulty, running, whole = [], 0, None, False
    try:
        for event, element in xml.iterparse(file, ("start", "end")):
            if element.tag == "TestCase" and event == "start":
                running = element.get("name")
            elif element.tag == "TestCase":
                cases.append(state_of(element))
                running = None
            elif element.tag == "OverallResultsCases" and event == "end":
                whole = True
    except (OSError, xml.ParseError) as error:
        print(f"the report ends early: {error}", file=sys.stderr)
    if not whole or not cases:
        faulty = 1
        print(f'FAILED "{running}" did not end' if running else "no test ran", file=sys.stderr)
    return cases.count("passed"), cases.count("failed") + faulty, cases.count("skipped")


def state_of(case):
    result = case.find("OverallResult")
    if result is None or result.get("success") != "true":
        print(f'FAILED "{case.get("name")}"', file=sys.stderr)
        for fault in case.iter():
            if fault.tag in ("Exception", "Failure", "FatalErrorCondition") or fault.get("success") == "false":
                place = fault.get("filename") and f"{fault.get('filename')}:{fault.get('line')}: "
                text = " ".join(part.strip() for part in fault.itertext() if part.strip())
                if place and fault.tag != "OverallResult":
                    print(f"    {place}{text}", file=sys.stderr)
        return "failed"
    # Catch2 v2 has no skipping: a test says so in a warning
    warnings = [text.strip() for warning in case.iter("Warning") for text in warning.itertext()]
    reasons = [text.removeprefix("skipped") for text in warnings if text.startswith("skipped: ")]
    if int(result.get("skips", 0)) or reasons:
        print(f'skipped "{case.get("name")}"{"".join(reasons[:1])}', file=sys.stderr)
        return "skipped"
    return "passed"


if __name__ == "__main__":
    count = {"unittest": run_unittest, "catch": read_catch}[sys.argv[1]]
    print(*count(sys.argv[2]))
