// SPDX-License-Identifier: GPL-2.0-only
#include "net/outage-schedule.h"

#include <algorithm>

namespace splitllm
{

using ns3::Time;

OutageSchedule::OutageSchedule(std::vector<Outage> outages)
{
    std::ranges::sort(outages, {}, &Outage::begin);
    for (const Outage& outage : outages)
    {
        if (outage.end <= outage.begin)
        {
            continue;
        }
        if (!m_outages.empty() && outage.begin <= m_outages.back().end)
        {
            m_outages.back().end = ns3::Max(m_outages.back().end, outage.end);
        }
        else
        {
            m_outages.push_back(outage);
        }
    }
}

bool
OutageSchedule::Covers(Time time) const
{
    return std::ranges::any_of(m_outages,
                               [time](const Outage& outage) { return outage.begin <= time && time < outage.end; });
}

std::optional<Time>
OutageSchedule::End(Time start, Time work) const
{
    for (const Outage& outage : m_outages)
    {
        if (outage.end <= start)
        {
            continue;
        }
        if (start < outage.begin)
        {
            const Time before = outage.begin - start;
            if (work <= before)
            {
                break;
            }
            work -= before;
        }
        start = outage.end;
    }
    return work < Time::Max() - start ? std::optional(start + work) : std::nullopt;
}

Time
OutageSchedule::Up(Time from, Time to) const
{
    Time up = to - from;
    for (const Outage& outage : m_outages)
    {
        up -= ns3::Max(ns3::Min(outage.end, to) - ns3::Max(outage.begin, from), Time(0));
    }
    return up;
}

} // namespace splitllm
