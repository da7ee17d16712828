# SPDX-License-Identifier: GPL-2.0-only
import json
import unittest

import numpy as np
from support import FolderTest

from splitllm.files import from_bf16

CONFIG = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
}


class MakeAdapter(FolderTest):
    def make(self, name, *options):
        self.write("base/config.json", json.dumps(CONFIG))
        out = self.folder / name
        result = self.run_script("make-adapter", "--model", self.folder / "base", "--out", out, *options)
        self.assertEqual(result.returncode, 0, result.stderr)
        raw = (out / "adapter_model.safetensors").read_bytes()
        length = int.from_bytes(raw[:8], "little")
        tensors = {}
        for tensor, entry in json.loads(raw[8 : 8 + length]).items():
            if tensor != "__metadata__":
                begin, end = (8 + length + offset for offset in entry["data_offsets"])
                tensors[tensor] = from_bf16(np.frombuffer(raw[begin:end], "<u2")).reshape(entry["shape"])
        return raw, tensors

    def test_the_seed_alone_decides_the_bytes(self):
        first, _ = self.make("first", "--rank", "5", "--seed", "7")
        again, _ = self.make("again", "--rank", "5", "--seed", "7")
        other, _ = self.make("other", "--rank", "5", "--seed", "8")
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_shapes_and_sizes_are_those_promised(self):
        _, tensors = self.make("adapter", "--rank", "8", "--scale", "0.5")
        self.assertEqual(len(tensors), 2 * 3 * 2)
        prefix = "base_model.model.model.layers.1.self_attn."
        self.assertEqual(tensors[f"{prefix}q_proj.lora_A.weight"].shape, (8, 96))
        self.assertEqual(tensors[f"{prefix}q_proj.lora_B.weight"].shape, (96, 8))
        self.assertEqual(tensors[f"{prefix}v_proj.lora_B.weight"].shape, (32, 8))
        a = np.concatenate([v.ravel() for k, v in tensors.items() if "lora_A" in k])
        b = np.concatenate([v.ravel() for k, v in tensors.items() if "lora_B" in k])
        self.assertAlmostEqual(a.std() * 96**0.5, 1.0, delta=0.05)
        self.assertAlmostEqual(b.std() * 8**0.5, 0.5, delta=0.05)
        self.assertEqual(json.loads((self.folder / "adapter/adapter_config.json").read_text())["lora_alpha"], 16)


if __name__ == "__main__":
    unittest.main()
