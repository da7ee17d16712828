// SPDX-License-Identifier: GPL-2.0-only
#include "compute/footprint.h"

namespace splitllm
{

std::uint64_t
EmbeddingBytes(const ModelConfig& config)
{
    const std::uint64_t positions = config.family == Family::Opt ? config.maxPositions + 2 : 0;
    return (config.vocab + positions) * config.hidden * SizeOf(config.dtype);
}

std::uint64_t
LayerBytes(const ModelConfig& config, std::size_t count)
{
    return count * config.LayerParameters() * SizeOf(config.dtype);
}

WeightBytes
MatrixBytes(const ModelConfig& config,
            const WeightPrecision& precision,
            std::size_t layer,
            std::uint64_t parameters)
{
    if (!precision.Quantised(layer))
    {
        return {parameters * SizeOf(config.dtype), 0};
    }
    return {parameters * precision.Bits(layer) / 8, parameters / precision.Group() * WeightPrecision::kGroupBytes};
}

WeightBytes
LayerBytes(const ModelConfig& config, const WeightPrecision& precision, std::size_t first, std::size_t last)
{
    const std::uint64_t attention = 2 * config.hidden * (config.QueryWidth() + config.KvWidth());
    const std::uint64_t mlp = (config.family == Family::Opt ? 2 : 3) * config.hidden * config.ffn;
    const std::uint64_t vectors = config.LayerParameters() - attention - mlp; // norms and biases
    WeightBytes bytes;
    for (std::size_t layer = first; layer < last; ++layer)
    {
        const WeightBytes matrices = MatrixBytes(config, precision, layer, attention + mlp);
        bytes.weights += matrices.weights + vectors * SizeOf(config.dtype);
        bytes.scales += matrices.scales;
    }
    return bytes;
}

std::uint64_t
HeadBytes(const ModelConfig& config)
{
    const std::uint64_t norm = config.hidden * (config.family == Family::Opt ? 2 : 1);
    const std::uint64_t head = config.tiedHead ? 0 : config.vocab * config.hidden;
    return (norm + head) * SizeOf(config.dtype);
}

std::uint64_t
StandaloneHeadBytes(const ModelConfig& config)
{
    return HeadBytes(config) + (config.tiedHead ? config.vocab * config.hidden * SizeOf(config.dtype) : 0);
}

std::uint64_t
ModelBytes(const ModelConfig& config)
{
    return EmbeddingBytes(config) + LayerBytes(config, config.layers) + HeadBytes(config);
}

std::uint64_t
ActivationBytes(const ModelConfig& config, Operation operation, std::size_t rows, DType activations)
{
    const std::uint64_t d = config.hidden;
    const std::uint64_t projections = config.QueryWidth() + 2 * config.KvWidth();
    const std::uint64_t inner = config.ffn * (config.family == Family::Llama ? 2 : 1); // SwiGLU has gate and up
    std::uint64_t elements = 0; // of one row
    switch (operation)
    {
    case Operation::Embed:
        elements = d;
        break;
    case Operation::Project: // hidden, normed input, Q K V
        elements = 2 * d + projections;
        break;
    case Operation::Adapt: // input, updates
        elements = d + projections;
        break;
    case Operation::Merge: // both operands
        elements = 2 * projections;
        break;
    case Operation::FinishLayer: // hidden, Q K V, attention output, MLP, next hidden
        elements = 2 * d + projections + config.QueryWidth() + inner;
        break;
    case Operation::Prune: // the attention of each entry, whose type is always the same
        return rows * sizeof(std::uint64_t);
    case Operation::Snapshot:
    case Operation::Restore: // the copy
        elements = config.KvWidth();
        break;
    case Operation::Head: // hidden, logits
        elements = d + config.vocab;
        break;
    case Operation::Exit: // hidden, what the head gets, logits
        elements = 2 * d + config.vocab;
        break;
    case Operation::Attend: // Q K V, attention output, its projection
        elements = projections + config.QueryWidth() + d;
        break;
    case Operation::FeedForward: // hidden, normed, MLP, result
        elements = 3 * d + inner;
        break;
    case Operation::Bottleneck:
    case Operation::Combine: // both operands
        elements = 2 * d;
        break;
    case Operation::SideInput: // a layer's states and what the norm makes of them
        elements = 2 * d;
        break;
    case Operation::Side:
    case Operation::Gate:
        elements = d;
        break;
    case Operation::Fork: // in the KV cache
        break;
    case Operation::Search:
    case Operation::Sample:
        elements = config.vocab;
        break;
    case Operation::Calibrate:
        break; // a few numbers a row
    case Operation::Encode:
    case Operation::Decode:
        break; // row by row, within what the layers left
    }
    return rows * elements * SizeOf(activations);
}

} // namespace splitllm
