// SPDX-License-Identifier: GPL-2.0-only
#include "llm/exits.h"

#include "base/input-error.h"

#include <set>
#include <string>

namespace splitllm
{

namespace
{

constexpr std::uint64_t kMaxWidth = 1U << 16;

/// Takes the tensors of exits from a file, and knows which it took.
class ExitReader
{
  public:
    ExitReader(const ModelConfig& config, std::size_t width, const MappedTensors& tensors)
        : m_config(config),
          m_width(width),
          m_tensors(tensors)
    {
    }

    ExitWeights Exit(std::size_t layer)
    {
        const std::string name = "exit." + std::to_string(layer) + ".";
        return {.inputNorm = Norm(name + "input_norm"),
                .down = Require(name + "down.weight", {m_width, m_config.hidden}),
                .up = Require(name + "up.weight", {m_config.hidden, m_width}),
                .norm = Norm(name + "norm")};
    }

    const std::set<std::string>& Taken() const
    {
        return m_taken;
    }

  private:
    ArrayView Require(const std::string& name, const std::vector<std::size_t>& shape)
    {
        m_taken.insert(name);
        return m_tensors.Require(name, shape);
    }

    NormWeights Norm(const std::string& name)
    {
        NormWeights norm;
        norm.scale = Require(name + ".weight", {m_config.hidden});
        if (m_config.family == Family::Opt)
        {
            norm.shift = Require(name + ".bias", {m_config.hidden});
        }
        return norm;
    }

    const ModelConfig& m_config;
    std::size_t m_width;
    const MappedTensors& m_tensors;
    std::set<std::string> m_taken;
};

} // namespace

std::shared_ptr<const Exits>
Exits::Load(const std::filesystem::path& folder, const ModelConfig& config)
{
    const auto description = folder / "exits.json";
    Json value = LoadStrictJson(description);
    StrictObject json(value, description.string());
    const auto exits = std::make_shared<Exits>();
    exits->layers = ReadExitLayers(json, config);
    exits->width = json.Integer("width", 1, kMaxWidth);
    for (const char* key : {"model", "made_by", "trained_on"}) // for readers
    {
        json.String(key);
    }
    json.Finish();

    const auto file = folder / "exits.safetensors";
    exits->storage = MappedTensors::OpenFile(file);
    ExitReader reader(config, exits->width, *exits->storage);
    for (const std::size_t layer : exits->layers)
    {
        exits->weights.push_back(reader.Exit(layer));
    }
    for (const auto& [name, tensor] : exits->storage->Index())
    {
        if (!reader.Taken().contains(name))
        {
            throw InputError(file.string() + ": tensor " + Json(name).dump() +
                             ": belongs to no exit; accepted: the weights of exits after layers " +
                             Joined(exits->layers) + " of the model " + config.name);
        }
    }
    return exits;
}

std::vector<std::size_t>
ReadExitLayers(StrictObject& object, const ModelConfig& config)
{
    const std::string key = "layers";
    const Json& list = object.Raw(key);
    const auto fail = [&] {
        object.Fail(key,
                    "is " + list.dump() + "; accepted: a list of ascending layers from 1 to " +
                        std::to_string(config.layers - 1) + ", the one before the last of " + config.name);
    };
    if (!list.is_array() || list.empty())
    {
        fail();
    }
    std::vector<std::size_t> layers;
    for (const Json& layer : list)
    {
        if (!layer.is_number_unsigned() || layer.get<std::uint64_t>() >= config.layers ||
            layer.get<std::uint64_t>() <= (layers.empty() ? 0 : layers.back()))
        {
            fail();
        }
        layers.push_back(layer.get<std::size_t>());
    }
    return layers;
}

std::uint64_t
ExitParameters(const ModelConfig& config, std::size_t width)
{
    if (width == 0)
    {
        return 0;
    }
    const std::uint64_t norm = config.hidden * (config.family == Family::Opt ? 2 : 1);
    return 2 * norm + 2 * std::uint64_t{config.hidden} * width;
}

} // namespace splitllm
