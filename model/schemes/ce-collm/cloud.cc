// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/cloud.h"

#include "codec/dense-codec.h"

#include "ns3/simulator.h"

#include <string>
#include <utility>

namespace splitllm
{

using ns3::Simulator;
using ns3::Time;

namespace
{

/// What the roles of both APIs do: they find out whose connection it is, and refuse positions that no request has.
class ApiRole : public ServerRole
{
  public:
    ApiRole(Session& session, const SchemeParts& parts, const CeCollmOptions& options, ContextManager& contexts)
        : s(session),
          m_parts(parts),
          m_options(options),
          m_contexts(contexts)
    {
    }

    Task<void> Serve() override
    {
        try
        {
            co_await ServeClient();
        }
        catch (const ConnectionLost&)
        {
            // The client goes on without the cloud, or over another connection: its session is not lost.
        }
    }

  protected:
    virtual Task<void> ServeClient() = 0;

    /// The next message, of the client and the request that it says.
    Task<Message> Receive()
    {
        Message message = co_await s.Receive();
        if (!m_client)
        {
            m_client = m_contexts.Enter(message.session, s.Connection());
            s.id = message.session;
        }
        if (message.session != s.id)
        {
            throw ProtocolError("session " + std::to_string(message.session) + " on a connection of session " +
                                std::to_string(s.id));
        }
        s.request = message.request;
        co_return message;
    }

    void ExpectPositions(std::size_t first, std::size_t count) const
    {
        const std::size_t context = m_parts.Positions();
        if (count == 0 || first >= context || count > context - first)
        {
            throw ProtocolError(std::to_string(count) + " positions from " + std::to_string(first) +
                                " on, where a request has " + std::to_string(context) + " at most");
        }
    }

    Session& s;
    const SchemeParts& m_parts;
    const CeCollmOptions& m_options;
    ContextManager& m_contexts;
    std::shared_ptr<CloudClient> m_client;
};

/// The API for uploads: states go to the context manager as they come.
class UploadRole final : public ApiRole
{
  public:
    using ApiRole::ApiRole;

  private:
    Task<void> ServeClient() override
    {
        while (true)
        {
            Message message = co_await Receive();
            s.Expect(message, MessageKind::HiddenState, m_options.uploadLayer);
            const std::uint32_t request = message.request;
            const std::size_t position = message.position;
            ExpectPositions(position, 1);
            const Time arrived = Simulator::Now();
            const Tensor states = co_await s.TensorIn(std::move(message), m_parts.model->Config().hidden);
            ExpectPositions(position, states.Rows());
            m_contexts.Store(*m_client, request, position, states, arrived);
        }
    }
};

/// The API for inference: a request is answered with one token.
class InferenceRole final : public ApiRole
{
  public:
    using ApiRole::ApiRole;

  private:
    Task<void> ServeClient() override
    {
        while (true)
        {
            const bool isNew = !m_client;
            const Message message = co_await Receive();
            if (isNew)
            {
                m_client->inference = s.Connection();
            }
            if (m_client->inference != s.Connection())
            {
                co_return; // the client asks over another one now
            }
            if (message.kind == MessageKind::End)
            {
                m_contexts.End(*m_client, message.request);
                continue;
            }
            s.Expect(message, MessageKind::Request, m_options.uploadLayer);
            ExpectPositions(message.position, 1);
            const std::shared_ptr<CloudContext> context = m_contexts.Use(*m_client, message.request);
            if (!context)
            {
                s.Send(MessageKind::ContextLost, message.position, 0, {}, DType::F32);
                continue;
            }
            co_await Answer(context, message.position);
            if (m_client->context == context)
            {
                m_contexts.Touch(*m_client, *context);
            }
        }
    }

    /// Marks a context as served for as long as this lives.
    struct Busy
    {
        explicit Busy(CloudContext& its)
            : context(its)
        {
            context.busy = true;
        }

        ~Busy()
        {
            context.busy = false;
        }

        Busy(const Busy&) = delete;
        Busy& operator=(const Busy&) = delete;

        CloudContext& context;
    };

    /// Waits for the states up to \p position, and sends the token that follows them.
    Task<void> Answer(std::shared_ptr<CloudContext> context, std::size_t position)
    {
        const Busy busy(*context);
        const Time asked = Simulator::Now();
        while (context->FirstMissing() <= position)
        {
            const Time left = asked + m_options.contextTimeout - Simulator::Now();
            const auto change = co_await m_client->changed.ReceiveWithin(left);
            if (m_client->context != context)
            {
                co_return; // the client has gone on to another request
            }
            if (!change && s.IsLost())
            {
                co_return; // nobody waits for the answer
            }
            if (!change)
            {
                throw ProtocolError("a token is requested after position " + std::to_string(position) +
                                    ", and the state at position " + std::to_string(context->FirstMissing()) +
                                    " never came");
            }
        }
        const Time arrived = ns3::Max(context->arrived, asked);
        s.path.Charge(Component::Network, arrived - asked);
        s.path.Charge(Component::Codec, Simulator::Now() - arrived);
        if (position + 1 < context->consumed)
        {
            throw ProtocolError("a token is requested after position " + std::to_string(position) +
                                ", and one after position " + std::to_string(context->consumed - 1) + " was before");
        }
        if (position + 1 > context->consumed)
        {
            co_await Complete(*context, position);
        }
        const TokenId token = context->newest;
        s.Send(MessageKind::NextToken, position + 1, 0, EncodeTokens({&token, 1}), DType::I32);
    }

    /// The layers behind the upload layer for all positions that did not go through them yet, in one batch.
    Task<void> Complete(CloudContext& context, std::size_t position)
    {
        Tensor h = m_contexts.Take(s, context, position);
        h = co_await RunLayers(s, *m_parts.model, std::move(h), context.cache->Cache());
        context.newest = co_await NextToken(s, m_parts, position, h.Slice(h.Rows() - 1, 1));
    }
};

} // namespace

CeCollmCloud::CeCollmCloud(Host& host, const SchemeParts& parts, const CeCollmOptions& options)
    : m_parts(parts),
      m_options(options),
      m_contexts(host, parts, options)
{
}

std::unique_ptr<ServerRole>
CeCollmCloud::MakeRole(Session& session)
{
    if (session.api == Api::Upload)
    {
        return std::make_unique<UploadRole>(session, m_parts, m_options, m_contexts);
    }
    return std::make_unique<InferenceRole>(session, m_parts, m_options, m_contexts);
}

} // namespace splitllm
