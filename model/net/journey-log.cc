// SPDX-License-Identifier: GPL-2.0-only
#include "net/journey-log.h"

namespace splitllm
{

void
JourneyLog::Depart(std::uint32_t session, Direction direction, std::uint32_t sequence, const Journey& journey)
{
    m_journeys.insert_or_assign({session, direction, sequence}, journey);
}

std::optional<JourneyLog::Journey>
JourneyLog::Arrive(std::uint32_t session, Direction direction, std::uint32_t sequence)
{
    const auto found = m_journeys.find({session, direction, sequence});
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
