// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_BEAM_SEARCH_H
#define SPLITLLM_BEAM_SEARCH_H

#include "llm/sampling.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace splitllm
{

/// Hypotheses of a search, and the power of its length penalty either way, at most.
constexpr std::size_t kMostBeams = 64;
constexpr double kMostLengthPenalty = 10.0;

/// A token and the natural logarithm of its probability.
struct ScoredToken
{
    TokenId token;
    float logProbability;
};

/// The most likely next tokens of each hypothesis.
using Candidates = std::vector<std::vector<ScoredToken>>;

/**
 * The \p count most likely tokens of softmax(logits), of at least one, or all if there are fewer, the most likely
 * first; of equal logits the lower id comes first, so that the first token is Greedy's. NaN is less likely than any
 * number: its logarithm, and any that is no number, is -infinity.
 */
std::vector<ScoredToken> MostLikely(std::span<const float> logits, std::size_t count);

/**
 * Beam search for one request, as transformers' generate() does it with num_beams, do_sample=False and
 * early_stopping=False: in every step the best `beams` continuations of all running hypotheses go on; one that a stop
 * token or the last token ends is finished, with the sum of its tokens' log-probabilities over (its
 * length)^lengthPenalty as its score, if it is among the `beams` best of the step. The `beams` best finished ones are
 * kept. The search ends when there are so many and the best running one, scored at its present length, is not better
 * than the worst of them, or when nothing is left to run. Sums are in double precision; of equals the continuation of
 * the better hypothesis goes first, then the more likely token.
 */
class BeamSearch
{
  public:
    /// A running hypothesis' newest token.
    struct Continuation
    {
        std::size_t parent; //!< index, among the hypotheses that ran before, of the one that it continues
        TokenId token;
    };

    /**
     * \param beams hypotheses that run at a time, at least 1
     * \param lengthPenalty above 0 favours long answers, below 0 short ones
     * \param newTokens of an answer at most
     * \param stop tokens that end a hypothesis; may be empty
     * \throws std::logic_error if \p beams is 0
     */
    BeamSearch(std::size_t beams, double lengthPenalty, std::uint32_t newTokens, std::vector<TokenId> stop);

    /// How many most likely tokens of each hypothesis a step takes, so that `beams` are left that do not stop.
    std::size_t Candidates() const;

    /// Hypotheses that are running: one, which is empty, before the first step, then `beams`; fewer only where the
    /// vocabulary has no more, none where all ended.
    std::size_t Hypotheses() const;

    /**
     * One step.
     * \param rows for each running hypothesis its Candidates() most likely next tokens, the most likely first
     * \throws std::logic_error unless there is a row for each, with a token in one of them, or if the search
     *         has ended
     */
    void Advance(std::span<const std::vector<ScoredToken>> rows);

    bool Ended() const;

    /// What the step made of the hypotheses, the best first. A search may end while some run.
    const std::vector<Continuation>& Running() const;

    /// Tokens of the best finished hypothesis, the stop token included. \throws std::logic_error before the end
    const std::vector<TokenId>& Answer() const;

  private:
    struct Hypothesis
    {
        std::vector<TokenId> tokens;
        double score; //!< sum of log-probabilities; of a finished one over its length to the penalty
    };

    double Normalised(double score) const;
    bool Stops(TokenId token) const;
    void Keep(Hypothesis finished);

    std::size_t m_beams;
    double m_lengthPenalty;
    std::uint32_t m_newTokens;
    std::vector<TokenId> m_stop;
    std::uint32_t m_length = 0; //!< tokens of each running hypothesis
    bool m_ended = false;
    std::vector<Hypothesis> m_hypotheses; //!< running, the best first
    std::vector<Continuation> m_running;  //!< their newest tokens
    std::vector<Hypothesis> m_finished;   //!< the best first, at most m_beams
};

} // namespace splitllm

#endif // SPLITLLM_BEAM_SEARCH_H
