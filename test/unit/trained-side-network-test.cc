// SPDX-License-Identifier: GPL-2.0-only

// SmolLM2's trained side network against torch, which computed test/golden/smollm2-135m-side.safetensors with
// scripts/train-side golden (fp32 arithmetic, the same bf16 model and the same side network).

#include "compute/cpu/cpu-backend.h"
#include "llm/safetensors.h"
#include "llm/side-network.h"
#include "support/catch.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
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
    const std::size_t count =
        std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::size_t{1}, std::multiplies<>());
    std::vector<T> elements(count);
    std::memcpy(elements.data(), tensor.data, count * sizeof(T));
    return elements;
}

/// Normalised mean squared error of all rows.
double
Nmse(const Tensor& tensor, const std::vector<float>& expected)
{
    REQUIRE(tensor.Elements() == expected.size());
    double error = 0.0;
    double power = 0.0;
    for (std::size_t i = 0; i < expected.size(); ++i)
    {
        const double difference = static_cast<double>(tensor.Values()[i]) - expected[i];
        error += difference * difference;
        power += static_cast<double>(expected[i]) * expected[i];
    }
    return error / power;
}

/// The most likely tokens, likeliest first.
std::vector<TokenId>
Top(std::span<const float> logits, std::size_t count)
{
    std::vector<TokenId> ids(logits.size());
    std::iota(ids.begin(), ids.end(), TokenId{0});
    const auto likelier = [&](TokenId a, TokenId b) { return logits[a] > logits[b]; };
    std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(), likelier);
    ids.resize(count);
    return ids;
}

/// Compares the head's \p logits with the most likely tokens that \p golden has under \p name.
void
CheckTop(const Tensor& logits, const MappedTensors& golden, const std::string& name)
{
    const auto ids = Elements<TokenId>(golden, name + ".top_ids");
    const auto values = Elements<float>(golden, name + ".top_logits");
    const std::size_t count = ids.size() / logits.Rows();
    REQUIRE(count == 8);
    for (std::size_t row = 0; row < logits.Rows(); ++row)
    {
        CAPTURE(name, row);
        const auto first = ids.begin() + static_cast<std::ptrdiff_t>(row * count);
        CHECK(Top(logits.Row(row), count) == std::vector<TokenId>(first, first + count));
        for (std::size_t i = 0; i < count; ++i)
        {
            CHECK(std::abs(logits.Row(row)[first[i]] - values[row * count + i]) <= 1e-3F);
        }
    }
}

} // namespace

TEST_CASE("SmolLM2's trained side network and gate give torch's numbers", "[side-network][smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    const auto golden = MappedTensors::OpenFile(kSource / "test/golden/smollm2-135m-side.safetensors");
    const auto weights = Model::Load(models / "smollm2-135m-instruct");
    const auto trained = SideNetwork::Load(kSource / "scenarios/side-networks/private-qa", weights->config);
    CpuBackend backend(2);
    const auto model = backend.Resident(weights);
    const auto side = backend.Resident(trained, weights->config);
    const std::vector<TokenId> tokens = Elements<TokenId>(*golden, "tokens");
    const std::vector<std::uint32_t> positions = Elements<std::uint32_t>(*golden, "positions");
    REQUIRE(positions.size() >= 4);

    const auto cache = backend.NewCache(*model, 0, weights->config.layers, tokens.size());
    Tensor hidden = backend.Embed(*model, tokens, 0).value;
    std::vector<Tensor> states(weights->config.layers); // at the positions
    for (std::size_t layer = 0; layer < states.size(); ++layer)
    {
        const Projections projections = backend.Project(*model, layer, hidden).value;
        hidden = backend.FinishLayer(*model, layer, hidden, projections, *cache).value;
        for (const std::uint32_t position : positions)
        {
            states[layer].Append(hidden.Slice(position, 1));
        }
    }
    const Tensor input = backend.SideInput(*side, states).value;
    CHECK(Nmse(input, Elements<float>(*golden, "side_input")) <= 1e-9);
    const Tensor output = backend.Side(*side, input).value;
    CHECK(Nmse(output, Elements<float>(*golden, "g")) <= 1e-9);
    CHECK(Nmse(backend.Gate(*side, states.back()).value, Elements<float>(*golden, "gate")) <= 1e-9);
    CheckTop(backend.Head(*model, states.back()).value, *golden, "closed");
    CheckTop(backend.Head(*model, backend.Combine(states.back(), output).value).value, *golden, "open");
}
