// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/streaming-server.h"

#include "codec/dense-codec.h"
#include "schemes/full-model.h"
#include "schemes/order.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace splitllm
{

namespace
{

/// Sends the prompt, and takes the tokens as they come.
class StreamingUser final : public UserRole
{
  public:
    StreamingUser(Session& session, std::size_t vocab)
        : s(session),
          m_vocab(vocab)
    {
    }

    void BeginRequest(const RequestLimits& limits) override
    {
        m_limits = limits;
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        if (position == 0)
        {
            s.Send(MessageKind::Generate, 0, 0, EncodeOrder(m_limits, tokens), DType::I32);
        }
        else if (tokens.size() != 1 || tokens.front() != m_newest)
        {
            throw std::logic_error("a streamed answer goes on after the server's token, not after another one");
        }
        m_newest = (co_await s.ReceiveTokens(MessageKind::NextToken, m_vocab)).front();
        co_return m_newest;
    }

    void EndRequest() override
    {
        s.Send(MessageKind::End, 0, 0, {}, DType::I32);
    }

  private:
    Session& s;
    std::size_t m_vocab;
    RequestLimits m_limits;
    TokenId m_newest = 0;
};

class StreamingServer final : public ServerRole
{
  public:
    StreamingServer(Session& session, const SchemeParts& parts)
        : s(session),
          m_vocab(parts.model->Config().vocab),
          m_positions(parts.Positions()),
          m_model(session, parts)
    {
    }

    Task<void> Serve() override
    {
        while (true)
        {
            const Message message = co_await s.ReceiveStep(MessageKind::Generate, 0);
            if (message.kind == MessageKind::End)
            {
                continue; // of a request that wanted no token
            }
            co_await Answer(DecodeOrder(message, m_vocab, m_positions));
            const Message end = co_await s.Receive();
            s.Expect(end, MessageKind::End, 0);
            m_model.Reset();
        }
    }

  private:
    Task<void> Answer(Order order)
    {
        std::vector<TokenId> tokens = std::move(order.prompt);
        for (std::uint32_t k = 0; k < order.limits.newTokens; k++)
        {
            const TokenId next = co_await m_model.Step(tokens);
            s.Send(MessageKind::NextToken, m_model.Position(), 0, EncodeTokens({&next, 1}), DType::I32);
            if (std::ranges::find(order.limits.stop, next) != order.limits.stop.end())
            {
                break;
            }
            s.path.Start(ns3::Simulator::Now()); // the next token's, which nobody asks for
            tokens.assign(1, next);
        }
    }

    Session& s;
    std::size_t m_vocab;
    std::size_t m_positions; //!< of a prompt and its answer at most
    FullModel m_model;
};

} // namespace

std::unique_ptr<UserRole>
StreamingServerScheme::MakeUser(Session& session) const
{
    return std::make_unique<StreamingUser>(session, Parts().model->Config().vocab);
}

std::unique_ptr<ServerRole>
StreamingServerScheme::MakeServer(Session& session) const
{
    return std::make_unique<StreamingServer>(session, Parts());
}

} // namespace splitllm
