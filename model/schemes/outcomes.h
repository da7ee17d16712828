// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUTCOMES_H
#define SPLITLLM_OUTCOMES_H

#include "base/input-error.h"
#include "llm/beam-search.h"
#include "policy/gate-policy.h"
#include "policy/offload-policy.h"
#include "sim/split-llm-records.h"
#include "tensor/dtype.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace splitllm
{

/**
 * \file
 * What a run's numbers decide: the tokens, the verdicts of policies and gates, and the sizes of payloads that depend on
 * what they hold. With these a run without numbers goes as the run with them did.
 */

/// Where in a request something is decided. A replay that comes elsewhere is not the run that was recorded.
struct Occasion
{
    std::uint32_t position = 0; //!< in the sequence, from 0; of a payload its rows
    std::uint32_t layer = 0;    //!< from 1; 0 outside the layers

    bool operator==(const Occasion&) const = default;
};

/// Bytes of a payload whose size depends on what it holds.
struct PayloadSize
{
    std::uint64_t bytes = 0;

    bool operator==(const PayloadSize&) const = default;
};

/// Something that was decided, and where.
template <typename T>
struct Outcome
{
    Occasion occasion;
    T value;
};

/// What was decided for one request on one of its nodes: every kind in the order in which it was decided there.
using NodeOutcomes = std::tuple<std::vector<Outcome<TokenId>>,
                                std::vector<Outcome<Candidates>>,
                                std::vector<Outcome<Verdict>>,
                                std::vector<Outcome<GateDecision>>,
                                std::vector<Outcome<PayloadSize>>>;

constexpr std::size_t kOutcomeKinds = std::tuple_size_v<NodeOutcomes>;

/// Of one request, by the Place of the node.
using RequestOutcomes = std::array<NodeOutcomes, kPlaces>;

/// Of all requests of a run, by their index.
using RunOutcomes = std::vector<RequestOutcomes>;

/// Notes outcomes as a run decides them.
class OutcomeRecorder
{
  public:
    template <typename T>
    void Note(std::uint32_t request, Place place, const Occasion& occasion, const T& value)
    {
        if (request >= m_outcomes.size())
        {
            m_outcomes.resize(request + 1);
        }
        NodeOutcomes& node = m_outcomes[request][static_cast<std::size_t>(place)];
        std::get<std::vector<Outcome<T>>>(node).push_back({occasion, value});
    }

    /// What was noted so far.
    const RunOutcomes& Outcomes() const
    {
        return m_outcomes;
    }

  private:
    RunOutcomes m_outcomes;
};

/// Hands out what was recorded, in the same order. Of n recorded requests, request i has the outcomes of i mod n.
class OutcomePlayer
{
  public:
    /// \param outcomes of at least one request
    explicit OutcomePlayer(std::shared_ptr<const RunOutcomes> outcomes)
        : m_outcomes(std::move(outcomes))
    {
    }

    /// The next outcome. \throws InputError if none was recorded for \p occasion
    template <typename T>
    const T& Next(std::uint32_t request, Place place, const Occasion& occasion)
    {
        const auto node = static_cast<std::size_t>(place);
        if (request >= m_played.size())
        {
            m_played.resize(request + 1);
        }
        using Kind = std::vector<Outcome<T>>;
        const Kind& recorded = std::get<Kind>((*m_outcomes)[request % m_outcomes->size()][node]);
        std::size_t& next = std::get<Played<T>>(m_played[request][node]).next;
        if (next == recorded.size() || recorded[next].occasion != occasion)
        {
            Diverge(occasion);
        }
        return recorded[next++].value;
    }

  private:
    /// How many outcomes of a kind were handed out.
    template <typename T>
    struct Played
    {
        std::size_t next = 0;
    };

    using NodePlayed =
        std::tuple<Played<TokenId>, Played<Candidates>, Played<Verdict>, Played<GateDecision>, Played<PayloadSize>>;

    [[noreturn]] static void Diverge(const Occasion& occasion)
    {
        throw InputError("the replay came to position " + std::to_string(occasion.position) + ", layer " +
                         std::to_string(occasion.layer) +
                         ", where the recorded run decided nothing: what happens here depends on the network; accepted: "
                         "conditions under which nobody gives up waiting, or mode \"numeric\"");
    }

    std::shared_ptr<const RunOutcomes> m_outcomes;
    std::vector<std::array<NodePlayed, kPlaces>> m_played;
};

} // namespace splitllm

#endif // SPLITLLM_OUTCOMES_H
