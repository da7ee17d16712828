// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/cloud.h"

#include "schemes/spa/candidates.h"

#include "ns3/simulator.h"

#include <algorithm>
#include <string>
#include <utility>

namespace splitllm
{

SpaCloud::SpaCloud(Session& session, const SchemeParts& parts, const SpaOptions& options)
    : s(session),
      m_parts(parts),
      m_options(options),
      m_decoder(session, parts)
{
}

Task<void>
SpaCloud::Serve()
{
    while (true)
    {
        const Message message = co_await s.ReceiveStep(MessageKind::Generate, 0);
        if (message.kind == MessageKind::End)
        {
            continue; // of a request that wanted no token
        }
        co_await Answer(DecodeOrder(message, m_parts.model->Config().vocab, m_parts.Positions(), m_parts.sampling));
        m_states = {};
        m_cache.reset();
        m_admission = {};
    }
}

Task<void>
SpaCloud::Answer(Order order)
{
    const RequestLimits& limits = order.limits;
    // Only the cloud knows the hypotheses of a search.
    const bool goesOn = m_options.stream || order.sampling.beams > 0;
    m_decoder.Begin(limits, order.sampling);
    std::vector<TokenId> tokens = std::move(order.prompt);
    for (m_token = 1;; m_token++)
    {
        const std::optional<std::vector<TokenId>> own = co_await Step(tokens);
        const bool last = m_token == limits.newTokens || m_decoder.Answer() ||
                          (own && std::ranges::find(limits.stop, own->front()) != limits.stop.end());
        if (own && goesOn && !last)
        {
            tokens = *own;
            s.path.Start(ns3::Simulator::Now()); // the next token's, which nobody asks for
            continue;
        }
        const Message message = co_await s.ReceiveStep(MessageKind::Tokens, m_cache->Position());
        if (message.kind == MessageKind::End)
        {
            co_return;
        }
        tokens = Session::TokensIn(message, m_parts.model->Config().vocab);
        if (tokens.size() != 1 || m_token == limits.newTokens || order.sampling.beams > 0)
        {
            throw ProtocolError("tokens: " + std::to_string(tokens.size()) + " after " + std::to_string(m_token) +
                                " of an answer of " + std::to_string(limits.newTokens));
        }
    }
}

Task<std::optional<std::vector<TokenId>>>
SpaCloud::Step(std::span<const TokenId> tokens)
{
    const LayerStates states = co_await Forward(tokens);
    const std::size_t hypotheses = states.back().Rows();
    const std::size_t position = m_cache->Position() - 1;
    Tensor h = states.back();
    const bool open = co_await Opens(h.Slice(0, 1), position);
    if (open && m_options.head == SpaNode::Device)
    {
        co_await SendSideStates(s, m_parts, m_options, position, states);
        if (!m_decoder.Searches())
        {
            co_return std::nullopt;
        }
        const Candidates candidates = co_await ReceiveCandidates(hypotheses);
        co_return Tell(m_decoder.Advance(candidates), position);
    }
    if (open)
    {
        h = co_await AskDevice(states, position);
    }
    std::vector<TokenId> next = co_await m_decoder.Next(position, std::move(h));
    co_return Tell(std::move(next), position);
}

Task<LayerStates>
SpaCloud::Forward(std::span<const TokenId> tokens)
{
    const ResidentModel& model = *m_parts.model;
    const ModelConfig& config = model.Config();
    Backend& backend = *s.host.backend;
    if (!m_cache)
    {
        m_admission = co_await s.Admit(LongestKvBytes(m_parts, config.layers));
        m_cache = std::make_unique<RequestCache>(s, model);
        m_states = Reservation(s.host.memory, MemoryUse::Activations, 0);
    }
    else
    {
        co_await m_cache->Branch(s, model, m_decoder.Parents());
    }
    m_states.Resize(m_cache->Caches().size() * config.layers * config.hidden * SizeOf(model.Activations()));
    m_cache->Reserve(tokens.size());
    const std::vector<std::size_t> positions = m_cache->NextPositions(tokens.size());
    LayerStates states;
    Tensor h = co_await s.Run(model, backend.Embed(model, tokens, positions));
    for (std::size_t l = 0; l < config.layers; l++)
    {
        const Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
        h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Caches()), l + 1);
        states.push_back(m_cache->Newest(h));
    }
    co_return states;
}

Task<bool>
SpaCloud::Opens(Tensor last, std::size_t position)
{
    const GatePolicy& policy = *m_options.policy;
    Tensor logits;
    if (policy.UsesGate())
    {
        logits = co_await s.Run(*m_parts.model, s.host.backend->Gate(*m_options.side, last));
    }
    const GateDecision decision = s.Outcome(position, 0, [&] {
        return policy.Decide({.request = s.request,
                              .token = m_token,
                              .logits = logits.Values(),
                              .draw = policy.Draws() ? s.uniform(Draw::Gate) : 0.0});
    });
    if (s.onGate)
    {
        s.onGate({.session = s.id,
                  .request = s.request,
                  .position = static_cast<std::uint32_t>(position),
                  .open = decision.open,
                  .probability = decision.probability});
    }
    co_return decision.open;
}

Task<Tensor>
SpaCloud::AskDevice(const LayerStates& states, std::size_t position)
{
    Tensor last = states.back();
    co_await SendSideStates(s, m_parts, m_options, position, states);
    Message reply = co_await s.Receive();
    s.Expect(reply, MessageKind::SideOutput, 0);
    Tensor g = co_await s.TensorIn(std::move(reply), last.Rows(), m_parts.model->Config().hidden);
    if (m_options.side->Alone())
    {
        co_return g;
    }
    co_return co_await s.Run(*m_parts.model, s.host.backend->Combine(std::move(last), g));
}

Task<Candidates>
SpaCloud::ReceiveCandidates(std::size_t hypotheses)
{
    const std::size_t vocab = m_parts.model->Config().vocab;
    const Message message = co_await s.Receive();
    s.Expect(message, MessageKind::Candidates, 0);
    co_return DecodeCandidates(message, hypotheses, std::min(m_decoder.CandidatesEach(), vocab), vocab);
}

std::vector<TokenId>
SpaCloud::Tell(std::vector<TokenId> tokens, std::size_t position)
{
    SendTokens(s, m_decoder, position, tokens);
    return tokens;
}

} // namespace splitllm
