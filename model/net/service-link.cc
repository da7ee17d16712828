// SPDX-License-Identifier: GPL-2.0-only
#include "net/service-link.h"

#include "net/transmission-time.h"

#include "ns3/event-id.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <stdexcept>
#include <utility>

namespace splitllm
{

using namespace ns3;

/// One end of a service link.
class ServiceLink::Port final : public MessagePort
{
  public:
    Port(ServiceLink& link, Direction sends)
        : MessagePort(sends),
          m_link(link),
          m_reader(std::numeric_limits<std::uint32_t>::max())
    {
        Open();
    }

    ~Port() override
    {
        m_link.m_ends[static_cast<std::size_t>(Sends())] = nullptr;
        for (EventId& event : m_departures)
        {
            event.Cancel();
        }
    }

    void Close() override
    {
        // The peer learns of it when everything sent before has arrived.
        const Time freeAt = m_link.m_freeAt[static_cast<std::size_t>(Sends())];
        Schedule(Max(freeAt, Simulator::Now()) + m_link.m_config.delay, [this] {
            if (Port* peer = Peer())
            {
                peer->EndReceiving();
            }
        });
    }

    void Abandon() override
    {
        // Not one of this port's departures, which end with it.
        Simulator::Schedule(m_link.m_config.delay, [&link = m_link, peer = 1 - static_cast<std::size_t>(Sends())] {
            if (link.m_ends[peer] != nullptr)
            {
                link.m_ends[peer]->EndReceiving();
            }
        });
    }

    std::optional<Time> WorstArrival(MessageKind kind, std::uint64_t payloadBytes) const override
    {
        const Time freeAt = Max(m_link.m_freeAt[static_cast<std::size_t>(Sends())], Simulator::Now());
        return freeAt + m_link.ServiceTime(kind, payloadBytes) + m_link.m_config.delay - Simulator::Now();
    }

  protected:
    void Transmit(const Message& message) override
    {
        const auto direction = static_cast<std::size_t>(Sends());
        Ptr<Packet> packet = ToPacket(message);
        m_link.m_bytes[direction] += packet->GetSize();
        Time& freeAt = m_link.m_freeAt[direction];
        freeAt = Max(freeAt, Simulator::Now()) + m_link.ServiceTime(message.kind, message.payload.size);
        Schedule(freeAt + m_link.m_config.delay, [this, packet] {
            if (Port* peer = Peer())
            {
                peer->DeliverPacket(peer->m_reader, packet);
            }
        });
    }

  private:
    Port* Peer() const
    {
        return m_link.m_ends[1 - static_cast<std::size_t>(Sends())];
    }

    template <typename F>
    void Schedule(Time at, F&& action)
    {
        while (!m_departures.empty() && m_departures.front().IsExpired())
        {
            m_departures.pop_front();
        }
        m_departures.push_back(Simulator::Schedule(at - Simulator::Now(), std::forward<F>(action)));
    }

    ServiceLink& m_link;
    FrameReader m_reader;
    std::deque<EventId> m_departures; //!< in the order of their time
};

ServiceLink::ServiceLink(ServiceLinkConfig config)
    : m_config(std::move(config))
{
    if (m_config.rate.GetBitRate() == 0)
    {
        throw std::invalid_argument("a service link needs a rate above zero");
    }
}

ServiceLink::~ServiceLink() = default;

std::unique_ptr<MessagePort>
ServiceLink::End(Direction direction)
{
    Port*& end = m_ends[static_cast<std::size_t>(direction)];
    if (end != nullptr)
    {
        throw std::logic_error("this end of the service link is taken");
    }
    auto port = std::make_unique<Port>(*this, direction);
    end = port.get();
    return port;
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

std::uint64_t
ServiceLink::BytesSent(Direction direction) const
{
    return m_bytes[static_cast<std::size_t>(direction)];
}

} // namespace splitllm
