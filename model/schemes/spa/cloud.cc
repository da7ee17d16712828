// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/cloud.h"

#include "codec/dense-codec.h"

#include "ns3/simulator.h"

#include <algorithm>
#include <string>
#include <utility>

namespace splitllm
{

SpaCloud::SpaCloud(Session& session, const SchemeParts& parts, const SpaOptions& options)
    : s(session),
      m_parts(parts),
      m_options(options)
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
        co_await Answer(DecodeOrder(message, m_parts.model->Config().vocab, m_parts.Positions()));
        m_states = {};
        m_cache.reset();
        m_admission = {};
    }
}

Task<void>
SpaCloud::Answer(Order order)
{
    const RequestLimits& limits = order.limits;
    std::vector<TokenId> tokens = std::move(order.prompt);
    for (m_token = 1;; m_token++)
    {
        const std::optional<TokenId> own = co_await Step(tokens);
        const bool last = m_token == limits.newTokens ||
                          (own && std::ranges::find(limits.stop, *own) != limits.stop.end());
        if (own && m_options.stream && !last)
        {
            tokens.assign(1, *own);
            s.path.Start(ns3::Simulator::Now()); // the next token's, which nobody asks for
            continue;
        }
        const Message message = co_await s.ReceiveStep(MessageKind::Tokens, m_cache->Position());
        if (message.kind == MessageKind::End)
        {
            co_return;
        }
        tokens = Session::TokensIn(message, m_parts.model->Config().vocab);
        if (tokens.size() != 1 || m_token == limits.newTokens)
        {
            throw ProtocolError("tokens: " + std::to_string(tokens.size()) + " after " + std::to_string(m_token) +
                                " of an answer of " + std::to_string(limits.newTokens));
        }
    }
}

Task<std::optional<TokenId>>
SpaCloud::Step(std::vector<TokenId> tokens)
{
    LayerStates states = co_await Forward(std::move(tokens));
    const std::size_t position = m_cache->Position() - 1;
    Tensor h = states.back();
    if (co_await Opens(h, position))
    {
        if (m_options.head == SpaNode::Device)
        {
            co_await SendSideStates(s, m_parts, m_options, position, std::move(states));
            co_return std::nullopt;
        }
        h = co_await AskDevice(std::move(states), position);
    }
    const TokenId next = co_await NextToken(s, m_parts, position, std::move(h));
    s.Send(MessageKind::NextToken, position, 0, EncodeTokens({&next, 1}), DType::I32);
    co_return next;
}

Task<LayerStates>
SpaCloud::Forward(std::vector<TokenId> tokens)
{
    const ResidentModel& model = *m_parts.model;
    const ModelConfig& config = model.Config();
    Backend& backend = *s.host.backend;
    if (!m_cache)
    {
        m_admission = co_await s.Admit(LongestKvBytes(m_parts, config.layers));
        m_cache = std::make_unique<RequestCache>(s, model);
        m_states = Reservation(s.host.memory,
                               MemoryUse::Activations,
                               config.layers * config.hidden * SizeOf(model.Activations()));
    }
    m_cache->Reserve(tokens.size());
    LayerStates states;
    Tensor h = co_await s.Run(model, backend.Embed(model, tokens, m_cache->Position()));
    for (std::size_t l = 0; l < config.layers; l++)
    {
        const Projections qkv = co_await s.Run(model, backend.Project(model, l, h), l + 1);
        h = co_await s.Run(model, backend.FinishLayer(model, l, h, qkv, m_cache->Cache()), l + 1);
        states.push_back(h.Slice(h.Rows() - 1, 1));
    }
    co_return states;
}

Task<bool>
SpaCloud::Opens(const Tensor& last, std::size_t position)
{
    const GatePolicy& policy = *m_options.policy;
    Tensor logits;
    if (policy.UsesGate())
    {
        logits = co_await s.Run(*m_parts.model, s.host.backend->Gate(*m_options.side, last));
    }
    const GateDecision decision = policy.Decide({.request = s.request,
                                                 .token = m_token,
                                                 .logits = logits.Values(),
                                                 .draw = policy.Draws() ? s.uniform(Draw::Gate) : 0.0});
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
SpaCloud::AskDevice(LayerStates states, std::size_t position)
{
    Tensor last = states.back();
    co_await SendSideStates(s, m_parts, m_options, position, std::move(states));
    Message reply = co_await s.Receive();
    s.Expect(reply, MessageKind::SideOutput, 0);
    Tensor g = co_await RowsOf(s, std::move(reply), 1, m_parts.model->Config().hidden);
    if (m_options.side->Alone())
    {
        co_return g;
    }
    co_return co_await s.Run(*m_parts.model, s.host.backend->Combine(std::move(last), g));
}

} // namespace splitllm
