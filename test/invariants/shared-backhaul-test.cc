// SPDX-License-Identifier: GPL-2.0-only

// Users behind a gateway, and requests that come in by themselves, against closed forms.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "metrics.h"
#include "simulation.h"

#include "ns3/config.h"
#include "ns3/ipv4-header.h"
#include "ns3/ipv4.h"
#include "ns3/packet.h"
#include "ns3/simulator.h"
#include "ns3/tcp-header.h"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::Folders;
using splitllm::test::TemporaryFolder;
using splitllm::test::TinyStudy;

namespace
{

RunRecords
Run(Json json, std::uint32_t repetition = 0, const std::string& origin = "test")
{
    return Simulate(ReadStudy(json, origin, Folders()), repetition, 1, [] {});
}

/// Users behind a gateway, each with a request of 10 tokens and \p newTokens new ones; nothing is charged but the links.
Json
Behind(unsigned users, unsigned newTokens, const char* access, const char* backhaul, const char* scheme = "server")
{
    Json json = TinyStudy();
    json["mode"] = "shape";
    json["model"] = Json::parse(R"({"path": "tiny-llama", "dtype": "bf16", "adapter": {"rank": 4}})");
    json["nodes"] = {{"device", {{"role", "user-device"}, {"count", users}}},
                     {"gateway", {{"role", "gateway"}}},
                     {"edge", {{"role", "edge-server"}}}};
    const Json free = Json::parse(R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 0}}, "otherwise": "free"}})");
    json["nodes"]["device"]["hardware"] = free;
    json["nodes"]["edge"]["hardware"] = free;
    json["links"] = {{"device-gateway", Json::parse(access)}, {"gateway-edge", Json::parse(backhaul)}};
    json["scheme"]["name"] = scheme;
    json["workload"] = {{"prompt_tokens", {{{"tokens", 10}, {"requests", users}}}}, {"new_tokens", newTokens}};
    json["timeline"] = {{"tokens", 0}};
    return json;
}

/// Users on links that take no time; a token takes 4 ms of the server.
Json
Alone(unsigned users, unsigned requests, unsigned newTokens)
{
    Json json = Behind(users, newTokens, R"({"type": "service", "rate": "1000Gbps"})", "{}");
    json["nodes"].erase("gateway");
    json["links"] = {{"device-edge",
                      Json::parse(R"({"type": "service", "rate": "1000Gbps",
                                      "kinds": {"tokens": {"payload_bytes": 0}, "next-token": {"payload_bytes": 0}}})")}};
    json["nodes"]["edge"]["hardware"]["timing"]["table"]["layer"]["ms"] = 1;
    json["workload"]["prompt_tokens"][0]["requests"] = requests;
    return json;
}

const TokenRecord&
TokenOf(const RunRecords& records, std::uint32_t request, std::uint32_t position)
{
    const auto found = std::ranges::find_if(records.tokens, [&](const TokenRow& row) {
        return row.token.request == request && row.token.position == position;
    });
    REQUIRE(found != records.tokens.end());
    return found->token;
}

/// What the network devices of a wired run sent, and what their packets consist of, by node and interface.
class Devices
{
  public:
    /// Watches the simulation that starts next.
    Devices()
    {
        ns3::Simulator::ScheduleNow([this] {
            ns3::Config::Connect("/NodeList/*/DeviceList/*/$ns3::PointToPointNetDevice/PhyTxEnd",
                                 ns3::Callback<void, std::string, ns3::Ptr<const ns3::Packet>>(
                                     [this](const std::string& context, ns3::Ptr<const ns3::Packet> packet) {
                                         bytes[IdOf(context, "/NodeList/%u/DeviceList/%u/")] += packet->GetSize();
                                     }));
            ns3::Config::Connect(
                "/NodeList/*/$ns3::Ipv4L3Protocol/Tx",
                ns3::Callback<void, std::string, ns3::Ptr<const ns3::Packet>, ns3::Ptr<ns3::Ipv4>, std::uint32_t>(
                    [this](const std::string& context,
                           ns3::Ptr<const ns3::Packet> packet,
                           ns3::Ptr<ns3::Ipv4>,
                           std::uint32_t interface) { Count(IdOf(context, "/NodeList/%u/").first, interface, *packet); }));
        });
    }

    /// Node and device; a node's devices have the numbers of their interfaces, the loopback being 0.
    using Id = std::pair<unsigned, unsigned>;

    std::map<Id, std::uint64_t> bytes;
    std::map<Id, std::uint64_t> stream;   //!< of TCP payload
    std::map<Id, std::uint64_t> overhead; //!< PPP, IP, TCP

    /// The sum of \p what over the devices \p which.
    static std::uint64_t Sum(const std::map<Id, std::uint64_t>& what, const std::function<bool(const Id&)>& which)
    {
        std::uint64_t sum = 0;
        for (const auto& [id, value] : what)
        {
            sum += which(id) ? value : 0;
        }
        return sum;
    }

  private:
    static Id IdOf(const std::string& context, const char* format)
    {
        Id id{};
        REQUIRE(std::sscanf(context.c_str(), format, &id.first, &id.second) >= 1);
        return id;
    }

    void Count(unsigned node, unsigned interface, const ns3::Packet& packet)
    {
        const ns3::Ptr<ns3::Packet> copy = packet.Copy();
        ns3::Ipv4Header ip;
        ns3::TcpHeader tcp;
        overhead[{node, interface}] += 2 + copy->RemoveHeader(ip) + copy->RemoveHeader(tcp);
        stream[{node, interface}] += copy->GetSize();
    }
};

constexpr const char* kWire = R"({"type": "wired", "rate": "100Mbps", "delay": "100us"})";

} // namespace

TEST_CASE("Users whose requests meet at the gateway wait for each other to the nanosecond", "[gateway]")
{
    // 10 token ids are 40 bytes, one is 4. Up: 100 ns a byte to the gateway, 200 ns a byte from there, and delays; down
    // the same the other way.
    Json json = Behind(3,
                       2,
                       R"({"type": "service", "rate": "80Mbps", "delay": "5us"})",
                       R"({"type": "service", "rate": "40Mbps", "delay": "7us", "startup": "1us"})");
    const RunRecords records = Run(json);
    for (std::uint32_t r = 0; r < 3; r++)
    {
        const std::int64_t up = 4000 + 5000 + (r + 1) * 9000 + 7000;
        const std::int64_t down = 1800 + 7000 + 400 + 5000;
        CHECK(TokenOf(records, r, 1).latency == ns3::NanoSeconds(up + down));
        // The second tokens are asked for 9000 ns after each other, and so do not meet.
        CHECK(TokenOf(records, r, 2).latency == ns3::NanoSeconds(400 + 5000 + 1800 + 7000 + down));
        CHECK(TokenOf(records, r, 2).components[static_cast<std::size_t>(Component::Network)] ==
              TokenOf(records, r, 2).latency);
    }
    // Each user: 40 and 4 bytes and the end of the request up, twice 4 bytes down.
    const std::uint64_t up = 3 * (44 + 3 * kHeaderBytes);
    const std::uint64_t down = 3 * (8 + 2 * kHeaderBytes);
    for (const char* link : {"device-gateway", "gateway-edge"})
    {
        CHECK(records.linkBytes.at(link) == std::array{up, down});
    }
    CHECK(records.wireBytes == std::array{up, down});
    const std::array sent{records.payloadBytes[0] + records.headerBytes[0], records.payloadBytes[1] + records.headerBytes[1]};
    CHECK(records.wireBytes == sent);
}

TEST_CASE("A shared backhaul under Poisson's load is an M/D/1 queue", "[gateway][arrivals]")
{
    // A request occupies the backhaul for D = 1 ms, and nothing else takes time.
    constexpr double kService = 1.0; // ms
    constexpr double kLoad = 0.5;
    constexpr unsigned kRequests = 2000;
    constexpr unsigned kRepetitions = 16;
    const char* instant = R"({"tokens": {"payload_bytes": 0}, "next-token": {"payload_bytes": 0}})";
    Json json = Behind(100, 1, R"({"type": "service", "rate": "1000Gbps"})", R"({"type": "service", "rate": "1000Gbps"})");
    json["links"]["device-gateway"]["kinds"] = Json::parse(instant);
    json["links"]["gateway-edge"]["kinds"] = Json::parse(instant);
    json["links"]["gateway-edge"]["kinds"]["tokens"]["startup"] = "1ms";
    json["workload"]["prompt_tokens"][0]["requests"] = kRequests;
    json["workload"]["arrival"] = {{"process", "poisson"}, {"rate_per_s", kLoad * 1e3 / kService}};
    const Study study = ReadStudy(json, "test", Folders());
    double sum = 0.0;
    double squares = 0.0;
    double atOnce = 0.0;
    for (std::uint32_t repetition = 0; repetition < kRepetitions; repetition++)
    {
        const RunRecords records = Simulate(study, repetition, 1, [] {});
        REQUIRE(records.tokens.size() == kRequests);
        double waits = 0.0;
        for (const TokenRow& row : records.tokens)
        {
            REQUIRE(row.token.start == records.requests[row.token.request].arrival); // none waits for its user's former
            const double wait = static_cast<double>(row.token.latency.GetNanoSeconds()) / 1e6 - kService;
            REQUIRE(wait >= 0.0);
            waits += wait;
            atOnce += wait == 0.0 ? 1.0 : 0.0;
        }
        sum += waits / kRequests;
        squares += waits / kRequests * (waits / kRequests);
    }
    const double mean = sum / kRepetitions;
    const double error = std::sqrt((squares / kRepetitions - mean * mean) / (kRepetitions - 1));
    CAPTURE(mean, error);
    const double expected = kLoad * kService / (2.0 * (1.0 - kLoad)); // Pollaczek and Khinchine
    CHECK(std::abs(mean - expected) < 4.0 * error);
    CHECK(4.0 * error < 0.12 * expected); // or the statement would be empty
    CHECK(std::abs(atOnce / (kRepetitions * kRequests) - (1.0 - kLoad)) < 0.02);
}

TEST_CASE("Both links through a gateway carry payload, headers and transport overhead", "[gateway][invariant-5]")
{
    constexpr unsigned kUsers = 3;
    // Segments are those of the smaller MTU, or this would see fragments.
    const char* narrow = R"({"type": "wired", "rate": "100Mbps", "delay": "100us", "mtu": 700})";
    for (const auto& [scheme, access, backhaul] :
         {std::tuple("server", kWire, kWire), std::tuple("linfer", kWire, narrow), std::tuple("linfer", narrow, kWire)})
    {
        CAPTURE(scheme, access, backhaul);
        Devices devices;
        const RunRecords records = Run(Behind(kUsers, 3, access, backhaul, scheme));
        CHECK(records.messagesUnderWay == 0);
        CHECK(records.tokens.size() == kUsers * 3);
        // Node 0 is the server, 1 the gateway with the backhaul first, the others are users.
        const auto isUser = [](const Devices::Id& id) { return id.first > 1; };
        const auto isServer = [](const Devices::Id& id) { return id.first == 0; };
        const auto gatewayUp = [](const Devices::Id& id) { return id == Devices::Id{1, 1}; };
        const auto gatewayDown = [](const Devices::Id& id) { return id.first == 1 && id.second > 1; };
        const auto check = [&](const char* link, std::size_t d, const std::function<bool(const Devices::Id&)>& which) {
            CAPTURE(link, d);
            const std::uint64_t messages = records.payloadBytes[d] + records.headerBytes[d];
            CHECK(records.linkBytes.at(link)[d] == Devices::Sum(devices.bytes, which));
            CHECK(Devices::Sum(devices.stream, which) == messages);
            CHECK(Devices::Sum(devices.bytes, which) == messages + Devices::Sum(devices.overhead, which));
        };
        check("device-gateway", 0, isUser);
        check("gateway-edge", 0, gatewayUp);
        check("gateway-edge", 1, isServer);
        check("device-gateway", 1, gatewayDown);
        CHECK(records.wireBytes == records.linkBytes.at("device-gateway"));
    }
}

TEST_CASE("A packet through a gateway takes both links' time", "[gateway]")
{
    // 40 and 4 bytes with 36 of the message's header and 54 of TCP, IP and PPP, each in a segment of its own.
    const auto run = [](const char* access, const char* backhaul) { return Run(Behind(1, 2, access, backhaul)); };
    const RunRecords records = run(R"({"type": "wired", "rate": "8Mbps", "delay": "100us"})",
                                   R"({"type": "wired", "rate": "80Mbps", "delay": "3ms"})");
    const std::int64_t bytes = 4 + static_cast<std::int64_t>(kHeaderBytes) + 54;
    const std::int64_t oneWay = bytes * 1000 + 100'000 + bytes * 100 + 3'000'000;
    // The answer's acknowledgement is on its way when the next token leaves, on the access link first: 54 bytes.
    const std::int64_t latency = TokenOf(records, 0, 2).latency.GetNanoSeconds();
    CHECK(latency >= 2 * oneWay);
    CHECK(latency <= 2 * oneWay + 2 * 54 * 1000);
}

TEST_CASE("A lossy or short-queued backhaul loses no message", "[gateway][invariant-11]")
{
    const auto check = [](const char* backhaul) {
        CAPTURE(backhaul);
        const RunRecords records = Run(Behind(7, 3, kWire, backhaul, "linfer"));
        CHECK(records.tokens.size() == 7 * 3);
        CHECK(records.sessionsLost.empty());
        CHECK(records.messagesSent == records.messagesReceived);
        CHECK(records.messagesUnderWay == 0);
        return records;
    };
    const RunRecords lossy = check(R"({"type": "wired", "rate": "100Mbps", "delay": "1ms", "loss": 0.02})");
    // What is lost behind the gateway has crossed the access link, and is sent again; downwards it has not.
    CHECK(lossy.linkBytes.at("device-gateway")[0] == lossy.linkBytes.at("gateway-edge")[0]);
    CHECK(lossy.linkBytes.at("device-gateway")[1] < lossy.linkBytes.at("gateway-edge")[1]);
    const RunRecords full = check(R"({"type": "wired", "rate": "10Mbps", "delay": "1ms", "queue": "3kB"})");
    CHECK(full.linkBytes.at("device-gateway")[0] > full.linkBytes.at("gateway-edge")[0]); // dropped at the gateway
}

TEST_CASE("Outages of both links are known by the links' names", "[gateway]")
{
    Json json = Behind(2,
                       3,
                       R"({"type": "service", "rate": "1Gbps", "outages": [{"at": "1ms", "for": "1ms"}]})",
                       R"({"type": "service", "rate": "1Gbps", "delay": "2ms", "outages": [{"at": "3ms", "for": "9ms"}]})");
    const RunRecords records = Run(json);
    REQUIRE(records.outages.size() == 2);
    CHECK(records.outages[0].name == "device-gateway");
    CHECK(records.outages[1].name == "gateway-edge");
    CHECK(records.outages[1].end == ns3::MilliSeconds(12));
    CHECK(TokenOf(records, 0, 1).latency > ns3::MilliSeconds(2)); // asked before the first outage, over in 4 ms and more
    CHECK(TokenOf(records, 0, 2).latency > ns3::MilliSeconds(9)); // asked for at 4 ms, in the second one
}

TEST_CASE("Requests of one user wait for each other, first come, first served", "[arrivals]")
{
    const TemporaryFolder folder;
    folder.Write("a.csv", "time_s,user\n0,0\n0.001,0\n0.002,1\n0.003,0\n1,1\n");
    Json json = Alone(2, 5, 2); // 8 ms an answer, and the server is one
    json["nodes"]["edge"]["batch"] = 2;
    json["workload"]["arrival"] = {{"process", "trace"}, {"file", "a.csv"}};
    const Study study = ReadStudy(json, (folder.Path() / "study.json").string(), Folders());
    const RunRecords records = Simulate(study, 0, 1, [] {});
    const auto start = [&](std::uint32_t r) { return TokenOf(records, r, 1).start; };
    const auto end = [&](std::uint32_t r) { return TokenOf(records, r, 2).start + TokenOf(records, r, 2).latency; };
    CHECK(start(0).IsZero());
    CHECK(start(1) == end(0));
    CHECK(start(2) == ns3::MilliSeconds(2));
    CHECK(start(3) == end(1));
    CHECK(start(4) == ns3::Seconds(1));
    CHECK(end(4) == ns3::MilliSeconds(1008)); // nobody else is there
    CHECK(records.requests[3].arrival == ns3::MilliSeconds(3));

    const Metrics metrics = ComputeMetrics(study, {records});
    const std::vector<double> arrivals{0.0, 1.0, 2.0, 3.0, 1000.0};
    double waits = 0.0;
    double firsts = 0.0;
    double responses = 0.0;
    for (std::uint32_t r = 0; r < 5; r++)
    {
        const auto ms = [](ns3::Time time) { return static_cast<double>(time.GetNanoSeconds()) / 1e6; };
        waits += ms(start(r)) - arrivals[r];
        firsts += ms(TokenOf(records, r, 2).start) - arrivals[r];
        responses += ms(end(r)) - arrivals[r];
    }
    const auto near = [&metrics](const char* name, double expected) {
        CAPTURE(name, expected);
        const std::optional<double> found = Find(metrics, name);
        REQUIRE(found.has_value());
        CHECK(std::abs(*found - expected) < 1e-9 * std::max(1.0, std::abs(expected)));
    };
    CHECK(waits > 10.0);
    near("wait_ms.mean", waits / 5);
    near("ttft_ms.mean", firsts / 5);
    near("response_s.mean", responses / 5e3);
    near("offered_requests_per_s", 4.0); // four intervals in a second
    near("requests_per_s", 5 / 1.008);
    near("tokens_per_s", 10 / 1.008);
}

TEST_CASE("A user of a closed workload may think between an answer and the next request", "[arrivals]")
{
    Json json = Alone(1, 3, 2);
    json["workload"]["arrival"] = {{"process", "closed"}, {"think_time", "2.5s"}};
    const Study study = ReadStudy(json, "test", Folders());
    const RunRecords records = Simulate(study, 0, 1, [] {});
    for (std::uint32_t r = 0; r < 3; r++)
    {
        CHECK(TokenOf(records, r, 1).start == ns3::MilliSeconds(2508 * r));
        CHECK(TokenOf(records, r, 1).latency == ns3::MilliSeconds(4));
    }
    const Metrics metrics = ComputeMetrics(study, {records});
    CHECK(Find(metrics, "ttft_ms.mean") == 4.0); // thinking is nobody's time
    CHECK_FALSE(Find(metrics, "wait_ms.mean").has_value());
    CHECK_FALSE(Find(metrics, "offered_requests_per_s").has_value());
}

TEST_CASE("A loaded gateway repeats itself, and its repetitions differ", "[gateway][arrivals][invariant-4]")
{
    Json json = Behind(20,
                       3,
                       R"({"type": "service", "rate": "100Mbps", "delay": "1ms"})",
                       R"({"type": "service", "rate": "20Mbps", "delay": "1ms"})",
                       "linfer");
    json["workload"]["arrival"] = {{"process", "poisson"}, {"rate_per_s", 500}};
    const Study study = ReadStudy(json, "test", Folders());
    const auto metrics = [](const Study& its, std::uint32_t repetition) {
        return ComputeMetrics(its, {Simulate(its, repetition, 1, [] {})});
    };
    const Metrics first = metrics(study, 0);
    const Metrics second = metrics(study, 1);
    CHECK(metrics(study, 0) == first);
    CHECK(second != first);
    Study other = study;
    other.seed = 2;
    CHECK(metrics(other, 0) != first);
    CHECK(metrics(study, 1) == second); // whatever ran before
}

TEST_CASE("A gateway's topology says what it accepts", "[gateway][study]")
{
    const auto error = [](const std::function<void(Json&)>& change) {
        Json json = Behind(2, 2, R"({"type": "service", "rate": "1Gbps"})", R"({"type": "service", "rate": "1Gbps"})");
        change(json);
        const std::string message = ErrorOf([&] { ReadStudy(json, "test", Folders()); });
        CHECK(message.find('\n') == std::string::npos);
        return message;
    };
    const auto has = [](const std::string& message, const std::string& part) {
        CAPTURE(message, part);
        CHECK(message.find(part) != std::string::npos);
    };
    CHECK(error([](Json&) {}).empty());
    has(error([](Json& json) { json["links"].erase("gateway-edge"); }), "links: no link \"gateway-edge\"");
    has(error([](Json& json) { json["links"].erase("device-gateway"); }), "links: no link \"device-gateway\"");
    has(error([](Json& json) { json["links"]["device-edge"] = Json::parse(kWire); }),
        "links.device-edge: goes past the gateway \"gateway\"; accepted: either this link or the gateway");
    has(error([](Json& json) { json["links"]["gateway-edge"] = Json::parse(kWire); }),
        "links.gateway-edge.type: ");
    has(error([](Json& json) { json["links"]["gateway-edge"] = Json::parse(kWire); }),
        "accepted: both \"wired\", or both \"service\"");
    const Json fading = Json::parse(R"({"type": "fading", "bandwidth": "10MHz", "snr": 10})");
    has(error([&](Json& json) { json["links"]["device-gateway"] = json["links"]["gateway-edge"] = fading; }),
        "accepted: both \"wired\", or both \"service\"");
    has(error([](Json& json) { json["links"]["device-gateway"]["pcap"] = true; }),
        "links.device-gateway.pcap: ends at the gateway, and captures are made at the server; accepted on \"gateway-edge\"");
    has(error([](Json& json) { json["nodes"]["gateway"]["hardware"] = "a800-80gb"; }),
        "nodes.gateway.hardware: unknown key; accepted: role");
    has(error([](Json& json) { json["nodes"]["second"] = {{"role", "gateway"}}; }), "two groups have the role of \"second\"");
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
TEST_CASE("An idle user device takes less than 200 KB", "[gateway][slow]")
{
    // Heap in use while all are connected and wait for their requests, but for the user whose token is looked at.
    const auto heap = [](unsigned users, const char* link) {
        const TemporaryFolder folder;
        std::string trace = "time_s,user\n1,0\n";
        for (unsigned user = 1; user < users; user++)
        {
            trace += "1000," + std::to_string(user) + "\n";
        }
        folder.Write("a.csv", trace);
        Json json = Behind(users, 1, link, link);
        json["workload"]["arrival"] = {{"process", "trace"}, {"file", "a.csv"}};
        const Study study = ReadStudy(json, (folder.Path() / "study.json").string(), Folders());
        std::size_t bytes = 0;
        Simulate(study, 0, 1, [&bytes] {
            const struct mallinfo2 use = mallinfo2();
            bytes = bytes == 0 ? use.uordblks + use.hblkhd : bytes;
        });
        return static_cast<double>(bytes);
    };
    for (const char* link : {R"({"type": "service", "rate": "1Gbps", "delay": "1ms"})", kWire})
    {
        heap(10, link); // what is made once
        const double perDevice = (heap(1010, link) - heap(10, link)) / 1000.0;
        CAPTURE(link, perDevice);
        CHECK(perDevice < 200e3);
        CHECK(perDevice > 2e3); // or nothing was measured
    }
}
#endif
