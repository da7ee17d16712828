// SPDX-License-Identifier: GPL-2.0-only
#include "sim/critical-path.h"

namespace splitllm
{

void
CriticalPath::Receive(const CriticalPath& sender, ns3::Time sent, ns3::Time arrived, ns3::Time now)
{
    const ns3::Time start = m_start;
    if (sender.m_start <= start && arrived < m_until)
    {
        return; // the receiver was busy with this token until later than the message came
    }
    const Place own = m_place;
    *this = sender;
    m_place = own;
    Charge(Component::Network, arrived - sent);
    Charge(Component::Queue, now - arrived);
    if (m_start < start)
    {
        TakeOff(start - m_start);
        m_start = start;
    }
}

void
CriticalPath::TakeOff(ns3::Time time)
{
    const auto takeOff = [&time](ns3::Time& share) {
        const ns3::Time part = ns3::Min(time, share);
        share -= part;
        time -= part;
        return part;
    };
    takeOff(m_components[static_cast<std::size_t>(Component::Network)]);
    for (ns3::Time& share : m_components)
    {
        m_server -= ns3::Min(m_server, takeOff(share)); // a server that streams is what is ahead
    }
}

} // namespace splitllm
