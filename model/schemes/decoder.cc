// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/decoder.h"

#include <utility>

namespace splitllm
{

namespace
{

Task<Tensor>
LogitsOf(Session& s, const SchemeParts& parts, std::size_t position, Tensor states)
{
    const Tensor logits = co_await s.Run(*parts.model, s.host.backend->Head(*parts.model, states));
    for (std::size_t row = 0; row < logits.Rows(); row++)
    {
        s.ReportLogits(position, logits.IsPhantom() ? std::span<const float>() : logits.Row(row));
    }
    co_return logits;
}

} // namespace

Task<TokenId>
NextToken(Session& s, const SchemeParts& parts, std::size_t position, Tensor hL)
{
    const Tensor logits = co_await LogitsOf(s, parts, position, std::move(hL));
    const double uniform = parts.sampling.temperature > 0.0 ? s.uniform(Draw::Sample) : 0.0;
    Computed<TokenId> next = s.host.backend->Sample(logits, parts.sampling, uniform);
    next.value = s.Outcome(position, 0, [&next] { return next.value; });
    co_return co_await s.Run(*parts.model, std::move(next));
}

Task<Candidates>
MostLikelyTokens(Session& s, const SchemeParts& parts, std::size_t position, Tensor states, std::size_t count)
{
    const Tensor logits = co_await LogitsOf(s, parts, position, std::move(states));
    Computed<Candidates> tokens = s.host.backend->Search(logits, count);
    tokens.value = s.Outcome(position, 0, [&tokens] { return tokens.value; });
    co_return co_await s.Run(*parts.model, std::move(tokens));
}

Decoder::Decoder(Session& session, const SchemeParts& parts)
    : m_session(session),
      m_parts(parts)
{
}

void
Decoder::Begin(const RequestLimits& limits, const Sampling& sampling)
{
    m_search.reset();
    m_newest.clear();
    if (sampling.beams > 0)
    {
        m_search.emplace(sampling.beams, sampling.lengthPenalty, limits.newTokens, limits.stop);
    }
}

Task<std::vector<TokenId>>
Decoder::Next(std::size_t position, Tensor states)
{
    if (!m_search)
    {
        const TokenId next = co_await NextToken(m_session, m_parts, position, std::move(states));
        co_return std::vector<TokenId>(1, next);
    }
    const Candidates candidates =
        co_await MostLikelyTokens(m_session, m_parts, position, std::move(states), CandidatesEach());
    co_return Advance(candidates);
}

std::span<const TokenId>
Decoder::Inputs(std::span<const TokenId> tokens) const
{
    return m_newest.empty() ? tokens : m_newest;
}

std::size_t
Decoder::CandidatesEach() const
{
    return m_search->Candidates();
}

std::vector<TokenId>
Decoder::Advance(const Candidates& candidates)
{
    m_search->Advance(candidates);
    m_newest.clear();
    if (m_search->Ended())
    {
        m_newest.push_back(m_search->Answer().back());
        return m_newest;
    }
    for (const BeamSearch::Continuation& running : m_search->Running())
    {
        m_newest.push_back(running.token);
    }
    return m_newest;
}

std::vector<std::size_t>
Decoder::Parents() const
{
    if (!m_search)
    {
        return {0};
    }
    std::vector<std::size_t> parents;
    for (const BeamSearch::Continuation& running : m_search->Running())
    {
        parents.push_back(running.parent);
    }
    return parents;
}

std::optional<std::vector<TokenId>>
Decoder::Answer() const
{
    return m_search && m_search->Ended() ? std::optional(m_search->Answer()) : std::nullopt;
}

} // namespace splitllm
