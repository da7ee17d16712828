// SPDX-License-Identifier: GPL-2.0-only

// Many users on one server: batches and KV memory, against closed forms.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/study-fixture.h"

#include "metrics.h"
#include "net/service-link.h"
#include "sim/frame-pool.h"
#include "simulation.h"
#include "split-llm-helper.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/node-container.h"
#include "ns3/simulator.h"
#include "ns3/uinteger.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

using namespace splitllm;
using splitllm::test::ErrorOf;
using splitllm::test::Folders;
using splitllm::test::TinyStudy;

namespace
{

RunRecords
Run(Json json)
{
    return Simulate(ReadStudy(json, "test", Folders()), 0, 1, [] {});
}

/// Users with a request each of 10 tokens and \p newTokens new ones, on links that take no time; a layer takes 1 ms
/// whatever its rows and nothing else takes time. tiny-llama has 4 layers, so a token takes 4 ms.
Json
Load(unsigned users, unsigned newTokens, const char* scheme = "server")
{
    Json json = TinyStudy();
    json["mode"] = "shape";
    json["model"] = Json::parse(R"({"path": "tiny-llama", "dtype": "bf16", "adapter": {"rank": 4}})");
    json["nodes"]["device"]["count"] = users;
    json["nodes"]["edge"]["hardware"] = Json::parse(
        R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 1}}, "otherwise": "free"}})");
    json["nodes"]["device"]["hardware"] = json["nodes"]["edge"]["hardware"];
    json["links"]["device-edge"] = Json::parse(R"({"type": "service", "rate": "1000Gbps"})");
    json["links"]["device-edge"]["kinds"] = Json::parse(
        R"({"tokens": {"payload_bytes": 0}, "next-token": {"payload_bytes": 0}, "embedding": {"payload_bytes": 0},
            "layer-input": {"payload_bytes": 0}, "deltas": {"payload_bytes": 0}, "final-state": {"payload_bytes": 0}})");
    json["scheme"]["name"] = scheme;
    json["workload"] = {{"prompt_tokens", {{{"tokens", 10}, {"requests", users}}}}, {"new_tokens", newTokens}};
    return json;
}

/// Bytes of keys and values of a position in tiny-llama, bf16: 4 layers, K and V, 2 heads of 16.
constexpr std::uint64_t kKvBytes = 4 * 2 * 32 * 2;

std::vector<std::int64_t>
LatenciesMs(const RunRecords& records, std::uint32_t position)
{
    std::vector<std::int64_t> latencies;
    for (const TokenRow& row : records.tokens)
    {
        if (row.token.position == position)
        {
            latencies.push_back(row.token.latency.GetMilliSeconds());
        }
    }
    std::ranges::sort(latencies);
    return latencies;
}

} // namespace

TEST_CASE("Users that share batches take turns with those for whom there is no room", "[server-load]")
{
    for (const char* scheme : {"server", "linfer"})
    {
        for (const unsigned batch : {1U, 3U, 7U, 4096U})
        {
            CAPTURE(scheme, batch);
            constexpr unsigned kUsers = 7;
            Json json = Load(kUsers, 4, scheme);
            json["nodes"]["edge"]["batch"] = batch;
            const Study study = ReadStudy(json, "test", Folders());
            const RunRecords records = Simulate(study, 0, 1, [] {});
            REQUIRE(records.tokens.size() == 4 * kUsers);
            const Metrics metrics = ComputeMetrics(study, {records});
            CHECK(*Find(metrics, "server_tokens") == 4 * kUsers);
            if (batch >= kUsers)
            {
                // All are one.
                for (const std::uint32_t position : {1U, 2U, 4U})
                {
                    CHECK(LatenciesMs(records, position) == std::vector<std::int64_t>(kUsers, 4));
                }
                CHECK(*Find(metrics, "server_busy_s") == Approx(4 * 0.004));
                CHECK(*Find(metrics, "server_batch.mean") == kUsers);
            }
            if (batch == 1)
            {
                CHECK(*Find(metrics, "server_busy_s") == Approx(kUsers * 4 * 0.004));
                CHECK(*Find(metrics, "server_batch.mean") == 1);
            }
            if (batch == 3)
            {
                CHECK(*Find(metrics, "server_busy_s") < kUsers * 4 * 0.004);
                CHECK(*Find(metrics, "server_busy_s") >= (kUsers + 2) / 3 * 4 * 0.004);
                CHECK(*Find(metrics, "server_batch.mean") <= 3);
            }
        }
    }
}

TEST_CASE("A batch's time is a roofline of all rows and of the weights once", "[server-load]")
{
    // A bandwidth so low that bytes decide, without launches; the layers' operations alone take turns here.
    Json json = Load(5, 2);
    json["model"].erase("adapter");
    json["nodes"]["edge"]["batch"] = 8;
    json["nodes"]["edge"]["hardware"] = Json::parse(
        R"({"name": "slow", "source": "test", "tflops": {"bf16": 1000}, "bandwidth_gb_per_s": 0.001})"); // 1 us a byte
    const RunRecords records = Run(json);
    // d = q = 64, kv = 32, f = 176, V = 256, bf16; one row of each of k sessions after 10 positions.
    const auto micros = [](std::int64_t k) {
        const std::int64_t embed = k * (4 + 2 * 64 + 2 * 64);
        const std::int64_t project = 2 * (64 + 64 * 128) + k * 2 * (64 + 64 + 128);
        const std::int64_t finish =
            2 * (64 * 64 + 64 + 3 * 64 * 176) + k * 2 * (64 + 128 + 2 * 32 * 10 + 64 + 2 * 32);
        const std::int64_t head = 2 * (64 + 64 * 256) + k * 2 * (64 + 256);
        const std::int64_t sample = k * (2 * 256 + 4);
        return embed + 4 * (project + finish) + head + sample;
    };
    for (const TokenRow& row : records.tokens)
    {
        CHECK(row.token.components[static_cast<std::size_t>(Component::Queue)].IsZero());
        if (row.token.position == 2)
        {
            CHECK(row.token.latency == ns3::MicroSeconds(micros(5)));
        }
    }
    CHECK(records.tokens.size() == 10);
    CHECK(micros(5) < 5 * micros(1) / 2);
}

TEST_CASE("Requests wait for KV memory in the order in which they came", "[server-load]")
{
    for (const char* scheme : {"server", "linfer"})
    {
        // 10 + 3 - 1 positions a request; room for two of them, and a byte too little for three.
        CAPTURE(scheme);
        Json json = Load(7, 3, scheme);
        json["nodes"]["edge"]["kv_memory"] = 3 * 12 * kKvBytes - 1;
        json["nodes"]["edge"]["batch"] = 16;
        const RunRecords records = Run(json);
        // Two at a time take 3 tokens of 4 ms, together; the rest waits for their end.
        CHECK(LatenciesMs(records, 1) == std::vector<std::int64_t>{4, 4, 16, 16, 28, 28, 40});
        CHECK(LatenciesMs(records, 2) == std::vector<std::int64_t>(7, 4));
        for (const TokenRow& row : records.tokens)
        {
            CHECK(row.token.components[static_cast<std::size_t>(Component::Base)] == ns3::MilliSeconds(4));
            CHECK(row.token.components[static_cast<std::size_t>(Component::Queue)] ==
                  row.token.latency - ns3::MilliSeconds(4));
            if (row.token.position == 1)
            {
                // Users come at the same instant, in their order.
                CHECK(row.token.latency == ns3::MilliSeconds(12 * (row.token.session / 2) + 4));
            }
        }
        const auto kv = static_cast<std::size_t>(MemoryUse::Kv);
        CHECK(records.memory.at("edge").uses[kv] == 2 * 12 * kKvBytes);

        json["nodes"]["edge"]["kv_memory"] = 3 * 12 * kKvBytes;
        CHECK(LatenciesMs(Run(json), 1) == std::vector<std::int64_t>{4, 4, 4, 16, 16, 16, 28});
    }
}

TEST_CASE("A request that can never be admitted is out of memory, with the reason", "[server-load]")
{
    Json json = Load(2, 3);
    json["nodes"]["edge"]["kv_memory"] = 12 * kKvBytes - 1;
    const RunRecords records = Run(json);
    CHECK(records.outOfMemory == "edge");
    CHECK(records.outOfMemoryReason.find("may need 6144 bytes of KV memory, of 6143 that") != std::string::npos);
    CHECK(records.tokens.empty());
}

TEST_CASE("A user who leaves makes room for the one who waits", "[server-load]")
{
    for (const bool holds : {true, false})
    {
        CAPTURE(holds);
        const std::size_t frames = FramePool::Live();
        {
            SplitLlmHelper llm;
            llm.SetShape("llama-7b", "fp16");
            llm.SetScheme("server");
            llm.SetContext(100);
            llm.SetServerAttribute("Batch", ns3::UintegerValue(4));
            llm.SetServerAttribute("KvMemory", ns3::UintegerValue(100 * 32 * 2 * 4096 * 2)); // of one request
            ns3::NodeContainer nodes;
            nodes.Create(4);
            ns3::InternetStackHelper().Install(nodes.Get(0));
            auto edge = llm.InstallEdgeServer(nodes.Get(0), "a800-80gb");
            std::vector<std::unique_ptr<ServiceLink>> links;
            std::vector<ns3::Ptr<UserDevice>> users;
            for (std::uint32_t i = 0; i < 3; i++)
            {
                links.push_back(std::make_unique<ServiceLink>(
                    ServiceLinkConfig{.rate = ns3::DataRate("1Gbps"), .delay = {}, .startup = {}, .kinds = {}}));
                users.push_back(llm.InstallUserDevice(nodes.Get(i + 1), "device-13tflops", ns3::Address()));
                users.back()->SetConnector([&link = *links.back(), edge](Api api) {
                    PortPair ports = link.Connect();
                    edge->Attach(std::move(ports.server), api);
                    return std::move(ports.user);
                });
                users.back()->AddRequest({.index = i, .prompt = {1, 2, 3}, .newTokens = i == 0 ? 98U : 5U});
            }
            // Of users 0 (whose answer takes a second and a half), 1 and 2 the first or the second one leaves.
            users[holds ? 0 : 1]->SetStopTime(ns3::MilliSeconds(100));
            ns3::Simulator::Run();
            CHECK(users[0]->RequestsFinished() == (holds ? 0 : 1));
            CHECK(users[1]->RequestsFinished() == (holds ? 1 : 0));
            CHECK(users[2]->RequestsFinished() == 1);
            users.clear();
            edge = nullptr;
            ns3::Simulator::Destroy();
        }
        CHECK(FramePool::Live() == frames);
    }
}

TEST_CASE("Batches and admission change when tokens come, and never which", "[server-load][invariant-4]")
{
    for (const char* scheme : {"server", "linfer"})
    {
        const auto tokens = [scheme](const char* edge) {
            Json json = TinyStudy();
            json["scheme"] = {{"name", scheme}, {"codec", "fp32"}};
            json["workload"]["temperature"] = 1.5;
            json["nodes"]["edge"].update(Json::parse(edge));
            std::map<std::tuple<std::uint32_t, std::uint32_t>, std::uint32_t> drawn;
            for (const TokenRow& row : Run(json).tokens)
            {
                drawn[{row.token.request, row.token.position}] = row.token.token;
            }
            return drawn;
        };
        const auto alone = tokens("{}");
        CHECK(alone.size() == 16);
        CHECK(tokens(R"({"batch": 4})") == alone);
        CHECK(tokens(R"({"batch": 4, "kv_memory": 16000})") == alone);
    }
}

TEST_CASE("Server keys say what they accept, and a user device has none of them", "[server-load][study]")
{
    const auto error = [](const char* node, const char* key, const Json& value) {
        Json json = TinyStudy();
        json["nodes"][node][key] = value;
        return ErrorOf([&] { ReadStudy(json, "test", Folders()); });
    };
    CHECK(error("edge", "batch", 0).find("nodes.edge.batch: is 0; accepted: an integer from 1 to 4096") !=
          std::string::npos);
    CHECK_FALSE(error("edge", "batch", 4097).empty());
    CHECK(error("edge", "kv_memory", 0).find("nodes.edge.kv_memory: is 0; accepted: at least a byte") !=
          std::string::npos);
    CHECK_FALSE(error("edge", "kv_memory", "a lot").empty());
    CHECK(error("device", "batch", 2).find("nodes.device.batch: unknown key") != std::string::npos);
    CHECK(error("device", "kv_memory", "1GB").find("nodes.device.kv_memory: unknown key") != std::string::npos);
    CHECK(error("edge", "kv_memory", "8GB").empty());
}
