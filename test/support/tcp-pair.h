// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_TCP_PAIR_H
#define SPLITLLM_TEST_TCP_PAIR_H

#include "net/tcp-message-port.h"
#include "support/endpoint.h"

#include "ns3/data-rate.h"
#include "ns3/double.h"
#include "ns3/error-model.h"
#include "ns3/inet-socket-address.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-generator.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/ipv4-interface-container.h"
#include "ns3/net-device-container.h"
#include "ns3/node-container.h"
#include "ns3/nstime.h"
#include "ns3/point-to-point-helper.h"
#include "ns3/pointer.h"
#include "ns3/queue-size.h"
#include "ns3/simulator.h"
#include "ns3/socket.h"
#include "ns3/traffic-control-helper.h"
#include "ns3/uinteger.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace splitllm::test
{

/**
 * A client and a server node on a wire, the server accepting any number of connections. One at a time: it takes the
 * whole simulation down at its end.
 */
class TcpPair
{
  public:
    static constexpr std::uint16_t kPort = 9000;

    explicit TcpPair(ns3::DataRate rate, ns3::Time delay, std::uint16_t mtu = 1500)
        : TcpPair(
              [rate, delay, mtu](const ns3::NodeContainer& nodes) {
                  ns3::PointToPointHelper wire;
                  wire.SetDeviceAttribute("DataRate", ns3::DataRateValue(rate));
                  wire.SetDeviceAttribute("Mtu", ns3::UintegerValue(mtu));
                  wire.SetChannelAttribute("Delay", ns3::TimeValue(delay));
                  wire.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", ns3::QueueSizeValue(ns3::QueueSize("64MB")));
                  return wire.Install(nodes);
              },
              mtu)
    {
    }

    /// \param join makes the devices of the two nodes
    explicit TcpPair(const std::function<ns3::NetDeviceContainer(const ns3::NodeContainer&)>& join,
                     std::uint16_t mtu = 1500)
        : m_segmentBytes(TcpMessagePort::SegmentBytes(mtu))
    {
        nodes.Create(2);
        ns3::InternetStackHelper internet;
        internet.SetIpv6StackInstall(false);
        internet.Install(nodes);
        devices = join(nodes);
        serverAddress = ns3::Ipv4AddressHelper("10.0.0.0", "255.255.255.252").Assign(devices).GetAddress(1);
        ns3::TrafficControlHelper().Uninstall(devices);
    }

    TcpPair(const TcpPair&) = delete;
    TcpPair& operator=(const TcpPair&) = delete;

    ~TcpPair()
    {
        Disconnect();
        ns3::Simulator::Destroy();
        ns3::Ipv4AddressGenerator::Reset();
    }

    /// Loses \p probability of the packets of each direction.
    void Lose(double probability)
    {
        for (std::uint32_t end = 0; end < 2; end++)
        {
            auto errors = ns3::CreateObject<ns3::RateErrorModel>();
            errors->SetUnit(ns3::RateErrorModel::ERROR_UNIT_PACKET);
            errors->SetRate(probability);
            errors->AssignStreams(50 + end);
            devices.Get(end)->SetAttribute("ReceiveErrorModel", ns3::PointerValue(errors));
        }
    }

    /// Lets the server listen. Every connection becomes an Endpoint in `servers`.
    void Listen()
    {
        m_listener = NewSocket(1);
        m_listener->Bind(ns3::InetSocketAddress(ns3::Ipv4Address::GetAny(), kPort));
        m_listener->Listen();
        m_listener->SetAcceptCallback(
            ns3::MakeNullCallback<bool, ns3::Ptr<ns3::Socket>, const ns3::Address&>(),
            ns3::Callback<void, ns3::Ptr<ns3::Socket>, const ns3::Address&>(
                [this](ns3::Ptr<ns3::Socket> socket, const ns3::Address&) {
                    servers.push_back(
                        std::make_unique<Endpoint>(TcpMessagePort::Accept(socket, Direction::Down)));
                    servers.back()->onArrival = onServerArrival;
                }));
    }

    /// A client that connects now.
    Endpoint& Connect()
    {
        return *clients.emplace_back(
            std::make_unique<Endpoint>(TcpMessagePort::Connect(NewSocket(0), ServerAddress(), Direction::Up)));
    }

    /// A socket of the client's or server's node, after `onNewSocket` has seen it.
    ns3::Ptr<ns3::Socket> NewSocket(std::uint32_t node) const
    {
        auto socket = TcpMessagePort::NewSocket(nodes.Get(node), m_segmentBytes);
        if (onNewSocket)
        {
            onNewSocket(socket);
        }
        return socket;
    }

    ns3::Address ServerAddress() const
    {
        return ns3::InetSocketAddress(serverAddress, kPort);
    }

    /// Destroys all ports where they are.
    void Disconnect()
    {
        clients.clear();
        servers.clear();
    }

    ns3::NodeContainer nodes;
    ns3::NetDeviceContainer devices;
    ns3::Ipv4Address serverAddress;
    std::vector<std::unique_ptr<Endpoint>> clients;
    std::vector<std::unique_ptr<Endpoint>> servers;
    std::function<void(Endpoint&)> onServerArrival;
    std::function<void(ns3::Ptr<ns3::Socket>)> onNewSocket;

  private:
    std::uint32_t m_segmentBytes;
    ns3::Ptr<ns3::Socket> m_listener;
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_TCP_PAIR_H
