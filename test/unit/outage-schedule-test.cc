// SPDX-License-Identifier: GPL-2.0-only
#include "net/outage-schedule.h"

#include "net/journey-log.h"
#include "net/service-link.h"
#include "support/catch.h"
#include "support/endpoint.h"
#include "support/frame-bytes.h"
#include "support/teardown.h"

#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace ns3;
using test::Endpoint;
using test::PatternBytes;
using test::Teardown;

namespace
{

Outage
FromTo(std::int64_t begin, std::int64_t end)
{
    return {.begin = MicroSeconds(begin), .end = MicroSeconds(end)};
}

/// Microseconds after which \p endpoint got its messages.
std::vector<double>
ArrivalTimes(const Endpoint& endpoint)
{
    std::vector<double> times;
    for (const Arrival& arrival : endpoint.inbox.arrivals)
    {
        times.push_back(static_cast<double>(arrival.arrived.GetNanoSeconds()) / 1000.0);
    }
    return times;
}

/// A service link of 10 ns a byte, 3 us a message and 70 us, with one connection.
struct Link
{
    explicit Link(std::vector<Outage> outages, Time startup = MicroSeconds(3))
        : service({.rate = DataRate("800Mbps"),
                   .delay = MicroSeconds(70),
                   .startup = startup,
                   .kinds = {},
                   .outages = OutageSchedule(std::move(outages))}),
          ports(service.Connect()),
          user(std::move(ports.user)),
          server(std::move(ports.server))
    {
    }

    Teardown teardown; // destroyed last
    ServiceLink service;
    PortPair ports; // which both endpoints take
    Endpoint user;
    Endpoint server;
};

} // namespace

TEST_CASE("Work that stands still in outages ends later by those that it meets", "[outages]")
{
    // 10 to 30 (in two that overlap), 50 to 60 (in two that touch), 90 for ever.
    const OutageSchedule schedule(
        {FromTo(55, 60), FromTo(10, 25), {.begin = MicroSeconds(90)}, FromTo(20, 30), FromTo(50, 55), FromTo(70, 70)});
    const auto end = [&schedule](std::int64_t start, std::int64_t work) -> std::optional<std::int64_t> {
        const std::optional<Time> time = schedule.End(MicroSeconds(start), MicroSeconds(work));
        return time ? std::optional(time->GetMicroSeconds()) : std::nullopt;
    };
    CHECK(end(0, 9) == 9);
    CHECK(end(0, 10) == 10);
    CHECK(end(0, 11) == 31);
    CHECK(end(15, 0) == 30);
    CHECK(end(10, 1) == 31);
    CHECK(end(30, 20) == 50);
    CHECK(end(5, 5 + 20 + 7) == 67);
    CHECK(end(0, 10 + 20 + 30) == 90);
    CHECK_FALSE(end(0, 10 + 20 + 31));
    CHECK_FALSE(end(95, 0));
    CHECK_FALSE(OutageSchedule().End(MicroSeconds(1), Time::Max()));
    CHECK(OutageSchedule().End(MicroSeconds(1), MicroSeconds(7)) == MicroSeconds(8));

    for (const std::int64_t out : {10, 12, 29, 50, 55, 59, 90, 1'000'000})
    {
        CHECK(schedule.Covers(MicroSeconds(out)));
    }
    for (const std::int64_t up : {0, 9, 30, 49, 60, 70, 89})
    {
        CHECK_FALSE(schedule.Covers(MicroSeconds(up)));
    }
    const auto up = [&schedule](std::int64_t from, std::int64_t to) {
        return schedule.Up(MicroSeconds(from), MicroSeconds(to)).GetMicroSeconds();
    };
    CHECK(up(0, 9) == 9);
    CHECK(up(0, 20) == 10);
    CHECK(up(15, 55) == 20);
    CHECK(up(12, 22) == 0);
    CHECK(up(0, 1000) == 60);
}

TEST_CASE("A service link stands still in an outage and goes on where it was", "[outages][service-link]")
{
    Link link({FromTo(20, 50), FromTo(80, 85)});
    link.user.Send(0, Payload::Of(PatternBytes(1000))); // 0 to 13 us, arrives in the second outage
    link.user.Send(0, Payload::Of(PatternBytes(1000))); // 7 us before the first outage, 6 after it
    link.user.Send(0, Payload::Of(PatternBytes(1000))); // 56 to 69
    link.server.Send(0, Payload::Of(PatternBytes(1700))); // leaves when the outage begins
    // Nobody foresees an outage; the time that it took is not counted as progress.
    CHECK(link.user.port->WorstArrival(MessageKind::Embedding, 100) == MicroSeconds(39 + 4 + 70));
    Simulator::Schedule(MicroSeconds(45), [&link] {
        CHECK(link.user.port->WorstArrival(MessageKind::Embedding, 100) == MicroSeconds(6 + 13 + 4 + 70));
        link.server.Send(0, Payload::Of(PatternBytes(100)));
    });
    Simulator::Run();
    CHECK(ArrivalTimes(link.server) == std::vector<double>{83, 126, 139});
    CHECK(ArrivalTimes(link.user) == std::vector<double>{90, 50 + 4 + 70});
}

TEST_CASE("A message that takes no time waits for the end of an outage, too", "[outages][service-link]")
{
    Link link({FromTo(20, 50)}, Time(0));
    for (const std::int64_t when : {19, 20, 21, 50})
    {
        Simulator::Schedule(MicroSeconds(when), [&link] { link.user.Send(0, {}, MessageKind::End); });
    }
    Simulator::Run();
    CHECK(ArrivalTimes(link.server) == std::vector<double>{89, 120, 120, 120});
}

TEST_CASE("In an outage for ever nothing leaves, and the run ends", "[outages][service-link]")
{
    Link link({{.begin = MicroSeconds(20)}});
    link.user.Send(0, Payload::Of(PatternBytes(1000)));
    link.user.Send(0, Payload::Of(PatternBytes(1000)));
    Simulator::Run();
    CHECK(ArrivalTimes(link.server) == std::vector<double>{83});
    CHECK(SimulationSingleton<JourneyLog>::Get()->UnderWay() == 1);
    link.user.port->Abandon();
    link.user.Destroy();
    Simulator::Run();
    CHECK(link.server.inbox.end == test::Inbox::End::Closed);
}
