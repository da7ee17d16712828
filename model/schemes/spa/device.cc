// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/device.h"

#include "codec/dense-codec.h"
#include "schemes/full-model.h"
#include "schemes/order.h"
#include "schemes/spa/side-states.h"

#include <stdexcept>
#include <utility>

namespace splitllm
{

SpaDevice::SpaDevice(Session& session, const SchemeParts& parts, const SpaOptions& options)
    : s(session),
      m_parts(parts),
      m_options(options)
{
}

void
SpaDevice::BeginRequest(const RequestLimits& limits)
{
    m_limits = limits;
    m_cloudWaits = false;
}

Task<std::optional<TokenId>>
SpaDevice::Step(std::span<const TokenId> tokens, std::size_t position)
{
    const ResidentModel& model = *m_parts.model;
    Backend& backend = *s.host.backend;
    const std::size_t newest = position + tokens.size() - 1;
    Continue(tokens, position);

    Message message = co_await s.Receive();
    const bool open = message.kind == MessageKind::SideStates;
    m_cloudWaits = open && m_options.head == SpaNode::Device;
    if (open)
    {
        s.Expect(message, MessageKind::SideStates, 0);
        SideInputs inputs = co_await TakeSideStates(s, m_parts, m_options, std::move(message), 1);
        Tensor h = co_await s.Run(model, backend.Side(*m_options.side, inputs.input));
        if (m_options.head == SpaNode::Device)
        {
            if (!m_options.side->Alone())
            {
                h = co_await s.Run(model, backend.Combine(std::move(inputs.last), h));
            }
            m_newest = co_await NextToken(s, m_parts, newest, std::move(h));
            co_return m_newest;
        }
        co_await s.Send(MessageKind::SideOutput, newest, 0, std::move(h));
        message = co_await s.Receive();
    }
    s.Expect(message, MessageKind::NextToken, 0);
    m_newest = Session::TokensIn(message, model.Config().vocab).front();
    co_return m_newest;
}

void
SpaDevice::Continue(std::span<const TokenId> tokens, std::size_t position)
{
    if (position == 0)
    {
        s.Send(MessageKind::Generate, 0, 0, EncodeOrder(m_limits, tokens), DType::I32);
    }
    else if (m_cloudWaits || !m_options.stream)
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
