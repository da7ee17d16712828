// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cpu/cpu-resident.h"

#include "compute/heavy-hitters.h"
#include "compute/weight-checks.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <utility>

namespace splitllm
{

namespace
{

CpuNorm
Widened(const NormWeights& norm)
{
    return {Widened(norm.scale), Widened(norm.shift)};
}

CpuLinear
Widened(const LinearWeights& linear)
{
    return {linear.weight, Widened(linear.bias), {}};
}

/// The matrices that \p layer has.
std::vector<CpuLinear*>
Matrices(CpuLayer& layer)
{
    std::vector<CpuLinear*> matrices{
        &layer.query, &layer.key, &layer.value, &layer.output, &layer.gate, &layer.up, &layer.down};
    std::erase_if(matrices, [](const CpuLinear* linear) { return linear->weight.data == nullptr; });
    return matrices;
}

} // namespace

CpuModel::CpuModel(std::shared_ptr<const Model> from, DType activations, const WeightPrecision& precision)
    : ResidentModel(from->config, activations, precision),
      model(std::move(from)),
      finalNorm(Widened(model->finalNorm)),
      head{model->head, {}, {}}
{
    ExpectWeights(*model);
    layers.reserve(model->layers.size());
    for (const LayerWeights& layer : model->layers)
    {
        layers.push_back({.attentionNorm = Widened(layer.attentionNorm),
                          .query = Widened(layer.query),
                          .key = Widened(layer.key),
                          .value = Widened(layer.value),
                          .output = Widened(layer.output),
                          .mlpNorm = Widened(layer.mlpNorm),
                          .gate = Widened(layer.gate),
                          .up = Widened(layer.up),
                          .down = Widened(layer.down)});
        const std::size_t index = layers.size() - 1;
        for (CpuLinear* linear : Matrices(layers.back()))
        {
            if (precision.Quantised(index))
            {
                linear->quantised.emplace(linear->weight, precision.Bits(index), precision.Group());
            }
        }
    }
}

CpuAdapter::CpuAdapter(std::shared_ptr<const Adapter> from, const ModelConfig& config)
    : ResidentAdapter(*from, config),
      adapter(std::move(from))
{
    ExpectWeights(*adapter, config);
}

CpuBottleneckAdapter::CpuBottleneckAdapter(std::shared_ptr<const BottleneckAdapter> from, const ModelConfig& config)
    : ResidentBottleneck(*from, config),
      adapter(std::move(from))
{
    ExpectWeights(*adapter, config);
    const auto widened = [](const BottleneckWeights& weights) -> CpuBottleneck {
        return {.down = Widened(weights.down), .up = Widened(weights.up)};
    };
    for (const BottleneckLayer& layer : adapter->layers)
    {
        layers.push_back({.attention = widened(layer.attention), .mlp = widened(layer.mlp)});
    }
}

CpuExits::CpuExits(std::shared_ptr<const Exits> from, const ModelConfig& config)
    : ResidentExits(*from, config),
      exits(std::move(from))
{
    ExpectWeights(*exits, config);
    for (const ExitWeights& exit : exits->weights)
    {
        weights.push_back({.inputNorm = Widened(exit.inputNorm),
                           .down = {exit.down, {}, {}},
                           .up = {exit.up, {}, {}},
                           .norm = Widened(exit.norm)});
    }
}

CpuSide::CpuSide(std::shared_ptr<const SideNetwork> from, const ModelConfig& config)
    : ResidentSide(*from, config),
      network(std::move(from)),
      up{network->up, {}, {}},
      gate{network->gate.weight, splitllm::Widened(network->gate.bias), {}},
      stateNorm{std::vector<float>(config.hidden, 1.0F), {}},
      widthNorm{std::vector<float>(Width(), 1.0F), {}}
{
    ExpectWeights(*network, config);
    for (const SideLayerWeights& layer : network->layers)
    {
        layers.push_back({.down = {layer.down, {}, {}}, .inner = {layer.inner, {}, {}}, .outer = {layer.outer, {}, {}}});
    }
}

void
AddAttention(const float* weights, std::size_t count, Attention* sums)
{
    for (std::size_t i = 0; i < count; ++i)
    {
        const float weight = weights[i] <= 1.0F ? weights[i] : 0.0F;
        sums[i] += static_cast<Attention>(static_cast<std::int64_t>(weight * 0x1p36F));
    }
}

CpuKvCache::CpuKvCache(const ModelConfig& config, std::size_t first, std::size_t last, std::size_t capacity)
    : KvCache(config, first, last, capacity),
      m_kvHeads(config.kvHeads),
      m_headDim(config.headDim),
      m_keys((last - first) * config.kvHeads),
      m_values((last - first) * config.kvHeads),
      m_attention(last - first)
{
    if (config.family == Family::Llama)
    {
        m_rotary.emplace(config);
    }
}

std::size_t
CpuKvCache::IndexOf(std::size_t layer, std::size_t kvHead) const
{
    return (layer - m_first) * m_kvHeads + kvHead;
}

void
CpuKvCache::Append(std::size_t layer, const Tensor& key, const Tensor& value)
{
    const std::size_t before = Length(layer);
    const std::size_t entries = before + key.Rows();
    const std::size_t position = Position(layer);
    if (m_rotary)
    {
        m_rotary->Extend(position + key.Rows());
    }
    for (std::size_t kvHead = 0; kvHead < m_kvHeads; ++kvHead)
    {
        std::vector<float>& keys = m_keys[IndexOf(layer, kvHead)];
        std::vector<float>& values = m_values[IndexOf(layer, kvHead)];
        keys.resize(entries * m_headDim);
        values.resize(entries * m_headDim);
        for (std::size_t i = 0; i < key.Rows(); ++i)
        {
            const std::size_t offset = (before + i) * m_headDim;
            Place(key.Row(i).subspan(kvHead * m_headDim, m_headDim), position + i, keys.data() + offset);
            std::ranges::copy(value.Row(i).subspan(kvHead * m_headDim, m_headDim), values.data() + offset);
        }
    }
}

void
CpuKvCache::AddAttention(std::size_t layer, std::span<const Attention> sums)
{
    std::vector<Attention>& attention = m_attention[layer - m_first];
    attention.resize(sums.size());
    std::ranges::transform(attention, sums, attention.begin(), std::plus<>());
}

void
CpuKvCache::Prune(std::size_t layer, std::size_t kept)
{
    std::vector<Attention>& attention = m_attention[layer - m_first];
    const std::vector<std::uint32_t> entries = HeavyHitters(attention, kept);

    for (std::size_t i = 0; i < kept; ++i)
    {
        attention[i] = attention[entries[i]];
    }
    attention.resize(kept);
    for (std::size_t kvHead = 0; kvHead < m_kvHeads; ++kvHead)
    {
        for (std::vector<float>* elements : {&m_keys[IndexOf(layer, kvHead)], &m_values[IndexOf(layer, kvHead)]})
        {
            for (std::size_t i = 0; i < kept; ++i)
            {
                std::copy_n(elements->begin() + entries[i] * m_headDim, m_headDim, elements->begin() + i * m_headDim);
            }
            elements->resize(kept * m_headDim);
        }
    }
}

void
CpuKvCache::CopyEntry(std::size_t layer, std::size_t entry, std::span<float> key, std::span<float> value) const
{
    for (std::size_t kvHead = 0; kvHead < m_kvHeads; ++kvHead)
    {
        const std::size_t offset = entry * m_headDim;
        std::copy_n(Keys(layer, kvHead) + offset, m_headDim, key.begin() + kvHead * m_headDim);
        std::copy_n(Values(layer, kvHead) + offset, m_headDim, value.begin() + kvHead * m_headDim);
    }
}

void
CpuKvCache::AppendEntry(std::size_t layer, std::span<const float> key, std::span<const float> value)
{
    for (std::size_t kvHead = 0; kvHead < m_kvHeads; ++kvHead)
    {
        const auto keys = key.subspan(kvHead * m_headDim, m_headDim);
        const auto values = value.subspan(kvHead * m_headDim, m_headDim);
        const std::size_t index = IndexOf(layer, kvHead);
        m_keys[index].insert(m_keys[index].end(), keys.begin(), keys.end());
        m_values[index].insert(m_values[index].end(), values.begin(), values.end());
    }
}

void
CpuKvCache::Place(std::span<const float> head, std::size_t position, float* to) const
{
    if (m_rotary)
    {
        m_rotary->Rotate(head.data(), position, to);
    }
    else
    {
        std::ranges::copy(head, to);
    }
}

const float*
CpuKvCache::Keys(std::size_t layer, std::size_t kvHead) const
{
    return m_keys[IndexOf(layer, kvHead)].data();
}

const float*
CpuKvCache::Values(std::size_t layer, std::size_t kvHead) const
{
    return m_values[IndexOf(layer, kvHead)].data();
}

} // namespace splitllm
