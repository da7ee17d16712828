// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OPSC_SIZES_H
#define SPLITLLM_OPSC_SIZES_H

#include "llm/config.h"

#include <cstddef>
#include <cstdint>

namespace splitllm
{

/**
 * \file
 * What OPSC counts when it fits a model into a device and a link (sections 2.1 and 2.2). Layers 1 to l are the front,
 * also where activations are concerned; HD, the width of keys and values, is that of the model's key/value heads. Bits
 * are nominal: scales of quantised weights and headers of messages are not in them.
 */

/// Bits an element in front and back.
struct FrontBack
{
    unsigned front = 16;
    unsigned back = 16;

    bool operator==(const FrontBack&) const = default;
};

/// Eq 1, in bytes: the layers' weights, those of layers 1 to \p split at one precision, the others at another.
std::uint64_t OpscWeightBytes(const ModelConfig& config, std::size_t split, FrontBack weights);

/// Which terms of Eq 2 travel where keys and values do.
enum class KvPayload
{
    Printed, //!< all three: those of the front, those of the back, the new token's state
    Needed,  //!< the second and the third: the cloud has no use for the first
};

/**
 * Eq 2, in bits: the keys and values of \p tokens tokens in layers 1 to \p split, those of all but the newest token in
 * the layers behind, and the newest token's hidden state. \pre tokens > 0
 */
std::uint64_t OpscKvBits(const ModelConfig& config,
                         std::size_t tokens,
                         std::size_t split,
                         FrontBack activations,
                         KvPayload terms = KvPayload::Printed);

/// Eq 3, in bits: Eq 2 with keys and values, the hidden states of all \p tokens tokens without.
std::uint64_t OpscPayloadBits(const ModelConfig& config,
                              std::size_t tokens,
                              std::size_t split,
                              bool keysAndValues,
                              FrontBack activations,
                              KvPayload terms = KvPayload::Printed);

} // namespace splitllm

#endif // SPLITLLM_OPSC_SIZES_H
