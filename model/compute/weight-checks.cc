// SPDX-License-Identifier: GPL-2.0-only
#include "compute/weight-checks.h"

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace splitllm
{

namespace
{

using Shape = std::vector<std::size_t>;

void
Expect(bool holds, const std::string& what, const ModelConfig& config)
{
    if (!holds)
    {
        throw std::logic_error(what + " " + config.name);
    }
}

} // namespace

void
ExpectWeights(const Model& model)
{
    if (model.layers.size() != model.config.layers || model.head.data == nullptr)
    {
        throw std::logic_error("model " + model.config.name + " has a shape but no weights");
    }
}

void
ExpectWeights(const Adapter& adapter, const ModelConfig& config)
{
    Expect(adapter.layers.size() == config.layers, "adapter of another model than", config);
}

void
ExpectWeights(const BottleneckAdapter& adapter, const ModelConfig& config)
{
    const std::string what = "bottleneck adapter of another model than";
    const Shape down{adapter.width, config.hidden};
    const Shape up{config.hidden, adapter.width};
    Expect(adapter.layers.size() == config.layers, what, config);
    for (const BottleneckLayer& layer : adapter.layers)
    {
        for (const BottleneckWeights* weights : {&layer.attention, &layer.mlp})
        {
            Expect(weights->down.weight.shape == down && weights->up.weight.shape == up, what, config);
        }
    }
}

void
ExpectWeights(const Exits& exits, const ModelConfig& config)
{
    if (exits.weights.empty() && exits.width > 0)
    {
        throw std::logic_error("exits of width " + std::to_string(exits.width) + " have no weights");
    }
    const Shape down{exits.width, config.hidden};
    const Shape up{config.hidden, exits.width};
    for (const ExitWeights& exit : exits.weights)
    {
        Expect(exit.down.shape == down && exit.up.shape == up, "exits of another model than", config);
    }
}

void
ExpectWeights(const SideNetwork& side, const ModelConfig& config)
{
    const auto expect = [&config](const ArrayView& view, const Shape& shape) {
        Expect(view.data != nullptr && view.shape == shape,
               "side network without weights, or of another model than",
               config);
    };
    expect(side.up, {config.hidden, side.width});
    expect(side.gate.weight, {2, config.hidden});
    expect(side.gate.bias, {2});
    for (const SideLayerWeights& layer : side.layers)
    {
        expect(layer.down, {side.width, config.hidden});
        expect(layer.inner, {side.inner, side.width});
        expect(layer.outer, {side.width, side.inner});
    }
}

} // namespace splitllm
