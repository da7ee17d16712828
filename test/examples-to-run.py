#! /usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only

# What test.py of an ns-3 tree runs: (name and options, whether to run it, whether to run it under valgrind).
cpp_examples = [
    ("split-llm-collaboration", "True", "True"),
    ("split-llm-fading", "True", "True"),
    ("split-llm-linfer", "True", "True"),
    ("split-llm-two-users", "True", "True"),
]

python_examples = []
