// SPDX-License-Identifier: GPL-2.0-only
#include "net/service-link.h"

#include "net/journey-log.h"
#include "support/catch.h"
#include "support/endpoint.h"
#include "support/frame-bytes.h"
#include "support/teardown.h"

#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace ns3;
using test::Bytes;
using test::Endpoint;
using test::Inbox;
using test::PatternBytes;
using test::Teardown;

namespace
{

/// A service link with both its ends.
struct Link
{
    explicit Link(const ServiceLinkConfig& config)
        : service(config),
          ports(service.Connect()),
          user(std::move(ports.user)),
          server(std::move(ports.server))
    {
    }

    std::size_t UnderWay() const
    {
        return SimulationSingleton<JourneyLog>::Get()->UnderWay();
    }

    Teardown teardown; // destroyed last
    ServiceLink service;
    PortPair ports; // which both endpoints take
    Endpoint user;
    Endpoint server;
};

/// 800 Mbps is 10 ns a byte.
ServiceLinkConfig
TenNanosecondsAByte()
{
    return {.rate = DataRate("800Mbps"), .delay = MicroSeconds(70), .startup = MicroSeconds(3), .kinds = {}};
}

std::vector<std::int64_t>
ArrivalTimes(const Inbox& inbox)
{
    std::vector<std::int64_t> times;
    for (const Arrival& arrival : inbox.arrivals)
    {
        times.push_back(arrival.arrived.GetNanoSeconds());
    }
    return times;
}

} // namespace

TEST_CASE("A message takes startup, 8 n / rate and delay", "[service-link]")
{
    Link link(TenNanosecondsAByte());
    Simulator::Schedule(Seconds(1), [&] { link.user.Send(0, Payload::Of(PatternBytes(12'345))); });
    Simulator::Run();
    REQUIRE(link.server.inbox.arrivals.size() == 1);
    const Arrival& arrival = link.server.inbox.arrivals[0];
    CHECK(arrival.sent == Seconds(1));
    CHECK(arrival.arrived == Seconds(1) + NanoSeconds(3000 + 123'450 + 70'000));
    CHECK((arrival.message.payload.bytes == PatternBytes(12'345)));
    CHECK(link.UnderWay() == 0);
}

TEST_CASE("Service times are rounded up to a nanosecond, without overflow", "[service-link]")
{
    const auto of = [](const char* rate, std::size_t bytes) {
        const ServiceLink link({.rate = DataRate(rate), .delay = Time(), .startup = Time(), .kinds = {}});
        return link.ServiceTime(MessageKind::Embedding, bytes).GetNanoSeconds();
    };
    CHECK(of("1Gbps", 0) == 0);
    CHECK(of("1Gbps", 1) == 8);
    CHECK(of("3Gbps", 1) == 3);  // 2.67
    CHECK(of("3Gbps", 3) == 8);  // 8 exactly
    CHECK(of("7bps", 1) == 1'142'857'143);
    CHECK(of("999999999bps", 125'000'000) == 1'000'000'002); // 1e9 bits: 1.000000001e9 ns and a bit
    CHECK(of("1Gbps", 4'294'967'295) == 34'359'738'360);     // 8e9 times that is more than 64 bits hold
}

TEST_CASE("Messages of one direction follow each other, those of the other are not in their way", "[service-link]")
{
    Link link(TenNanosecondsAByte());
    // Handed in at once: each occupies the link after the one before.
    link.user.Send(0, Payload::Of(PatternBytes(1000)));
    link.user.Send(0, Payload::Of(PatternBytes(1)));
    link.user.Send(0, Payload::Of(PatternBytes(500)));
    link.server.Send(0, Payload::Of(PatternBytes(2000)));
    // At 25 us the link up is free again; this one does not wait.
    Simulator::Schedule(MicroSeconds(30), [&] { link.user.Send(0, Payload::Of(PatternBytes(10))); });
    Simulator::Run();
    CHECK(ArrivalTimes(link.server.inbox) ==
          std::vector<std::int64_t>{83'000, 86'010, 94'010, 30'000 + 3'000 + 100 + 70'000});
    CHECK(ArrivalTimes(link.user.inbox) == std::vector<std::int64_t>{93'000});
    for (std::size_t i = 0; i < 4; i++)
    {
        CHECK(link.server.inbox.arrivals[i].message.sequence == i);
    }
    CHECK(link.UnderWay() == 0);
}

TEST_CASE("A kind of message may have a startup or a size of its own", "[service-link]")
{
    ServiceLinkConfig config = TenNanosecondsAByte();
    config.kinds[MessageKind::Deltas] = {.startup = MicroSeconds(500), .payloadBytes = {}};
    config.kinds[MessageKind::LayerInput] = {.startup = {}, .payloadBytes = 7};
    config.kinds[MessageKind::End] = {.startup = Time(), .payloadBytes = 0};
    Link link(config);
    CHECK(link.service.ServiceTime(MessageKind::Embedding, 100) == NanoSeconds(4'000));
    CHECK(link.service.ServiceTime(MessageKind::Deltas, 100) == NanoSeconds(501'000));
    CHECK(link.service.ServiceTime(MessageKind::LayerInput, 100) == NanoSeconds(3'070));
    CHECK(link.service.ServiceTime(MessageKind::LayerInput, 0) == NanoSeconds(3'070));
    CHECK(link.service.ServiceTime(MessageKind::End, 0) == Time());

    link.user.Send(0, Payload::Of(PatternBytes(100)), MessageKind::LayerInput);
    link.user.Send(0, {}, MessageKind::End);
    Simulator::Run();
    CHECK(ArrivalTimes(link.server.inbox) == std::vector<std::int64_t>{73'070, 73'070});
    CHECK((link.server.inbox.arrivals.at(0).message.payload.bytes == PatternBytes(100))); // all of it arrives
}

TEST_CASE("Header bytes are counted and take no time", "[service-link]")
{
    Link link(TenNanosecondsAByte());
    std::vector<MessageRecord> records;
    link.user.port->onMessage = [&](const MessageRecord& record) { records.push_back(record); };
    link.user.Send(0, Payload::Of(PatternBytes(100)));
    link.user.Send(0, {}, MessageKind::End); // no payload
    link.server.Send(0, Payload::Phantom(1000));
    Simulator::Run();
    CHECK(link.service.BytesSent(Direction::Up) == 100 + 2 * kHeaderBytes);
    CHECK(link.service.BytesSent(Direction::Down) == 1000 + kHeaderBytes);
    CHECK(ArrivalTimes(link.server.inbox) == std::vector<std::int64_t>{74'000, 77'000});
    REQUIRE(records.size() == 3);
    CHECK(records[0].headerBytes == kHeaderBytes);
    CHECK(records[0].payloadBytes == 100);
    CHECK(records[1].payloadBytes == 0);
    CHECK(records[2].received);
    CHECK(records[2].direction == Direction::Down);
    CHECK(records[2].sent == Time());
    CHECK(records[2].arrived == NanoSeconds(83'000));
}

TEST_CASE("A phantom message takes the time of a real one", "[service-link]")
{
    const auto arrival = [](Payload payload) {
        Link link(TenNanosecondsAByte());
        link.user.Send(0, std::move(payload));
        Simulator::Run();
        CHECK(link.service.BytesSent(Direction::Up) == 5000 + kHeaderBytes);
        return ArrivalTimes(link.server.inbox);
    };
    CHECK(arrival(Payload::Phantom(5000)) == arrival(Payload::Of(PatternBytes(5000))));
}

TEST_CASE("The peer learns of the close after everything that was sent", "[service-link]")
{
    Link link(TenNanosecondsAByte());
    link.user.Send(0, Payload::Of(PatternBytes(1000)));
    link.user.Send(0, Payload::Of(PatternBytes(2000)));
    link.user.port->Close();
    Time closed;
    Simulator::Schedule(NanoSeconds(105'999), [&] { CHECK(link.server.inbox.end == Inbox::End::None); });
    Simulator::Schedule(NanoSeconds(106'001), [&] { CHECK(link.server.inbox.end == Inbox::End::Closed); });
    Simulator::Schedule(NanoSeconds(200'000), [&] { link.server.Send(0, Payload::Of(PatternBytes(3))); });
    Simulator::Run();
    CHECK(ArrivalTimes(link.server.inbox) == std::vector<std::int64_t>{83'000, 106'000});
    CHECK(link.server.inbox.reason == "the peer closed the connection");
    CHECK(link.user.inbox.arrivals.size() == 1); // the other direction stays open
    CHECK(link.user.inbox.end == Inbox::End::None);
}

TEST_CASE("An abandoned end loses what is under way and ends the peer's session", "[service-link]")
{
    Link link(TenNanosecondsAByte());
    link.user.Send(0, Payload::Of(PatternBytes(100)));       // arrives at 74 us
    link.user.Send(0, Payload::Of(PatternBytes(1'000'000))); // does not
    Simulator::Schedule(MicroSeconds(80), [&] {
        link.user.port->Abandon();
        link.user.Destroy();
        link.server.Send(0, Payload::Of(PatternBytes(5))); // to nobody
    });
    Simulator::Run();
    CHECK(ArrivalTimes(link.server.inbox) == std::vector<std::int64_t>{74'000});
    CHECK(link.server.inbox.end == Inbox::End::Closed);
    CHECK(link.UnderWay() == 2);
}

TEST_CASE("Ends can be destroyed before the link, with messages under way either way", "[service-link]")
{
    const std::size_t frames = FramePool::Live();
    {
        Link link(TenNanosecondsAByte());
        for (int i = 0; i < 10; i++)
        {
            link.user.Send(0, Payload::Of(PatternBytes(1000)));
            link.server.Send(0, Payload::Of(PatternBytes(1000)));
        }
        Simulator::Schedule(MicroSeconds(100), [&] { link.server.Destroy(); });
        Simulator::Run();
        CHECK(link.server.inbox.arrivals.size() == 2); // at 83 and 96 us
        CHECK(link.user.inbox.arrivals.size() == 2);
        CHECK(link.UnderWay() == 16);
    }
    CHECK(FramePool::Live() == frames);
}

TEST_CASE("A service link needs a rate, and its ends know their direction", "[service-link]")
{
    CHECK_THROWS_AS(ServiceLink({.rate = DataRate(0), .delay = Time(), .startup = Time(), .kinds = {}}),
                    std::invalid_argument);
    ServiceLink link(TenNanosecondsAByte());
    const PortPair ports = link.Connect();
    CHECK(ports.user->Sends() == Direction::Up);
    CHECK(ports.server->Sends() == Direction::Down);
    Simulator::Destroy();
}
