# SPDX-License-Identifier: GPL-2.0-only
import json
import unittest

import numpy as np
from support import ROOT, SMOLLM2, FolderTest

from splitllm.cli import InputError
from splitllm.files import from_bf16, to_bf16
from splitllm.model_import import check_folder, import_gguf, unpermute
from splitllm.tokens import load_tokenizer

HIDDEN, HEADS, KV_HEADS, FFN = 24, 4, 2, 40
HEAD_DIM = HIDDEN // HEADS
TOKENS = ["<|end|>", "a", "b", "1", "2", "\u0120", "ab", "\u0120a", "12"]
MERGES = ["a b", "\u0120 a", "1 2"]


def gguf_rows(heads):
    """Row r of a matrix in GGUF is row to[r] of the Hugging Face matrix: pairs side by side, from half a head apart."""
    to = []
    for head in range(heads):
        for pair in range(HEAD_DIM // 2):
            to += [head * HEAD_DIM + pair, head * HEAD_DIM + pair + HEAD_DIM // 2]
    return to


class Bf16(unittest.TestCase):
    def test_rounds_to_nearest_and_ties_to_even(self):
        bits = np.array([0x3F80_0000, 0x3F80_8000, 0x3F81_8000, 0x3F80_8001, 0xBF80_7FFF, 0x7F7F_FFFF], np.uint32)
        expected = [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF80, 0x7F80]
        self.assertEqual(to_bf16(bits.view(np.float32)).tolist(), expected)

    def test_keeps_nan_and_infinity(self):
        bits = np.array([0x7FFF_FFFF, 0x7F80_0000, 0xFF80_0000, 0x7F80_0001], np.uint32)
        back = from_bf16(to_bf16(bits.view(np.float32)))
        self.assertTrue(np.isnan(back[0]) and np.isnan(back[3]))
        self.assertEqual(back[1:3].tolist(), [np.inf, -np.inf])


class Import(FolderTest):
    def gguf(self, pre="smollm", missing=None, **values):
        """A one-layer model as a GGUF file; returns its path and the matrices as a Hugging Face folder has them."""
        from gguf import GGUFWriter

        path = self.folder / "tiny.gguf"
        writer = GGUFWriter(str(path), values.get("architecture", "llama"))
        writer.add_block_count(1)
        writer.add_context_length(128)
        writer.add_embedding_length(HIDDEN)
        writer.add_feed_forward_length(FFN)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(1e5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(TOKENS)
        writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
        random = np.random.RandomState(3)
        shapes = {
            "token_embd": (len(TOKENS), HIDDEN), "output_norm": (HIDDEN,), "blk.0.attn_norm": (HIDDEN,),
            "blk.0.ffn_norm": (HIDDEN,), "blk.0.attn_q": (HIDDEN, HIDDEN), "blk.0.attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
            "blk.0.attn_v": (KV_HEADS * HEAD_DIM, HIDDEN), "blk.0.attn_output": (HIDDEN, HIDDEN),
            "blk.0.ffn_gate": (FFN, HIDDEN), "blk.0.ffn_up": (FFN, HIDDEN), "blk.0.ffn_down": (HIDDEN, FFN),
        }  # fmt: skip
        matrices = {}
        for name, shape in shapes.items():
            # 8-bit integers are exact in bf16
            matrices[name] = random.randint(-128, 128, shape).astype(np.float32)
            stored = matrices[name]
            if name.endswith("attn_q") or name.endswith("attn_k"):
                stored = stored[gguf_rows(HEADS if name.endswith("q") else KV_HEADS)]
            if name != missing:
                writer.add_tensor(f"{name}.weight", stored)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path, matrices

    def test_a_gguf_becomes_a_folder_with_the_same_matrices(self):
        path, matrices = self.gguf()
        out = self.folder / "model"
        import_gguf(path, out)
        config, count = check_folder(out)
        self.assertEqual(count, 11)
        self.assertEqual((config["rms_norm_eps"], config["rope_theta"]), (1e-5, 1e5))
        self.assertTrue(config["tie_word_embeddings"])
        raw = (out / "model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        self.assertEqual((8 + length) % 64, 0)
        header = json.loads(raw[8 : 8 + length])
        for ours, theirs in (
            ("blk.0.attn_q", "model.layers.0.self_attn.q_proj.weight"),
            ("blk.0.attn_k", "model.layers.0.self_attn.k_proj.weight"),
            ("blk.0.attn_v", "model.layers.0.self_attn.v_proj.weight"),
            ("blk.0.ffn_down", "model.layers.0.mlp.down_proj.weight"),
            ("token_embd", "model.embed_tokens.weight"),
        ):
            begin, end = (8 + length + offset for offset in header[theirs]["data_offsets"])
            values = from_bf16(np.frombuffer(raw[begin:end], "<u2")).reshape(header[theirs]["shape"])
            np.testing.assert_array_equal(values, matrices[ours], theirs)

    def test_unpermute_puts_the_halves_of_each_head_apart(self):
        rows = np.arange(12).reshape(12, 1)  # two heads of six rows: pairs (0 1) (2 3) (4 5) | (6 7) (8 9) (10 11)
        self.assertEqual(unpermute(rows, 2).ravel().tolist(), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11])

    def test_digits_stand_alone_only_where_the_model_says_so(self):
        for pre, expected in (("smollm", [6, 5, 3, 4]), ("gpt-2", [6, 5, 8])):
            path, _ = self.gguf(pre)
            import_gguf(path, self.folder / pre)
            tokenizer = load_tokenizer(self.folder / pre)
            self.assertEqual(tokenizer.encode("ab 12").ids, expected, pre)
            self.assertEqual(tokenizer.encode("ab<|end|> a").ids, [6, 0, 7])
            self.assertEqual(tokenizer.decode(expected), "ab 12")

    def test_bad_files_are_refused_in_one_line_and_leave_nothing(self):
        good, _ = self.gguf()
        half = self.folder / "half.gguf"
        half.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
        self.assert_refused(half, "half.gguf")
        self.assert_refused(self.write("text.gguf", "no model"), "not a readable GGUF")
        self.assert_refused(self.folder / "none.gguf", "no such file")
        self.assert_refused(self.gguf(architecture="gpt2")[0], "only llama")
        self.assert_refused(self.gguf(pre="other")[0], "known are smollm")
        self.assert_refused(self.gguf(missing="blk.0.ffn_up")[0], "mlp.up_proj.weight of shape [40, 24] is missing")

    def assert_refused(self, source, reason):
        out = self.folder / "out"
        result = self.run_script("import-model", "--gguf", source, "--out", out)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn(reason, result.stderr)
        self.assertFalse(out.exists())
        self.assertEqual(list(self.folder.glob(".out*")), [])

    def test_check_names_the_tensor_that_does_not_fit(self):
        path, _ = self.gguf()
        out = self.folder / "model"
        import_gguf(path, out)
        config = json.loads((out / "config.json").read_text())
        (out / "config.json").write_text(json.dumps(config | {"intermediate_size": FFN + 1}))
        with self.assertRaisesRegex(InputError, r"mlp\.\w+_proj\.weight has shape .* implies"):
            check_folder(out)
        (out / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "vocab_size"}))
        with self.assertRaisesRegex(InputError, "vocab_size is missing"):
            check_folder(out)


@unittest.skipUnless((SMOLLM2 / "tokenizer.json").is_file(), "models/smollm2-135m-instruct is not there")
class SmolLm2(unittest.TestCase):
    def test_the_folder_is_whole(self):
        config, count = check_folder(SMOLLM2)
        self.assertEqual((config["num_hidden_layers"], count), (30, 272))

    def test_tokens_equal_those_of_transformers(self):
        # ids from transformers' own import of the same GGUF
        text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
        ids = [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]
        self.assertEqual(load_tokenizer(SMOLLM2).encode(text).ids, ids)

    def test_text_survives_tokens(self):
        tokenizer = load_tokenizer(SMOLLM2)
        for text in ("  two  spaces\n\n\ttab", "na\u00efve \u2014 \u201cquotes\u201d \u65e5\u672c\u8a9e \U0001f642", "x=1+22*333;", ""):
            self.assertEqual(tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False), text)

    def test_the_committed_prompts_are_those_of_the_text_file(self):
        rows = (ROOT / "scenarios/prompts/everyday.jsonl").read_text(encoding="utf-8").splitlines()
        lines = (ROOT / "scenarios/prompts/everyday.txt").read_text(encoding="utf-8").splitlines()
        prompts = [line for line in lines if not line.startswith("#")]
        self.assertEqual(len(rows), len(prompts))
        tokenizer = load_tokenizer(SMOLLM2)
        for row, prompt in zip(map(json.loads, rows), prompts):
            self.assertEqual(row["text"], f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n")
            self.assertEqual(row["tokens"], tokenizer.encode(row["text"]).ids)


if __name__ == "__main__":
    unittest.main()
