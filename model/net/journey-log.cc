// SPDX-License-Identifier: GPL-2.0-only
#include "net/journey-log.h"

namespace splitllm
{

/// Connections and sequences count up, so products with odd constants spread them (Knuth's multiplicative hashing).
std::size_t
JourneyLog::KeyHash::operator()(const Key& key) const
{
    const std::uint64_t message = (std::uint64_t{key.sequence} << 1) | static_cast<std::uint64_t>(key.direction);
    const std::uint64_t mixed = key.connection.client * 0x9E3779B97F4A7C15U + key.connection.number * 0xC2B2AE3D27D4EB4FU +
                                message * 0x165667B19E3779F9U;
    return static_cast<std::size_t>(mixed ^ (mixed >> 32));
}

void
JourneyLog::Depart(const ConnectionId& connection,
                   Direction direction,
                   std::uint32_t sequence,
                   const Journey& journey)
{
    m_journeys.insert_or_assign({connection, direction, sequence}, journey);
}

std::optional<JourneyLog::Journey>
JourneyLog::Arrive(const ConnectionId& connection, Direction direction, std::uint32_t sequence)
{
    const auto found = m_journeys.find({connection, direction, sequence});
    if (found == m_journeys.end())
    {
        return std::nullopt;
    }
    const Journey journey = found->second;
    m_journeys.erase(found);
    return journey;
}

std::size_t
JourneyLog::UnderWay() const
{
    return m_journeys.size();
}

} // namespace splitllm
