// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FOOTPRINT_H
#define SPLITLLM_FOOTPRINT_H

#include "compute/backend.h"
#include "compute/weight-precision.h"
#include "llm/config.h"

#include <cstddef>
#include <cstdint>

namespace splitllm
{

/// Bytes of the embedding tables (OPT: tokens and positions).
std::uint64_t EmbeddingBytes(const ModelConfig& config);

/// Bytes of \p count layers.
std::uint64_t LayerBytes(const ModelConfig& config, std::size_t count);

/// Bytes of weights, those of quantisation's scales apart.
struct WeightBytes
{
    std::uint64_t weights = 0; //!< codes, and weights as they are stored
    std::uint64_t scales = 0;  //!< scales and minima of the groups of codes

    std::uint64_t Total() const
    {
        return weights + scales;
    }

    bool operator==(const WeightBytes&) const = default;
};

/**
 * Bytes of \p parameters of the matrices of \p layer: where it is quantised bits / 8 of codes a parameter and 4 bytes
 * of scales a group, else the stored type's.
 */
WeightBytes MatrixBytes(const ModelConfig& config,
                        const WeightPrecision& precision,
                        std::size_t layer,
                        std::uint64_t parameters);

/// Bytes of layers [first, last) as a backend holds them; norms and biases as they are stored.
WeightBytes LayerBytes(const ModelConfig& config,
                       const WeightPrecision& precision,
                       std::size_t first,
                       std::size_t last);

/// Bytes of the final norm and the head. A tied head is the embedding: only the norm counts.
std::uint64_t HeadBytes(const ModelConfig& config);

/// Bytes of the final norm and the head's matrix where the embedding is not, so that a tied one counts.
std::uint64_t StandaloneHeadBytes(const ModelConfig& config);

/// Bytes of the whole model.
std::uint64_t ModelBytes(const ModelConfig& config);

/**
 * Bytes of activations that live at once during one operation on \p rows rows: its inputs, outputs and the widest
 * intermediate results. Attention scores are not counted (kernels keep them on chip).
 */
std::uint64_t ActivationBytes(const ModelConfig& config, Operation operation, std::size_t rows, DType activations);

} // namespace splitllm

#endif // SPLITLLM_FOOTPRINT_H
