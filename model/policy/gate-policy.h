// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_GATE_POLICY_H
#define SPLITLLM_GATE_POLICY_H

#include "base/strict-json.h"

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * The probability that SPA's gate gives to open: softmax of its two \p logits, closed and open, at open. The same bits
 * on every machine; NaN where a logit is NaN or both are the same infinity.
 * \throws std::logic_error unless there are two logits
 */
double OpenProbability(std::span<const float> logits);

/// What is known where the gate is decided about: the model's last state of a token is there.
struct GateView
{
    std::uint32_t request;         //!< index in the workload
    std::uint32_t token;           //!< of the answer that comes next, from 1
    std::span<const float> logits; //!< of the gate, closed and open; empty where it was not computed
    double draw;                   //!< uniform in [0, 1), of this token
};

/// Whether the side network is asked.
struct GateDecision
{
    bool open;
    double probability; //!< of open, by the gate; NaN where the gate was not asked
};

/**
 * Decides for a token whether the side network is asked (SPA's gate). One object serves all sessions, so a decision
 * depends on the view alone.
 */
class GatePolicy
{
  public:
    virtual ~GatePolicy() = default;

    virtual GateDecision Decide(const GateView& view) const = 0;

    /// Whether the gate has to be computed: the view then has its logits. Default: no.
    virtual bool UsesGate() const;

    /// Whether it looks at the draw. Default: no.
    virtual bool Draws() const;
};

/**
 * SPA: open where the gate's probability exceeds the threshold. 0.5 asks which of the logits is larger (equal ones
 * keep it closed); 0 opens wherever the probability is not zero, 1 never. A NaN keeps it closed.
 * \param threshold in [0, 1]
 */
std::shared_ptr<const GatePolicy> OpenByGate(double threshold);

/// LST: always open.
std::shared_ptr<const GatePolicy> OpenAlways();

/// Always closed: the model alone.
std::shared_ptr<const GatePolicy> OpenNever();

/// Open by a draw. \param share the probability, in [0, 1]
std::shared_ptr<const GatePolicy> OpenAtRandom(double share);

/// \param tokens whether each token of an answer finds it open, from the beginning again where it has more; not empty
std::shared_ptr<const GatePolicy> OpenAsListed(std::vector<bool> tokens);

/**
 * The policy that the key "policy" of \p scheme names and describes (doc/architecture.md); if absent, the gate with a
 * threshold of 0.5.
 * \param shapeMode the gate has no logits: another policy must be named
 * \throws InputError
 */
std::shared_ptr<const GatePolicy> ReadGatePolicy(StrictObject& scheme, bool shapeMode);

} // namespace splitllm

#endif // SPLITLLM_GATE_POLICY_H
