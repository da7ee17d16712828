// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SAMPLING_H
#define SPLITLLM_SAMPLING_H

#include <cstddef>
#include <cstdint>
#include <span>

namespace splitllm
{

using TokenId = std::uint32_t;

/// How the next token is chosen from the logits.
struct Sampling
{
    double temperature = 0.0; //!< 0: greedy
    double topP = 1.0;        //!< nucleus: smallest set of tokens whose probability reaches this, in (0, 1]
    std::size_t beams = 0;    //!< hypotheses of a beam search (llm/beam-search.h), instead of the above; 0: none
    double lengthPenalty = 1.0; //!< of a beam search
};

/// The index of the largest logit, the lowest index among equals. NaN never wins.
TokenId Greedy(std::span<const float> logits);

/// log(sum exp(x)) of at least one logit, with the same bits on every machine.
double LogSumExp(std::span<const float> logits);

/**
 * Draws from softmax(logits / temperature) restricted to the nucleus, with \p uniform in [0, 1) as the only
 * randomness; Greedy where the temperature is 0. Equal logits are ordered by index, so the result is a function of
 * its arguments on every machine.
 */
TokenId Sample(std::span<const float> logits, const Sampling& sampling, double uniform);

} // namespace splitllm

#endif // SPLITLLM_SAMPLING_H
