// SPDX-License-Identifier: GPL-2.0-only
#include "net/message-port.h"

#include "net/journey-log.h"

#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

namespace splitllm
{

namespace
{

JourneyLog&
Journeys()
{
    return *ns3::SimulationSingleton<JourneyLog>::Get();
}

MessageRecord
RecordOf(const Message& message, Direction direction)
{
    return {.session = message.session,
            .request = message.request,
            .position = message.position,
            .layer = message.layer,
            .kind = std::string(NameOf(message.kind)),
            .direction = direction,
            .received = false,
            .headerBytes = kHeaderBytes,
            .payloadBytes = message.payload.size,
            .sent = ns3::Simulator::Now(),
            .arrived = {}};
}

} // namespace

ns3::Ptr<ns3::Packet>
ToPacket(const Message& message)
{
    const auto pointer = [](const auto& bytes) { return reinterpret_cast<const std::uint8_t*>(bytes.data()); };
    const HeaderBytes header = EncodeHeader(message);
    auto packet = ns3::Create<ns3::Packet>(pointer(header), static_cast<std::uint32_t>(header.size()));
    const auto real = static_cast<std::uint32_t>(message.payload.bytes.size());
    const auto size = static_cast<std::uint32_t>(message.payload.size);
    if (real > 0)
    {
        packet->AddAtEnd(ns3::Create<ns3::Packet>(pointer(message.payload.bytes), real));
    }
    if (size > real)
    {
        packet->AddAtEnd(ns3::Create<ns3::Packet>(size - real)); // of a phantom
    }
    return packet;
}

MessagePort::MessagePort(Direction sends, const ConnectionId& connection)
    : m_sends(sends),
      m_connection(connection)
{
}

Task<void>
MessagePort::Opened()
{
    if (HasFailed())
    {
        throw ConnectionLost(m_failure);
    }
    if (!m_isOpen)
    {
        co_await m_opened.Receive();
    }
}

Task<bool>
MessagePort::OpenedWithin(ns3::Time duration)
{
    try
    {
        if (!m_isOpen)
        {
            co_await m_opened.ReceiveWithin(duration);
        }
    }
    catch (const ConnectionLost&)
    {
        // It is not open.
    }
    co_return IsOpen();
}

void
MessagePort::Send(Message message, const CriticalPath& path)
{
    if (HasFailed())
    {
        throw ConnectionLost(m_failure);
    }
    if (message.payload.size > std::numeric_limits<std::uint32_t>::max())
    {
        throw std::length_error("a message carries at most 4 GiB");
    }
    message.sequence = m_sent++;
    Journeys().Depart(m_connection, m_sends, message.sequence, {ns3::Simulator::Now(), path});
    if (onMessage)
    {
        onMessage(RecordOf(message, m_sends));
    }
    Transmit(message);
    if (HasFailed())
    {
        throw ConnectionLost(m_failure);
    }
}

std::optional<ns3::Time>
MessagePort::WorstArrival(MessageKind, std::uint64_t) const
{
    return std::nullopt;
}

void
MessagePort::Open()
{
    m_isOpen = true;
    m_opened.Put({});
}

void
MessagePort::Deliver(Message message)
{
    const Direction direction = m_sends == Direction::Up ? Direction::Down : Direction::Up;
    const auto which = [&message] {
        return "message " + std::to_string(message.sequence) + " of session " + std::to_string(message.session);
    };
    if (message.sequence != m_received)
    {
        throw MalformedFrame(which() + " came where message " + std::to_string(m_received) + " was due");
    }
    m_received++;
    const auto journey = Journeys().Arrive(m_connection, direction, message.sequence);
    if (!journey)
    {
        throw MalformedFrame(which() + " was never sent");
    }
    const ns3::Time now = ns3::Simulator::Now();
    if (onMessage)
    {
        MessageRecord record = RecordOf(message, direction);
        record.received = true;
        record.sent = journey->sent;
        record.arrived = now;
        onMessage(record);
    }
    m_inbox.Put({std::move(message), journey->path, journey->sent, now});
}

void
MessagePort::DeliverPacket(FrameReader& reader, ns3::Ptr<const ns3::Packet> packet)
{
    if (HasFailed())
    {
        return;
    }
    try
    {
        std::uint32_t offset = 0;
        while (offset < packet->GetSize())
        {
            const auto count =
                static_cast<std::uint32_t>(std::min<std::size_t>(reader.Missing(), packet->GetSize() - offset));
            if (!reader.Skips())
            {
                packet->CreateFragment(offset, count)
                    ->CopyData(reinterpret_cast<std::uint8_t*>(reader.Cursor()), count);
            }
            offset += count;
            if (std::optional<Message> message = reader.Advance(count))
            {
                Deliver(std::move(*message));
            }
        }
    }
    catch (const MalformedFrame& malformed)
    {
        Fail(malformed.what());
    }
}

void
MessagePort::EndReceiving()
{
    m_inbox.Close(std::make_exception_ptr(ConnectionClosed("the peer closed the connection")));
}

void
MessagePort::Fail(const std::string& reason)
{
    if (!HasFailed())
    {
        m_failure = reason;
    }
    const auto lost = std::make_exception_ptr(ConnectionLost(m_failure));
    m_opened.Close(lost);
    m_inbox.Close(lost);
}

} // namespace splitllm
