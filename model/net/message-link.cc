// SPDX-License-Identifier: GPL-2.0-only
#include "net/message-link.h"

#include "ns3/simulator.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace splitllm
{

using namespace ns3;

/// One end of a connection.
class MessageLink::Port final : public MessagePort
{
  public:
    /// The ends of one connection that exist, by the direction they send in.
    using Ends = std::array<Port*, kDirections>;

    Port(MessageLink& link, Direction sends, const ConnectionId& connection, std::shared_ptr<Ends> ends)
        : MessagePort(sends, connection),
          m_link(link),
          m_ends(std::move(ends)),
          m_reader(std::numeric_limits<std::uint32_t>::max())
    {
        (*m_ends)[Index()] = this;
        Open();
    }

    ~Port() override
    {
        m_link.Forget(*this);
        (*m_ends)[Index()] = nullptr;
    }

    void Close() override
    {
        m_closing = true;
        EndIfAllSent();
    }

    void Abandon() override
    {
        m_link.Forget(*this);
        AtPeer([](Port& peer) { peer.EndReceiving(); });
    }

    std::optional<Time> WorstArrival(MessageKind kind, std::uint64_t payloadBytes) const override
    {
        return m_link.WorstArrival(Sends(), kind, payloadBytes);
    }

    /// Brings \p packet to the peer, a delay from now, unless this end is gone by then.
    void Depart(Ptr<const Packet> packet)
    {
        AtPeer([packet, ends = m_ends, sender = Index()](Port& peer) {
            if ((*ends)[sender] != nullptr)
            {
                peer.Tap(Direction::Up, packet);
                peer.DeliverPacket(peer.m_reader, packet);
            }
        });
    }

    /// The link is done with a message of this end.
    void CountSent()
    {
        m_unsent--;
        EndIfAllSent();
    }

    /// Both ends fail, the peer a delay from now.
    void Break(const std::string& reason)
    {
        AtPeer([reason](Port& peer) { peer.Drop(reason); });
        Drop(reason);
    }

  protected:
    void Transmit(const Message& message) override
    {
        m_unsent++;
        const Ptr<Packet> packet = ToPacket(message);
        Tap(Direction::Down, packet);
        m_link.Of(Sends()).queue.push_back({message.kind, message.payload.size, message.sequence, packet, this});
        m_link.SendNext(Sends());
    }

  private:
    std::size_t Index() const
    {
        return static_cast<std::size_t>(Sends());
    }

    /// \p packet goes in \p direction past this end. Told where it is the server's.
    void Tap(Direction direction, Ptr<const Packet> packet) const
    {
        if (m_link.atServer && Sends() == Direction::Down)
        {
            m_link.atServer(direction, Connection(), packet);
        }
    }

    /// The peer learns of the close after everything that was sent.
    void EndIfAllSent()
    {
        if (m_closing && m_unsent == 0)
        {
            m_closing = false;
            AtPeer([](Port& peer) { peer.EndReceiving(); });
        }
    }

    void Drop(const std::string& reason)
    {
        m_link.Forget(*this);
        Fail(reason);
    }

    /// Does \p action to the other end a delay from now, if it still exists then.
    template <typename F>
    void AtPeer(F action)
    {
        Simulator::Schedule(m_link.Delay(), [ends = m_ends, peer = 1 - Index(), action] {
            if ((*ends)[peer] != nullptr)
            {
                action(*(*ends)[peer]);
            }
        });
    }

    MessageLink& m_link;
    std::shared_ptr<Ends> m_ends;
    FrameReader m_reader;
    std::size_t m_unsent = 0; //!< messages of this end that the link is not done with
    bool m_closing = false;
};

MessageLink::MessageLink(Time delay)
    : m_delay(delay)
{
}

MessageLink::~MessageLink() = default;

PortPair
MessageLink::Connect()
{
    if (m_connections == 0)
    {
        m_number = NextLinkNumber(); // not before: links are also made to ask them for their figures
    }
    const ConnectionId connection{.client = m_number, .number = m_connections++};
    const auto ends = std::make_shared<Port::Ends>();
    return {.user = std::make_unique<Port>(*this, Direction::Up, connection, ends),
            .server = std::make_unique<Port>(*this, Direction::Down, connection, ends)};
}

std::uint64_t
MessageLink::BytesSent(Direction direction) const
{
    return m_transmitters[static_cast<std::size_t>(direction)].bytes;
}

const std::deque<MessageLink::Queued>&
MessageLink::Queue(Direction direction) const
{
    return m_transmitters[static_cast<std::size_t>(direction)].queue;
}

MessageLink::Transmitter&
MessageLink::Of(Direction direction)
{
    return m_transmitters[static_cast<std::size_t>(direction)];
}

/// Starts on the first message that waits, if none is under way.
void
MessageLink::SendNext(Direction direction)
{
    Transmitter& transmitter = Of(direction);
    while (!transmitter.queue.empty() && !transmitter.isBusy)
    {
        if (!LeavesAtOnce(direction, transmitter.queue.front()))
        {
            transmitter.isBusy = true;
            Begin(direction, transmitter.queue.front());
            return;
        }
        CountBytes(direction);
        Depart(direction);
        Pop(direction);
    }
}

void
MessageLink::CountBytes(Direction direction)
{
    Transmitter& transmitter = Of(direction);
    transmitter.bytes += transmitter.queue.front().packet->GetSize();
}

void
MessageLink::Depart(Direction direction)
{
    const Queued& message = Of(direction).queue.front();
    if (message.sender != nullptr)
    {
        message.sender->Depart(message.packet);
    }
}

void
MessageLink::Finish(Direction direction)
{
    Of(direction).isBusy = false;
    Pop(direction);
    SendNext(direction);
}

void
MessageLink::Lose(Direction direction, const std::string& reason)
{
    Port* sender = Of(direction).queue.front().sender;
    if (sender != nullptr)
    {
        Forget(*sender); // before the next message has its turn
    }
    Finish(direction);
    if (sender != nullptr)
    {
        sender->Break(reason); // last: who waits there goes on within this call
    }
}

void
MessageLink::Pop(Direction direction)
{
    std::deque<Queued>& queue = Of(direction).queue;
    Port* sender = queue.front().sender;
    queue.pop_front();
    if (sender != nullptr)
    {
        sender->CountSent();
    }
}

/// Drops what \p sender has queued, but for what is under way.
void
MessageLink::Forget(const Port& sender)
{
    Transmitter& transmitter = Of(sender.Sends());
    std::deque<Queued>& queue = transmitter.queue;
    if (transmitter.isBusy && queue.front().sender == &sender)
    {
        queue.front().sender = nullptr;
        GiveUp(sender.Sends());
    }
    std::erase_if(queue, [&sender](const Queued& message) { return message.sender == &sender; });
}

} // namespace splitllm
