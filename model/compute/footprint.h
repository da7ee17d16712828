// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_FOOTPRINT_H
#define SPLITLLM_FOOTPRINT_H

#include "compute/backend.h"
#include "llm/config.h"

#include <cstddef>
#include <cstdint>

namespace splitllm
{

/// Bytes of the embedding tables (OPT: tokens and positions).
std::uint64_t EmbeddingBytes(const ModelConfig& config);

/// Bytes of \p count layers.
std::uint64_t LayerBytes(const ModelConfig& config, std::size_t count);

/// Bytes of the final norm and the head. A tied head is the embedding: only the norm counts.
std::uint64_t HeadBytes(const ModelConfig& config);

/// Bytes of the whole model.
std::uint64_t ModelBytes(const ModelConfig& config);

/**
 * Bytes of activations that live at once during one operation on \p rows rows: its inputs, outputs and the widest
 * intermediate results. Attention scores are not counted (kernels keep them on chip).
 */
std::uint64_t ActivationBytes(const ModelConfig& config, Operation operation, std::size_t rows, DType activations);

} // namespace splitllm

#endif // SPLITLLM_FOOTPRINT_H
