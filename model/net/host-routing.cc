// SPDX-License-Identifier: GPL-2.0-only
#include "net/host-routing.h"

#include <map>

namespace splitllm
{

using namespace ns3;

NS_OBJECT_ENSURE_REGISTERED(HostRouting);

TypeId
HostRouting::GetTypeId()
{
    static TypeId tid = TypeId("splitllm::HostRouting")
                            .SetParent<Ipv4RoutingProtocol>()
                            .SetGroupName("SplitLlm")
                            .AddConstructor<HostRouting>();
    return tid;
}

void
HostRouting::AddHost(Ipv4Address host, std::uint32_t interface)
{
    m_hosts[host.Get()] = Route(Ipv4Address::GetZero(), interface);
}

void
HostRouting::SetDefault(Ipv4Address gateway, std::uint32_t interface)
{
    m_default = Route(gateway, interface);
}

Ptr<Ipv4Route>
HostRouting::Route(Ipv4Address gateway, std::uint32_t interface) const
{
    auto route = Create<Ipv4Route>();
    route->SetGateway(gateway);
    route->SetSource(m_ipv4->GetAddress(interface, 0).GetLocal());
    route->SetOutputDevice(m_ipv4->GetNetDevice(interface));
    return route;
}

Ptr<Ipv4Route>
HostRouting::Find(Ipv4Address address) const
{
    const auto host = m_hosts.find(address.Get());
    return host != m_hosts.end() ? host->second : m_default;
}

Ptr<Ipv4Route>
HostRouting::RouteOutput(Ptr<Packet>, const Ipv4Header& header, Ptr<NetDevice> device, Socket::SocketErrno& error)
{
    const Ptr<Ipv4Route> route = Find(header.GetDestination());
    const bool leads = route && (!device || device == route->GetOutputDevice());
    error = leads ? Socket::ERROR_NOTERROR : Socket::ERROR_NOROUTETOHOST;
    return leads ? route : nullptr;
}

bool
HostRouting::RouteInput(Ptr<const Packet> packet,
                        const Ipv4Header& header,
                        Ptr<const NetDevice> device,
                        const UnicastForwardCallback& forward,
                        const MulticastForwardCallback&,
                        const LocalDeliverCallback& deliver,
                        const ErrorCallback& fail)
{
    const auto interface = static_cast<std::uint32_t>(m_ipv4->GetInterfaceForDevice(device));
    if (m_ipv4->GetAddress(interface, 0).GetLocal() == header.GetDestination())
    {
        deliver(packet, header, interface);
        return true;
    }
    if (const Ptr<Ipv4Route> route = Find(header.GetDestination()))
    {
        forward(route, packet, header);
        return true;
    }
    fail(packet, header, Socket::ERROR_NOROUTETOHOST);
    return false;
}

void
HostRouting::NotifyInterfaceUp(std::uint32_t)
{
    // Routes are given, not found.
}

void
HostRouting::NotifyInterfaceDown(std::uint32_t)
{
}

void
HostRouting::NotifyAddAddress(std::uint32_t, Ipv4InterfaceAddress)
{
}

void
HostRouting::NotifyRemoveAddress(std::uint32_t, Ipv4InterfaceAddress)
{
}

void
HostRouting::SetIpv4(Ptr<Ipv4> ipv4)
{
    m_ipv4 = ipv4;
}

void
HostRouting::PrintRoutingTable(Ptr<OutputStreamWrapper> stream, Time::Unit) const
{
    std::ostream& out = *stream->GetStream();
    for (const auto& [host, route] : std::map(m_hosts.begin(), m_hosts.end()))
    {
        out << Ipv4Address(host) << " at interface " << m_ipv4->GetInterfaceForDevice(route->GetOutputDevice()) << '\n';
    }
    if (m_default)
    {
        out << "else " << m_default->GetGateway() << " at interface "
            << m_ipv4->GetInterfaceForDevice(m_default->GetOutputDevice()) << '\n';
    }
}

void
HostRouting::DoDispose()
{
    m_hosts.clear();
    m_default = nullptr;
    m_ipv4 = nullptr;
    Ipv4RoutingProtocol::DoDispose();
}

HostRoutingHelper*
HostRoutingHelper::Copy() const
{
    return new HostRoutingHelper(*this); // as ns-3 asks for; the caller owns it
}

Ptr<Ipv4RoutingProtocol>
HostRoutingHelper::Create(Ptr<Node>) const
{
    return CreateObject<HostRouting>();
}

Ptr<HostRouting>
HostRoutingOf(Ptr<Node> node)
{
    const Ptr<Ipv4> ipv4 = node->GetObject<Ipv4>();
    Ptr<HostRouting> routing = DynamicCast<HostRouting>(ipv4->GetRoutingProtocol());
    if (!routing)
    {
        routing = CreateObject<HostRouting>();
        ipv4->SetRoutingProtocol(routing);
    }
    return routing;
}

} // namespace splitllm
