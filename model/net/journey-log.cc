// SPDX-License-Identifier: GPL-2.0-only
#include "net/journey-log.h"

namespace splitllm
{

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
