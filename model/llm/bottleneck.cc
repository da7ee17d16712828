// SPDX-License-Identifier: GPL-2.0-only
#include "llm/bottleneck.h"

#include "base/input-error.h"
#include "base/strict-json.h"

#include <set>
#include <string>

namespace splitllm
{

namespace
{

constexpr std::uint64_t kMaxWidth = 1U << 16;

std::filesystem::path
DescriptionIn(const std::filesystem::path& folder)
{
    return folder / "bottleneck.json";
}

} // namespace

bool
BottleneckAdapter::IsIn(const std::filesystem::path& folder)
{
    return !folder.empty() && std::filesystem::exists(DescriptionIn(folder));
}

std::shared_ptr<const BottleneckAdapter>
BottleneckAdapter::Load(const std::filesystem::path& folder, const ModelConfig& config)
{
    const auto description = DescriptionIn(folder);
    Json value = LoadStrictJson(description);
    StrictObject json(value, description.string());
    const auto adapter = std::make_shared<BottleneckAdapter>();
    adapter->width = json.Integer("width", 1, kMaxWidth);
    for (const char* key : {"model", "made_by", "trained_on"}) // for readers
    {
        json.String(key);
    }
    json.Finish();

    const auto file = folder / "bottleneck.safetensors";
    adapter->storage = MappedTensors::OpenFile(file);
    std::set<std::string> taken;
    const auto linear = [&](const std::string& name, std::size_t out, std::size_t in) -> LinearWeights {
        taken.insert({name + ".weight", name + ".bias"});
        return {.weight = adapter->storage->Require(name + ".weight", {out, in}),
                .bias = adapter->storage->Require(name + ".bias", {out})};
    };
    const auto bottleneck = [&](const std::string& name) -> BottleneckWeights {
        return {.down = linear(name + ".down", adapter->width, config.hidden),
                .up = linear(name + ".up", config.hidden, adapter->width)};
    };
    for (std::size_t layer = 1; layer <= config.layers; ++layer)
    {
        const std::string name = "layers." + std::to_string(layer);
        adapter->layers.push_back({.attention = bottleneck(name + ".attention"), .mlp = bottleneck(name + ".mlp")});
    }
    for (const auto& [name, tensor] : adapter->storage->Index())
    {
        if (!taken.contains(name))
        {
            throw InputError(file.string() + ": tensor " + Json(name).dump() +
                             ": belongs to no bottleneck; accepted: those of layers 1 to " +
                             std::to_string(config.layers) + " of the model " + config.name);
        }
    }
    return adapter;
}

std::uint64_t
BottleneckParameters(const ModelConfig& config, std::size_t width)
{
    const std::uint64_t hidden = config.hidden;
    return 2 * config.layers * (2 * hidden * width + width + hidden);
}

} // namespace splitllm
