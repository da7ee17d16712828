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
 *
 * A message may have been under way, or its sender at work on it, when the receiver's token started: a server that streams
 * is at the next token while the one before travels. That time is no part of the token, and is taken off the network's
 * share first: two tokens on their way one behind the other wait for the network once. What the network's share is too
 * short for is taken off the other components, in their order: it was computed while the token before was late.
 */
class CriticalPath
{
  public:
    /// A new token starts at \p now: nothing is charged yet.
    void Start(ns3::Time now)
    {
        m_start = now;
        m_until = now;
        m_components = {};
    }

    /// The chain continues with \p duration spent on \p component.
    void Charge(Component component, ns3::Time duration)
    {
        m_components[static_cast<std::size_t>(component)] += duration;
        m_until += duration;
    }

    /**
     * A message was received.
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

  private:
    /// Takes the \p time before the token started off, the network's share first.
    void TakeOff(ns3::Time time);

    ns3::Time m_start;
    ns3::Time m_until;
    std::array<ns3::Time, kComponents> m_components{};
};

} // namespace splitllm

#endif // SPLITLLM_CRITICAL_PATH_H
