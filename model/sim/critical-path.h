// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CRITICAL_PATH_H
#define SPLITLLM_CRITICAL_PATH_H

#include "sim/split-llm-records.h"

#include "ns3/nstime.h"

#include <array>

namespace splitllm
{

/**
 * Where the time of a token went, along the chain of causes that ends at the instant it describes.
 *
 * Each role keeps one. Waiting for its own compute device and computing are charged as they happen; a message carries its
 * sender's path to the receiver (as an observation beside the simulation: no role reads it). A receiver that was waiting
 * for the message continues the sender's path, plus the network's time; one that was busy with the same token meanwhile
 * keeps its own, because the message was not what it waited for.
 */
class CriticalPath
{
  public:
    /// \param place of the role that keeps it
    explicit CriticalPath(Place place = Place::User)
        : m_place(place)
    {
    }

    /// A new token starts at \p now: nothing is charged yet.
    void Start(ns3::Time now)
    {
        m_start = now;
        m_until = now;
        m_components = {};
        m_server = ns3::Time();
    }

    /// The chain continues with \p duration spent on \p component.
    void Charge(Component component, ns3::Time duration)
    {
        m_components[static_cast<std::size_t>(component)] += duration;
        m_until += duration;
        if (m_place == Place::Server && component != Component::Network)
        {
            m_server += duration;
        }
    }

    /**
     * A message was received: what the chain holds is the sender's or its own, the place stays its own.
     * \param sender the sender's path when it sent
     * \param sent when it was sent
     * \param arrived when its last byte arrived
     * \param now when it is received: later than \p arrived if the receiver was busy
     */
    void Receive(const CriticalPath& sender, ns3::Time sent, ns3::Time arrived, ns3::Time now);

    ns3::Time Started() const
    {
        return m_start;
    }

    /// The instant up to which everything since the start is accounted for.
    ns3::Time Until() const
    {
        return m_until;
    }

    ns3::Time Of(Component component) const
    {
        return m_components[static_cast<std::size_t>(component)];
    }

    /// What of it was spent at the server. The network is neither there nor at the user.
    ns3::Time AtServer() const
    {
        return m_server;
    }

    /// Where the role that keeps the path runs.
    Place At() const
    {
        return m_place;
    }

  private:
    Place m_place;
    ns3::Time m_start;
    ns3::Time m_until;
    std::array<ns3::Time, kComponents> m_components{};
    ns3::Time m_server;
};

} // namespace splitllm

#endif // SPLITLLM_CRITICAL_PATH_H
