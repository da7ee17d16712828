// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TAMPERING_PORT_H
#define SPLITLLM_TEST_TAMPERING_PORT_H

#include "support/split-run.h"

#include "net/message-port.h"

#include "ns3/simulator.h"

#include <functional>
#include <memory>
#include <utility>

namespace splitllm::test
{

/// A wire without a network: one microsecond, and a chance to tamper with a payload before it is framed.
class TamperingPort final : public MessagePort
{
  public:
    using Tamper = std::function<void(Message&)>;

    TamperingPort(Direction sends, const ConnectionId& connection, Tamper tamper)
        : MessagePort(sends, connection),
          m_tamper(std::move(tamper))
    {
        Open();
    }

    void Connect(TamperingPort& peer)
    {
        m_peer = &peer;
        peer.m_peer = this;
    }

    ~TamperingPort() override
    {
        if (m_peer != nullptr)
        {
            m_peer->m_peer = nullptr;
        }
    }

    void Close() override
    {
        ns3::Simulator::Schedule(ns3::MicroSeconds(1), [this] {
            if (m_peer != nullptr)
            {
                m_peer->EndReceiving();
            }
        });
    }

    void Abandon() override
    {
        Close();
    }

  protected:
    void Transmit(const Message& message) override
    {
        Message copy = message;
        m_tamper(copy);
        ns3::Simulator::Schedule(ns3::MicroSeconds(1), [this, copy] { m_peer->Deliver(copy); });
    }

  private:
    Tamper m_tamper;
    TamperingPort* m_peer = nullptr;
};

/// Both ends of such a wire, which does the same in both directions. \param connection of several each has its own
inline SplitRun::Ports
TamperingPair(const TamperingPort::Tamper& tamper, const ConnectionId& connection = {})
{
    auto user = std::make_unique<TamperingPort>(Direction::Up, connection, tamper);
    auto edge = std::make_unique<TamperingPort>(Direction::Down, connection, tamper);
    user->Connect(*edge);
    return {std::move(user), std::move(edge)};
}

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TAMPERING_PORT_H
