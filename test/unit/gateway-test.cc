// SPDX-License-Identifier: GPL-2.0-only

// Connections over two links in a row, and the routes of packets.

#include "net/host-routing.h"
#include "net/journey-log.h"
#include "net/service-link.h"
#include "support/catch.h"
#include "support/endpoint.h"
#include "support/frame-bytes.h"
#include "support/teardown.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-generator.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/node-container.h"
#include "ns3/point-to-point-helper.h"
#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace ns3;
using test::Endpoint;
using test::Inbox;
using test::PatternBytes;
using test::Teardown;

namespace
{

/// A user's access link of 10 ns a byte, and both ends of its connection through the gateway.
struct User
{
    explicit User(ServiceLink& backhaul)
        : access({.rate = DataRate("800Mbps"), .delay = NanoSeconds(5000), .startup = NanoSeconds(1000), .kinds = {}}),
          ports(access.ConnectThrough(backhaul)),
          user(std::move(ports.user)),
          server(std::move(ports.server))
    {
    }

    ServiceLink access;
    PortPair ports;
    Endpoint user;
    Endpoint server;
};

/// Users of one backhaul of 100 ns a byte.
struct Cell
{
    explicit Cell(std::size_t count)
        : backhaul({.rate = DataRate("80Mbps"), .delay = NanoSeconds(7000), .startup = NanoSeconds(2000), .kinds = {}})
    {
        for (std::size_t i = 0; i < count; i++)
        {
            users.push_back(std::make_unique<User>(backhaul));
        }
    }

    std::size_t UnderWay() const
    {
        return SimulationSingleton<JourneyLog>::Get()->UnderWay();
    }

    Teardown teardown; // destroyed last
    ServiceLink backhaul;
    std::vector<std::unique_ptr<User>> users;
};

std::vector<std::int64_t>
Times(const Inbox& inbox)
{
    std::vector<std::int64_t> times;
    for (const Arrival& arrival : inbox.arrivals)
    {
        CHECK(arrival.sent.IsZero());
        times.push_back(arrival.arrived.GetNanoSeconds());
    }
    return times;
}

using TimesNs = std::vector<std::int64_t>;

} // namespace

TEST_CASE("Messages that meet at a gateway cross the backhaul one by one", "[gateway]")
{
    Cell cell(3);
    const std::vector<std::size_t> sizes{100, 100, 37};
    for (std::size_t i = 0; i < 3; i++)
    {
        cell.users[i]->user.Send(0, Payload::Of(PatternBytes(sizes[i])));
    }
    Simulator::Run();
    // At the gateway after startup, 10 ns a byte and the delay: at 7000, 7000 and 6370. The shortest is first.
    // Each then takes 2000 and 100 ns a byte, and arrives 7000 later.
    CHECK(Times(cell.users[2]->server.inbox) == TimesNs{6370 + 5700 + 7000});
    CHECK(Times(cell.users[0]->server.inbox) == TimesNs{6370 + 5700 + 12000 + 7000});
    CHECK(Times(cell.users[1]->server.inbox) == TimesNs{6370 + 5700 + 2 * 12000 + 7000});
    const std::uint64_t sum = 100 + 100 + 37 + 3 * kHeaderBytes;
    CHECK(cell.backhaul.BytesSent(Direction::Up) == sum);
    CHECK(cell.backhaul.BytesSent(Direction::Down) == 0);
    CHECK(cell.users[2]->access.BytesSent(Direction::Up) == 37 + kHeaderBytes);
    CHECK(cell.UnderWay() == 0);
}

TEST_CASE("A gateway stores messages while the links before and behind it are busy", "[gateway]")
{
    Cell cell(2);
    // Two messages down to the first user, one to the second: the backhaul is the queue, then each user's own link.
    cell.users[0]->server.Send(0, Payload::Of(PatternBytes(1000)));
    cell.users[0]->server.Send(0, Payload::Of(PatternBytes(10)));
    cell.users[1]->server.Send(0, Payload::Of(PatternBytes(10)));
    cell.users[0]->user.Send(0, Payload::Of(PatternBytes(50))); // the other direction is not disturbed
    Simulator::Run();
    // Backhaul: busy to 102000, 105000, 108000; access: 1000 and 10 ns a byte.
    // The second message is at the gateway at 112000, while the first one, there at 109000, is sent until 120000.
    CHECK(Times(cell.users[0]->user.inbox) == TimesNs{109000 + 11000 + 5000, 120000 + 1100 + 5000});
    CHECK(Times(cell.users[1]->user.inbox) == TimesNs{115000 + 1100 + 5000});
    CHECK(Times(cell.users[0]->server.inbox) == TimesNs{1500 + 5000 + 7000 + 7000});
}

TEST_CASE("Who closes is heard behind what it sent, over both links", "[gateway]")
{
    Cell cell(2);
    cell.users[0]->user.Send(0, Payload::Of(PatternBytes(100)));
    cell.users[1]->user.Send(0, Payload::Of(PatternBytes(100)));
    cell.users[1]->user.port->Close();
    Simulator::Run();
    CHECK(cell.users[1]->server.inbox.arrivals.size() == 1);
    CHECK(cell.users[1]->server.inbox.end == Inbox::End::Closed);
    CHECK(cell.users[0]->server.inbox.end == Inbox::End::None);
    CHECK(Simulator::Now() == NanoSeconds(7000 + 2 * 12000 + 7000));
    // Without anything to send first, a close takes both delays.
    cell.users[0]->server.port->Close();
    Simulator::Run();
    CHECK(cell.users[0]->user.inbox.end == Inbox::End::Closed);
    CHECK(Simulator::Now() == NanoSeconds(7000 + 2 * 12000 + 7000 + 12000));
}

TEST_CASE("What a gateway has of a user who left takes its time, and arrives nowhere", "[gateway]")
{
    for (const bool destroys : {false, true})
    {
        CAPTURE(destroys);
        Cell cell(3);
        for (const std::unique_ptr<User>& user : cell.users)
        {
            user->user.Send(0, Payload::Of(PatternBytes(100)));
        }
        // All are at the gateway at 7000. The second user leaves a nanosecond before that, or while its message waits.
        Simulator::Schedule(NanoSeconds(destroys ? 6999 : 8000), [&cell, destroys] {
            destroys ? cell.users[1]->user.Destroy() : cell.users[1]->user.port->Abandon();
        });
        Simulator::Run();
        CHECK(Times(cell.users[0]->server.inbox) == TimesNs{26000});
        CHECK(cell.users[1]->server.inbox.arrivals.empty());
        CHECK((cell.users[1]->server.inbox.end == Inbox::End::Closed) == !destroys);
        CHECK(Times(cell.users[2]->server.inbox) == TimesNs{50000});
        CHECK(cell.backhaul.BytesSent(Direction::Up) == 3 * (100 + kHeaderBytes));
        CHECK(cell.UnderWay() == 1); // accounted for as lost
    }
}

TEST_CASE("Nobody foretells when a message arrives through a gateway", "[gateway]")
{
    Cell cell(1);
    CHECK_FALSE(cell.users[0]->user.port->WorstArrival(MessageKind::Embedding, 10).has_value());
    CHECK_FALSE(cell.users[0]->server.port->WorstArrival(MessageKind::Embedding, 10).has_value());
}

TEST_CASE("Packets for hosts with a link go there, others to the gateway, if there is one", "[gateway]")
{
    const Teardown teardown;
    NodeContainer nodes;
    nodes.Create(3);
    InternetStackHelper internet;
    internet.SetRoutingHelper(HostRoutingHelper());
    internet.Install(nodes);
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.252");
    std::vector<Ipv4Address> peers;
    std::vector<Ptr<NetDevice>> devices;
    const Ptr<HostRouting> routing = HostRoutingOf(nodes.Get(0));
    for (const std::uint32_t peer : {1U, 2U})
    {
        const NetDeviceContainer ends = PointToPointHelper().Install(nodes.Get(0), nodes.Get(peer));
        const Ipv4InterfaceContainer interfaces = addresses.Assign(ends);
        addresses.NewNetwork();
        peers.push_back(interfaces.GetAddress(1));
        devices.push_back(ends.Get(0));
        routing->AddHost(peers.back(), interfaces.Get(0).second);
    }
    const auto routeTo = [&routing](Ipv4Address host, Ptr<NetDevice> device, Socket::SocketErrno expected) {
        Ipv4Header header;
        header.SetDestination(host);
        Socket::SocketErrno error = Socket::ERROR_NOTERROR;
        const Ptr<Ipv4Route> route = routing->RouteOutput(nullptr, header, device, error);
        CHECK(error == expected);
        return route;
    };
    for (const std::size_t peer : {0U, 1U})
    {
        CHECK(routeTo(peers[peer], nullptr, Socket::ERROR_NOTERROR)->GetOutputDevice() == devices[peer]);
        CHECK_FALSE(routeTo(peers[peer], devices[1 - peer], Socket::ERROR_NOROUTETOHOST));
    }
    const Ipv4Address stranger("10.9.9.9");
    CHECK_FALSE(routeTo(stranger, nullptr, Socket::ERROR_NOROUTETOHOST));
    routing->SetDefault(peers[1], 2);
    const Ptr<Ipv4Route> route = routeTo(stranger, nullptr, Socket::ERROR_NOTERROR);
    CHECK(route->GetOutputDevice() == devices[1]);
    CHECK(route->GetGateway() == peers[1]);
    Ipv4AddressGenerator::Reset();
}
