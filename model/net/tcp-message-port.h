// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TCP_MESSAGE_PORT_H
#define SPLITLLM_TCP_MESSAGE_PORT_H

#include "net/message-port.h"

#include "ns3/address.h"
#include "ns3/node.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"
#include "ns3/socket.h"

#include <cstddef>
#include <deque>
#include <memory>

namespace splitllm
{

/**
 * Messages over an ns-3 TCP socket.
 *
 * Nagle's algorithm is off and every segment is acknowledged at once: with both Nagle and delayed acknowledgements the
 * last, partly filled segment of a request would wait for a timer of 200 ms. ns-3 delays acknowledgements by default.
 */
class TcpMessagePort final : public MessagePort
{
  public:
    /// Longest payload that a port accepts.
    static constexpr std::size_t kMaxPayload = std::size_t{1} << 30;

    /**
     * A socket of \p node with the settings that message traffic needs, bound to nothing yet.
     * \param segmentBytes TCP payload of a full segment
     */
    static ns3::Ptr<ns3::Socket> NewSocket(ns3::Ptr<ns3::Node> node, std::uint32_t segmentBytes);

    /// TCP payload of a segment on a link of \p mtu bytes: 20 bytes of IPv4 and 32 of TCP with timestamps are taken off.
    static std::uint32_t SegmentBytes(std::uint16_t mtu);

    /// Starts to connect \p socket to \p peer.
    static std::unique_ptr<TcpMessagePort> Connect(ns3::Ptr<ns3::Socket> socket,
                                                   const ns3::Address& peer,
                                                   Direction sends);

    /// Takes over a socket that was accepted.
    static std::unique_ptr<TcpMessagePort> Accept(ns3::Ptr<ns3::Socket> socket, Direction sends);

    ~TcpMessagePort() override;

    void Close() override;
    void Abandon() override;

  protected:
    void Transmit(const Message& message) override;

  private:
    TcpMessagePort(ns3::Ptr<ns3::Socket> socket, Direction sends, const ConnectionId& connection);
    void HandleRead();
    void Flush();
    void Break(const std::string& reason);

    ns3::Ptr<ns3::Socket> m_socket;
    FrameReader m_reader;
    std::deque<ns3::Ptr<ns3::Packet>> m_unsent; //!< waiting for room in the socket's buffer
    bool m_connected = false;
    bool m_closing = false;
};

} // namespace splitllm

#endif // SPLITLLM_TCP_MESSAGE_PORT_H
