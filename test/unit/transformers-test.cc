// SPDX-License-Identifier: GPL-2.0-only

// Logits and greedy text against Hugging Face transformers, which computed test/golden/*.safetensors with
// scripts/make-golden (fp32 arithmetic, the same bf16 weights).

#include "support/catch.h"
#include "support/golden.h"
#include "support/monolithic.h"
#include "support/test-models.h"

#include <cstdlib>
#include <string>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr double kLimit = 1e-6; // NMSE

/// Compares every prompt that the golden file has, with or without the adapter.
void
Compare(const std::string& golden,
        const std::filesystem::path& model,
        const std::filesystem::path& adapter,
        std::size_t leastPrompts)
{
    Monolithic monolithic(model, adapter);
    CHECK(CompareWithGolden(monolithic, golden, !adapter.empty(), kLimit) >= leastPrompts);
}

} // namespace

TEST_CASE("tiny models give transformers' logits and greedy text", "[transformers]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        Compare(model, TestModel(model), "", 1);
        Compare(model, TestModel(model), TestModel(model + "-lora"), 1);
    }
}

TEST_CASE("SmolLM2 gives transformers' logits and greedy text of 8 prompts", "[transformers][smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    const std::filesystem::path adapter = models / "smollm2-135m-lora-seed1";
    Compare("smollm2-135m", models / "smollm2-135m-instruct", "", 8);
    Compare("smollm2-135m", models / "smollm2-135m-instruct", adapter, 8);

    const Golden golden("smollm2-135m");
    int changed = 0;
    for (int n = 0; n < 8; n++)
    {
        changed += golden.Tokens("greedy." + std::to_string(n)) != golden.Tokens("greedy-lora." + std::to_string(n));
    }
    CHECK(changed >= 4); // otherwise losing the adapter on the way could go unseen
}
