// SPDX-License-Identifier: GPL-2.0-only

// What holds on every link that carries messages whole, with several connections.

#include "net/message-link.h"

#include "net/fading-link.h"
#include "net/journey-log.h"
#include "net/service-link.h"
#include "support/catch.h"
#include "support/endpoint.h"
#include "support/frame-bytes.h"
#include "support/teardown.h"

#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <set>
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

/// Both ends of a connection, receiving.
struct Connection
{
    explicit Connection(MessageLink& link)
        : Connection(link.Connect())
    {
    }

    explicit Connection(PortPair ports)
        : user(std::move(ports.user)),
          server(std::move(ports.server))
    {
    }

    Endpoint user;
    Endpoint server;
};

/// 800 Mbps is 10 ns a byte.
ServiceLinkConfig
TenNanosecondsAByte()
{
    return {.rate = DataRate("800Mbps"), .delay = MicroSeconds(70), .startup = MicroSeconds(3), .kinds = {}};
}

/// 20 Mbps, 2.5 bytes a microsecond, of which an attempt fails with probability 1 - e^-0.3 = 0.2592.
FadingLinkConfig
TwentyMegabits()
{
    return {.channel = {.bandwidth = 10e6, .snr = 10.0},
            .coherence = Time(0),
            .arq = {.rate = DataRate("20Mbps"), .attempts = 5, .feedback = MicroSeconds(7)},
            .delay = MicroSeconds(40),
            .onLoss = OnLoss::Resend,
            .epsilon = 1e-3};
}

/// Over which nothing with a payload gets.
FadingLinkConfig
Deaf()
{
    FadingLinkConfig config = TwentyMegabits();
    config.channel.snr = 1e-300;
    return config;
}

std::size_t
UnderWay()
{
    return SimulationSingleton<JourneyLog>::Get()->UnderWay();
}

std::vector<std::int64_t>
ArrivalTimes(const Endpoint& endpoint)
{
    std::vector<std::int64_t> times;
    for (const Arrival& arrival : endpoint.inbox.arrivals)
    {
        times.push_back(arrival.arrived.GetNanoSeconds());
    }
    return times;
}

std::int64_t
Worst(const Endpoint& endpoint, std::uint64_t bytes)
{
    return endpoint.port->WorstArrival(MessageKind::Embedding, bytes).value().GetNanoSeconds();
}

using Times = std::vector<std::int64_t>;

} // namespace

TEST_CASE("Connections of a service link wait for each other in each direction, first in, first out", "[message-link]")
{
    const Teardown teardown;
    ServiceLink link(TenNanosecondsAByte());
    Connection first(link);
    Connection second(link);
    // In the same session, with the same sequence numbers.
    first.user.Send(0, Payload::Of(PatternBytes(1000, 1)));
    second.user.Send(0, Payload::Of(PatternBytes(500, 2)));
    first.user.Send(0, Payload::Of(PatternBytes(1, 3)));
    second.server.Send(0, Payload::Of(PatternBytes(2000, 4)));
    for (const Connection* connection : {&first, &second})
    {
        CHECK(Worst(connection->user, 100) == 13'000 + 8'000 + 3'010 + 4'000 + 70'000);
        CHECK(Worst(connection->server, 100) == 23'000 + 4'000 + 70'000);
    }
    Simulator::Schedule(MicroSeconds(15), [&] {
        CHECK(Worst(second.user, 100) == 6'000 + 3'010 + 4'000 + 70'000);
        second.user.Send(0, Payload::Of(PatternBytes(100, 5)));
    });
    Simulator::Run();
    CHECK(ArrivalTimes(first.server) == Times{83'000, 94'010});
    CHECK(ArrivalTimes(second.server) == Times{91'000, 98'010});
    CHECK(ArrivalTimes(second.user) == Times{93'000});
    CHECK(first.user.inbox.arrivals.empty());
    CHECK((first.server.inbox.arrivals[1].message.payload.bytes == PatternBytes(1, 3)));
    CHECK((second.server.inbox.arrivals[0].message.payload.bytes == PatternBytes(500, 2)));
    CHECK(second.server.inbox.arrivals[1].sent == MicroSeconds(15)); // and no other message's
    CHECK(link.BytesSent(Direction::Up) == 1601 + 4 * kHeaderBytes);
    CHECK(link.BytesSent(Direction::Down) == 2000 + kHeaderBytes);
    CHECK(UnderWay() == 0);
}

TEST_CASE("At the server's end a link tells of what is handed to it and of what arrives there, byte for byte",
          "[message-link]")
{
    const Teardown teardown;
    ServiceLink link(TenNanosecondsAByte());
    struct Seen
    {
        std::int64_t time;
        Direction direction;
        std::uint32_t connection;
        std::uint32_t bytes;
        std::uint8_t last;

        bool operator==(const Seen&) const = default;
    };
    std::vector<Seen> seen;
    link.atServer = [&seen](Direction direction, const ConnectionId& connection, Ptr<const Packet> packet) {
        std::vector<std::uint8_t> bytes(packet->GetSize());
        packet->CopyData(bytes.data(), packet->GetSize());
        const std::int64_t now = Simulator::Now().GetNanoSeconds();
        seen.push_back({now, direction, connection.number, packet->GetSize(), bytes.back()});
    };
    Connection first(link);
    Connection second(link);
    const auto last = [](const std::vector<std::byte>& bytes) { return std::to_integer<std::uint8_t>(bytes.back()); };
    first.user.Send(0, Payload::Of(PatternBytes(1000, 1)));
    second.user.Send(0, Payload::Of(PatternBytes(500, 2)));
    Simulator::Schedule(MicroSeconds(90), [&] {
        second.server.Send(0, Payload::Of(PatternBytes(2000, 3)));
        first.server.Send(0, Payload::Of(PatternBytes(7, 4)));
        first.user.Send(0, Payload::Of(PatternBytes(9, 5)));
        first.user.Destroy(); // so the last one arrives nowhere
    });
    Simulator::Run();
    CHECK(seen == std::vector<Seen>{{83'000, Direction::Up, 0, 1036, last(PatternBytes(1000, 1))},
                                    {90'000, Direction::Down, 1, 2036, last(PatternBytes(2000, 3))},
                                    {90'000, Direction::Down, 0, 43, last(PatternBytes(7, 4))},
                                    {91'000, Direction::Up, 1, 536, last(PatternBytes(500, 2))}});
}

TEST_CASE("A capture of each of two links in a row is at its end that is nearer to the server", "[message-link]")
{
    const Teardown teardown;
    ServiceLink access(TenNanosecondsAByte());
    ServiceLink backhaul(TenNanosecondsAByte());
    using Seen = std::vector<std::pair<std::int64_t, Direction>>;
    Seen atGateway;
    Seen atServer;
    for (auto [link, seen] : {std::pair(&access, &atGateway), std::pair(&backhaul, &atServer)})
    {
        link->atServer = [its = seen](Direction direction, const ConnectionId&, Ptr<const Packet>) {
            its->emplace_back(Simulator::Now().GetNanoSeconds(), direction);
        };
    }
    Connection connection(access.ConnectThrough(backhaul));
    connection.user.Send(0, Payload::Of(PatternBytes(1000, 1)));
    Simulator::Schedule(MicroSeconds(200), [&] { connection.server.Send(0, Payload::Of(PatternBytes(500, 2))); });
    Simulator::Run();
    CHECK(atGateway == Seen{{83'000, Direction::Up}, {200'000 + 78'000, Direction::Down}});
    CHECK(atServer == Seen{{2 * 83'000, Direction::Up}, {200'000, Direction::Down}});
    CHECK(ArrivalTimes(connection.user) == Times{200'000 + 2 * 78'000});
}

TEST_CASE("Two connections of a service link that send alike get half the rate each", "[message-link]")
{
    const Teardown teardown;
    ServiceLink link(TenNanosecondsAByte());
    Connection first(link);
    Connection second(link);
    constexpr std::int64_t kMessages = 37;
    Times expectedFirst;
    Times expectedSecond;
    for (std::int64_t i = 0; i < kMessages; i++)
    {
        first.user.Send(0, Payload::Phantom(1000));
        second.user.Send(0, Payload::Phantom(1000));
        expectedFirst.push_back((2 * i + 1) * 13'000 + 70'000);
        expectedSecond.push_back((2 * i + 2) * 13'000 + 70'000);
    }
    Simulator::Run();
    CHECK(ArrivalTimes(first.server) == expectedFirst);
    CHECK(ArrivalTimes(second.server) == expectedSecond);
}

TEST_CASE("Connections of a fading link share one sender a direction, whose attempts are those of one connection",
          "[message-link][fading]")
{
    struct Result
    {
        std::vector<AttemptRecord> attempts;
        Times arrivals;
    };
    const auto run = [](bool shared) {
        const Teardown teardown;
        FadingLink link(TwentyMegabits());
        link.AssignStreams(1000);
        Result result;
        link.onAttempt = [&result](Direction, const AttemptRecord& record) { result.attempts.push_back(record); };
        Connection first(link);
        Connection second(link);
        for (std::size_t i = 0; i < 41; i++)
        {
            (shared && i % 3 != 0 ? second : first).user.Send(0, Payload::Phantom(i % 7 * 100 + 1));
        }
        CHECK(Worst(first.user, 500) == Worst(second.user, 500));
        Simulator::Run();
        CHECK(UnderWay() == 0);
        CHECK(second.server.inbox.arrivals.size() == (shared ? 27 : 0));
        std::size_t next[2] = {0, 0};
        for (std::size_t i = 0; i < 41; i++)
        {
            const std::size_t which = shared && i % 3 != 0 ? 1 : 0;
            const Endpoint& server = which == 1 ? second.server : first.server;
            result.arrivals.push_back(server.inbox.arrivals.at(next[which]++).arrived.GetNanoSeconds());
        }
        return result;
    };
    const Result shared = run(true);
    const Result alone = run(false);
    CHECK(shared.arrivals == alone.arrivals);
    REQUIRE(shared.attempts.size() == alone.attempts.size());
    CHECK(shared.attempts.size() > 41);
    for (std::size_t i = 0; i < shared.attempts.size(); i++)
    {
        CHECK(shared.attempts[i].start == alone.attempts[i].start);
        CHECK(shared.attempts[i].snr == alone.attempts[i].snr);
        CHECK(shared.attempts[i].number == alone.attempts[i].number);
        if (i > 0) // one attempt at a time, and the feedback after it
        {
            CHECK(shared.attempts[i].start == shared.attempts[i - 1].end + MicroSeconds(7));
        }
    }
}

TEST_CASE("What an abandoned connection had queued is dropped, and what was under way ends first", "[message-link]")
{
    const auto leave = [](Connection& connection) {
        connection.user.port->Abandon();
        connection.user.Destroy();
    };
    {
        const Teardown teardown;
        ServiceLink link(TenNanosecondsAByte());
        Connection first(link);
        Connection second(link);
        for (int i = 0; i < 3; i++)
        {
            first.user.Send(0, Payload::Of(PatternBytes(1000)));
        }
        second.user.Send(0, Payload::Of(PatternBytes(500)));
        Simulator::Schedule(MicroSeconds(5), [&] {
            leave(first);
            CHECK(Worst(second.user, 100) == 8'000 + 8'000 + 4'000 + 70'000);
        });
        Simulator::Schedule(MicroSeconds(74), [&] { CHECK_FALSE(first.server.port->IsLost()); });
        Simulator::Schedule(MicroSeconds(76), [&] { CHECK(first.server.port->IsLost()); });
        Simulator::Run();
        CHECK(first.server.inbox.arrivals.empty());
        CHECK(first.server.inbox.end == Inbox::End::Closed);
        CHECK(ArrivalTimes(second.server) == Times{13'000 + 8'000 + 70'000});
        CHECK(second.server.inbox.end == Inbox::End::None);
        CHECK(link.BytesSent(Direction::Up) == 1500 + 2 * kHeaderBytes);
        CHECK(UnderWay() == 3); // those that were lost
    }
    for (const std::int64_t when : {100, 503}) // in an attempt, and in the feedback after it
    {
        CAPTURE(when);
        const Teardown teardown;
        FadingLink link(Deaf());
        std::size_t attempts = 0;
        link.onAttempt = [&attempts](Direction, const AttemptRecord&) { attempts++; };
        Connection first(link);
        Connection second(link);
        first.user.Send(0, Payload::Of(PatternBytes(1250))); // 500 us an attempt
        first.user.Send(0, Payload::Of(PatternBytes(1250)));
        second.user.Send(0, Payload());
        Simulator::Schedule(MicroSeconds(when), [&] { leave(first); });
        Simulator::Run();
        CHECK(attempts == 1);
        CHECK(ArrivalTimes(second.server) == Times{507'000 + 40'000});
        CHECK(first.server.inbox.end == Inbox::End::Closed);
        CHECK(UnderWay() == 2);
    }
}

TEST_CASE("A message lost on a fading link breaks its own connection alone", "[message-link][fading]")
{
    const Teardown teardown;
    FadingLinkConfig config = Deaf();
    config.onLoss = OnLoss::Fail;
    config.arq.attempts = 2;
    FadingLink link(config);
    Connection first(link);
    Connection second(link);
    first.user.Send(0, Payload::Of(PatternBytes(100))); // 40 us an attempt
    first.user.port->Close();
    first.server.Send(0, Payload::Of(PatternBytes(1000)));
    second.user.Send(0, Payload());
    Simulator::Schedule(MilliSeconds(1), [&] { second.server.Send(0, Payload()); });
    Simulator::Run();
    for (const Endpoint* end : {&first.user, &first.server})
    {
        CHECK(end->inbox.end == Inbox::End::Lost);
        CHECK(end->inbox.reason == "message 0 lost after 2 attempts");
        CHECK(end->port->IsLost());
        CHECK_FALSE(end->port->IsOpen());
    }
    CHECK(ArrivalTimes(second.server) == Times{2 * 47'000 + 40'000});
    CHECK(ArrivalTimes(second.user) == Times{1'040'000});
    CHECK(second.user.port->IsOpen());
    CHECK_FALSE(second.user.port->IsLost());
    CHECK(UnderWay() == 2);
}

TEST_CASE("After a connection was abandoned, another one of the same session works", "[message-link]")
{
    const Teardown teardown;
    ServiceLink link(TenNanosecondsAByte());
    Connection first(link);
    std::unique_ptr<Connection> second;
    first.user.Send(5, Payload::Of(PatternBytes(10)));
    first.user.Send(5, Payload::Of(PatternBytes(50'000)));
    Simulator::Schedule(MicroSeconds(90), [&] {
        first.user.port->Abandon();
        first.user.Destroy();
        second = std::make_unique<Connection>(link);
        second->user.Send(5, Payload::Of(PatternBytes(20)));
        second->server.Send(5, Payload::Of(PatternBytes(30)));
        first.server.Send(5, Payload::Of(PatternBytes(40))); // to nobody
    });
    Simulator::Run();
    CHECK(ArrivalTimes(first.server) == Times{73'100});
    CHECK(first.server.inbox.end == Inbox::End::Closed);
    // Begun at 3.1 us, the long message ends at 506.1 us.
    CHECK(ArrivalTimes(second->server) == Times{506'100 + 3'200 + 70'000});
    CHECK(second->server.inbox.arrivals[0].sent == MicroSeconds(90));
    CHECK(second->server.inbox.arrivals[0].message.sequence == 0);
    CHECK(ArrivalTimes(second->user) == Times{90'000 + 3'300 + 70'000});
    CHECK(UnderWay() == 2); // the long one and the one to nobody
}

TEST_CASE("Ports of several connections can be destroyed in any order, with messages under way", "[message-link]")
{
    const std::size_t frames = FramePool::Live();
    for (std::size_t first = 0; first < 4; first++)
    {
        CAPTURE(first);
        const Teardown teardown;
        ServiceLink service(TenNanosecondsAByte());
        FadingLink fading(TwentyMegabits());
        fading.AssignStreams(7);
        for (MessageLink* link : {static_cast<MessageLink*>(&service), static_cast<MessageLink*>(&fading)})
        {
            Connection one(*link);
            Connection other(*link);
            const std::array<Endpoint*, 4> ends{&one.user, &one.server, &other.user, &other.server};
            for (int i = 0; i < 10; i++)
            {
                for (Endpoint* end : ends)
                {
                    end->Send(0, Payload::Of(PatternBytes(100)));
                }
            }
            const Time start = Simulator::Now();
            for (std::size_t i = 0; i < 4; i++)
            {
                Simulator::Schedule(MicroSeconds(75 + 10 * i), [&, i] { ends[(first + i) % 4]->Destroy(); });
            }
            Simulator::Run();
            CHECK(Simulator::Now() < start + MilliSeconds(1));
        }
    }
    CHECK(FramePool::Live() == frames);
}

TEST_CASE("A connection has one name at both ends, and no other connection has it", "[message-link]")
{
    const Teardown teardown;
    ServiceLink service(TenNanosecondsAByte());
    FadingLink fading(TwentyMegabits());
    std::set<ConnectionId> seen;
    for (MessageLink* link : {static_cast<MessageLink*>(&service), static_cast<MessageLink*>(&fading)})
    {
        for (int i = 0; i < 3; i++)
        {
            const PortPair ports = link->Connect(); // and gone again
            CHECK(ports.user->Connection() == ports.server->Connection());
            CHECK(ports.user->Connection().client >= std::uint64_t{1} << 32); // no IPv4 address
            CHECK(seen.insert(ports.user->Connection()).second);
        }
    }
}

TEST_CASE("A port tells whether it is open, what has arrived, and waits no longer than it should", "[message-link]")
{
    const Teardown teardown;
    ServiceLink link(TenNanosecondsAByte());
    const PortPair ports = link.Connect();
    std::vector<std::string> log;
    const auto note = [&log](const std::string& what) {
        log.push_back(what + " at " + std::to_string(Simulator::Now().GetNanoSeconds()));
    };
    const auto body = [](MessagePort& port, const auto& say) -> Task<void> {
        co_await port.Opened();
        co_await port.Opened();
        say("open");
        try
        {
            for (int i = 0; i < 4; i++)
            {
                const std::optional<Arrival> arrival = co_await port.ReceiveWithin(MicroSeconds(50));
                say(arrival ? "message " + std::to_string(arrival->message.sequence) : "nothing");
            }
        }
        catch (const ConnectionLost& lost)
        {
            say(lost.what());
        }
    };
    CHECK(ports.server->IsOpen());
    CHECK_FALSE(ports.server->IsLost());
    Process process(body(*ports.server, note), [](std::exception_ptr) {});
    process.Start();
    ports.user->Send({.payload = Payload::Of(PatternBytes(100))}, CriticalPath()); // 74 us
    ports.user->Send({.payload = Payload::Of(PatternBytes(100))}, CriticalPath()); // 78 us
    Simulator::Schedule(MicroSeconds(100), [&] { ports.server->Refuse("the server is down"); });
    ports.server->Send({}, CriticalPath());
    ports.server->Send({}, CriticalPath());
    CHECK_FALSE(ports.user->TakeArrived());
    Simulator::Run();
    CHECK(log == std::vector<std::string>{"open at 0", "nothing at 50000", "message 0 at 74000", "message 1 at 78000",
                                          "the server is down at 100000"});
    CHECK_FALSE(ports.server->IsOpen());
    CHECK(ports.server->IsLost());
    CHECK_THROWS_WITH(ports.server->Send({}, CriticalPath()), "the server is down");
    CHECK_FALSE(ports.server->TakeArrived());
    CHECK(ports.user->TakeArrived().value().message.sequence == 0);
    CHECK(ports.user->TakeArrived().value().message.sequence == 1);
    CHECK_FALSE(ports.user->TakeArrived());

    std::string opened;
    const auto open = [](MessagePort& port, std::string& what) -> Task<void> {
        try
        {
            co_await port.Opened();
        }
        catch (const ConnectionLost& lost)
        {
            what = lost.what();
        }
    };
    Process again(open(*ports.server, opened), [](std::exception_ptr) {});
    again.Start();
    CHECK(opened == "the server is down");
}
