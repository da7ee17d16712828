// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EMBEDDING_H
#define SPLITLLM_EMBEDDING_H

#include "schemes/decoder.h"
#include "schemes/full-model.h"

#include <cstddef>
#include <span>
#include <vector>

namespace splitllm
{

// How a step begins where the device has the embedding and the choice of tokens, and the server the layers.

/// What the device sent up at the beginning of a step.
struct EmbeddedStep
{
    std::vector<std::size_t> positions; //!< of each row
    std::size_t states = 1;             //!< rows of the final state that comes back: one for each hypothesis
};

/**
 * At the device: embeds what \p decoder goes on with when it is asked to go on with \p tokens at \p position, and sends
 * that up. Rows that are hypotheses of a beam search have in front of them which one each goes on from, 4 bytes each.
 */
Task<EmbeddedStep> SendEmbedding(Session& session,
                                 const SchemeParts& parts,
                                 const Decoder& decoder,
                                 std::span<const TokenId> tokens,
                                 std::size_t position);

/**
 * At the server: the embedded rows in \p message.
 * \param cache of the request, which goes on as the hypotheses say; null at its first step
 * \throws ProtocolError
 */
Task<Tensor> TakeEmbedding(Session& session, const SchemeParts& parts, Message message, RequestCache* cache);

} // namespace splitllm

#endif // SPLITLLM_EMBEDDING_H
