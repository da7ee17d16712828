// SPDX-License-Identifier: GPL-2.0-only
#include "net/service-link.h"

#include "net/transmission-time.h"

#include "ns3/simulator.h"

#include <stdexcept>
#include <utility>

namespace splitllm
{

using namespace ns3;

ServiceLink::ServiceLink(ServiceLinkConfig config)
    : MessageLink(config.delay),
      m_config(std::move(config))
{
    if (m_config.rate.GetBitRate() == 0)
    {
        throw std::invalid_argument("a service link needs a rate above zero");
    }
}

ServiceLink::~ServiceLink()
{
    for (EventId& end : m_ends)
    {
        end.Cancel();
    }
}

Time
ServiceLink::ServiceTime(MessageKind kind, std::uint64_t payloadBytes) const
{
    Time startup = m_config.startup;
    if (const auto cost = m_config.kinds.find(kind); cost != m_config.kinds.end())
    {
        startup = cost->second.startup.value_or(startup);
        payloadBytes = cost->second.payloadBytes.value_or(payloadBytes);
    }
    return startup + TransmissionTime(payloadBytes, m_config.rate);
}

bool
ServiceLink::LeavesAtOnce(Direction, const Queued& message) const
{
    return ServiceTime(message.kind, message.payloadBytes).IsZero() && !m_config.outages.Covers(Simulator::Now());
}

void
ServiceLink::Begin(Direction direction, const Queued& message)
{
    const auto index = static_cast<std::size_t>(direction);
    const Time now = Simulator::Now();
    m_begun[index] = now;
    CountBytes(direction);
    const std::optional<Time> end = m_config.outages.End(now, ServiceTime(message.kind, message.payloadBytes));
    if (end) // otherwise it waits for ever, and all behind it
    {
        m_ends[index] = Simulator::Schedule(*end - now, [this, direction] {
            Depart(direction);
            Finish(direction);
        });
    }
}

void
ServiceLink::GiveUp(Direction)
{
    // The message ends when it ends.
}

std::optional<Time>
ServiceLink::WorstArrival(Direction direction, MessageKind kind, std::uint64_t payloadBytes) const
{
    Time wait;
    for (const Queued& message : Queue(direction))
    {
        wait += ServiceTime(message.kind, message.payloadBytes);
    }
    if (!Queue(direction).empty()) // with the first of which it is busy
    {
        wait -= m_config.outages.Up(m_begun[static_cast<std::size_t>(direction)], Simulator::Now());
    }
    return wait + ServiceTime(kind, payloadBytes) + Delay();
}

} // namespace splitllm
