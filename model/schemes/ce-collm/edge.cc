// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/edge.h"

#include "ns3/simulator.h"

#include <limits>
#include <utility>

namespace splitllm
{

CeCollmEdge::CeCollmEdge(Session& session, const SchemeParts& parts, const CeCollmOptions& options)
    : s(session),
      m_parts(parts),
      m_options(options)
{
    if (options.mode == CeCollmMode::Collaborative)
    {
        m_cloud = std::make_unique<CloudLink>(session, parts, options);
    }
}

Task<void>
CeCollmEdge::Connect(Session&)
{
    return m_cloud->Connect();
}

Task<std::optional<TokenId>>
CeCollmEdge::Step(std::span<const TokenId> tokens, std::size_t position)
{
    m_token++;
    const std::size_t newest = position + tokens.size() - 1;
    const Exits exits = co_await Run(tokens, position);
    ns3::Time asked;
    if (!exits.taken && m_cloud)
    {
        asked = m_cloud->IsCollaborating() ? ns3::Simulator::Now() : ns3::Time();
        const std::optional<TokenId> answer = co_await m_cloud->Ask(newest);
        if (answer)
        {
            Report(exits, TokenSource::Cloud, newest, asked);
            co_return *answer;
        }
    }
    Report(exits, exits.taken || !m_cloud ? TokenSource::Exit : TokenSource::Fallback, newest, asked);
    s.ReportLogits(newest, exits.logits.Values());
    const double uniform = m_parts.sampling.temperature > 0.0 ? s.uniform(Draw::ExitSample) : 0.0;
    Computed<TokenId> next = s.host.backend->Sample(exits.logits, m_parts.sampling, uniform);
    next.value = s.Outcome(newest, 0, [&next] { return next.value; });
    co_return co_await s.Run(*m_parts.model, std::move(next));
}

Task<CeCollmEdge::Exits>
CeCollmEdge::Run(std::span<const TokenId> tokens, std::size_t position)
{
    Backend& backend = *s.host.backend;
    const ResidentModel& model = *m_parts.model;
    const std::vector<std::size_t>& layers = m_options.exits->Layers();
    if (m_cloud)
    {
        m_cloud->LookForCloud();
    }
    if (!m_cache)
    {
        m_cache = std::make_unique<RequestCache>(s, model, 0, layers.back());
    }
    m_cache->Reserve(tokens.size());
    Exits exits;
    Tensor h = co_await s.Run(model, backend.Embed(model, tokens, position));
    std::size_t l = 0;
    for (std::size_t exit = 0; exit < layers.size(); exit++)
    {
        // An exit that is taken spares the exits behind it, not the layers: later tokens attend to this one there.
        for (; l < layers[exit]; l++)
        {
            const Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
            h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Cache()), l + 1);
            if (m_cloud && l + 1 == m_options.uploadLayer)
            {
                m_cloud->Keep(h);
                if (!m_options.uploadBelow || exits.confidence.value_or(0.0) < *m_options.uploadBelow)
                {
                    m_cloud->Upload();
                }
            }
        }
        if (!exits.taken)
        {
            co_await AskExit(exits, exit, l, h, position + tokens.size() - 1);
        }
    }
    co_return exits;
}

Task<void>
CeCollmEdge::AskExit(Exits& exits, std::size_t exit, std::size_t layer, const Tensor& h, std::size_t position)
{
    const ResidentModel& model = *m_parts.model;
    const Tensor newest = h.Slice(h.Rows() - 1, 1);
    exits.logits = co_await s.Run(model, s.host.backend->Exit(model, *m_options.exits, exit, newest), layer);
    const Verdict verdict = s.Outcome(position, layer, [&] {
        return m_options.policy->Decide(
            {.request = s.request, .token = m_token, .exit = exit, .layer = layer, .logits = exits.logits.Values()},
            [this] { return s.uniform(Draw::Exit); });
    });
    exits.layer = layer;
    exits.confidence = verdict.score;
    if (verdict.yes)
    {
        exits.taken = layer;
    }
}

void
CeCollmEdge::Report(const Exits& exits, TokenSource source, std::size_t position, ns3::Time asked) const
{
    if (s.onExit)
    {
        const bool ofCloud = source == TokenSource::Cloud;
        s.onExit({.session = s.id,
                  .request = s.request,
                  .position = static_cast<std::uint32_t>(position),
                  .source = source,
                  .layer = static_cast<std::uint16_t>(ofCloud ? 0 : exits.layer),
                  .confidence = exits.confidence.value_or(std::numeric_limits<double>::quiet_NaN()),
                  .asked = asked});
    }
}

void
CeCollmEdge::EndRequest()
{
    if (m_cloud)
    {
        m_cloud->EndRequest();
    }
    m_cache.reset();
    m_token = 0;
}

} // namespace splitllm
