// SPDX-License-Identifier: GPL-2.0-only
#include "llm/beam-search.h"

#include "base/deterministic-math.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

/// A hypothesis with one token more.
struct Candidate
{
    std::size_t parent;
    TokenId token;
    double score;
};

/// log(sum exp(x)) of what is a number.
double
LogSumExpOfNumbers(std::span<const float> logits)
{
    if (std::ranges::none_of(logits, [](float value) { return std::isnan(value); }))
    {
        return LogSumExp(logits);
    }
    std::vector<float> numbers;
    std::ranges::remove_copy_if(logits, std::back_inserter(numbers), [](float value) { return std::isnan(value); });
    return numbers.empty() ? 0.0 : LogSumExp(numbers);
}

} // namespace

std::vector<ScoredToken>
MostLikely(std::span<const float> logits, std::size_t count)
{
    std::vector<TokenId> tokens(logits.size());
    std::iota(tokens.begin(), tokens.end(), TokenId{0});
    const auto end = tokens.begin() + static_cast<std::ptrdiff_t>(std::min(count, tokens.size()));
    // By logits, not by what the softmax makes of them: rounding there may make two of them equal.
    std::partial_sort(tokens.begin(), end, tokens.end(), [logits](TokenId a, TokenId b) {
        const float x = logits[a];
        const float y = logits[b];
        if (std::isnan(x) || std::isnan(y))
        {
            return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
        }
        return x != y ? x > y : a < b;
    });
    const double total = LogSumExpOfNumbers(logits);
    std::vector<ScoredToken> most;
    for (auto token = tokens.begin(); token != end; ++token)
    {
        const auto logProbability = static_cast<float>(logits[*token] - total);
        most.push_back(
            {*token, std::isnan(logProbability) ? -std::numeric_limits<float>::infinity() : logProbability});
    }
    return most;
}

BeamSearch::BeamSearch(std::size_t beams, double lengthPenalty, std::uint32_t newTokens, std::vector<TokenId> stop)
    : m_beams(beams),
      m_lengthPenalty(lengthPenalty),
      m_newTokens(newTokens),
      m_stop(std::move(stop)),
      m_hypotheses{{.tokens = {}, .score = 0.0}}
{
    if (beams == 0)
    {
        throw std::logic_error("a beam search without beams");
    }
}

std::size_t
BeamSearch::Candidates() const
{
    return std::max(std::size_t{2}, 1 + m_stop.size()) * m_beams;
}

std::size_t
BeamSearch::Hypotheses() const
{
    return m_hypotheses.size();
}

void
BeamSearch::Advance(std::span<const std::vector<ScoredToken>> rows)
{
    if (m_ended || rows.size() != m_hypotheses.size())
    {
        throw std::logic_error("a step of " + std::to_string(rows.size()) + " rows in a beam search of " +
                               std::to_string(m_hypotheses.size()) + " hypotheses" +
                               (m_ended ? " that has ended" : ""));
    }
    std::vector<Candidate> candidates;
    for (std::size_t row = 0; row < rows.size(); row++)
    {
        for (const ScoredToken& next : rows[row])
        {
            candidates.push_back({row, next.token, m_hypotheses[row].score + next.logProbability});
        }
    }
    std::ranges::stable_sort(candidates, std::ranges::greater(), &Candidate::score);
    candidates.resize(std::min(candidates.size(), Candidates()));

    if (candidates.empty())
    {
        throw std::logic_error("a step of a beam search without tokens");
    }

    m_length++;
    std::vector<Hypothesis> running;
    m_running.clear();
    for (std::size_t rank = 0; rank < candidates.size(); rank++)
    {
        const Candidate& candidate = candidates[rank];
        const bool ends = m_length >= m_newTokens || Stops(candidate.token);
        if (ends ? rank >= m_beams : running.size() == m_beams)
        {
            continue;
        }
        Hypothesis hypothesis{.tokens = m_hypotheses[candidate.parent].tokens, .score = candidate.score};
        hypothesis.tokens.push_back(candidate.token);
        if (ends)
        {
            hypothesis.score = Normalised(hypothesis.score);
            Keep(std::move(hypothesis));
        }
        else
        {
            running.push_back(std::move(hypothesis));
            m_running.push_back({candidate.parent, candidate.token});
        }
    }
    m_hypotheses = std::move(running);
    m_ended = m_hypotheses.empty() ||
              (m_finished.size() == m_beams && Normalised(m_hypotheses.front().score) <= m_finished.back().score);
}

bool
BeamSearch::Ended() const
{
    return m_ended;
}

const std::vector<BeamSearch::Continuation>&
BeamSearch::Running() const
{
    return m_running;
}

const std::vector<TokenId>&
BeamSearch::Answer() const
{
    if (!m_ended)
    {
        throw std::logic_error("a beam search has no answer before its end");
    }
    return m_finished.front().tokens;
}

double
BeamSearch::Normalised(double score) const
{
    return score / deterministic::Exp(m_lengthPenalty * deterministic::Log(m_length));
}

bool
BeamSearch::Stops(TokenId token) const
{
    return std::ranges::find(m_stop, token) != m_stop.end();
}

void
BeamSearch::Keep(Hypothesis finished)
{
    const auto place =
        std::ranges::upper_bound(m_finished, finished.score, std::ranges::greater(), &Hypothesis::score);
    m_finished.insert(place, std::move(finished));
    m_finished.resize(std::min(m_finished.size(), m_beams));
}

} // namespace splitllm
