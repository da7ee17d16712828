// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/device.h"

#include "codec/dense-codec.h"
#include "schemes/full-model.h"
#include "schemes/order.h"
#include "schemes/spa/candidates.h"
#include "schemes/spa/side-states.h"

#include <stdexcept>
#include <utility>

namespace splitllm
{

SpaDevice::SpaDevice(Session& session, const SchemeParts& parts, const SpaOptions& options)
    : s(session),
      m_parts(parts),
      m_options(options),
      m_decoder(session, parts)
{
}

void
SpaDevice::BeginRequest(const RequestLimits& limits)
{
    m_limits = limits;
    m_cloudWaits = false;
    m_hypotheses = 1;
    m_decoder.Begin(limits, m_parts.sampling);
    m_answer.reset();
}

Task<std::optional<TokenId>>
SpaDevice::Step(std::span<const TokenId> tokens, std::size_t position)
{
    const std::size_t newest = position + tokens.size() - 1;
    Continue(tokens, position);
    Message message = co_await s.Receive();
    const bool open = message.kind == MessageKind::SideStates;
    m_cloudWaits = open && m_options.head == SpaNode::Device && !m_decoder.Searches();
    if (open)
    {
        s.Expect(message, MessageKind::SideStates, 0);
        Tensor h = co_await RunSideNetwork(std::move(message));
        if (m_cloudWaits)
        {
            m_newest = co_await NextToken(s, m_parts, newest, std::move(h));
            co_return m_newest;
        }
        if (m_options.head == SpaNode::Device)
        {
            const std::size_t each = m_decoder.CandidatesEach();
            const Candidates candidates = co_await MostLikelyTokens(s, m_parts, newest, std::move(h), each);
            s.Send(MessageKind::Candidates, newest, 0, EncodeCandidates(candidates), DType::I32);
        }
        else
        {
            co_await s.Send(MessageKind::SideOutput, newest, 0, std::move(h));
        }
        message = co_await s.Receive();
    }
    m_newest = Take(message);
    co_return m_newest;
}

Task<Tensor>
SpaDevice::RunSideNetwork(Message message)
{
    const ResidentModel& model = *m_parts.model;
    Backend& backend = *s.host.backend;
    SideInputs inputs = co_await TakeSideStates(s, m_parts, m_options, std::move(message), m_hypotheses);
    Tensor h = co_await s.Run(model, backend.Side(*m_options.side, inputs.input));
    if (m_options.head == SpaNode::Device && !m_options.side->Alone())
    {
        h = co_await s.Run(model, backend.Combine(std::move(inputs.last), h));
    }
    co_return h;
}

TokenId
SpaDevice::Take(const Message& message)
{
    const bool searches = m_decoder.Searches();
    const ServedTokens served = TakeTokens(s, message, m_parts.model->Config().vocab, searches);
    if (served.answer)
    {
        m_answer = served.tokens;
    }
    m_hypotheses = searches ? served.tokens.size() : 1;
    return served.Newest();
}

std::optional<std::vector<TokenId>>
SpaDevice::Answer() const
{
    return m_answer;
}

void
SpaDevice::Continue(std::span<const TokenId> tokens, std::size_t position)
{
    if (position == 0)
    {
        s.Send(MessageKind::Generate, 0, 0, EncodeOrder(m_limits, m_parts.sampling, tokens), DType::I32);
    }
    else if (m_cloudWaits || (!m_options.stream && !m_decoder.Searches()))
    {
        s.Send(MessageKind::Tokens, position, 0, EncodeTokens(tokens), DType::I32);
    }
    else if (tokens.size() != 1 || tokens.front() != m_newest)
    {
        throw std::logic_error("behind a closed gate the answer goes on with the cloud's token, not with another one");
    }
}

void
SpaDevice::EndRequest()
{
    s.Send(MessageKind::End, 0, 0, {}, DType::I32);
}

} // namespace splitllm
