// SPDX-License-Identifier: GPL-2.0-only
#include "compute/cuda/cuda-resident.h"

#include "base/input-error.h"
#include "compute/quantised-matrix.h"
#include "compute/weight-checks.h"

#include <algorithm>
#include <bit>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

WeightForm
FormOf(DType dtype)
{
    switch (dtype)
    {
    case DType::F32:
        return WeightForm::F32;
    case DType::F16:
        return WeightForm::F16;
    case DType::BF16:
        return WeightForm::Bf16;
    default:
        throw std::logic_error("weights are neither fp32 nor fp16 nor bf16");
    }
}

CudaLinear
Stored(const ArrayView& weight, const ArrayView& bias, WeightStore& store)
{
    CudaLinear linear;
    if (weight.data == nullptr)
    {
        return linear;
    }
    linear.memory.push_back(store.Stored(weight));
    linear.matrix = {.weights = linear.memory.back()->Data(),
                     .out = static_cast<std::uint32_t>(weight.shape.at(0)),
                     .in = static_cast<std::uint32_t>(weight.shape.at(1)),
                     .form = FormOf(weight.dtype)};
    if (bias.data != nullptr)
    {
        linear.memory.push_back(store.Copied(Widened(bias)));
        linear.matrix.bias = reinterpret_cast<const float*>(linear.memory.back()->Data());
    }
    return linear;
}

CudaLinear
Stored(const ArrayView& weight, WeightStore& store)
{
    return Stored(weight, {}, store);
}

CudaLinear
Stored(const LinearWeights& linear, WeightStore& store)
{
    return Stored(linear.weight, linear.bias, store);
}

/// \p linear in the bits that \p precision has for \p layer.
CudaLinear
InPrecision(const LinearWeights& linear, const WeightPrecision& precision, std::size_t layer, WeightStore& store)
{
    if (linear.weight.data == nullptr || !precision.Quantised(layer))
    {
        return Stored(linear, store);
    }
    const QuantisedMatrix codes(linear.weight, precision.Bits(layer), precision.Group());
    CudaLinear quantised;
    quantised.memory = {store.Copied(codes.codes), store.Copied(codes.scales)};
    quantised.matrix = {.weights = quantised.memory[0]->Data(),
                        .scales = reinterpret_cast<const std::uint16_t*>(quantised.memory[1]->Data()),
                        .out = static_cast<std::uint32_t>(linear.weight.shape.at(0)),
                        .in = static_cast<std::uint32_t>(linear.weight.shape.at(1)),
                        .group = static_cast<std::uint32_t>(codes.group),
                        .form = codes.bits == 8 ? WeightForm::Int8 : WeightForm::Int4};
    if (linear.bias.data != nullptr)
    {
        quantised.memory.push_back(store.Copied(Widened(linear.bias)));
        quantised.matrix.bias = reinterpret_cast<const float*>(quantised.memory.back()->Data());
    }
    return quantised;
}

CudaNorm
Stored(const NormWeights& norm, const ModelConfig& config, WeightStore& store)
{
    CudaNorm stored;
    stored.norm.eps = static_cast<float>(config.normEps);
    stored.memory.push_back(store.Copied(Widened(norm.scale)));
    stored.norm.scale = reinterpret_cast<const float*>(stored.memory.back()->Data());
    if (norm.shift.data != nullptr)
    {
        stored.memory.push_back(store.Copied(Widened(norm.shift)));
        stored.norm.shift = reinterpret_cast<const float*>(stored.memory.back()->Data());
    }
    return stored;
}

AttentionShape
ShapeOf(const ModelConfig& config)
{
    return {.heads = static_cast<std::uint32_t>(config.heads),
            .kvHeads = static_cast<std::uint32_t>(config.kvHeads),
            .headDim = static_cast<std::uint32_t>(config.headDim)};
}

} // namespace

WeightMemory::WeightMemory(const std::shared_ptr<CudaStream>& stream, std::span<const std::byte> bytes)
    : m_bytes(stream, bytes)
{
}

WeightMemory::~WeightMemory()
{
    cudaDeviceSynchronize();
}

WeightStore::WeightStore(std::shared_ptr<CudaStream> stream)
    : m_stream(std::move(stream))
{
}

std::shared_ptr<const WeightMemory>
WeightStore::Stored(const ArrayView& view)
{
    std::weak_ptr<const WeightMemory>& known = m_stored[view.data];
    std::shared_ptr<const WeightMemory> memory = known.lock();
    if (!memory)
    {
        memory = std::make_shared<WeightMemory>(m_stream, std::span(view.data, view.Elements() * SizeOf(view.dtype)));
        known = memory;
    }
    return memory;
}

CudaModel::CudaModel(std::shared_ptr<const Model> from,
                     DType activations,
                     const WeightPrecision& precision,
                     WeightStore& store)
    : ResidentModel(from->config, activations, precision),
      model(std::move(from))
{
    ExpectWeights(*model);
    const ModelConfig& config = Config();
    if (config.headDim > kMostHeadDim || config.heads / config.kvHeads > kMostGroup)
    {
        throw InputError("model " + config.name + " has heads of " + std::to_string(config.headDim) + " elements, " +
                         std::to_string(config.heads / config.kvHeads) +
                         " to a key/value head; the CUDA backend accepts at most " + std::to_string(kMostHeadDim) +
                         " and " + std::to_string(kMostGroup));
    }
    for (const LayerWeights& layer : model->layers)
    {
        const auto linear = [&, index = layers.size()](const LinearWeights& weights) {
            return InPrecision(weights, precision, index, store);
        };
        layers.push_back({.attentionNorm = Stored(layer.attentionNorm, config, store),
                          .query = linear(layer.query),
                          .key = linear(layer.key),
                          .value = linear(layer.value),
                          .output = linear(layer.output),
                          .mlpNorm = Stored(layer.mlpNorm, config, store),
                          .gate = linear(layer.gate),
                          .up = linear(layer.up),
                          .down = linear(layer.down)});
    }
    finalNorm = Stored(model->finalNorm, config, store);
    head = Stored(model->head, store);
    const CudaLinear tokens = Stored(model->embedding, store);
    const CudaLinear positions = Stored(model->positions, store);
    embedding = {.tokens = tokens.matrix, .positions = positions.matrix};
    m_embeddingMemory = tokens.memory;
    m_embeddingMemory.insert(m_embeddingMemory.end(), positions.memory.begin(), positions.memory.end());
    if (config.family == Family::Llama)
    {
        m_rotary.emplace(config);
    }
    store.Finish();
}

AttentionShape
CudaModel::Shape() const
{
    return ShapeOf(Config());
}

RotaryAngles
CudaModel::Angles(std::size_t positions, WeightStore& store) const
{
    if (!m_rotary)
    {
        return {};
    }
    if (positions > m_positions)
    {
        constexpr std::size_t kLeast = 1024;
        m_positions = std::bit_ceil(std::max(positions, kLeast));
        m_rotary->Extend(m_positions);
        m_cosines = store.Copied(m_rotary->Cosines());
        m_sines = store.Copied(m_rotary->Sines());
        store.Finish();
    }
    return {.cosines = reinterpret_cast<const float*>(m_cosines->Data()),
            .sines = reinterpret_cast<const float*>(m_sines->Data())};
}

CudaAdapter::CudaAdapter(std::shared_ptr<const Adapter> from, const ModelConfig& config, WeightStore& store)
    : ResidentAdapter(*from, config),
      adapter(std::move(from))
{
    ExpectWeights(*adapter, config);
    const auto lora = [&store](const LoraWeights& weights) -> CudaLora {
        return {.a = Stored(weights.a, store), .b = Stored(weights.b, store)};
    };
    for (const LoraLayer& layer : adapter->layers)
    {
        layers.push_back({.query = lora(layer.query), .key = lora(layer.key), .value = lora(layer.value)});
    }
    store.Finish();
}

CudaBottleneckAdapter::CudaBottleneckAdapter(std::shared_ptr<const BottleneckAdapter> from,
                                             const ModelConfig& config,
                                             WeightStore& store)
    : ResidentBottleneck(*from, config),
      adapter(std::move(from))
{
    ExpectWeights(*adapter, config);
    const auto bottleneck = [&store](const BottleneckWeights& weights) -> CudaBottleneck {
        return {.down = Stored(weights.down, store), .up = Stored(weights.up, store)};
    };
    for (const BottleneckLayer& layer : adapter->layers)
    {
        layers.push_back({.attention = bottleneck(layer.attention), .mlp = bottleneck(layer.mlp)});
    }
    store.Finish();
}

CudaExits::CudaExits(std::shared_ptr<const Exits> from, const ModelConfig& config, WeightStore& store)
    : ResidentExits(*from, config),
      exits(std::move(from))
{
    ExpectWeights(*exits, config);
    for (const ExitWeights& exit : exits->weights)
    {
        weights.push_back({.inputNorm = Stored(exit.inputNorm, config, store),
                           .down = Stored(exit.down, store),
                           .up = Stored(exit.up, store),
                           .norm = Stored(exit.norm, config, store)});
    }
    store.Finish();
}

CudaSide::CudaSide(std::shared_ptr<const SideNetwork> from, const ModelConfig& config, WeightStore& store)
    : ResidentSide(*from, config),
      network(std::move(from)),
      norm{.scale = nullptr, .shift = nullptr, .eps = static_cast<float>(config.normEps)}
{
    ExpectWeights(*network, config);
    for (const SideLayerWeights& layer : network->layers)
    {
        layers.push_back({.down = Stored(layer.down, store),
                          .inner = Stored(layer.inner, store),
                          .outer = Stored(layer.outer, store)});
    }
    up = Stored(network->up, store);
    gate = Stored(network->gate.weight, network->gate.bias, store);
    store.Finish();
}

CudaKvCache::CudaKvCache(const ModelConfig& config,
                         std::size_t first,
                         std::size_t last,
                         std::size_t capacity,
                         std::shared_ptr<CudaStream> stream)
    : KvCache(config, first, last, capacity),
      m_stream(std::move(stream)),
      m_shape(ShapeOf(config)),
      m_entries(m_stream, 2 * (last - first) * LayerElements())
{
}

CudaKvCache::CudaKvCache(const CudaKvCache& other, std::shared_ptr<CudaStream> stream)
    : KvCache(other),
      m_stream(std::move(stream)),
      m_shape(other.m_shape),
      m_entries(m_stream, other.m_entries.Size()),
      m_attention(m_stream, other.m_attention.Size())
{
    m_stream->Follow(*other.m_stream);
    for (std::size_t layer = m_first; layer < m_last; ++layer)
    {
        if (Length(layer) == 0)
        {
            continue;
        }
        const std::size_t begin = 2 * (layer - m_first) * LayerElements();
        const std::size_t pitch = m_capacity * m_shape.headDim * sizeof(float);
        const std::size_t width = Length(layer) * m_shape.headDim * sizeof(float);
        CheckCuda(cudaMemcpy2DAsync(m_entries.Data() + begin,
                                    pitch,
                                    other.m_entries.Data() + begin,
                                    pitch,
                                    width,
                                    2 * m_shape.kvHeads,
                                    cudaMemcpyDeviceToDevice,
                                    m_stream->Get()),
                  "copy of a KV cache");
    }
    if (m_attention.Size() > 0)
    {
        CheckCuda(cudaMemcpyAsync(m_attention.Data(),
                                  other.m_attention.Data(),
                                  m_attention.Size() * sizeof(std::uint64_t),
                                  cudaMemcpyDeviceToDevice,
                                  m_stream->Get()),
                  "copy of a KV cache");
    }
    other.m_stream->Follow(*m_stream);
}

std::size_t
CudaKvCache::LayerElements() const
{
    return m_shape.kvHeads * m_capacity * m_shape.headDim;
}

AttentionShape
CudaKvCache::Shape() const
{
    return m_shape;
}

KvPlace
CudaKvCache::Place(std::size_t layer, std::size_t entry, std::size_t position) const
{
    if (TracksAttention() && m_attention.Size() == 0)
    {
        m_attention = DeviceArray<std::uint64_t>(m_stream, (m_last - m_first) * m_capacity);
    }
    float* keys = m_entries.Data() + 2 * (layer - m_first) * LayerElements();
    return {.keys = keys,
            .values = keys + LayerElements(),
            .attention = TracksAttention() ? m_attention.Data() + (layer - m_first) * m_capacity : nullptr,
            .capacity = static_cast<std::uint32_t>(m_capacity),
            .entry = static_cast<std::uint32_t>(entry),
            .position = static_cast<std::uint32_t>(position)};
}

std::vector<Attention>
CudaKvCache::AttentionOf(std::size_t layer) const
{
    std::vector<Attention> attention(Length(layer));
    m_attention.Download(attention, (layer - m_first) * m_capacity);
    return attention;
}

} // namespace splitllm
