// SPDX-License-Identifier: GPL-2.0-only
#include "llm/side-network.h"

#include "base/input-error.h"
#include "base/strict-json.h"

#include <set>
#include <string>

namespace splitllm
{

namespace
{

constexpr std::uint64_t kMaxWidth = 1U << 16;

/// Takes the tensors of a side network from a file, and knows which it took.
class SideReader
{
  public:
    explicit SideReader(const MappedTensors& tensors)
        : m_tensors(tensors)
    {
    }

    ArrayView Require(const std::string& name, const std::vector<std::size_t>& shape)
    {
        m_taken.insert(name);
        return m_tensors.Require(name, shape);
    }

    /// \throws InputError if the file, called \p origin, has a tensor that was not taken
    void Finish(const std::string& origin, const ModelConfig& config) const
    {
        for (const auto& [name, tensor] : m_tensors.Index())
        {
            if (!m_taken.contains(name))
            {
                throw InputError(origin + ": tensor " + Json(name).dump() +
                                 ": belongs to no side network; accepted: side.L.down, side.L.inner and side.L.outer "
                                 "of layers L from 1 to " +
                                 std::to_string(config.layers) + " of the model " + config.name +
                                 ", up, gate.weight and gate.bias");
            }
        }
    }

  private:
    const MappedTensors& m_tensors;
    std::set<std::string> m_taken;
};

} // namespace

std::shared_ptr<const SideNetwork>
SideNetwork::Load(const std::filesystem::path& folder, const ModelConfig& config)
{
    const auto description = folder / "side.json";
    Json value = LoadStrictJson(description);
    StrictObject json(value, description.string());
    const auto side = std::make_shared<SideNetwork>();
    side->width = json.Integer("width", 1, kMaxWidth);
    side->inner = json.Integer("inner", 1, kMaxWidth);
    side->alone = json.Choice("combination", {"sum", "alone"}) == "alone";
    for (const char* key : {"model", "made_by", "trained_on"}) // for readers
    {
        json.String(key);
    }
    json.Finish();

    const auto file = folder / "side.safetensors";
    side->storage = MappedTensors::OpenFile(file);
    SideReader reader(*side->storage);
    for (std::size_t layer = 1; layer <= config.layers; ++layer)
    {
        const std::string name = "side." + std::to_string(layer) + ".";
        side->layers.push_back({.down = reader.Require(name + "down", {side->width, config.hidden}),
                                .inner = reader.Require(name + "inner", {side->inner, side->width}),
                                .outer = reader.Require(name + "outer", {side->width, side->inner})});
    }
    side->up = reader.Require("up", {config.hidden, side->width});
    side->gate = {.weight = reader.Require("gate.weight", {2, config.hidden}),
                  .bias = reader.Require("gate.bias", {2})};
    reader.Finish(file.string(), config);
    return side;
}

std::uint64_t
DownParameters(const ModelConfig& config, std::size_t width)
{
    return std::uint64_t{config.layers} * width * config.hidden;
}

std::uint64_t
BlockParameters(const ModelConfig& config, std::size_t width, std::size_t inner)
{
    return 2 * std::uint64_t{config.layers} * width * inner + std::uint64_t{width} * config.hidden;
}

std::uint64_t
SideParameters(const ModelConfig& config, std::size_t width, std::size_t inner)
{
    return DownParameters(config, width) + BlockParameters(config, width, inner);
}

std::uint64_t
GateParameters(const ModelConfig& config)
{
    return 2 * std::uint64_t{config.hidden} + 2;
}

} // namespace splitllm
