// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/order.h"

#include "codec/dense-codec.h"

#include <cstdint>
#include <string>

namespace splitllm
{

Payload
EncodeOrder(const RequestLimits& limits, std::span<const TokenId> prompt)
{
    std::vector<std::uint32_t> words{limits.newTokens, static_cast<std::uint32_t>(limits.stop.size())};
    words.insert(words.end(), limits.stop.begin(), limits.stop.end());
    words.insert(words.end(), prompt.begin(), prompt.end());
    return EncodeTokens(words);
}

Order
DecodeOrder(const Message& message, std::size_t vocab, std::size_t positions)
{
    const std::vector<std::uint32_t> words = Session::WordsIn(message);
    const std::size_t stops = words.size() > 1 ? words[1] : 0;
    if (words.size() < 3 || stops > words.size() - 3)
    {
        throw ProtocolError("generate: no prompt in " + std::to_string(words.size()) + " words with " +
                            std::to_string(stops) + " stop ids");
    }
    const std::span<const std::uint32_t> ids = std::span(words).subspan(2);
    Session::ExpectKnown(ids, vocab);
    const std::span<const TokenId> prompt = ids.subspan(stops);
    const std::uint32_t newTokens = words[0];
    if (newTokens == 0 || prompt.size() > positions || newTokens - 1 > positions - prompt.size())
    {
        throw ProtocolError("generate: " + std::to_string(newTokens) + " new tokens after a prompt of " +
                            std::to_string(prompt.size()) + "; accepted: at least 1, in " +
                            std::to_string(positions) + " positions");
    }
    return {.limits = {.newTokens = newTokens, .stop = {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(stops)}},
            .prompt = {prompt.begin(), prompt.end()}};
}

} // namespace splitllm
