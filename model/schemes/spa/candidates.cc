// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/spa/candidates.h"

#include "codec/dense-codec.h"

#include <bit>
#include <cstdint>
#include <string>

namespace splitllm
{

Payload
EncodeCandidates(const Candidates& candidates)
{
    std::vector<std::uint32_t> words;
    for (const std::vector<ScoredToken>& row : candidates)
    {
        for (const ScoredToken& candidate : row)
        {
            words.push_back(candidate.token);
            words.push_back(std::bit_cast<std::uint32_t>(candidate.logProbability));
        }
    }
    return EncodeTokens(words);
}

Candidates
DecodeCandidates(const Message& message, std::size_t hypotheses, std::size_t each, std::size_t vocab)
{
    const std::vector<std::uint32_t> words = Session::WordsIn(message);
    if (words.size() != 2 * hypotheses * each)
    {
        throw ProtocolError("candidates: " + std::to_string(words.size()) + " words instead of " +
                            std::to_string(each) + " tokens of each of " + std::to_string(hypotheses) + " hypotheses");
    }
    Candidates candidates(hypotheses);
    for (std::size_t i = 0; i < words.size(); i += 2)
    {
        std::vector<ScoredToken>& row = candidates[i / 2 / each];
        const ScoredToken candidate{words[i], std::bit_cast<float>(words[i + 1])};
        Session::ExpectKnown({&candidate.token, 1}, vocab);
        const float most = row.empty() ? 0.0F : row.back().logProbability;
        if (!(candidate.logProbability <= most)) // nor NaN
        {
            throw ProtocolError("candidates: a log-probability that is above 0, or above the one before");
        }
        row.push_back(candidate);
    }
    return candidates;
}

} // namespace splitllm
