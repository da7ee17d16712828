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

    /// \param links those that what it sends crosses in turn
    Port(std::vector<MessageLink*> links, Direction sends, const ConnectionId& connection, std::shared_ptr<Ends> ends)
        : MessagePort(sends, connection),
          m_links(std::move(links)),
          m_ends(std::move(ends)),
          m_reader(std::numeric_limits<std::uint32_t>::max())
    {
        (*m_ends)[Index()] = this;
        Open();
    }

    ~Port() override
    {
        ForgetQueued();
        (*m_ends)[Index()] = nullptr;
    }

    void Close() override
    {
        m_closing = true;
        EndIfAllSent(TotalDelay());
    }

    void Abandon() override
    {
        m_abandoned = true;
        ForgetQueued();
        AtPeer(TotalDelay(), [](Port& peer) { peer.EndReceiving(); });
    }

    std::optional<Time> WorstArrival(MessageKind kind, std::uint64_t payloadBytes) const override
    {
        if (m_links.size() > 1)
        {
            return std::nullopt; // what others send to the gateway is not known here
        }
        return m_links.front()->WorstArrival(Sends(), kind, payloadBytes);
    }

    /// Brings \p message, which leaves a link, to the next one or to the peer, a delay from now.
    void Depart(const Queued& message)
    {
        const Time delay = m_links[message.hop]->Delay();
        if (IsLastHop(message.hop))
        {
            AtPeer(delay, [packet = message.packet, ends = m_ends, sender = Index()](Port& peer) {
                if ((*ends)[sender] != nullptr) // otherwise this end is gone
                {
                    peer.Tap(Direction::Up, packet);
                    peer.DeliverPacket(peer.m_reader, packet);
                }
            });
            return;
        }
        Queued forwarded = message;
        forwarded.hop++;
        Simulator::Schedule(delay, [forwarded, sends = Sends(), ends = m_ends, next = m_links[forwarded.hop]]() mutable {
            Port* sender = (*ends)[static_cast<std::size_t>(sends)];
            forwarded.sender = sender != nullptr && !sender->m_abandoned ? sender : nullptr;
            next->Enqueue(sends, std::move(forwarded));
        });
    }

    /// The link called \p hop is done with a message of this end.
    void CountSent(std::size_t hop)
    {
        if (IsLastHop(hop))
        {
            m_unsent--;
            EndIfAllSent(m_links[hop]->Delay());
        }
    }

    /// Both ends fail, the peer a delay from now.
    void Break(const std::string& reason)
    {
        AtPeer(TotalDelay(), [reason](Port& peer) { peer.Drop(reason); });
        Drop(reason);
    }

  protected:
    void Transmit(const Message& message) override
    {
        m_unsent++;
        const Ptr<Packet> packet = ToPacket(message);
        Tap(Direction::Down, packet);
        m_links.front()->Enqueue(Sends(),
                                 {message.kind, message.payload.size, message.sequence, packet, this, 0});
    }

  private:
    std::size_t Index() const
    {
        return static_cast<std::size_t>(Sends());
    }

    bool IsLastHop(std::size_t hop) const
    {
        return hop + 1 == m_links.size();
    }

    /// From this end to the other, where nothing else is sent.
    Time TotalDelay() const
    {
        Time total;
        for (const MessageLink* link : m_links)
        {
            total += link->Delay();
        }
        return total;
    }

    void ForgetQueued()
    {
        for (MessageLink* link : m_links)
        {
            link->Forget(*this);
        }
    }

    /// \p packet goes in \p direction past this end. Told where it is the server's.
    void Tap(Direction direction, Ptr<const Packet> packet) const
    {
        if (m_links.front()->atServer && Sends() == Direction::Down)
        {
            m_links.front()->atServer(direction, Connection(), packet);
        }
    }

    /// The peer learns of the close, \p delay from now, after everything that was sent.
    void EndIfAllSent(Time delay)
    {
        if (m_closing && m_unsent == 0)
        {
            m_closing = false;
            AtPeer(delay, [](Port& peer) { peer.EndReceiving(); });
        }
    }

    void Drop(const std::string& reason)
    {
        ForgetQueued();
        Fail(reason);
    }

    /// Does \p action to the other end \p delay from now, if it still exists then.
    template <typename F>
    void AtPeer(Time delay, F action)
    {
        Simulator::Schedule(delay, [ends = m_ends, peer = 1 - Index(), action] {
            if ((*ends)[peer] != nullptr)
            {
                action(*(*ends)[peer]);
            }
        });
    }

    std::vector<MessageLink*> m_links;
    std::shared_ptr<Ends> m_ends;
    FrameReader m_reader;
    std::size_t m_unsent = 0; //!< messages of this end that the last link is not done with
    bool m_closing = false;
    bool m_abandoned = false;
};

MessageLink::MessageLink(Time delay)
    : m_delay(delay)
{
}

MessageLink::~MessageLink() = default;

PortPair
MessageLink::Connect()
{
    return Connect({this});
}

PortPair
MessageLink::ConnectThrough(MessageLink& backhaul)
{
    return Connect({this, &backhaul});
}

/// \param up the links from the user to the server
PortPair
MessageLink::Connect(const std::vector<MessageLink*>& up)
{
    if (m_connections == 0)
    {
        m_number = NextLinkNumber(); // not before: links are also made to ask them for their figures
    }
    const ConnectionId connection{.client = m_number, .number = m_connections++};
    const std::vector<MessageLink*> down(up.rbegin(), up.rend());
    const auto ends = std::make_shared<Port::Ends>();
    return {.user = std::make_unique<Port>(up, Direction::Up, connection, ends),
            .server = std::make_unique<Port>(down, Direction::Down, connection, ends)};
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

void
MessageLink::Enqueue(Direction direction, Queued message)
{
    Of(direction).queue.push_back(std::move(message));
    SendNext(direction);
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
        message.sender->Depart(message);
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
    const std::size_t hop = queue.front().hop;
    queue.pop_front();
    if (sender != nullptr)
    {
        sender->CountSent(hop);
    }
}

/// Drops what \p sender has queued, but for what is under way; what a gateway has stored goes on without arriving.
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
    std::erase_if(queue, [&sender](const Queued& message) { return message.sender == &sender && message.hop == 0; });
    for (Queued& message : queue)
    {
        message.sender = message.sender == &sender ? nullptr : message.sender;
    }
}

} // namespace splitllm
