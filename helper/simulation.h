// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SIMULATION_H
#define SPLITLLM_SIMULATION_H

#include "recorder.h"
#include "schemes/outcomes.h"
#include "study.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace splitllm
{

/**
 * Builds the topology of \p study, runs it to its end and takes it down again.
 * \param repetition from 0; each has random streams of its own
 * \param threads of the CPU backend, 0 for all cores
 * \param onToken called after every generated token
 * \param outcomes notes what numbers decide; null where nobody does
 * \param captures what the names of capture files begin with, those of links that are to be captured; empty: none are
 * \return what was recorded; out of memory and lost sessions are results in it
 * \throws RoleError for an error inside a role, InputError if the model, the adapter or a node's hardware cannot be used
 */
RunRecords Simulate(const Study& study,
                    std::uint32_t repetition,
                    std::uint32_t threads,
                    const std::function<void()>& onToken,
                    std::shared_ptr<OutcomeRecorder> outcomes = nullptr,
                    const std::string& captures = "");

/// What a run along reference answers reports while it goes on.
struct AnswerTraces
{
    std::function<void(const LogitsRecord&)> onLogits; //!< every distribution that a node chooses from
    std::function<void(const ExitRecord&)> onExit;     //!< how a token came about, before the token
    std::function<void(const TokenRecord&)> onToken;   //!< in the order of the answer's tokens
};

/**
 * The same run along the reference answers, whatever is generated (teacher forcing): what the scheme makes of the
 * prefixes that the full model is compared on.
 */
void SimulateAlongAnswers(const Study& study,
                          std::uint32_t repetition,
                          std::uint32_t threads,
                          const AnswerTraces& traces);

} // namespace splitllm

#endif // SPLITLLM_SIMULATION_H
