// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_EXIT_POLICY_H
#define SPLITLLM_EXIT_POLICY_H

#include "base/strict-json.h"
#include "policy/offload-policy.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * CE-CoLLM's confidence (section III-A): the largest softmax probability of \p logits, 1 / sum exp(z - max z). The same
 * bits on every machine; NaN where a logit is NaN or above all numbers. \throws std::logic_error without logits
 */
double Confidence(std::span<const float> logits);

/// What the device knows when an exit has been computed for a token.
struct ExitQuestion
{
    std::uint32_t request;         //!< index in the workload
    std::uint32_t token;           //!< of the answer, from 1
    std::size_t exit;              //!< which of the exits, from 0
    std::size_t layer;             //!< after which it is, from 1
    std::span<const float> logits; //!< of the exit; empty in shape mode
};

/**
 * Decides whether the token is the one of an exit that was just computed, or the model goes on. One object serves all
 * sessions, so a decision depends on the question and the drawn numbers alone.
 */
class ExitPolicy
{
  public:
    virtual ~ExitPolicy() = default;

    /**
     * \param uniform draws from [0, 1)
     * \return yes: the exit's token is taken. The score is the confidence, where there are logits.
     */
    virtual Verdict Decide(const ExitQuestion& question, const std::function<double()>& uniform) const = 0;
};

/**
 * CE-CoLLM: an exit is taken where its confidence reaches its threshold. It needs logits.
 * \param thresholds one an exit; none above 1 is ever reached
 */
std::shared_ptr<const ExitPolicy> ExitByConfidence(std::vector<double> thresholds);

/// An exit that is reached is taken by a draw. \param shares the probability, one an exit
std::shared_ptr<const ExitPolicy> ExitAtRandom(std::vector<double> shares);

/// \param layers after which each token of an answer exits, from the beginning again where it has more; 0: nowhere
std::shared_ptr<const ExitPolicy> ExitAsListed(std::vector<std::size_t> layers);

/**
 * The policy that the key "policy" of \p scheme names and describes (doc/architecture.md).
 * \param layers those of the exits
 * \param shapeMode no exit has logits
 * \throws InputError
 */
std::shared_ptr<const ExitPolicy> ReadExitPolicy(StrictObject& scheme,
                                                 const std::vector<std::size_t>& layers,
                                                 bool shapeMode);

} // namespace splitllm

#endif // SPLITLLM_EXIT_POLICY_H
