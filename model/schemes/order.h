// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_ORDER_H
#define SPLITLLM_ORDER_H

#include "codec/payload.h"
#include "net/wire.h"
#include "schemes/decoder.h"
#include "schemes/scheme.h"

#include <cstddef>
#include <span>
#include <vector>

namespace splitllm
{

/// What a "generate" asks for: an answer that the server goes on with by itself.
struct Order
{
    RequestLimits limits;
    Sampling sampling;
    std::vector<TokenId> prompt;
};

/// [beams and length penalty in fp32, where \p sampling has beams; new tokens, number of stop ids, stop ids..., prompt
/// ids...], 4 bytes each.
Payload EncodeOrder(const RequestLimits& limits, const Sampling& sampling, std::span<const TokenId> prompt);

/**
 * The inverse of EncodeOrder.
 * \param positions that a prompt and its answer, without the last token, may take
 * \param sampling the scheme's, which has as many beams as the server makes room for
 * \throws ProtocolError unless beams and penalty are accepted, there is a prompt, a token is wanted, all ids are below
 *         \p vocab and the answer fits
 */
Order DecodeOrder(const Message& message, std::size_t vocab, std::size_t positions, Sampling sampling);

/// At the server: tells the user \p tokens, one a hypothesis, as "next-token"; where they end \p decoder's search, what
/// that found as "answer" instead.
void SendTokens(Session& session, const Decoder& decoder, std::size_t position, std::span<const TokenId> tokens);

/// What SendTokens sent.
struct ServedTokens
{
    std::vector<TokenId> tokens; //!< of each hypothesis, or the whole answer
    bool answer;                 //!< a search has ended

    /// The newest token: of the best hypothesis, or the answer's last.
    TokenId Newest() const
    {
        return answer ? tokens.back() : tokens.front();
    }
};

/**
 * At the user: what \p message says of a step.
 * \param searches whether the request is answered by a search
 * \throws ProtocolError unless it is what SendTokens sends, with ids below \p vocab
 */
ServedTokens TakeTokens(const Session& session, const Message& message, std::size_t vocab, bool searches);

} // namespace splitllm

#endif // SPLITLLM_ORDER_H
