// SPDX-License-Identifier: GPL-2.0-only
#include "llm/adapter.h"

#include "base/input-error.h"
#include "base/strict-json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <string_view>

namespace splitllm
{

namespace
{

constexpr std::uint64_t kMaxRank = 1U << 16;

/// A projection that an adapter may target.
struct Target
{
    std::string_view name;
    LoraWeights LoraLayer::*weights;
};

constexpr std::array<Target, 3> kTargets{{
    {"q_proj", &LoraLayer::query},
    {"k_proj", &LoraLayer::key},
    {"v_proj", &LoraLayer::value},
}};

/// Settings of PEFT that change what an adapter computes, in ways that the layers do not implement.
constexpr std::array<const char*, 14> kUnsupported{
    "alora_invocation_tokens",
    "alpha_pattern",
    "exclude_modules",
    "fan_in_fan_out",
    "layer_replication",
    "layers_to_transform",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
};

/// What adapter_config.json says.
struct AdapterConfig
{
    std::size_t rank = 0;
    float scaling = 1.0F;
    std::set<std::string> targets;
};

std::set<std::string>
ReadTargets(StrictObject& json)
{
    const std::string key = "target_modules";
    const std::string accepted = "; accepted: a list of q_proj, k_proj, v_proj";
    const Json& list = json.Raw(key);
    if (!list.is_array() || list.empty())
    {
        json.Fail(key, "is " + list.dump() + accepted);
    }
    std::set<std::string> targets;
    for (const Json& target : list)
    {
        if (std::none_of(kTargets.begin(), kTargets.end(), [&](const Target& known) { return target == known.name; }))
        {
            json.Fail(key, "holds " + target.dump() + accepted);
        }
        targets.insert(target.get<std::string>());
    }
    return targets;
}

AdapterConfig
LoadAdapterConfig(const std::filesystem::path& file)
{
    Json value = LoadStrictJson(file);
    StrictObject json(value, file.string());
    json.Choice("peft_type", {"LORA"});
    json.Choice("bias", {"none"}, "none");
    for (const char* key : kUnsupported)
    {
        if (json.Has(key))
        {
            const Json& setting = json.Raw(key);
            if (!setting.is_null() && setting != false && !(setting.is_structured() && setting.empty()))
            {
                json.Fail(key, "is " + setting.dump() + "; accepted: null, false or empty");
            }
        }
    }
    AdapterConfig config;
    config.rank = json.Integer("r", 1, kMaxRank);
    const double alpha = json.Number("lora_alpha", 0.0, std::numeric_limits<float>::max());
    const auto rank = static_cast<double>(config.rank);
    config.scaling = static_cast<float>(alpha / (json.Bool("use_rslora", false) ? std::sqrt(rank) : rank));
    config.targets = ReadTargets(json);
    return config;
}

/// One more than the highest layer that a tensor name in \p index speaks of.
std::uint64_t
LayersIn(const TensorIndex& index, const std::string& prefix)
{
    std::uint64_t layers = 0;
    for (const auto& [name, tensor] : index)
    {
        std::uint32_t layer = 0;
        if (name.starts_with(prefix) &&
            std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer).ec == std::errc())
        {
            layers = std::max<std::uint64_t>(layers, std::uint64_t{layer} + 1);
        }
    }
    return layers;
}

std::size_t
OutputWidth(const ModelConfig& config, const Target& target)
{
    return target.weights == &LoraLayer::query ? config.QueryWidth() : config.KvWidth();
}

} // namespace

std::shared_ptr<const Adapter>
Adapter::Load(const std::filesystem::path& folder, const ModelConfig& config)
{
    const AdapterConfig settings = LoadAdapterConfig(folder / "adapter_config.json");
    const auto file = folder / "adapter_model.safetensors";
    const auto adapter = std::make_shared<Adapter>();
    adapter->rank = settings.rank;
    adapter->scaling = settings.scaling;
    adapter->storage = MappedTensors::OpenFile(file);

    const std::string prefix =
        std::string("base_model.model.model.") + (config.family == Family::Opt ? "decoder." : "") + "layers.";
    const std::uint64_t layers = LayersIn(adapter->storage->Index(), prefix);
    if (layers != config.layers)
    {
        throw InputError(file.string() + ": adapts " + std::to_string(layers) + " layers under " + prefix +
                         "; accepted: " + std::to_string(config.layers) + ", as the model " + config.name + " has");
    }
    std::set<std::string> used;
    const auto require = [&](const std::string& name, std::size_t rows, std::size_t cols) {
        used.insert(name);
        return adapter->storage->Require(name, {rows, cols});
    };
    for (std::size_t layer = 0; layer < config.layers; ++layer)
    {
        LoraLayer& weights = adapter->layers.emplace_back();
        for (const Target& target : kTargets)
        {
            if (settings.targets.contains(std::string(target.name)))
            {
                const std::string name =
                    prefix + std::to_string(layer) + ".self_attn." + std::string(target.name) + ".lora_";
                (weights.*target.weights).a = require(name + "A.weight", settings.rank, config.hidden);
                (weights.*target.weights).b =
                    require(name + "B.weight", OutputWidth(config, target), settings.rank);
            }
        }
    }
    for (const auto& [name, tensor] : adapter->storage->Index())
    {
        if (!used.contains(name))
        {
            throw InputError(file.string() + ": tensor " + Json(name).dump() +
                             ": belongs to no target; accepted: lora_A and lora_B of target_modules only");
        }
    }
    return adapter;
}

std::uint64_t
LoraParameters(const ModelConfig& config, std::size_t rank)
{
    std::uint64_t perRank = 0;
    for (const Target& target : kTargets)
    {
        perRank += config.hidden + OutputWidth(config, target);
    }
    return config.layers * rank * perRank;
}

} // namespace splitllm
