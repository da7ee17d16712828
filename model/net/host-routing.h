// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_HOST_ROUTING_H
#define SPLITLLM_HOST_ROUTING_H

#include "ns3/ipv4-address.h"
#include "ns3/ipv4-header.h"
#include "ns3/ipv4-route.h"
#include "ns3/ipv4-routing-helper.h"
#include "ns3/ipv4-routing-protocol.h"
#include "ns3/ipv4.h"
#include "ns3/net-device.h"
#include "ns3/node.h"
#include "ns3/output-stream-wrapper.h"
#include "ns3/packet.h"
#include "ns3/ptr.h"
#include "ns3/socket.h"

#include <cstdint>
#include <unordered_map>

namespace splitllm
{

/**
 * Static routes of a node with point-to-point links: one for each host that has a link of its own to here, and one for
 * everything else. A packet's route is looked up in a table; ns-3's static routing goes through all routes and all
 * interfaces for every packet, which a node with a thousand links feels.
 *
 * What arrives for the address of its interface is for this node; anything else is forwarded. No multicast.
 */
class HostRouting final : public ns3::Ipv4RoutingProtocol
{
  public:
    static ns3::TypeId GetTypeId();

    /// The host \p host is at the other end of \p interface.
    void AddHost(ns3::Ipv4Address host, std::uint32_t interface);

    /// What is for no such host goes to \p gateway, at the other end of \p interface.
    void SetDefault(ns3::Ipv4Address gateway, std::uint32_t interface);

    ns3::Ptr<ns3::Ipv4Route> RouteOutput(ns3::Ptr<ns3::Packet> packet,
                                         const ns3::Ipv4Header& header,
                                         ns3::Ptr<ns3::NetDevice> device,
                                         ns3::Socket::SocketErrno& error) override;
    bool RouteInput(ns3::Ptr<const ns3::Packet> packet,
                    const ns3::Ipv4Header& header,
                    ns3::Ptr<const ns3::NetDevice> device,
                    const UnicastForwardCallback& forward,
                    const MulticastForwardCallback& forwardToMany,
                    const LocalDeliverCallback& deliver,
                    const ErrorCallback& fail) override;
    void NotifyInterfaceUp(std::uint32_t interface) override;
    void NotifyInterfaceDown(std::uint32_t interface) override;
    void NotifyAddAddress(std::uint32_t interface, ns3::Ipv4InterfaceAddress address) override;
    void NotifyRemoveAddress(std::uint32_t interface, ns3::Ipv4InterfaceAddress address) override;
    void SetIpv4(ns3::Ptr<ns3::Ipv4> ipv4) override;
    void PrintRoutingTable(ns3::Ptr<ns3::OutputStreamWrapper> stream, ns3::Time::Unit unit) const override;

  protected:
    void DoDispose() override;

  private:
    ns3::Ptr<ns3::Ipv4Route> Route(ns3::Ipv4Address gateway, std::uint32_t interface) const;

    /// The route to \p address; null if there is none.
    ns3::Ptr<ns3::Ipv4Route> Find(ns3::Ipv4Address address) const;

    ns3::Ptr<ns3::Ipv4> m_ipv4;
    std::unordered_map<std::uint32_t, ns3::Ptr<ns3::Ipv4Route>> m_hosts; //!< by address
    ns3::Ptr<ns3::Ipv4Route> m_default;
};

/// Lets an ns3::InternetStackHelper install HostRouting.
class HostRoutingHelper final : public ns3::Ipv4RoutingHelper
{
  public:
    HostRoutingHelper* Copy() const override;
    ns3::Ptr<ns3::Ipv4RoutingProtocol> Create(ns3::Ptr<ns3::Node> node) const override;
};

/// The HostRouting of \p node, which has an internet stack; one takes the place of what else it was given.
ns3::Ptr<HostRouting> HostRoutingOf(ns3::Ptr<ns3::Node> node);

} // namespace splitllm

#endif // SPLITLLM_HOST_ROUTING_H
