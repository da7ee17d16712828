// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ADAPTER_H
#define SPLITLLM_ADAPTER_H

#include "llm/config.h"
#include "llm/safetensors.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

namespace splitllm
{

/// Low-rank update of one projection: x -> scaling * B (A x). A is [r, d], B is [out, r].
struct LoraWeights
{
    ArrayView a;
    ArrayView b;
};

/// The updates of one layer. A projection that the adapter does not target has no data.
struct LoraLayer
{
    LoraWeights query;
    LoraWeights key;
    LoraWeights value;
};

/// A LoRA adapter on the Q, K and V projections, in PEFT's folder format.
struct Adapter
{
    std::size_t rank = 0;
    float scaling = 1.0F; //!< lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora
    std::vector<LoraLayer> layers;
    std::shared_ptr<const MappedTensors> storage;

    /**
     * Loads adapter_config.json and adapter_model.safetensors for a base model of shape \p config.
     * \throws InputError if a file is missing or malformed, if a target other than q_proj, k_proj, v_proj (OPT: the
     * same names) is adapted, or if a tensor's shape belongs to another model.
     */
    static std::shared_ptr<const Adapter> Load(const std::filesystem::path& folder, const ModelConfig& config);
};

/// Parameters of a rank-r adapter on Q, K and V of every layer: sum of r (d + out) over the three (A9).
std::uint64_t LoraParameters(const ModelConfig& config, std::size_t rank);

} // namespace splitllm

#endif // SPLITLLM_ADAPTER_H
