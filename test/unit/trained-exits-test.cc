// SPDX-License-Identifier: GPL-2.0-only

// SmolLM2's trained exits against torch, which computed test/golden/smollm2-135m-exits.safetensors with
// scripts/train-exits golden (fp32 arithmetic, the same bf16 model and the same exits).

#include "compute/cpu/cpu-backend.h"
#include "llm/exits.h"
#include "llm/safetensors.h"
#include "policy/exit-policy.h"
#include "support/catch.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

using namespace splitllm;

namespace
{

const std::filesystem::path kSource = SPLITLLM_SOURCE_DIR;

template <typename T>
std::vector<T>
Elements(const MappedTensors& tensors, const std::string& name)
{
    const StoredTensor& tensor = tensors.Index().at(name);
    std::size_t count = 1;
    for (const std::size_t size : tensor.shape)
    {
        count *= size;
    }
    std::vector<T> elements(count);
    std::memcpy(elements.data(), tensor.data, count * sizeof(T));
    return elements;
}

} // namespace

TEST_CASE("SmolLM2's trained exits give torch's logits and confidence", "[exits][smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    const auto golden = MappedTensors::OpenFile(kSource / "test/golden/smollm2-135m-exits.safetensors");
    const auto weights = Model::Load(models / "smollm2-135m-instruct");
    const auto trained = Exits::Load(kSource / "scenarios/exits/smollm2-135m", weights->config);
    CpuBackend backend(2);
    const auto model = backend.Resident(weights);
    const auto exits = backend.Resident(trained, weights->config);
    const std::vector<TokenId> tokens = Elements<TokenId>(*golden, "tokens");
    const std::vector<std::uint32_t> positions = Elements<std::uint32_t>(*golden, "positions");
    REQUIRE(positions.size() >= 4);

    const auto cache = backend.NewCache(*model, 0, exits->Layers().back(), tokens.size());
    Tensor hidden = backend.Embed(*model, tokens, 0).value;
    std::size_t layer = 0;
    for (std::size_t exit = 0; exit < exits->Layers().size(); ++exit)
    {
        for (; layer < exits->Layers()[exit]; ++layer)
        {
            const Projections projections = backend.Project(*model, layer, hidden).value;
            hidden = backend.FinishLayer(*model, layer, hidden, projections, *cache).value;
        }
        const std::string name = "exit." + std::to_string(layer) + ".";
        const auto ids = Elements<TokenId>(*golden, name + "top_ids");
        const auto logits = Elements<float>(*golden, name + "top_logits");
        const auto confidence = Elements<float>(*golden, name + "confidence");
        const std::size_t count = ids.size() / positions.size();
        for (std::size_t i = 0; i < positions.size(); ++i)
        {
            const Tensor own = backend.Exit(*model, *exits, exit, hidden.Slice(positions[i], 1)).value;
            CAPTURE(layer, positions[i]);
            for (std::size_t j = 0; j < count; ++j)
            {
                const float expected = logits[i * count + j];
                CHECK(std::abs(own.Row(0)[ids[i * count + j]] - expected) <= 1e-3F);
            }
            CHECK(std::abs(Confidence(own.Row(0)) - static_cast<double>(confidence[i])) <= 1e-4);
        }
    }
}
