// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/embedding.h"

#include "codec/dense-codec.h"

#include <cstdint>
#include <numeric>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

/// \p payload behind the hypotheses that its rows go on from, 4 bytes each. At the front, where a phantom has bytes too.
Payload
WithParents(std::span<const std::size_t> parents, Payload payload)
{
    const std::vector<std::uint32_t> words(parents.begin(), parents.end());
    const Payload front = EncodeTokens(words);
    payload.bytes.insert(payload.bytes.begin(), front.bytes.begin(), front.bytes.end());
    payload.size += front.size;
    return payload;
}

/// Takes \p beams parents, of as many hypotheses as \p running, from the front of \p payload. \throws ProtocolError
std::vector<std::size_t>
TakeParents(Payload& payload, std::size_t beams, std::size_t running)
{
    const std::size_t length = beams * sizeof(std::uint32_t);
    if (payload.bytes.size() < length)
    {
        throw ProtocolError("embedding: payload of " + std::to_string(payload.size) + " bytes holds no parents of " +
                            std::to_string(beams) + " hypotheses");
    }
    const auto end = payload.bytes.begin() + static_cast<std::ptrdiff_t>(length);
    const std::vector<std::uint32_t> words = DecodeTokens(Payload::Of({payload.bytes.begin(), end}));
    for (const std::uint32_t word : words)
    {
        if (word >= running)
        {
            throw ProtocolError("embedding: goes on from hypothesis " + std::to_string(word) + " of " +
                                std::to_string(running));
        }
    }
    payload.bytes.erase(payload.bytes.begin(), end);
    payload.size -= length;
    return {words.begin(), words.end()};
}

/// Whether the rows at \p position are hypotheses; those of a prompt are positions.
bool
AreHypotheses(const SchemeParts& parts, std::size_t position)
{
    return parts.sampling.beams > 0 && position > 0;
}

} // namespace

Task<EmbeddedStep>
SendEmbedding(Session& s,
              const SchemeParts& parts,
              const Decoder& decoder,
              std::span<const TokenId> tokens,
              std::size_t position)
{
    const bool hypotheses = AreHypotheses(parts, position);
    tokens = decoder.Inputs(tokens);
    EmbeddedStep step{.positions = std::vector<std::size_t>(tokens.size(), position),
                      .states = hypotheses ? tokens.size() : 1};
    if (!hypotheses)
    {
        std::iota(step.positions.begin(), step.positions.end(), position);
    }
    const Tensor h0 = co_await s.Run(*parts.model, s.host.backend->Embed(*parts.model, tokens, step.positions));
    Payload payload = co_await s.Encode(MessageKind::Embedding, 0, h0);
    if (hypotheses)
    {
        payload = WithParents(decoder.Parents(), std::move(payload));
    }
    s.Send(MessageKind::Embedding, position, 0, std::move(payload), s.Codec().Exact());
    co_return step;
}

Task<Tensor>
TakeEmbedding(Session& s, const SchemeParts& parts, Message message, RequestCache* cache)
{
    const std::size_t hidden = parts.model->Config().hidden;
    if (cache == nullptr || !AreHypotheses(parts, cache->Position()))
    {
        co_return co_await s.TensorIn(std::move(message), hidden);
    }
    const std::size_t beams = parts.sampling.beams;
    std::vector<std::size_t> parents = TakeParents(message.payload, beams, cache->Caches().size());
    Tensor h0 = co_await s.TensorIn(std::move(message), beams, hidden);
    co_await cache->Branch(std::move(parents));
    co_return h0;
}

} // namespace splitllm
