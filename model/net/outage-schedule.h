// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_OUTAGE_SCHEDULE_H
#define SPLITLLM_OUTAGE_SCHEDULE_H

#include "ns3/nstime.h"

#include <optional>
#include <vector>

namespace splitllm
{

/// A stretch of simulated time in which something is out of order.
struct Outage
{
    ns3::Time begin;
    ns3::Time end = ns3::Time::Max(); //!< when it is over; Time::Max(): never
};

/// When a link is out of order. What it has to do meanwhile stands still.
class OutageSchedule
{
  public:
    OutageSchedule() = default;

    /// \param outages in any order; they may overlap
    explicit OutageSchedule(std::vector<Outage> outages);

    /// In order, apart from each other.
    const std::vector<Outage>& Outages() const
    {
        return m_outages;
    }

    /// Whether \p time lies in an outage: at its begin or later, and before its end.
    bool Covers(ns3::Time time) const;

    /// When \p work that starts at \p start is done, if it stands still in outages; nothing if never.
    std::optional<ns3::Time> End(ns3::Time start, ns3::Time work) const;

    /// How much of the time from \p from to \p to lies in no outage.
    ns3::Time Up(ns3::Time from, ns3::Time to) const;

  private:
    std::vector<Outage> m_outages; //!< in order, apart from each other
};

} // namespace splitllm

#endif // SPLITLLM_OUTAGE_SCHEDULE_H
