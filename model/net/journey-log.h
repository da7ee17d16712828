// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_JOURNEY_LOG_H
#define SPLITLLM_JOURNEY_LOG_H

#include "net/connection-id.h"
#include "sim/critical-path.h"
#include "sim/split-llm-records.h"

#include "ns3/nstime.h"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <unordered_map>

namespace splitllm
{

/**
 * Every message under way, known by (connection, direction, sequence), with the instant it was sent and its sender's
 * critical path. What a connection did not bring across stays under way. One for each simulation
 * (ns3::SimulationSingleton).
 *
 * This is how latency is broken down, and an observer only: no role and no link reads it, and nothing in it is needed to
 * compute a token.
 */
class JourneyLog
{
  public:
    struct Journey
    {
        ns3::Time sent;
        CriticalPath path;
    };

    void Depart(const ConnectionId& connection,
                Direction direction,
                std::uint32_t sequence,
                const Journey& journey);

    /// Takes the journey out; nothing if no such message was sent.
    std::optional<Journey> Arrive(const ConnectionId& connection, Direction direction, std::uint32_t sequence);

    /// Messages sent and not received.
    std::size_t UnderWay() const;

  private:
    /// Names a message.
    struct Key
    {
        ConnectionId connection;
        Direction direction;
        std::uint32_t sequence;

        bool operator==(const Key&) const = default;
    };

    struct KeyHash
    {
        std::size_t operator()(const Key& key) const;
    };

    std::unordered_map<Key, Journey, KeyHash> m_journeys;
};

} // namespace splitllm

#endif // SPLITLLM_JOURNEY_LOG_H
