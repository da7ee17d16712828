// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BOTTLENECK_H
#define SPLITLLM_BOTTLENECK_H

#include "llm/config.h"
#include "llm/model.h"
#include "llm/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

namespace splitllm
{

/// The two parts of a layer, each with a residual around it.
enum class Sublayer
{
    Attention, //!< up to its output projection
    Mlp,
};

/**
 * One bottleneck. To the output y of its sublayer, before the residual, it adds
 *
 *     up relu(down y + b_down) + b_up
 *
 * d is the model's width, b the bottleneck's.
 */
struct BottleneckWeights
{
    LinearWeights down; //!< [b, d] and [b]
    LinearWeights up;   //!< [d, b] and [d]
};

/// The bottlenecks of one layer.
struct BottleneckLayer
{
    BottleneckWeights attention;
    BottleneckWeights mlp;
};

/// Bottleneck adapters in every layer of a model (Houlsby et al., ICML 2019, Figure 2): SPA's baseline "Adapter".
struct BottleneckAdapter
{
    std::size_t width = 0; //!< b
    std::vector<BottleneckLayer> layers;
    std::shared_ptr<const MappedTensors> storage; //!< keeps the views valid

    /// Whether \p folder holds bottleneck adapters (and not, say, LoRA's); an empty path does not.
    static bool IsIn(const std::filesystem::path& folder);

    /**
     * Loads the adapters of a folder for a model of shape \p config:
     *  - bottleneck.json: "model", "width", "made_by" (the command) and "trained_on", no other key;
     *  - bottleneck.safetensors: for each layer L from 1 the tensors layers.L.attention.down.weight [b, d],
     *    layers.L.attention.down.bias [b], layers.L.attention.up.weight [d, b], layers.L.attention.up.bias [d], and
     *    the same under layers.L.mlp; no others. Each is fp32, fp16 or bf16.
     *
     * \throws InputError naming file and key or tensor
     */
    static std::shared_ptr<const BottleneckAdapter> Load(const std::filesystem::path& folder,
                                                         const ModelConfig& config);
};

/// Parameters of bottlenecks of width b in every layer: 2 (2 d b + b + d) a layer.
std::uint64_t BottleneckParameters(const ModelConfig& config, std::size_t width);

} // namespace splitllm

#endif // SPLITLLM_BOTTLENECK_H
