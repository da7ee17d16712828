// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_MESSAGE_PORT_H
#define SPLITLLM_MESSAGE_PORT_H

#include "net/connection-id.h"
#include "net/wire.h"
#include "sim/critical-path.h"
#include "sim/mailbox.h"
#include "sim/split-llm-records.h"
#include "sim/task.h"

#include "ns3/nstime.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <variant>

namespace splitllm
{

/// The peer ended the connection between two messages.
class ConnectionClosed : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/// The connection broke, or its bytes made no sense. The message is the reason.
class ConnectionLost : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/// A message that came in, and what is known of its way for the latency breakdown.
struct Arrival
{
    Message message;
    CriticalPath senderPath;
    ns3::Time sent;
    ns3::Time arrived;
};

/// Header and payload of \p message as one packet; a phantom payload takes no memory in it.
ns3::Ptr<ns3::Packet> ToPacket(const Message& message);

/**
 * One end of a connection that carries whole messages, in order. Owned by the application at that end.
 */
class MessagePort
{
  public:
    /**
     * \param sends the direction of what this end sends
     * \param connection the same at the other end
     */
    MessagePort(Direction sends, const ConnectionId& connection);
    virtual ~MessagePort() = default;
    MessagePort(const MessagePort&) = delete;
    MessagePort& operator=(const MessagePort&) = delete;

    /// Which connection this is an end of.
    const ConnectionId& Connection() const
    {
        return m_connection;
    }

    /// Returns when messages can be sent, at once if they can already. Throws ConnectionLost if that fails. One waits
    /// at a time.
    Task<void> Opened();

    /// The same for at most \p duration. \return whether messages can be sent; does not throw
    Task<bool> OpenedWithin(ns3::Time duration);

    /// Whether it was opened and has not failed: messages can be sent.
    bool IsOpen() const
    {
        return m_isOpen && !HasFailed();
    }

    /// Whether the connection failed or the peer closed it: no more messages come than those that are there.
    bool IsLost() const
    {
        return m_inbox.IsClosed();
    }

    /**
     * Queues \p message; it takes the network's time from now on. Does not wait.
     * \param path what led to this message
     * \throws ConnectionLost if the connection is gone
     */
    void Send(Message message, const CriticalPath& path);

    /// Awaitable: the next Arrival. Throws ConnectionClosed or ConnectionLost when no more can come.
    auto Receive()
    {
        return m_inbox.Receive();
    }

    /**
     * Awaitable: the next Arrival, or nothing if none comes within \p duration. One that comes at the instant when the
     * time is over counts. Throws what Receive throws.
     */
    auto ReceiveWithin(ns3::Time duration)
    {
        return m_inbox.ReceiveWithin(duration);
    }

    /// The next Arrival if it is there already, also after the connection ended. Does not wait and does not throw.
    std::optional<Arrival> TakeArrived()
    {
        return m_inbox.TakeWaiting();
    }

    /// Ends the connection after what was sent so far.
    virtual void Close() = 0;

    /// Ends the connection at once: what was not handed to the network yet is lost. Nothing may be called afterwards.
    virtual void Abandon() = 0;

    /// Ends the connection at this end alone, as one that could not be made: who waits here, or sends, gets
    /// ConnectionLost(\p reason).
    void Refuse(const std::string& reason)
    {
        Fail(reason);
    }

    /**
     * How long a message of \p payloadBytes takes to arrive at worst if it is sent now; nothing where nobody can tell,
     * as over TCP. On a link that fades: but for the probability that it was told to accept. Nobody foresees an outage.
     */
    virtual std::optional<ns3::Time> WorstArrival(MessageKind kind, std::uint64_t payloadBytes) const;

    /// The direction of what this end sends.
    Direction Sends() const
    {
        return m_sends;
    }

    /// Whether a message has come in.
    bool HasReceived() const
    {
        return m_received > 0;
    }

    /// Called for every message sent and received.
    std::function<void(const MessageRecord&)> onMessage;

  protected:
    /// Puts the header and the payload of \p message on the way.
    virtual void Transmit(const Message& message) = 0;

    /// The connection is up.
    void Open();

    /// A message is complete. \throws MalformedFrame if it is not the one due
    void Deliver(Message message);

    /// Delivers what \p packet brings, copied into \p reader. Fails the connection if it makes no sense.
    void DeliverPacket(FrameReader& reader, ns3::Ptr<const ns3::Packet> packet);

    /// The peer closed; nothing comes any more.
    void EndReceiving();

    /// The connection is unusable: sends and receives throw ConnectionLost(\p reason).
    void Fail(const std::string& reason);

    bool HasFailed() const
    {
        return !m_failure.empty();
    }

  private:
    Direction m_sends;
    ConnectionId m_connection;
    Mailbox<std::monostate> m_opened;
    bool m_isOpen = false;
    Mailbox<Arrival> m_inbox;
    std::uint32_t m_sent = 0;
    std::uint32_t m_received = 0;
    std::string m_failure;
};

} // namespace splitllm

#endif // SPLITLLM_MESSAGE_PORT_H
