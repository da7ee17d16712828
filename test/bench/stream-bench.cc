// SPDX-License-Identifier: GPL-2.0-only
#include "net/crc32c.h"
#include "support/frame-bytes.h"
#include "support/tcp-pair.h"

#include "ns3/boolean.h"
#include "ns3/bulk-send-helper.h"
#include "ns3/config.h"
#include "ns3/packet-sink-helper.h"
#include "ns3/packet-sink.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <string>

// How fast the machine moves simulated bytes: messages against ns-3's own bulk transfer on the same link, with the same
// socket settings, in the same run. One way, 10 Gbps, 0.1 ms, segments of 1448 bytes.

using namespace splitllm;
using namespace ns3;
using test::Endpoint;
using test::PatternBytes;
using test::TcpPair;

namespace
{

constexpr std::size_t kTotal = std::size_t{64} << 20;

/// ns-3 searches everything in flight for every segment it sends: more would measure that alone.
constexpr std::uint32_t kReceiveBuffer = 1 << 20;

void
LimitWindow(Ptr<Socket> socket)
{
    socket->SetAttribute("RcvBufSize", UintegerValue(kReceiveBuffer));
}

/// Processor time of the simulation, which has one thread: what it takes on a machine that does nothing else.
double
SecondsOfRun()
{
    const std::clock_t start = std::clock();
    Simulator::Run();
    return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

/// Bytes a second from BulkSendApplication to PacketSink.
double
BulkRate()
{
    TcpPair pair{DataRate("10Gbps"), MicroSeconds(100)};
    pair.onNewSocket = LimitWindow;
    // The applications make their own sockets.
    const Ptr<Socket> like = pair.NewSocket(0);
    const auto useFor = [&like](const std::string& name, auto value) {
        like->GetAttribute(name, value);
        Config::SetDefault("ns3::TcpSocket::" + name, value);
    };
    useFor("TcpNoDelay", BooleanValue());
    for (const char* name : {"DelAckCount", "SegmentSize", "SndBufSize", "RcvBufSize"})
    {
        useFor(name, UintegerValue());
    }
    BulkSendHelper source("ns3::TcpSocketFactory", pair.ServerAddress());
    source.SetAttribute("MaxBytes", UintegerValue(kTotal));
    source.SetAttribute("SendSize", UintegerValue(64 << 10));
    source.Install(pair.nodes.Get(0));
    PacketSinkHelper sinks("ns3::TcpSocketFactory", InetSocketAddress(Ipv4Address::GetAny(), TcpPair::kPort));
    const auto sink = DynamicCast<PacketSink>(sinks.Install(pair.nodes.Get(1)).Get(0));
    const double seconds = SecondsOfRun();
    Config::Reset();
    return static_cast<double>(sink->GetTotalRx()) / seconds;
}

/// Bytes a second in messages of \p size bytes of payload.
double
MessageRate(std::size_t size, bool phantom)
{
    TcpPair pair{DataRate("10Gbps"), MicroSeconds(100)};
    pair.onNewSocket = LimitWindow;
    pair.Listen();
    Endpoint& client = pair.Connect();
    const Payload payload = phantom ? Payload::Phantom(size) : Payload::Of(PatternBytes(size));
    std::uint64_t received = 0;
    pair.onServerArrival = [&received](Endpoint& server) {
        received += kHeaderBytes + server.inbox.arrivals.back().message.payload.size;
        server.inbox.arrivals.clear();
    };
    // Many in flight, yet not all in memory: as many as the socket takes, topped up as they arrive.
    const std::size_t window = std::max<std::size_t>((std::size_t{8} << 20) / size, 2);
    std::size_t left = kTotal / size;
    const auto send = [&] {
        if (left > 0)
        {
            left--;
            client.Send(0, payload);
        }
    };
    for (std::size_t i = 0; i < window; i++)
    {
        send();
    }
    pair.onServerArrival = [&, count = pair.onServerArrival](Endpoint& server) {
        count(server);
        send();
    };
    const double seconds = SecondsOfRun();
    return static_cast<double>(received) / seconds;
}

void
Stream(benchmark::State& state)
{
    const auto size = static_cast<std::size_t>(state.range(0));
    const bool phantom = state.range(1) != 0;
    double messages = 0.0;
    double bulk = 0.0;
    for (auto _ : state)
    {
        bulk = std::max(bulk, BulkRate());
        messages = std::max(messages, MessageRate(size, phantom));
    }
    state.counters["MB_per_s"] = messages * 1e-6;
    state.counters["bulk_MB_per_s"] = bulk * 1e-6;
    state.counters["ratio"] = messages / bulk;
}

BENCHMARK(Stream)
    ->ArgNames({"bytes", "phantom"})
    ->ArgsProduct({{8 << 10, 100 << 10, 1 << 20}, {0, 1}})
    ->Iterations(5)
    ->Unit(benchmark::kMillisecond);

void
Checksum(benchmark::State& state)
{
    const test::Bytes bytes = PatternBytes(static_cast<std::size_t>(state.range(0)));
    for (auto _ : state)
    {
        benchmark::DoNotOptimize(Crc32c(bytes));
    }
    state.SetBytesProcessed(state.iterations() * state.range(0));
}

BENCHMARK(Checksum)->ArgName("bytes")->Arg(36)->Arg(8 << 10)->Arg(1 << 20);

} // namespace
