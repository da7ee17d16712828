// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/parents.h"

#include "codec/dense-codec.h"
#include "schemes/session.h"

#include <cstdint>
#include <string>

namespace splitllm
{

Payload
WithParents(std::span<const std::size_t> parents, Payload payload)
{
    const std::vector<std::uint32_t> words(parents.begin(), parents.end());
    const Payload front = EncodeTokens(words);
    payload.bytes.insert(payload.bytes.begin(), front.bytes.begin(), front.bytes.end());
    payload.size += front.size;
    return payload;
}

std::vector<std::size_t>
TakeParents(Message& message, std::size_t beams, std::size_t running)
{
    Payload& payload = message.payload;
    const std::size_t length = beams * sizeof(std::uint32_t);
    if (payload.bytes.size() < length)
    {
        throw ProtocolError(std::string(NameOf(message.kind)) + ": payload of " + std::to_string(payload.size) +
                            " bytes holds no parents of " + std::to_string(beams) + " hypotheses");
    }
    const auto end = payload.bytes.begin() + static_cast<std::ptrdiff_t>(length);
    const std::vector<std::uint32_t> words = DecodeTokens(Payload::Of({payload.bytes.begin(), end}));
    for (const std::uint32_t word : words)
    {
        if (word >= running)
        {
            throw ProtocolError(std::string(NameOf(message.kind)) + ": goes on from hypothesis " +
                                std::to_string(word) + " of " + std::to_string(running));
        }
    }
    payload.bytes.erase(payload.bytes.begin(), end);
    payload.size -= length;
    return {words.begin(), words.end()};
}

} // namespace splitllm
