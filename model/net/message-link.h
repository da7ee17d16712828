// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MESSAGE_LINK_H
#define SPLITLLM_MESSAGE_LINK_H

#include "net/message-port.h"

#include "ns3/nstime.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace splitllm
{

/// The two ends of a connection.
struct PortPair
{
    std::unique_ptr<MessagePort> user;   //!< sends up
    std::unique_ptr<MessagePort> server; //!< sends down
};

/**
 * A link that carries messages whole, those of any number of connections. The two directions do not disturb each other.
 * In each, the messages of all connections wait in one queue, first in, first out, for the one transmitter. What keeps
 * the transmitter busy and for how long is the business of the kind of link.
 *
 * A connection may cross two links in a row. A gateway between them stores each message and forwards it: whole, it
 * waits there for the next link's transmitter, behind what came before it from anywhere.
 *
 * Ports may be destroyed in any order and at any time. What such a port had queued is dropped; what the transmitter had
 * begun, or the gateway has, keeps transmitters busy to the end, and does not arrive.
 */
class MessageLink
{
  public:
    virtual ~MessageLink();
    MessageLink(const MessageLink&) = delete;
    MessageLink& operator=(const MessageLink&) = delete;

    /// A new connection, open at both ends. The link must outlive both.
    PortPair Connect();

    /// A new connection from a user at this link, through a gateway, to the server at \p backhaul. Both links must
    /// outlive both ends.
    PortPair ConnectThrough(MessageLink& backhaul);

    /// Called at the server's end: for each message that is handed to the link there, and for each that arrives.
    std::function<void(Direction, const ConnectionId&, ns3::Ptr<const ns3::Packet>)> atServer;

    /// Header and payload bytes that \p direction carried so far.
    std::uint64_t BytesSent(Direction direction) const;

  protected:
    class Port;

    /// A message that waits for the transmitter or keeps it busy.
    struct Queued
    {
        MessageKind kind;
        std::uint64_t payloadBytes;
        std::uint32_t sequence;
        ns3::Ptr<ns3::Packet> packet;
        Port* sender; //!< null: it is gone, and the message arrives nowhere
        std::size_t hop; //!< of its sender's links, from 0: which one this is
    };

    /// \param delay one way, from leaving to arriving
    explicit MessageLink(ns3::Time delay);

    /// The messages of \p direction in their order; if it is busy, with the first.
    const std::deque<Queued>& Queue(Direction direction) const;

    /// Whether a message leaves \p direction as soon as it is its turn, without keeping the transmitter busy.
    virtual bool LeavesAtOnce(Direction direction, const Queued& message) const = 0;

    /// Keeps \p direction busy with its first message, \p message, until Finish() or Lose().
    virtual void Begin(Direction direction, const Queued& message) = 0;

    /// The sender of the first message of \p direction is gone: what has begun ends, nothing more is done for it.
    virtual void GiveUp(Direction direction) = 0;

    /// MessagePort::WorstArrival at the end that sends in \p direction.
    virtual std::optional<ns3::Time> WorstArrival(Direction direction,
                                                  MessageKind kind,
                                                  std::uint64_t payloadBytes) const = 0;

    /// The first message of \p direction went over the link, or was tried to.
    void CountBytes(Direction direction);

    /// The first message of \p direction leaves, and arrives a delay later.
    void Depart(Direction direction);

    /// \p direction is done with its first message; the next one has its turn.
    void Finish(Direction direction);

    /// The same, but it did not get across, and its connection breaks for \p reason.
    void Lose(Direction direction, const std::string& reason);

    ns3::Time Delay() const
    {
        return m_delay;
    }

  private:
    struct Transmitter
    {
        std::deque<Queued> queue;
        bool isBusy = false;
        std::uint64_t bytes = 0;
    };

    PortPair Connect(const std::vector<MessageLink*>& up);
    Transmitter& Of(Direction direction);
    void Enqueue(Direction direction, Queued message);
    void SendNext(Direction direction);
    void Pop(Direction direction);
    void Forget(const Port& sender);

    ns3::Time m_delay;
    std::uint64_t m_number = 0; //!< among the links of the simulation, from the first connection on
    std::uint32_t m_connections = 0;
    std::array<Transmitter, kDirections> m_transmitters;
};

} // namespace splitllm

#endif // SPLITLLM_MESSAGE_LINK_H
