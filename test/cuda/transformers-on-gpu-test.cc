// SPDX-License-Identifier: GPL-2.0-only

// The GPU's logits and greedy text against Hugging Face transformers, as transformers-test has the CPU's.

#include "compute/cuda-backend.h"
#include "support/catch.h"
#include "support/golden.h"
#include "support/gpu.h"
#include "support/test-models.h"

#include <cstdlib>
#include <filesystem>
#include <string>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr double kLimit = 1e-5; // NMSE

// Of SmolLM2 an emulation computes a token in a second or more.
#ifdef SPLITLLM_CUDA_EMULATION
constexpr std::size_t kPrompts = 1;
constexpr std::size_t kTokens = 3;
#else
constexpr std::size_t kPrompts = 8;
constexpr std::size_t kTokens = 32;
#endif

} // namespace

TEST_CASE("On the GPU tiny models give transformers' logits and greedy text", "[cuda][transformers]")
{
    SPLITLLM_NEEDS_GPU();
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        Monolithic base(MakeCudaBackend(CudaTimes::None), TestModel(model), "");
        CHECK(CompareWithGolden(base, model, false, kLimit) >= 1);
        Monolithic adapted(MakeCudaBackend(CudaTimes::None), TestModel(model), TestModel(model + "-lora"));
        CHECK(CompareWithGolden(adapted, model, true, kLimit) >= 1);
    }
}

TEST_CASE("On the GPU SmolLM2 gives transformers' logits and greedy text", "[cuda][transformers][smollm2]")
{
    SPLITLLM_NEEDS_GPU();
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    Monolithic base(MakeCudaBackend(CudaTimes::None), models / "smollm2-135m-instruct", "");
    CHECK(CompareWithGolden(base, "smollm2-135m", false, kLimit, kPrompts, kTokens) == kPrompts);
}
