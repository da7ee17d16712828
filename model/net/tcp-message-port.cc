// SPDX-License-Identifier: GPL-2.0-only
#include "net/tcp-message-port.h"

#include "ns3/boolean.h"
#include "ns3/inet-socket-address.h"
#include "ns3/simulator.h"
#include "ns3/tcp-socket-factory.h"
#include "ns3/uinteger.h"

#include <algorithm>
#include <utility>

namespace splitllm
{

using namespace ns3;

namespace
{

constexpr std::uint32_t kBufferBytes = 16 << 20; // more than any bandwidth-delay product studied here

/// Reads what nobody wants. Unread, it would close the window, and the peer would wait or probe for ever.
void
Discard(Ptr<Socket> socket)
{
    while (socket->Recv())
    {
    }
}

/// The connection whose end at the client is \p client.
ConnectionId
IdOf(const Address& client)
{
    const InetSocketAddress address = InetSocketAddress::ConvertFrom(client);
    return {.client = address.GetIpv4().Get(), .number = address.GetPort()};
}

} // namespace

Ptr<Socket>
TcpMessagePort::NewSocket(Ptr<Node> node, std::uint32_t segmentBytes)
{
    Ptr<Socket> socket = Socket::CreateSocket(node, TcpSocketFactory::GetTypeId());
    socket->SetAttribute("TcpNoDelay", BooleanValue(true));
    socket->SetAttribute("DelAckCount", UintegerValue(1));
    socket->SetAttribute("SegmentSize", UintegerValue(segmentBytes));
    socket->SetAttribute("SndBufSize", UintegerValue(kBufferBytes));
    socket->SetAttribute("RcvBufSize", UintegerValue(kBufferBytes));
    return socket;
}

std::uint32_t
TcpMessagePort::SegmentBytes(std::uint16_t mtu)
{
    return mtu - 20U - 32U;
}

std::unique_ptr<TcpMessagePort>
TcpMessagePort::Connect(Ptr<Socket> socket, const Address& peer, Direction sends)
{
    const bool connects = socket->Bind() == 0 && socket->Connect(peer) == 0; // and knows its own address then
    Address client;
    socket->GetSockName(client);
    std::unique_ptr<TcpMessagePort> port(new TcpMessagePort(std::move(socket), sends, IdOf(client)));
    if (!connects)
    {
        port->Break("no route to the server");
    }
    return port;
}

std::unique_ptr<TcpMessagePort>
TcpMessagePort::Accept(Ptr<Socket> socket, Direction sends)
{
    Address client;
    socket->GetPeerName(client);
    std::unique_ptr<TcpMessagePort> port(new TcpMessagePort(std::move(socket), sends, IdOf(client)));
    port->m_connected = true;
    port->Open();
    return port;
}

TcpMessagePort::TcpMessagePort(Ptr<Socket> socket, Direction sends, const ConnectionId& connection)
    : MessagePort(sends, connection),
      m_socket(std::move(socket)),
      m_reader(kMaxPayload)
{
    m_socket->SetConnectCallback(Callback<void, Ptr<Socket>>([this](Ptr<Socket>) {
                                     m_connected = true;
                                     Flush();
                                     Open();
                                 }),
                                 Callback<void, Ptr<Socket>>(
                                     [this](Ptr<Socket>) { Break("the server refused the connection"); }));
    m_socket->SetCloseCallbacks(Callback<void, Ptr<Socket>>([this](Ptr<Socket>) {
                                    HandleRead();
                                    if (m_reader.IsIdle())
                                    {
                                        EndReceiving();
                                    }
                                    else
                                    {
                                        Break("the connection closed in the middle of a message");
                                    }
                                }),
                                Callback<void, Ptr<Socket>>(
                                    [this](Ptr<Socket>) { Break("the peer does not answer"); }));
    m_socket->SetRecvCallback(Callback<void, Ptr<Socket>>([this](Ptr<Socket>) { HandleRead(); }));
    m_socket->SetSendCallback(
        Callback<void, Ptr<Socket>, std::uint32_t>([this](Ptr<Socket>, std::uint32_t) { Flush(); }));
}

TcpMessagePort::~TcpMessagePort()
{
    const Callback<void, Ptr<Socket>> close([](Ptr<Socket> socket) { socket->Close(); });
    m_socket->SetConnectCallback(m_connected ? MakeNullCallback<void, Ptr<Socket>>() : close,
                                 MakeNullCallback<void, Ptr<Socket>>());
    m_socket->SetCloseCallbacks(MakeNullCallback<void, Ptr<Socket>>(), MakeNullCallback<void, Ptr<Socket>>());
    m_socket->SetRecvCallback(Callback<void, Ptr<Socket>>(Discard));
    m_socket->SetSendCallback(MakeNullCallback<void, Ptr<Socket>, std::uint32_t>());
}

void
TcpMessagePort::Close()
{
    m_closing = true;
    Flush();
}

void
TcpMessagePort::Abandon()
{
    m_unsent.clear();
    Close();
}

void
TcpMessagePort::Transmit(const Message& message)
{
    m_unsent.push_back(ToPacket(message));
    Flush();
}

void
TcpMessagePort::Flush()
{
    while (m_connected && !m_unsent.empty())
    {
        Ptr<Packet>& packet = m_unsent.front();
        const std::uint32_t count = std::min(m_socket->GetTxAvailable(), packet->GetSize());
        if (count == 0)
        {
            return;
        }
        const bool whole = count == packet->GetSize();
        if (m_socket->Send(whole ? packet : packet->CreateFragment(0, count)) < 0)
        {
            Break("the peer reset the connection"); // which ns-3 reports as an orderly close
            return;
        }
        if (whole)
        {
            m_unsent.pop_front();
        }
        else
        {
            packet = packet->CreateFragment(count, packet->GetSize() - count);
        }
    }
    // A socket that is closed while it connects sends a reset, and ns-3's listening sockets crash 6 s after they get one.
    if (m_connected && m_closing && m_unsent.empty())
    {
        m_closing = false;
        m_socket->Close();
    }
}

void
TcpMessagePort::HandleRead()
{
    if (HasFailed())
    {
        Discard(m_socket);
        return;
    }
    try
    {
        // What is read belongs to one header or one payload, so every byte is copied once to where it stays.
        while (Ptr<Packet> packet = m_socket->Recv(m_reader.Missing(), 0))
        {
            const std::uint32_t size = packet->GetSize();
            if (size == 0)
            {
                return;
            }
            if (!m_reader.Skips())
            {
                packet->CopyData(reinterpret_cast<std::uint8_t*>(m_reader.Cursor()), size);
            }
            if (std::optional<Message> message = m_reader.Advance(size))
            {
                Deliver(std::move(*message));
            }
        }
    }
    catch (const MalformedFrame& malformed)
    {
        Break(malformed.what());
    }
}

void
TcpMessagePort::Break(const std::string& reason)
{
    if (HasFailed())
    {
        return; // closing a socket that cannot close in order reports another error
    }
    m_unsent.clear();
    Fail(reason);
    m_socket->Close();
}

} // namespace splitllm
