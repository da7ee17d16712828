// SPDX-License-Identifier: GPL-2.0-only
#include "simulation.h"
#include "study.h"

#include "net/host-routing.h"
#include "net/tcp-message-port.h"
#include "support/bare-end.h"

#include "ns3/inet-socket-address.h"
#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-generator.h"
#include "ns3/ipv4-address-helper.h"
#include "ns3/ipv4-static-routing-helper.h"
#include "ns3/node-container.h"
#include "ns3/point-to-point-helper.h"
#include "ns3/queue-size.h"
#include "ns3/simulator.h"
#include "ns3/traffic-control-helper.h"
#include "ns3/uinteger.h"

#include <benchmark/benchmark.h>

#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <ctime>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

// What many devices cost: processor time of a token and memory of an idle device, with 10 devices and with 1000. Tokens
// are those of SmolLM2 in LInfer, in shape mode: h0, 30 layers there and back, hL, 94,464 bytes in 62 messages.
//
// ScaleServiceToken/load: the same Poisson load on few and on many devices. /all: all devices are at work at the same
// time, which is the worst case for caches. ScaleTcpToken: likewise all, and beside it what the same messages take on
// bare ns-3 sockets over the same wires, whose applications do nothing: with the routing that ns-3 installs, and with the
// routes that links have here.

using namespace splitllm;
using namespace ns3;
using test::BareEnd;

namespace
{

constexpr std::uint32_t kRow = 1152;    // 576 fp16 values
constexpr std::uint32_t kDeltas = 1920; // of Q, K and V
constexpr std::uint32_t kLayers = 30;
constexpr const char* kRate = "100Gbps";
constexpr const char* kQueue = "100MB"; // nothing is lost

/// Measures the rounds after the first, in which connections come up.
class Rounds
{
  public:
    Rounds(std::uint32_t devices, std::uint32_t rounds)
        : m_first(devices),
          m_last(devices * rounds)
    {
    }

    void Token()
    {
        m_tokens++;
        if (m_tokens == m_first)
        {
            m_start = std::clock();
        }
        if (m_tokens == m_last)
        {
            m_end = std::clock();
        }
    }

    /// Milliseconds of processor time that a token took; the simulation has one thread.
    double PerToken() const
    {
        return 1e3 * static_cast<double>(m_end - m_start) / CLOCKS_PER_SEC / (m_last - m_first);
    }

  private:
    std::uint32_t m_first;
    std::uint32_t m_last;
    std::uint32_t m_tokens = 0;
    std::clock_t m_start = 0;
    std::clock_t m_end = 0;
};

enum class Topology
{
    Service,
    Wired,
    WiredThroughGateway,
};

/// Devices that ask for \p tokens tokens each after a prompt of one; computing takes no time.
Json
StudyOf(Topology topology, std::uint32_t devices, std::uint32_t tokens)
{
    const Json hardware =
        Json::parse(R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 0}}, "otherwise": "free"}})");
    Json link = {{"type", topology == Topology::Service ? "service" : "wired"}, {"rate", kRate}, {"delay", "100us"}};
    if (topology != Topology::Service)
    {
        link["queue"] = kQueue;
    }
    Json study = {{"study", "scale"},
                  {"mode", "shape"},
                  {"model", {{"shape", "smollm2-135m"}, {"adapter", {{"rank", 8}}}}},
                  {"nodes",
                   {{"device", {{"role", "user-device"}, {"count", devices}, {"hardware", hardware}}},
                    {"edge", {{"role", "edge-server"}, {"hardware", hardware}}}}},
                  {"links", {{"device-edge", link}}},
                  {"scheme", {{"name", "linfer"}}},
                  {"workload",
                   {{"prompt_tokens", Json::array({{{"tokens", 1}, {"requests", 1}}})},
                    {"per_user", true},
                    {"new_tokens", tokens}}},
                  {"timeline", {{"tokens", 0}}}};
    if (topology == Topology::WiredThroughGateway)
    {
        study["nodes"]["gateway"] = {{"role", "gateway"}};
        study["links"] = {{"device-gateway", link}, {"gateway-edge", link}};
    }
    return study;
}

StudyFolders
Folders()
{
    return {SPLITLLM_MODEL_DIR, {}, SPLITLLM_PROFILE_DIR, {}, {}, {}, {}, {}};
}

double
ModelToken(Topology topology, std::uint32_t devices, std::uint32_t rounds)
{
    Json json = StudyOf(topology, devices, rounds);
    const Study study = ReadStudy(json, "scale-bench", Folders());
    Rounds measured(devices, rounds);
    Simulate(study, 0, 1, [&measured] { measured.Token(); });
    return measured.PerToken();
}

struct BarePair
{
    BareEnd user;
    BareEnd edge;
    std::uint32_t layer = 0;
    std::uint32_t tokens = 0;
};

/// How the bare program's packets find their way.
enum class Routes
{
    Ns3,   //!< lists that every packet is looked up in
    Table, //!< HostRouting
};

double
BareToken(Topology topology, Routes routes, std::uint32_t devices, std::uint32_t rounds)
{
    constexpr std::uint16_t kPort = 9000;
    const bool hasGateway = topology == Topology::WiredThroughGateway;
    InternetStackHelper internet;
    internet.SetIpv6StackInstall(false);
    if (routes == Routes::Table)
    {
        internet.SetRoutingHelper(HostRoutingHelper());
    }
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.252");
    PointToPointHelper wire;
    wire.SetDeviceAttribute("DataRate", DataRateValue(DataRate(kRate)));
    wire.SetChannelAttribute("Delay", TimeValue(MicroSeconds(100)));
    wire.SetQueue("ns3::DropTailQueue<Packet>", "MaxSize", QueueSizeValue(QueueSize(kQueue)));
    const auto join = [&](Ptr<Node> a, Ptr<Node> b) {
        const NetDeviceContainer ends = wire.Install(a, b);
        const Ipv4InterfaceContainer interfaces = addresses.Assign(ends);
        addresses.NewNetwork();
        TrafficControlHelper().Uninstall(ends);
        if (routes == Routes::Table)
        {
            HostRoutingOf(a)->SetDefault(interfaces.GetAddress(1), interfaces.Get(0).second);
            HostRoutingOf(b)->AddHost(interfaces.GetAddress(0), interfaces.Get(1).second);
        }
        return interfaces;
    };
    const auto setDefault = [routes](Ptr<Node> node, Ipv4Address gateway) {
        const Ptr<Ipv4> ipv4 = node->GetObject<Ipv4>();
        if (routes == Routes::Table)
        {
            HostRoutingOf(node)->SetDefault(gateway, ipv4->GetNInterfaces() - 1);
            return;
        }
        Ipv4StaticRoutingHelper().GetStaticRouting(ipv4)->SetDefaultRoute(gateway, ipv4->GetNInterfaces() - 1);
    };
    const std::uint32_t segment = TcpMessagePort::SegmentBytes(1500);

    NodeContainer core;
    core.Create(hasGateway ? 2 : 1);
    internet.Install(core);
    const Ptr<Node> server = core.Get(0);
    const Ptr<Node> hub = core.Get(hasGateway ? 1 : 0);
    Ipv4Address serverAddress;
    if (hasGateway)
    {
        const Ipv4InterfaceContainer backhaul = join(hub, server);
        serverAddress = backhaul.GetAddress(1);
        setDefault(server, backhaul.GetAddress(0));
    }
    std::vector<std::unique_ptr<BarePair>> pairs;
    std::vector<Ipv4Address> ofUsers;
    Rounds measured(devices, rounds);
    for (std::uint32_t i = 0; i < devices; i++)
    {
        const auto node = CreateObject<Node>();
        internet.Install(node);
        const Ipv4InterfaceContainer access = join(node, hub);
        ofUsers.push_back(access.GetAddress(0));
        if (hasGateway)
        {
            setDefault(node, access.GetAddress(1));
        }
        BarePair& pair = *pairs.emplace_back(std::make_unique<BarePair>());
        pair.user.Attach(TcpMessagePort::NewSocket(node, segment));
        pair.edge.onMessage = [&pair] { pair.edge.Send(kRow, pair.user); };
        pair.user.onMessage = [&pair, &measured, rounds] {
            if (pair.layer++ < kLayers)
            {
                pair.user.Send(kDeltas, pair.edge);
                return;
            }
            measured.Token();
            if (++pair.tokens < rounds)
            {
                pair.layer = 0;
                pair.user.Send(kRow, pair.edge);
            }
        };
        const Ipv4Address to = hasGateway ? serverAddress : access.GetAddress(1);
        Simulator::Schedule(Time(), [&pair, to] {
            pair.user.socket->Bind();
            pair.user.socket->Connect(InetSocketAddress(to, kPort));
        });
        Simulator::Schedule(Seconds(1), [&pair] { pair.user.Send(kRow, pair.edge); });
    }
    const Ptr<Socket> listener = TcpMessagePort::NewSocket(server, segment);
    listener->Bind(InetSocketAddress(Ipv4Address::GetAny(), kPort));
    listener->Listen();
    listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                Callback<void, Ptr<Socket>, const Address&>(
                                    [&](Ptr<Socket> socket, const Address& from) {
                                        const Ipv4Address user = InetSocketAddress::ConvertFrom(from).GetIpv4();
                                        const auto index = (user.Get() - ofUsers.front().Get()) / 4;
                                        pairs.at(index)->edge.Attach(socket);
                                    }));
    Simulator::Run();
    Simulator::Destroy();
    Ipv4AddressGenerator::Reset();
    return measured.PerToken();
}

constexpr std::uint32_t kFew = 10;
constexpr std::uint32_t kMany = 1000;

/// Milliseconds of a token where \p devices get 1000 requests of 16 tokens together, in Poisson's way: about 3 at work
/// at a time, if there are many.
double
LoadedToken(std::uint32_t devices)
{
    constexpr std::uint32_t kRequests = 1000;
    Json json = StudyOf(Topology::Service, devices, 16);
    json["workload"]["per_user"] = false;
    json["workload"]["prompt_tokens"][0]["requests"] = kRequests;
    json["workload"]["arrival"] = {{"process", "poisson"}, {"rate_per_s", 30}};
    const Study study = ReadStudy(json, "scale-bench", Folders());
    Rounds measured(1, kRequests * 16);
    Simulate(study, 0, 1, [&measured] { measured.Token(); });
    return measured.PerToken();
}

void
ScaleServiceToken(benchmark::State& state, bool all)
{
    double few = 1e9;
    double many = 1e9;
    for (auto _ : state)
    {
        few = std::min(few, all ? ModelToken(Topology::Service, kFew, 301) : LoadedToken(kFew));
        many = std::min(many, all ? ModelToken(Topology::Service, kMany, 4) : LoadedToken(kMany));
    }
    state.counters["ms_10"] = few;
    state.counters["ms_1000"] = many;
    state.counters["growth"] = many / few;
}

void
ScaleTcpToken(benchmark::State& state, Topology topology, Routes routes)
{
    double few = 1e9;
    double many = 1e9;
    double bareFew = 1e9;
    double bareMany = 1e9;
    for (auto _ : state)
    {
        few = std::min(few, ModelToken(topology, kFew, 31));
        bareFew = std::min(bareFew, BareToken(topology, routes, kFew, 31));
        many = std::min(many, ModelToken(topology, kMany, 2));
        bareMany = std::min(bareMany, BareToken(topology, routes, kMany, 2));
    }
    state.counters["ms_10"] = few;
    state.counters["ms_1000"] = many;
    state.counters["bare_ms_10"] = bareFew;
    state.counters["bare_ms_1000"] = bareMany;
    state.counters["growth"] = many / few;
    state.counters["bare_growth"] = bareMany / bareFew;
    state.counters["ratio"] = many / few / (bareMany / bareFew);
}

/// Bytes of memory that this process has now.
double
ResidentBytes()
{
    std::ifstream statm("/proc/self/statm");
    double pages = 0.0;
    statm >> pages >> pages;
    return pages * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

/// What each of a thousand more devices adds that are connected and wait for their requests.
void
IdleDevice(benchmark::State& state, Topology topology)
{
    const auto resident = [topology](std::uint32_t devices) {
        const std::string trace = "/tmp/scale-bench-" + std::to_string(::getpid()) + ".csv";
        std::ofstream file(trace);
        file << "time_s,user\n1,0\n";
        for (std::uint32_t user = 1; user < devices; user++)
        {
            file << "1000," << user << '\n';
        }
        file.close();
        Json json = StudyOf(topology, devices, 1);
        json["workload"]["arrival"] = {{"process", "trace"}, {"file", trace}};
        const Study study = ReadStudy(json, "scale-bench", Folders());
        std::remove(trace.c_str());
        double bytes = 0.0;
        Simulate(study, 0, 1, [&bytes] { bytes = bytes == 0.0 ? ResidentBytes() : bytes; });
        return bytes;
    };
    double kilobytes = 0.0;
    for (auto _ : state)
    {
        ::malloc_trim(0); // or a former benchmark's memory would be taken again
        const double few = resident(kFew);
        kilobytes = (resident(kFew + kMany) - few) / kMany / 1e3;
    }
    state.counters["kB_per_device"] = kilobytes;
}

BENCHMARK_CAPTURE(IdleDevice, service, Topology::Service)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(IdleDevice, wired, Topology::Wired)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(IdleDevice, gateway, Topology::WiredThroughGateway)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ScaleServiceToken, load, false)->Iterations(3)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ScaleServiceToken, all, true)->Iterations(3)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ScaleTcpToken, direct, Topology::Wired, Routes::Ns3)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ScaleTcpToken, direct_table, Topology::Wired, Routes::Table)
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ScaleTcpToken, gateway, Topology::WiredThroughGateway, Routes::Ns3)
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(ScaleTcpToken, gateway_table, Topology::WiredThroughGateway, Routes::Table)
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

} // namespace
