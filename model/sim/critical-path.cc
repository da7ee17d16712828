// SPDX-License-Identifier: GPL-2.0-only
#include "sim/critical-path.h"

namespace splitllm
{

void
CriticalPath::Receive(const CriticalPath& sender, ns3::Time sent, ns3::Time arrived, ns3::Time now)
{
    const bool sameToken = sender.m_start == m_start;
    if (sameToken && arrived < m_until)
    {
        return; // the receiver was busy with this token until later than the message came
    }
    const Place own = m_place;
    *this = sender;
    m_place = own;
    Charge(Component::Network, arrived - sent);
    Charge(Component::Queue, now - arrived);
}

} // namespace splitllm
