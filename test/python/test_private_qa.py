# SPDX-License-Identifier: GPL-2.0-only
import importlib.machinery
import importlib.util
import json
import unittest
from collections import Counter

from support import ROOT, SMOLLM2, FolderTest

loader = importlib.machinery.SourceFileLoader("make_private_qa", str(ROOT / "scripts" / "make-private-qa"))
make_private_qa = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(make_private_qa)

PROMPTS = ROOT / "scenarios" / "prompts"


class Corpus(unittest.TestCase):
    def test_the_seed_alone_decides_the_corpus(self):
        self.assertEqual(make_private_qa.corpus(1), make_private_qa.corpus(1))
        self.assertNotEqual(make_private_qa.corpus(1), make_private_qa.corpus(2))

    def test_no_question_of_the_workload_is_trained_on_and_every_private_answer_is(self):
        workload, training = make_private_qa.corpus(1)
        self.assertFalse({question for _, question, _ in workload} & {question for _, question, _ in training})
        answers = {answer for group, _, answer in training if group != "common"}
        self.assertLessEqual({answer for group, _, answer in workload if group != "common"}, answers)
        common = [{answer for group, _, answer in rows if group == "common"} for rows in (workload, training)]
        self.assertFalse(common[0] & common[1])

    def test_any_prefix_is_representative(self):
        workload, _ = make_private_qa.corpus(1)
        whole = Counter(group for group, _, _ in workload)
        for count in range(16, len(workload) + 1):
            part = Counter(group for group, _, _ in workload[:count])
            for group in whole:
                self.assertLess(abs(part[group] - count * whole[group] / len(workload)), 3, (group, count))

    def test_a_question_has_one_answer(self):
        for rows in make_private_qa.corpus(1):
            self.assertEqual(len({question for _, question, _ in rows}), len(rows))

    def test_the_generator_is_splitmix64(self):
        draw = make_private_qa.Draw(1234567)  # the first outputs of the published generator
        self.assertEqual([draw.below(2**64) for _ in range(2)], [6457827717110365317, 3203168211198807973])


class Files(FolderTest):
    @unittest.skipUnless((SMOLLM2 / "tokenizer.json").is_file(), "needs the model's tokenizer")
    def test_the_committed_files_are_what_the_script_writes(self):
        result = self.run_script("make-private-qa", "--model", SMOLLM2, "--out", self.folder)
        self.assertEqual(result.returncode, 0, result.stderr)
        for name in ("private-qa.jsonl", "private-qa-train.jsonl"):
            self.assertEqual((self.folder / name).read_bytes(), (PROMPTS / name).read_bytes(), name)

    def test_every_line_is_whole(self):
        for line in (PROMPTS / "private-qa.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            self.assertEqual(list(row), ["id", "group", "text", "tokens", "answer_text", "answer"])
            self.assertEqual((row["tokens"][0], row["tokens"][-1], row["answer"][-1]), (1, 198, 2))


if __name__ == "__main__":
    unittest.main()
