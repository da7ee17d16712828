// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/embedding.h"

#include "schemes/parents.h"

#include <numeric>
#include <utility>

namespace splitllm
{

namespace
{

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
    std::vector<std::size_t> parents = TakeParents(message, beams, cache->Caches().size());
    Tensor h0 = co_await s.TensorIn(std::move(message), beams, hidden);
    co_await cache->Branch(s, *parts.model, std::move(parents));
    co_return h0;
}

} // namespace splitllm
