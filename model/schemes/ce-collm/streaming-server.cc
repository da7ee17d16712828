// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/streaming-server.h"

#include "codec/dense-codec.h"
#include "schemes/full-model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace splitllm
{

namespace
{

/// What a "generate" asks for.
struct Order
{
    RequestLimits limits;
    Sampling sampling;
    std::vector<TokenId> prompt;
};

/// [beams, length penalty in fp32, where the scheme searches; new tokens, number of stop ids, stop ids..., prompt ids...],
/// 4 bytes each.
Payload
Encode(const RequestLimits& limits, const Sampling& sampling, std::span<const TokenId> prompt)
{
    std::vector<std::uint32_t> words;
    if (sampling.beams > 0)
    {
        words.push_back(static_cast<std::uint32_t>(sampling.beams));
        words.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(sampling.lengthPenalty)));
    }
    words.push_back(limits.newTokens);
    words.push_back(static_cast<std::uint32_t>(limits.stop.size()));
    words.insert(words.end(), limits.stop.begin(), limits.stop.end());
    words.insert(words.end(), prompt.begin(), prompt.end());
    return EncodeTokens(words);
}

/// Takes the beams and the length penalty of a search from the front of \p words. \param sampling the scheme's, which
/// has as many beams as the server has room for. \throws ProtocolError
Sampling
TakeSearch(std::vector<std::uint32_t>& words, Sampling sampling)
{
    const std::size_t beams = words.front();
    const float penalty = words.size() > 1 ? std::bit_cast<float>(words[1]) : std::numeric_limits<float>::quiet_NaN();
    if (beams == 0 || beams > sampling.beams || !(std::abs(penalty) <= kMostLengthPenalty))
    {
        throw ProtocolError("generate: " + std::to_string(beams) + " beams with a length penalty of " +
                            std::to_string(penalty) + "; accepted: 1 to " + std::to_string(sampling.beams) +
                            " with one of at most " + std::to_string(kMostLengthPenalty) + " either way");
    }
    words.erase(words.begin(), words.begin() + 2);
    sampling.beams = beams;
    sampling.lengthPenalty = penalty;
    return sampling;
}

/**
 * The inverse of Encode.
 * \param positions that a prompt and its answer, without the last token, may take
 * \param sampling the scheme's
 * \throws ProtocolError unless there is a prompt, a token is wanted, all ids are below \p vocab and the answer fits
 */
Order
Decode(const Message& message, std::size_t vocab, std::size_t positions, Sampling sampling)
{
    std::vector<std::uint32_t> words = Session::WordsIn(message);
    if (sampling.beams > 0)
    {
        sampling = TakeSearch(words, sampling);
    }
    const std::size_t stops = words.size() > 1 ? words[1] : 0;
    if (words.size() < 3 || stops > words.size() - 3)
    {
        throw ProtocolError("generate: no prompt in " + std::to_string(words.size()) + " words with " +
                            std::to_string(stops) + " stop ids");
    }
    const std::span<const std::uint32_t> ids = std::span(words).subspan(2);
    Session::ExpectKnown(ids, vocab);
    const std::span<const TokenId> prompt = ids.subspan(stops);
    const std::uint32_t newTokens = words[0];
    if (newTokens == 0 || prompt.size() > positions || newTokens - 1 > positions - prompt.size())
    {
        throw ProtocolError("generate: " + std::to_string(newTokens) + " new tokens after a prompt of " +
                            std::to_string(prompt.size()) + "; accepted: at least 1, in " +
                            std::to_string(positions) + " positions");
    }
    return {.limits = {.newTokens = newTokens, .stop = {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(stops)}},
            .sampling = sampling,
            .prompt = {prompt.begin(), prompt.end()}};
}

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
            s.Send(MessageKind::Generate, 0, 0, Encode(m_limits, m_sampling, tokens), DType::I32);
        }
        else if (tokens.size() != 1 || tokens.front() != m_newest)
        {
            throw std::logic_error("a streamed answer goes on after the server's token, not after another one");
        }
        const Message message = co_await s.Receive();
        const bool ends = m_sampling.beams > 0 && message.kind == MessageKind::Answer;
        s.Expect(message, ends ? MessageKind::Answer : MessageKind::NextToken, 0);
        const std::vector<TokenId> received = s.TokensIn(message, m_vocab);
        if (ends)
        {
            m_answer = received;
        }
        m_newest = ends ? received.back() : received.front();
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
            co_await Answer(Decode(message, m_vocab, m_positions, m_sampling));
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
            const std::optional<std::vector<TokenId>> found = m_model.Choice().Answer();
            if (found)
            {
                s.Send(MessageKind::Answer, m_model.Position(), 0, EncodeTokens(*found), DType::I32);
                break;
            }
            s.Send(MessageKind::NextToken, m_model.Position(), 0, EncodeTokens(tokens), DType::I32);
            if (std::ranges::find(order.limits.stop, tokens.front()) != order.limits.stop.end())
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
