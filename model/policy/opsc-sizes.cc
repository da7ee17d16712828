// SPDX-License-Identifier: GPL-2.0-only
#include "policy/opsc-sizes.h"

namespace splitllm
{

std::uint64_t
OpscWeightBytes(const ModelConfig& config, std::size_t split, FrontBack weights)
{
    const std::uint64_t layer = config.LayerParameters();
    return layer * (split * weights.front + (config.layers - split) * weights.back) / 8;
}

std::uint64_t
OpscKvBits(const ModelConfig& config, std::size_t tokens, std::size_t split, FrontBack activations, KvPayload terms)
{
    const std::uint64_t width = config.KvWidth();
    const std::uint64_t front = terms == KvPayload::Printed ? 2 * split * tokens * width * activations.front : 0;
    const std::uint64_t back = 2 * (config.layers - split) * (tokens - 1) * width * activations.back;
    return front + back + config.hidden * activations.front;
}

std::uint64_t
OpscPayloadBits(const ModelConfig& config,
                std::size_t tokens,
                std::size_t split,
                bool keysAndValues,
                FrontBack activations,
                KvPayload terms)
{
    return keysAndValues ? OpscKvBits(config, tokens, split, activations, terms)
                         : std::uint64_t{tokens} * config.hidden * activations.front;
}

} // namespace splitllm
