// SPDX-License-Identifier: GPL-2.0-only
#include "net/tcp-message-port.h"

#include "net/journey-log.h"
#include "support/catch.h"
#include "support/frame-bytes.h"
#include "support/tcp-pair.h"

#include "ns3/boolean.h"
#include "ns3/packet.h"
#include "ns3/simulation-singleton.h"
#include "ns3/tcp-socket-factory.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace ns3;
using test::Bytes;
using test::Endpoint;
using test::FrameBytes;
using test::Inbox;
using test::PatternBytes;
using test::TcpPair;
using test::WithField;

namespace
{

std::size_t
UnderWay()
{
    return SimulationSingleton<JourneyLog>::Get()->UnderWay();
}

/// The time that \p tcpPayload bytes of one segment occupy the wire: 2 bytes of PPP, 20 of IPv4, 32 of TCP.
Time
Serialisation(DataRate rate, std::uint32_t tcpPayload)
{
    return rate.CalculateBytesTxTime(tcpPayload + 2 + 20 + 32);
}

/// Lets the client send \p size bytes and the server send as many back, \p rounds times; the time of the last round.
Time
PingPong(TcpPair& pair, std::uint32_t size, int rounds)
{
    pair.onServerArrival = [](Endpoint& server) { server.Send(0, server.inbox.arrivals.back().message.payload); };
    pair.Listen();
    Endpoint& client = pair.Connect();
    Time sent;
    Time roundTrip;
    int left = rounds;
    const auto ask = [&] {
        sent = Simulator::Now();
        client.Send(0, Payload::Of(PatternBytes(size)));
    };
    client.onArrival = [&](Endpoint&) {
        roundTrip = Simulator::Now() - sent;
        if (--left > 0)
        {
            Simulator::Schedule(MilliSeconds(1), ask);
        }
    };
    Simulator::Schedule(Seconds(1), ask); // the connection is up by then
    Simulator::Run();
    CHECK(left == 0);
    CHECK(UnderWay() == 0);
    return roundTrip;
}

/// A socket at the client that sends \p bytes as they are, and closes \p thenClose.
Ptr<Socket>
SendRaw(TcpPair& pair, const Bytes& bytes, bool thenClose)
{
    Ptr<Socket> raw = pair.NewSocket(0);
    raw->Bind();
    raw->Connect(pair.ServerAddress());
    Simulator::Schedule(Seconds(1), [raw, bytes, thenClose] {
        raw->Send(reinterpret_cast<const std::uint8_t*>(bytes.data()), static_cast<std::uint32_t>(bytes.size()), 0);
        if (thenClose)
        {
            raw->Close();
        }
    });
    return raw;
}

Message
SomeMessage(std::size_t size)
{
    return {.kind = MessageKind::Embedding,
            .dtype = DType::F16,
            .session = 77,
            .request = 0,
            .sequence = 0,
            .position = 0,
            .layer = 0,
            .payload = Payload::Of(PatternBytes(size))};
}

void
CheckPayloads(const Inbox& inbox, const std::vector<Bytes>& expected)
{
    REQUIRE(inbox.arrivals.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); i++)
    {
        const Message& message = inbox.arrivals[i].message;
        CHECK(message.sequence == i);
        CHECK(message.payload.size == expected[i].size());
        CHECK((message.payload.bytes == expected[i])); // in brackets: a failure need not print megabytes
    }
}

} // namespace

TEST_CASE("A request and its answer of one segment each take one round trip", "[tcp]")
{
    for (const char* rate : {"10Mbps", "100Mbps", "1Gbps"})
    {
        for (const Time& delay : {MicroSeconds(100), MilliSeconds(20)})
        {
            TcpPair pair{DataRate(rate), delay};
            const std::uint32_t size = 1000;
            const Time roundTrip = PingPong(pair, size, 3);
            const Time segment = Serialisation(DataRate(rate), kHeaderBytes + size);
            // The answer queues behind the acknowledgement of the request. ns-3 sends a nanosecond after it was asked to.
            const Time acknowledgement = Serialisation(DataRate(rate), 0);
            const Time expected = 2 * (segment + delay) + acknowledgement + NanoSeconds(1);
            INFO(rate << ", " << delay.As(Time::MS));
            CHECK(roundTrip.GetNanoSeconds() == expected.GetNanoSeconds());
        }
    }
}

TEST_CASE("A full segment fits the link's packets", "[tcp]")
{
    CHECK(TcpMessagePort::SegmentBytes(1500) == 1448);
    CHECK(TcpMessagePort::SegmentBytes(9000) == 8948);
}

TEST_CASE("A request and its answer of several segments take one round trip and their serialisation", "[tcp]")
{
    const DataRate rate("100Mbps");
    const Time delay = MilliSeconds(2);
    for (const std::uint32_t segments : {2, 3, 9})
    {
        TcpPair pair{rate, delay};
        const std::uint32_t size = segments * 1448 - 700 - kHeaderBytes;
        const Time roundTrip = PingPong(pair, size, 3);
        const Time message = Serialisation(rate, 1448) * (segments - 1) + Serialisation(rate, 1448 - 700);
        CHECK(roundTrip >= 2 * (message + delay));
        // No more than the acknowledgements of one message in front of its answer.
        CHECK(roundTrip <= 2 * (message + delay) + Serialisation(rate, 0) * segments + MicroSeconds(1));
    }
}

TEST_CASE("Without the port's socket settings, a short message waits for a timer", "[tcp]")
{
    const auto roundTrip = [](bool noDelay, std::uint32_t delayedAcks) {
        TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
        pair.onNewSocket = [=](Ptr<Socket> socket) {
            socket->SetAttribute("TcpNoDelay", BooleanValue(noDelay));
            socket->SetAttribute("DelAckCount", UintegerValue(delayedAcks));
        };
        // Three segments: the third, not full, waits for the acknowledgement of what is before it.
        return PingPong(pair, 2 * 1448 + 500, 3);
    };
    CHECK(roundTrip(true, 1) < MilliSeconds(1));
    CHECK(roundTrip(false, 1) > roundTrip(true, 1) + 2 * MicroSeconds(200)); // a round trip each way
    CHECK(roundTrip(false, 3) > MilliSeconds(400)); // and the delayed acknowledgement each way
}

TEST_CASE("Messages of any size arrive as they were sent, both ways", "[tcp]")
{
    // 1448 bytes fill a segment, header included or not; 17 MiB is more than the socket's buffer.
    std::vector<Bytes> up;
    std::vector<Bytes> down;
    for (const std::size_t size : {0UL, 1UL, 35UL, 1411UL, 1412UL, 1413UL, 1447UL, 1448UL, 1449UL, 100'000UL, 0UL,
                                   3'000'000UL, 17UL << 20, 5UL})
    {
        up.push_back(PatternBytes(size, 1));
        down.push_back(PatternBytes(size, 2));
    }
    std::reverse(down.begin(), down.end());
    for (const std::uint16_t mtu : {std::uint16_t{1500}, std::uint16_t{9000}})
    {
        TcpPair pair{DataRate("10Gbps"), MicroSeconds(50), mtu};
        pair.Listen();
        Endpoint& client = pair.Connect();
        for (const Bytes& bytes : up)
        {
            client.Send(5, Payload::Of(bytes)); // before the connection is up
        }
        Simulator::Schedule(MilliSeconds(1), [&] {
            for (const Bytes& bytes : down)
            {
                pair.servers.at(0)->Send(5, Payload::Of(bytes));
            }
            pair.servers.at(0)->port->Close();
        });
        Simulator::Run();
        REQUIRE(pair.servers.size() == 1);
        CheckPayloads(pair.servers[0]->inbox, up);
        CheckPayloads(client.inbox, down);
        CHECK(client.inbox.end == Inbox::End::Closed);
        CHECK(UnderWay() == 0);
    }
}

TEST_CASE("Everything that a message says arrives, and its times are those of the simulation", "[tcp]")
{
    TcpPair pair{DataRate("1Gbps"), MilliSeconds(5)};
    pair.Listen();
    Endpoint& client = pair.Connect();
    std::vector<MessageRecord> records;
    client.port->onMessage = [&](const MessageRecord& record) { records.push_back(record); };
    CriticalPath path;
    path.Start(MilliSeconds(3));
    path.Charge(Component::Adapter, MilliSeconds(7));
    Simulator::Schedule(Seconds(2), [&] {
        client.port->Send({.kind = MessageKind::Deltas,
                           .dtype = DType::BF16,
                           .session = 41,
                           .request = 42,
                           .sequence = 99, // is counted by the port
                           .position = 43,
                           .layer = 44,
                           .payload = Payload::Of(PatternBytes(10))},
                          path);
    });
    Simulator::Run();
    const Inbox& inbox = pair.servers.at(0)->inbox;
    REQUIRE(inbox.arrivals.size() == 1);
    const Arrival& arrival = inbox.arrivals[0];
    CHECK(arrival.message.kind == MessageKind::Deltas);
    CHECK(arrival.message.dtype == DType::BF16);
    CHECK(arrival.message.session == 41);
    CHECK(arrival.message.request == 42);
    CHECK(arrival.message.sequence == 0);
    CHECK(arrival.message.position == 43);
    CHECK(arrival.message.layer == 44);
    CHECK(arrival.sent == Seconds(2));
    CHECK(arrival.arrived == Seconds(2) + MilliSeconds(5) + Serialisation(DataRate("1Gbps"), 46) + NanoSeconds(1));
    CHECK(arrival.senderPath.Started() == MilliSeconds(3));
    CHECK(arrival.senderPath.Of(Component::Adapter) == MilliSeconds(7));
    REQUIRE(records.size() == 1);
    CHECK(records[0].kind == "deltas");
    CHECK(records[0].direction == Direction::Up);
    CHECK_FALSE(records[0].received);
    CHECK(records[0].headerBytes == kHeaderBytes);
    CHECK(records[0].payloadBytes == 10);
    CHECK(records[0].sent == Seconds(2));
}

TEST_CASE("A TCP connection has one name at both ends, and another connection has another", "[tcp]")
{
    TcpPair pair{DataRate("1Gbps"), MilliSeconds(5)};
    pair.Listen();
    Endpoint& first = pair.Connect();
    Endpoint& second = pair.Connect();
    CHECK_FALSE(first.port->IsOpen());
    // Of one session, and with the same sequence numbers in both.
    first.Send(1, Payload::Of(PatternBytes(100'000)));
    Simulator::Schedule(MicroSeconds(1), [&] { second.Send(1, Payload::Of(PatternBytes(10))); });
    Simulator::Run();
    REQUIRE(pair.servers.size() == 2);
    CHECK(first.port->IsOpen());
    CHECK(pair.servers[0]->port->IsOpen());
    CHECK(first.port->Connection() == pair.servers[0]->port->Connection());
    CHECK(second.port->Connection() == pair.servers[1]->port->Connection());
    CHECK(first.port->Connection() != second.port->Connection());
    CHECK(first.port->Connection().client == Ipv4Address("10.0.0.1").Get());
    CHECK(pair.servers[0]->inbox.arrivals.at(0).sent == Time(0));
    CHECK(pair.servers[1]->inbox.arrivals.at(0).sent == MicroSeconds(1));
    CHECK(UnderWay() == 0);

    // One after the other: the second is not taken for the first, part of which was lost.
    first.port->Abandon();
    CHECK_FALSE(pair.servers[0]->port->IsLost());
    second.Send(1, Payload::Of(PatternBytes(40 << 20))); // more than the socket takes at once
    second.port->Abandon();
    pair.clients.clear();
    Endpoint& third = pair.Connect();
    third.Send(1, Payload::Of(PatternBytes(30)));
    Simulator::Run();
    REQUIRE(pair.servers.size() == 3);
    CHECK(pair.servers[0]->port->IsLost());
    CHECK(pair.servers[2]->inbox.arrivals.size() == 1);
    CHECK(third.port->Connection() == pair.servers[2]->port->Connection());
    CHECK(UnderWay() == 1);
}

TEST_CASE("Many small messages keep their order", "[tcp]")
{
    TcpPair pair{DataRate("50Mbps"), MilliSeconds(1)};
    pair.Listen();
    Endpoint& client = pair.Connect();
    std::vector<Bytes> sent;
    for (std::uint32_t i = 0; i < 3000; i++)
    {
        sent.push_back(PatternBytes(i % 61, i));
        Simulator::Schedule(MicroSeconds(i * 37 / 10), [&client, &sent, i] { client.Send(1, Payload::Of(sent[i])); });
    }
    Simulator::Run();
    CheckPayloads(pair.servers.at(0)->inbox, sent);
    CHECK(UnderWay() == 0);
}

TEST_CASE("A phantom message takes the bytes and the time of a real one", "[tcp]")
{
    const auto measure = [](bool phantom) {
        TcpPair pair{DataRate("1Gbps"), MicroSeconds(100)};
        std::array<std::uint64_t, 2> bytes{};
        for (std::uint32_t end = 0; end < 2; end++)
        {
            pair.devices.Get(end)->TraceConnectWithoutContext(
                "PhyTxEnd",
                Callback<void, Ptr<const Packet>>(
                    [&count = bytes[end]](Ptr<const Packet> packet) { count += packet->GetSize(); }));
        }
        pair.Listen();
        Endpoint& client = pair.Connect();
        for (const std::size_t size : {0, 8192, 24'576, 1, 1'000'000})
        {
            client.Send(0, phantom ? Payload::Phantom(size) : Payload::Of(PatternBytes(size)));
        }
        Simulator::Run();
        std::vector<Time> arrivals;
        for (const Arrival& arrival : pair.servers.at(0)->inbox.arrivals)
        {
            CHECK(arrival.message.payload.phantom == phantom);
            CHECK(arrival.message.payload.bytes.size() == (phantom ? 0 : arrival.message.payload.size));
            arrivals.push_back(arrival.arrived);
        }
        CHECK(arrivals.size() == 5);
        return std::pair(bytes, arrivals);
    };
    CHECK(measure(true) == measure(false));
}

TEST_CASE("Loss on the wire delays messages and neither drops nor swaps any", "[tcp]")
{
    TcpPair pair{DataRate("100Mbps"), MilliSeconds(1)};
    pair.Lose(0.02);
    pair.Listen();
    std::vector<Bytes> up;
    std::vector<Bytes> down;
    for (std::uint32_t i = 0; i < 60; i++)
    {
        up.push_back(PatternBytes(i * 997 % 40'000, i));
        down.push_back(PatternBytes(i * 1999 % 30'000, i + 100));
    }
    pair.onServerArrival = [&](Endpoint& server) {
        server.Send(1, Payload::Of(down[server.inbox.arrivals.size() - 1]));
    };
    Endpoint& client = pair.Connect();
    for (const Bytes& bytes : up)
    {
        client.Send(1, Payload::Of(bytes));
    }
    Simulator::Run();
    CheckPayloads(pair.servers.at(0)->inbox, up);
    CheckPayloads(client.inbox, down);
    CHECK(UnderWay() == 0);
}

TEST_CASE("Closing lets everything sent arrive, then tells the peer", "[tcp]")
{
    TcpPair pair{DataRate("100Mbps"), MilliSeconds(1)};
    pair.Listen();
    Endpoint& client = pair.Connect();
    client.Send(1, Payload::Of(PatternBytes(2'000'000)));
    client.Send(1, Payload::Of(PatternBytes(3)));
    client.port->Close(); // before the connection is up
    Simulator::Run();
    const Inbox& inbox = pair.servers.at(0)->inbox;
    CheckPayloads(inbox, {PatternBytes(2'000'000), PatternBytes(3)});
    CHECK(inbox.end == Inbox::End::Closed);
    CHECK(inbox.reason == "the peer closed the connection");
    CHECK(UnderWay() == 0);
}

TEST_CASE("A connection that nobody accepts is lost", "[tcp]")
{
    TcpPair pair{DataRate("100Mbps"), MilliSeconds(1)};
    Endpoint& client = pair.Connect(); // nobody listens
    client.Send(1, Payload::Of(PatternBytes(3)));
    std::string opened;
    const auto body = [](MessagePort& port, std::string& what) -> Task<void> {
        try
        {
            co_await port.Opened();
            what = "open";
        }
        catch (const ConnectionLost& lost)
        {
            what = lost.what();
        }
    };
    Process process(body(*client.port, opened), [](std::exception_ptr) {});
    process.Start();
    Simulator::Run();
    CHECK(opened == "the server refused the connection");
    CHECK(client.inbox.end == Inbox::End::Lost);
    CHECK(client.inbox.reason == "the server refused the connection");
    CHECK(UnderWay() == 1); // sent and lost
    CHECK_THROWS_AS(client.Send(1, Payload::Of(PatternBytes(3))), ConnectionLost);
    CHECK(UnderWay() == 1);
    client.port->Close();
    Simulator::Run();
}

TEST_CASE("A server that no route leads to is lost at once", "[tcp]")
{
    TcpPair pair{DataRate("100Mbps"), MilliSeconds(1)};
    const Endpoint client(
        TcpMessagePort::Connect(pair.NewSocket(0), InetSocketAddress("192.168.7.7", 9000), Direction::Up));
    Simulator::Run();
    CHECK(client.inbox.end == Inbox::End::Lost);
    CHECK(client.inbox.reason == "no route to the server");
}

TEST_CASE("Bytes that make no sense end their own session with the reason", "[tcp]")
{
    const Bytes frame = FrameBytes(SomeMessage(500));
    Bytes flipped = frame;
    flipped[300] ^= std::byte{0x20};
    Bytes half = frame;
    half.resize(200);
    Bytes garbage = PatternBytes(5000);
    Bytes header = PatternBytes(kHeaderBytes);
    struct Case
    {
        Bytes bytes;
        bool closes;
        std::string reason;
    };
    const std::vector<Case> cases{
        {garbage, false, "no message starts here (wrong magic)"},
        {header, false, "no message starts here (wrong magic)"},
        {WithField(frame, 28, std::uint32_t{0xFFFFFFF0}),
         false,
         "payload of 4294967280 bytes exceeds the limit of 1073741824"},
        {flipped, false, "checksum mismatch in message 0"},
        {half, true, "the connection closed in the middle of a message"},
        {WithField(frame, 16, std::uint32_t{4}), false, "message 4 of session 77 came where message 0 was due"},
        {frame, false, "message 0 of session 77 was never sent"},
    };
    for (const Case& test : cases)
    {
        INFO(test.reason);
        TcpPair pair{DataRate("100Mbps"), MilliSeconds(1)};
        pair.Listen();
        Endpoint& client = pair.Connect();
        const Ptr<Socket> raw = SendRaw(pair, test.bytes, test.closes);
        std::vector<Bytes> sent;
        for (std::uint32_t i = 0; i < 40; i++)
        {
            sent.push_back(PatternBytes(1000 * i, i));
            Simulator::Schedule(MilliSeconds(900 + 5 * i), [&client, &sent, i] { client.Send(1, Payload::Of(sent[i])); });
        }
        Simulator::Run();
        REQUIRE(pair.servers.size() == 2);
        CheckPayloads(pair.servers[0]->inbox, sent); // the honest client
        CHECK(pair.servers[0]->inbox.end == Inbox::End::None);
        CHECK(pair.servers[1]->inbox.arrivals.empty());
        CHECK(pair.servers[1]->inbox.end == Inbox::End::Lost);
        CHECK(pair.servers[1]->inbox.reason == test.reason);
        CHECK_THROWS_AS(pair.servers[1]->Send(1, {}), ConnectionLost);
        CHECK(UnderWay() == 0);
    }
}

TEST_CASE("A peer that goes on sending after its session was lost does not keep the simulation running", "[tcp]")
{
    for (const std::uint32_t first : {36U, 5000U})
    {
        TcpPair pair{DataRate("1Gbps"), MilliSeconds(1)};
        pair.Listen();
        const Ptr<Socket> raw = SendRaw(pair, PatternBytes(first), false);
        std::uint32_t left = 40 << 20; // more than the buffers of both ends
        const auto pour = [&left](Ptr<Socket> socket) {
            while (left > 0 && socket->GetTxAvailable() > 0)
            {
                const std::uint32_t count = std::min(left, socket->GetTxAvailable());
                if (socket->Send(Create<Packet>(count)) < 0)
                {
                    return;
                }
                left -= count;
            }
        };
        Simulator::Schedule(Seconds(2), [&, raw] {
            raw->SetSendCallback(Callback<void, Ptr<Socket>, std::uint32_t>(
                [&pour](Ptr<Socket> socket, std::uint32_t) { pour(socket); }));
            pour(raw);
        });
        Time lastPacket;
        pair.devices.Get(0)->TraceConnectWithoutContext(
            "PhyTxEnd",
            Callback<void, Ptr<const Packet>>([&](Ptr<const Packet>) { lastPacket = Simulator::Now(); }));
        Simulator::Stop(Hours(1));
        Simulator::Run();
        CHECK(pair.servers.at(0)->inbox.end == Inbox::End::Lost);
        CHECK(lastPacket < Seconds(10)); // nobody probes a window that stays closed
        // Bytes left unread made the close a reset, which stops the peer. Otherwise it gets rid of everything.
        CHECK((left == 0) == (first == kHeaderBytes));
    }
}

TEST_CASE("A peer gets rid of what it sends to a port that was destroyed", "[tcp]")
{
    TcpPair pair{DataRate("10Gbps"), MilliSeconds(1)};
    pair.Listen();
    Endpoint& client = pair.Connect();
    const std::size_t size = 40 << 20; // more than the buffers of both ends
    client.Send(1, Payload::Phantom(size));
    client.port->Close();
    Simulator::Schedule(MilliSeconds(10), [&] { pair.servers.at(0)->Destroy(); });
    std::size_t bytes = 0;
    Time lastPacket;
    pair.devices.Get(0)->TraceConnectWithoutContext("PhyTxEnd",
                                                    Callback<void, Ptr<const Packet>>([&](Ptr<const Packet> packet) {
                                                        bytes += packet->GetSize();
                                                        lastPacket = Simulator::Now();
                                                    }));
    Simulator::Stop(Hours(1));
    Simulator::Run();
    CHECK(bytes > size);
    CHECK(lastPacket < Seconds(10));
    CHECK(UnderWay() == 1);
}

TEST_CASE("After a reset, sends are refused, and what was under way stays accounted for", "[tcp]")
{
    TcpPair pair{DataRate("10Mbps"), MilliSeconds(1)};
    pair.Listen();
    const Ptr<Socket> raw = SendRaw(pair, Bytes(), false);
    Simulator::Schedule(Seconds(1), [&] { pair.servers.at(0)->Send(1, Payload::Of(PatternBytes(1'000'000))); });
    Simulator::Schedule(Seconds(1) + MilliSeconds(100), [raw] { raw->Close(); }); // with unread data: a reset
    Simulator::Run();
    Endpoint& server = *pair.servers.at(0);
    CHECK(server.inbox.end == Inbox::End::Closed); // so ns-3 reports a reset
    CHECK_THROWS_WITH(server.Send(1, Payload::Of(PatternBytes(1))), "the peer reset the connection");
    CHECK_THROWS_WITH(server.Send(1, Payload::Of(PatternBytes(1))), "the peer reset the connection");
    CHECK(UnderWay() == 2);
}

TEST_CASE("A link that carries nothing any more loses the connection at the end that sends", "[tcp]")
{
    TcpPair pair{DataRate("10Mbps"), MilliSeconds(1)};
    pair.Listen();
    Endpoint& client = pair.Connect();
    Simulator::Schedule(Seconds(1), [&] {
        pair.Lose(1.0);
        client.Send(1, Payload::Of(PatternBytes(5000)));
    });
    Simulator::Run(); // ends by itself
    CHECK(client.inbox.end == Inbox::End::Lost);
    CHECK(client.inbox.reason == "the peer does not answer");
    CHECK(pair.servers.at(0)->inbox.end == Inbox::End::None);
    CHECK(UnderWay() == 1);
}

TEST_CASE("An abandoned connection ends for the peer, between messages or in one", "[tcp]")
{
    for (const bool midway : {false, true})
    {
        TcpPair pair{DataRate("10Mbps"), MilliSeconds(1)};
        pair.Listen();
        Endpoint& client = pair.Connect();
        client.Send(1, Payload::Of(PatternBytes(10'000)));
        Simulator::Schedule(Seconds(1), [&] {
            if (midway)
            {
                client.Send(1, Payload::Of(PatternBytes(20 << 20))); // more than the socket takes at once
            }
            client.port->Abandon();
            pair.clients.clear();
        });
        Simulator::Run();
        const Inbox& inbox = pair.servers.at(0)->inbox;
        CHECK(inbox.arrivals.size() == 1);
        CHECK(inbox.end == (midway ? Inbox::End::Lost : Inbox::End::Closed));
        CHECK(inbox.reason ==
              (midway ? "the connection closed in the middle of a message" : "the peer closed the connection"));
        CHECK(UnderWay() == (midway ? 1 : 0));
    }
}

TEST_CASE("Ports can be destroyed with data under way", "[tcp]")
{
    const std::size_t frames = FramePool::Live();
    for (const bool clientFirst : {false, true})
    {
        TcpPair pair{DataRate("10Mbps"), MilliSeconds(1)};
        pair.Listen();
        Endpoint& client = pair.Connect();
        for (int i = 0; i < 5; i++)
        {
            client.Send(1, Payload::Of(PatternBytes(100'000)));
        }
        std::size_t received = 0;
        Simulator::Schedule(MilliSeconds(200), [&] {
            pair.servers.at(0)->Send(1, Payload::Of(PatternBytes(100'000)));
            received = pair.servers.at(0)->inbox.arrivals.size();
            (clientFirst ? pair.clients : pair.servers).clear();
        });
        Simulator::Schedule(MilliSeconds(250), [&] {
            received += clientFirst ? pair.servers.at(0)->inbox.arrivals.size() - received : 0;
            pair.Disconnect();
        });
        Simulator::Run(); // ends by itself
        CHECK(received > 0);
        CHECK(received < 5);
        CHECK(UnderWay() == 6 - received);
        CHECK(FramePool::Live() == frames);
    }
}

TEST_CASE("Ports can outlive the simulation", "[tcp]")
{
    const std::size_t frames = FramePool::Live();
    {
        TcpPair pair{DataRate("10Mbps"), MilliSeconds(1)};
        pair.Listen();
        pair.Connect().Send(1, Payload::Of(PatternBytes(1'000'000)));
        Simulator::Stop(MilliSeconds(300));
        Simulator::Run();
        Simulator::Destroy();
    }
    CHECK(FramePool::Live() == frames);
}
