// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/streaming-server.h"

#include "schemes/full-model.h"
#include "schemes/order.h"

#include <algorithm>
#include <cstdint>
#include <optional>
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
    StreamingUser(Session& session, const SchemeParts& parts)
        : s(session),
          m_vocab(parts.model->Config().vocab),
          m_sampling(parts.sampling)
    {
    }

    void BeginRequest(const RequestLimits& limits) override
    {
        m_limits = limits;
        m_answer.reset();
    }

    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override
    {
        if (position == 0)
        {
            s.Send(MessageKind::Generate, 0, 0, EncodeOrder(m_limits, m_sampling, tokens), DType::I32);
        }
        else if (tokens.size() != 1 || tokens.front() != m_newest)
        {
            throw std::logic_error("a streamed answer goes on after the server's token, not after another one");
        }
        const Message message = co_await s.Receive();
        const ServedTokens served = TakeTokens(s, message, m_vocab, m_sampling.beams > 0);
        if (served.answer)
        {
            m_answer = served.tokens;
        }
        m_newest = served.Newest();
        co_return m_newest;
    }

    std::optional<std::vector<TokenId>> Answer() const override
    {
        return m_answer;
    }

    void EndRequest() override
    {
        s.Send(MessageKind::End, 0, 0, {}, DType::I32);
    }

  private:
    Session& s;
    std::size_t m_vocab;
    Sampling m_sampling;
    RequestLimits m_limits;
    TokenId m_newest = 0;
    std::optional<std::vector<TokenId>> m_answer; //!< of a search that has ended
};

class StreamingServer final : public ServerRole
{
  public:
    StreamingServer(Session& session, const SchemeParts& parts)
        : s(session),
          m_vocab(parts.model->Config().vocab),
          m_positions(parts.Positions()),
          m_sampling(parts.sampling),
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
            co_await Answer(DecodeOrder(message, m_vocab, m_positions, m_sampling));
            const Message end = co_await s.Receive();
            s.Expect(end, MessageKind::End, 0);
            m_model.Reset();
        }
    }

  private:
    Task<void> Answer(Order order)
    {
        m_model.Begin(order.limits, order.sampling);
        std::vector<TokenId> tokens = std::move(order.prompt);
        for (std::uint32_t k = 0; k < order.limits.newTokens; k++)
        {
            tokens = co_await m_model.Step(tokens);
            SendTokens(s, m_model.Choice(), m_model.Position(), tokens);
            if (m_model.Choice().Answer() ||
                std::ranges::find(order.limits.stop, tokens.front()) != order.limits.stop.end())
            {
                break;
            }
            s.path.Start(ns3::Simulator::Now()); // the next token's, which nobody asks for
        }
    }

    Session& s;
    std::size_t m_vocab;
    std::size_t m_positions; //!< of a prompt and its answer at most
    Sampling m_sampling;     //!< of the scheme; a search has its beams at most
    FullModel m_model;
};

} // namespace

std::unique_ptr<UserRole>
StreamingServerScheme::MakeUser(Session& session) const
{
    return std::make_unique<StreamingUser>(session, Parts());
}

std::unique_ptr<ServerRole>
StreamingServerScheme::MakeServer(Session& session) const
{
    return std::make_unique<StreamingServer>(session, Parts());
}

} // namespace splitllm
