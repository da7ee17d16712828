// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_DECODER_H
#define SPLITLLM_DECODER_H

#include "llm/beam-search.h"
#include "schemes/scheme.h"
#include "schemes/session.h"

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * Head and sampling: the token that follows \p position of the sequence, counted from 0, whose final state is \p hL
 * (1 x d). Reports the logits.
 */
Task<TokenId> NextToken(Session& session, const SchemeParts& parts, std::size_t position, Tensor hL);

/**
 * Head and the \p count most likely tokens of each row: \p states are the final ones of hypotheses (one a row) that all
 * end at \p position. Reports the logits of each.
 */
Task<Candidates> MostLikelyTokens(Session& session,
                                  const SchemeParts& parts,
                                  std::size_t position,
                                  Tensor states,
                                  std::size_t count);

/// Turns final states into tokens, where the head is: greedily, by sampling, or by a beam search with its hypotheses.
class Decoder
{
  public:
    Decoder(Session& session, const SchemeParts& parts);

    /// A request begins: a search, where \p sampling says so. Without this call tokens are sampled.
    void Begin(const RequestLimits& limits, const Sampling& sampling);

    /**
     * The tokens that follow \p position.
     * \param states final states, one row for each hypothesis in the order of the tokens returned last; 1 x d at first
     * \return one token, or those of the search's running hypotheses, the best first; where it has ended the last one
     *         of the answer
     */
    Task<std::vector<TokenId>> Next(std::size_t position, Tensor states);

    /// What a step goes on with that is asked to go on with \p tokens: those, or in a search that made a step already
    /// the tokens that it returned, of which whoever asks knows but one.
    std::span<const TokenId> Inputs(std::span<const TokenId> tokens) const;

    /// Whether the request is answered by a search.
    bool Searches() const
    {
        return m_search.has_value();
    }

    /// In a search: how many most likely tokens of each hypothesis Advance takes.
    std::size_t CandidatesEach() const;

    /// In a search: its next step, with the most likely tokens of each hypothesis, wherever they were found. Returns
    /// what Next does.
    std::vector<TokenId> Advance(const Candidates& candidates);

    /// For each token returned last, the index of the state that it follows.
    std::vector<std::size_t> Parents() const;

    /// What a search that has ended found; nothing before, or without one.
    std::optional<std::vector<TokenId>> Answer() const;

  private:
    Session& m_session;
    const SchemeParts& m_parts;
    std::optional<BeamSearch> m_search;
    std::vector<TokenId> m_newest; //!< of the search's hypotheses; none before its first step
};

} // namespace splitllm

#endif // SPLITLLM_DECODER_H
