// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/order.h"

#include "codec/dense-codec.h"
#include "llm/beam-search.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <optional>
#include <limits>
#include <string>

namespace splitllm
{

namespace
{

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

} // namespace

Payload
EncodeOrder(const RequestLimits& limits, const Sampling& sampling, std::span<const TokenId> prompt)
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

Order
DecodeOrder(const Message& message, std::size_t vocab, std::size_t positions, Sampling sampling)
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

void
SendTokens(Session& session, const Decoder& decoder, std::size_t position, std::span<const TokenId> tokens)
{
    const std::optional<std::vector<TokenId>> found = decoder.Answer();
    session.Send(found ? MessageKind::Answer : MessageKind::NextToken,
                 position,
                 0,
                 EncodeTokens(found ? std::span<const TokenId>(*found) : tokens),
                 DType::I32);
}

ServedTokens
TakeTokens(const Session& session, const Message& message, std::size_t vocab, bool searches)
{
    const bool answer = searches && message.kind == MessageKind::Answer;
    session.Expect(message, answer ? MessageKind::Answer : MessageKind::NextToken, 0);
    return {.tokens = Session::TokensIn(message, vocab), .answer = answer};
}

} // namespace splitllm
