// SPDX-License-Identifier: GPL-2.0-only

// Invariants 3, 4, 6, 7, 8, 11 and 12 on whole studies.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"

#include "llm/config.h"
#include "policy/calibrator.h"
#include "results.h"
#include "simulation.h"

#include <fstream>
#include <map>
#include <numeric>
#include <sstream>
#include <tuple>

using namespace splitllm;
using splitllm::test::Folders;
using splitllm::test::TemporaryFolder;
using splitllm::test::TinyStudy;

namespace
{

constexpr auto kNoProgress = [] {};

RunRecords
Run(Json json, std::uint32_t threads = 1)
{
    return Simulate(ReadStudy(json, "test", Folders()), 0, threads, kNoProgress);
}

/// The same study in shape mode, with the adapter's rank in place of its weights.
Json
InShapeMode(Json json)
{
    json["mode"] = "shape";
    json["model"]["dtype"] = "bf16";
    if (json["model"].contains("adapter"))
    {
        json["model"]["adapter"] = {{"rank", 4}};
    }
    json["workload"].erase("prompts");
    json["workload"].erase("requests");
    json["workload"]["prompt_tokens"] = Json::parse(
        R"([{"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1},
            {"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1}])");
    return json;
}

std::string
Summary(Json json, std::uint32_t threads)
{
    const TemporaryFolder folder;
    const Study study = ReadStudy(json, "test", Folders());
    PointResult result{.set = {}, .study = study, .runs = {}, .metrics = {}};
    for (std::uint32_t repetition = 0; repetition < study.repeat; repetition++)
    {
        result.runs.push_back(Simulate(study, repetition, threads, kNoProgress));
    }
    result.metrics = ComputeMetrics(study, result.runs);
    ResultsFolder(folder.Path()).Write(study.name, {result}, Json::object());
    std::ostringstream text;
    text << std::ifstream(folder.Path() / "summary.json").rdbuf() << std::ifstream(folder.Path() / "tokens.csv").rdbuf();
    return text.str();
}

ns3::Time
Sum(const TokenRecord& token)
{
    return std::accumulate(token.components.begin(), token.components.end(), ns3::Time());
}

} // namespace

TEST_CASE("components sum to the latency of every token, queueing included", "[invariant-3]")
{
    // Without batches, with them, and with room for one request at a time.
    for (const char* edge : {"{}", R"({"batch": 16})", R"({"batch": 2, "kv_memory": 16000})"})
    {
        for (const char* scheme : {"linfer", "server", "local"})
        {
            CAPTURE(scheme, edge);
            Json json = TinyStudy();
            json["nodes"]["edge"].update(Json::parse(edge));
            json["scheme"]["name"] = scheme;
            // A slow server, so that the two users wait for each other.
            json["nodes"]["edge"]["hardware"] = Json::parse(
                R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 1.5}}, "otherwise": "roofline"}})");
            const RunRecords records = Run(json);
            REQUIRE(records.tokens.size() == 16);
            ns3::Time queued;
            std::map<std::uint32_t, ns3::Time> sessionEnd;
            for (const TokenRow& row : records.tokens)
            {
                CHECK(Sum(row.token) == row.token.latency);
                // Tokens of a session follow each other without a gap, so the latencies add up to its whole time.
                if (sessionEnd.contains(row.token.session))
                {
                    CHECK(row.token.start == sessionEnd[row.token.session]);
                }
                sessionEnd[row.token.session] = row.token.start + row.token.latency;
                queued += row.token.components[static_cast<std::size_t>(Component::Queue)];
            }
            CHECK(queued.IsStrictlyPositive() == (std::string(scheme) != "local"));
        }
    }
}

TEST_CASE("the components of a token alone on a service link are those of a closed form", "[invariant-3]")
{
    Json json = TinyStudy();
    json["nodes"]["device"]["count"] = 1;
    const char* table = R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 2}, "adapt": {"ms": 0.25}},
                            "otherwise": "free"}})";
    json["nodes"]["edge"]["hardware"] = Json::parse(table);
    json["nodes"]["device"]["hardware"] = Json::parse(table);
    json["links"]["device-edge"] =
        Json::parse(R"({"type": "service", "rate": "8Mbps", "delay": "3ms", "startup": "1ms"})");
    for (const TokenRow& row : Run(json).tokens)
    {
        const auto of = [&row](Component component) {
            return row.token.components[static_cast<std::size_t>(component)].GetMicroSeconds();
        };
        // 4 layers; h0, 4 x (input, updates) and hL at 1 us a byte; rows of 64 and of 128 = 64 + 2 x 32 fp16 elements.
        const std::int64_t rows = row.token.position > 1 ? 1 : (row.token.request % 2 == 0 ? 7 : 12);
        CHECK(of(Component::Base) == 4 * 2000);
        CHECK(of(Component::Adapter) == 4 * 250);
        // The notice that ends a request occupies the link before the next one's first message.
        const std::int64_t notice = row.token.position == 1 && row.token.request > 0 ? 1000 : 0;
        CHECK(of(Component::Network) == notice + 10 * 4000 + rows * (128 + 4 * (128 + 256)) + 128);
        CHECK(of(Component::Queue) == 0);
    }
}

TEST_CASE("the same study and seed give byte-identical results", "[invariant-4]")
{
    Json json = TinyStudy();
    json["workload"]["temperature"] = 1.0;
    json["links"]["device-edge"]["loss"] = 0.02;
    json["repeat"] = 2;
    const std::string first = Summary(json, 1);
    CHECK(Summary(json, 1) == first);
    CHECK(Summary(json, 3) == first);

    // Another study in between leaves no trace, and another seed makes a difference.
    Run(InShapeMode(TinyStudy()));
    CHECK(Summary(json, 1) == first);
    json["seed"] = 2;
    CHECK(Summary(json, 1) != first);

    json["nodes"]["edge"]["batch"] = 8;
    const std::string batched = Summary(json, 1);
    CHECK(Summary(json, 3) == batched);
}

TEST_CASE("a session draws the same tokens in every scheme", "[invariant-4]")
{
    const auto tokens = [](const char* scheme) {
        Json json = TinyStudy();
        json["scheme"] = {{"name", scheme}, {"codec", "fp32"}};
        json["workload"]["temperature"] = 1.5;
        json["workload"]["top_p"] = 0.9;
        std::map<std::tuple<std::uint32_t, std::uint32_t>, std::uint32_t> drawn;
        for (const TokenRow& row : Run(json).tokens)
        {
            drawn[{row.token.request, row.token.position}] = row.token.token;
        }
        return drawn;
    };
    const auto local = tokens("local");
    CHECK(local.size() == 16);
    CHECK(tokens("server") == local);
    CHECK(tokens("linfer") == local);
}

TEST_CASE("nothing is computed from a message before it arrived", "[invariant-6]")
{
    Json json = TinyStudy();
    SECTION("one by one") {}
    SECTION("in batches")
    {
        json["nodes"]["edge"]["batch"] = 8;
    }
    json["timeline"] = {{"tokens", 1000}};
    const RunRecords records = Run(json);
    // What each operation needs, on which node: an operation of a layer starts when that message is there.
    struct Need
    {
        const char* operation;
        const char* message;
        bool onEdge;
    };
    const Need needs[] = {{"adapt", "layer-input", false}, {"merge", "deltas", true}};
    std::size_t checked = 0;
    for (const Need& need : needs)
    {
        for (const std::string session : {"0", "1"})
        {
            const auto isEdge = [](const TimelineSpan& span) { return span.node == "edge"; };
            for (int layer = 1; layer <= 4; layer++)
            {
                std::vector<const TimelineSpan*> operations;
                std::vector<const TimelineSpan*> messages;
                for (const TimelineSpan& span : records.timeline)
                {
                    if (isEdge(span) != need.onEdge || span.details.find("\"session\":" + session + ",") != 0)
                    {
                        continue;
                    }
                    if (span.lane == Lane::Compute && span.name == need.operation + (" " + std::to_string(layer)))
                    {
                        operations.push_back(&span);
                    }
                    if (span.lane == Lane::Messages && span.name == need.message + (" " + std::to_string(layer)))
                    {
                        messages.push_back(&span);
                    }
                }
                REQUIRE(operations.size() == 8); // 2 requests of 4 tokens
                REQUIRE(messages.size() == 8);
                for (std::size_t i = 0; i < operations.size(); i++)
                {
                    CHECK(operations[i]->start >= messages[i]->end);
                    // One way takes at least the propagation delay and the payload's own bits.
                    CHECK(messages[i]->end - messages[i]->start > ns3::MicroSeconds(100));
                    checked++;
                }
            }
        }
    }
    CHECK(checked == 2 * 2 * 4 * 8);
}

TEST_CASE("memory peaks are those of a closed form, and nothing is left", "[invariant-7]")
{
    Json json = TinyStudy();
    SECTION("one by one") {}
    SECTION("in batches, with just enough KV memory for the longest request")
    {
        json["nodes"]["edge"]["batch"] = 8;
        json["nodes"]["edge"]["kv_memory"] = 4 * 2 * 32 * 4 * (12 + 3);
    }
    json["nodes"]["device"]["count"] = 1;
    json["scheme"]["name"] = "linfer";
    const RunRecords records = Run(json); // the application aborts if its ledger is not empty at the end
    // K and V of 4 layers, 2 heads of 16, fp32, for the longer prompt and all but the last new token.
    const auto kv = static_cast<std::size_t>(MemoryUse::Kv);
    CHECK(records.memory.at("edge").uses[kv] == 4 * 2 * 32 * 4 * (12 + 3));
    CHECK(records.memory.at("device").uses[kv] == 0);
    // LoRA of rank 4, fp32: 4 layers of A (3 x 4 x 64) and B (4 x (64 + 32 + 32)).
    const auto adapters = static_cast<std::size_t>(MemoryUse::Adapters);
    CHECK(records.memory.at("device").uses[adapters] == 4 * 4 * (4 * 3 * 64 + 4 * 128));
    // Embedding, head (untied) and final norm in bf16.
    const auto weights = static_cast<std::size_t>(MemoryUse::Weights);
    CHECK(records.memory.at("device").uses[weights] == 2 * (2 * 256 * 64 + 64));
}

TEST_CASE("running out of memory is a result that names the node", "[invariant-7]")
{
    Json json = TinyStudy();
    json["nodes"]["edge"]["hardware"] = {{"profile", "a800-80gb"}, {"memory", "420kB"}};
    json["workload"]["new_tokens"] = 8;
    const RunRecords records = Run(json);
    CHECK(records.outOfMemory == "edge");
    CHECK(records.outOfMemoryReason.find("edge at ") == 0);

    json["nodes"]["edge"]["hardware"]["memory"] = "1kB";
    const RunRecords atOnce = Run(json);
    CHECK(atOnce.outOfMemory == "edge");
    CHECK(atOnce.tokens.empty());
}

TEST_CASE("shape mode and numeric mode send the same bytes and charge the same time", "[invariant-8]")
{
    for (const char* scheme : {"linfer", "server", "local"})
    {
        for (const char* type : {"wired", "service"})
        {
            CAPTURE(scheme, type);
            Json json = TinyStudy();
            json["scheme"]["name"] = scheme;
            json["links"]["device-edge"] = {{"type", type}, {"rate", "100Mbps"}, {"delay", "1ms"}};
            // Activations are fp32 in numeric mode and bf16 here, which the roofline would see: charge a table.
            for (const char* node : {"device", "edge"})
            {
                json["nodes"][node]["hardware"] = Json::parse(
                    R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 0.1}, "adapt": {"ms": 0.02}},
                        "otherwise": "free"}})");
            }
            const RunRecords numeric = Run(json);
            const RunRecords shape = Run(InShapeMode(json));
            CHECK(numeric.payloadBytes == shape.payloadBytes);
            CHECK(numeric.headerBytes == shape.headerBytes);
            CHECK(numeric.wireBytes == shape.wireBytes);
            CHECK(numeric.messagesSent == shape.messagesSent);
            REQUIRE(numeric.tokens.size() == shape.tokens.size());
            for (std::size_t i = 0; i < numeric.tokens.size(); i++)
            {
                CHECK(numeric.tokens[i].token.latency == shape.tokens[i].token.latency);
                CHECK(numeric.tokens[i].token.components == shape.tokens[i].token.components);
                CHECK(numeric.tokens[i].token.payloadBytes == shape.tokens[i].token.payloadBytes);
            }
            const bool sends = std::string(scheme) != "local";
            CHECK((numeric.payloadBytes[0] > 0) == sends);
        }
    }
}

TEST_CASE("8-bit weights take half of 16-bit ones, and their keys and values as much", "[memory]")
{
    const auto edge = [](const char* dtype) {
        Json json = InShapeMode(TinyStudy());
        json["model"]["dtype"] = dtype;
        return Run(json).memory.at("edge");
    };
    const MemoryPeaks eight = edge("int8");
    const MemoryPeaks sixteen = edge("fp16");
    const auto weights = static_cast<std::size_t>(MemoryUse::Weights);
    const auto kv = static_cast<std::size_t>(MemoryUse::Kv);
    CHECK(2 * eight.uses[weights] == sixteen.uses[weights]);
    CHECK(eight.uses[kv] == sixteen.uses[kv]);
    CHECK(eight.uses[kv] > 0);
}

TEST_CASE("decisions about cells send the same bytes in shape mode and in numeric mode", "[invariant-8]")
{
    for (const char* scheme : {R"({"name": "tlc", "policy": {"name": "random", "offload": 0.5, "return": 0.5}})",
                               R"({"name": "tlc", "policy": {"name": "never"}})",
                               R"({"name": "dlora", "keep": 0.5, "importance": "random"})"})
    {
        for (const char* type : {"wired", "service"})
        {
            CAPTURE(scheme, type);
            Json json = TinyStudy();
            json["scheme"] = Json::parse(scheme);
            json["links"]["device-edge"] = {{"type", type}, {"rate", "100Mbps"}, {"delay", "1ms"}};
            for (const char* node : {"device", "edge"})
            {
                json["nodes"][node]["hardware"] = Json::parse(
                    R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 0.1}}, "otherwise": "free"}})");
            }
            const RunRecords numeric = Run(json);
            const RunRecords shape = Run(InShapeMode(json));
            CHECK(numeric.payloadBytes == shape.payloadBytes);
            CHECK(numeric.wireBytes == shape.wireBytes);
            CHECK(numeric.messagesSent == shape.messagesSent);
            REQUIRE(numeric.decisions.size() == shape.decisions.size());
            for (std::size_t i = 0; i < numeric.decisions.size(); i++)
            {
                CHECK(numeric.decisions[i].position == shape.decisions[i].position);
                CHECK(numeric.decisions[i].offloaded == shape.decisions[i].offloaded);
                CHECK(numeric.decisions[i].returned == shape.decisions[i].returned);
            }
        }
    }
}

TEST_CASE("decisions are what crosses the wire", "[invariant-8][policy]")
{
    Json json = TinyStudy();
    json["scheme"] = Json::parse(R"({"name": "tlc", "policy": {"name": "random", "offload": 0.6, "return": 0.5}})");
    const Study study = ReadStudy(json, "test", Folders());
    const RunRecords records = Simulate(study, 0, 1, kNoProgress);
    std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, std::pair<int, int>> rows; // by step and layer
    std::array<std::uint64_t, 2> cells{};
    for (const DecisionRow& row : records.decisions)
    {
        const std::uint32_t prompt = row.request % 2 == 0 ? 7 : 12;
        const std::uint32_t step = row.position < prompt ? 0 : row.position - prompt + 1;
        auto& [offloaded, returned] = rows[{row.request, step, row.layer}];
        offloaded += row.offloaded ? 1 : 0;
        returned += row.returned ? 1 : 0;
        cells[0] += row.offloaded ? 1 : 0;
        cells[1] += row.returned ? 1 : 0;
        CHECK((row.offloaded || !row.returned));
        CHECK((row.layer > 1 || !row.offloaded));
    }
    // 4 requests of 4 tokens: h0 up, hL down; then what the decisions say. d = 64, q + 2 kv = 128, fp16.
    std::array<std::uint64_t, 2> payload{std::uint64_t{4} * (0 + 3) * 64 * 2 + 2 * (7 + 12) * 64 * 2, 4 * 4 * 64 * 2};
    std::array<std::uint64_t, 2> messages{4 * (4 + 1), 4 * 4}; // with the end of each request
    for (const auto& [key, counts] : rows)
    {
        const std::uint32_t prompt = std::get<0>(key) % 2 == 0 ? 7 : 12;
        const bool first = std::get<1>(key) == 0;
        const auto [offloaded, returned] = counts;
        if (offloaded > 0)
        {
            messages[0]++; // updates, or the notice that there are none
            messages[1]++;
            payload[1] += offloaded * 64 * 2 + (first ? (prompt + 7) / 8 : 0);
            payload[0] += returned > 0 ? returned * 128 * 2 + (offloaded > 1 ? (offloaded + 7) / 8 : 0) : 0;
        }
    }
    CHECK(records.payloadBytes == payload);
    CHECK(records.messagesSent == messages);
    const Metrics metrics = ComputeMetrics(study, {records});
    const auto all = static_cast<double>(records.decisions.size());
    CHECK(*Find(metrics, "offload_ratio") == static_cast<double>(cells[0]) / all);
    CHECK(*Find(metrics, "return_ratio") == static_cast<double>(cells[1]) / all);
}

TEST_CASE("listed decisions of a run give the same run again", "[policy]")
{
    const TemporaryFolder folder;
    Json json = TinyStudy();
    json["scheme"] = Json::parse(R"({"name": "tlc", "policy": {"name": "random", "offload": 0.6, "return": 0.5}})");
    const Study study = ReadStudy(json, "test", Folders());
    std::vector<PointResult> points(1);
    points[0].study = study;
    points[0].runs.push_back(Simulate(study, 0, 1, kNoProgress));
    points[0].metrics = ComputeMetrics(study, points[0].runs);
    ResultsFolder(folder.Path()).Write("t", points, Json::object());

    json["scheme"]["policy"] = {{"name", "listed"}, {"file", "decisions.csv"}};
    Json again = json;
    const Study listed = ReadStudy(again, (folder.Path() / "study.json").string(), Folders());
    const RunRecords records = Simulate(listed, 0, 1, kNoProgress);
    CHECK(records.payloadBytes == points[0].runs[0].payloadBytes);
    REQUIRE(records.tokens.size() == points[0].runs[0].tokens.size());
    for (std::size_t i = 0; i < records.tokens.size(); i++)
    {
        CHECK(records.tokens[i].token.token == points[0].runs[0].tokens[i].token.token);
        CHECK(records.tokens[i].token.latency == points[0].runs[0].tokens[i].token.latency);
    }
    // One token more than the list says something about.
    json["workload"]["new_tokens"] = 5;
    CHECK(test::ErrorOf([&] { ReadStudy(json, (folder.Path() / "study.json").string(), Folders()); })
              .find("decisions.csv: the list is too short: nothing for request 0, position 10, layer 1") !=
          std::string::npos);
}

TEST_CASE("a skip notice is free where the study says so, and costs what the link charges otherwise", "[policy]")
{
    Json json = InShapeMode(TinyStudy());
    json["links"]["device-edge"] = {{"type", "service"}, {"rate", "1Gbps"}, {"startup", "1ms"}};
    json["nodes"]["device"]["hardware"] = Json::parse(R"({"profile": "device-13tflops", "timing": {"table": {}, "otherwise": "free"}})");
    json["nodes"]["edge"]["hardware"] = json["nodes"]["device"]["hardware"];
    json["scheme"] = Json::parse(R"({"name": "tlc", "policy": {"name": "random", "offload": 1, "return": 0}})");
    const auto latency = [](const RunRecords& records) { return records.tokens.back().token.latency; };
    const ns3::Time costs = latency(Run(json));
    json["scheme"]["skip_notice"] = "free";
    const ns3::Time free = latency(Run(json));
    // 3 layers; a notice has no payload, so it takes the startup alone.
    CHECK(costs - free == ns3::MilliSeconds(3));
    json["links"]["device-edge"] = {{"type", "wired"}, {"rate", "1Gbps"}};
    CHECK(test::ErrorOf([&] { Run(json); }).find("scheme.skip_notice: \"free\" needs service links") != std::string::npos);
}

TEST_CASE("a calibrator's time and memory are charged to the nodes that it runs on", "[policy]")
{
    Json json = TinyStudy();
    json["scheme"] =
        Json::parse(R"({"name": "tlc", "policy": {"name": "calibrator", "path": "tiny-calibrator/narrow", "tau1": 0, "tau2": 0}})");
    const Study study = ReadStudy(json, "test", Folders());
    const RunRecords with = Simulate(study, 0, 1, kNoProgress);
    json["scheme"]["policy"] = {{"name", "always"}};
    const RunRecords without = Run(json);
    const auto calibrator = Calibrator::Load(Folders().calibrators / "tiny-calibrator/narrow",
                                             LoadConfig(test::TestModel("tiny-llama")));
    const auto adapters = static_cast<std::size_t>(MemoryUse::Adapters);
    // Made for a user's adapter, like which it is kept once a session.
    CHECK(without.memory.at("edge").uses[adapters] == 0);
    CHECK(with.memory.at("edge").uses[adapters] == 2 * calibrator->Tier1Bytes());
    CHECK(with.memory.at("device").uses[adapters] ==
          without.memory.at("device").uses[adapters] + calibrator->Tier2Bytes());
    const auto component = static_cast<std::size_t>(Component::Calibrator);
    REQUIRE(with.tokens.size() == 16);
    REQUIRE(without.tokens.size() == 16);
    for (std::size_t i = 0; i < with.tokens.size(); i++)
    {
        CHECK(with.tokens[i].token.components[component].IsStrictlyPositive());
        CHECK(without.tokens[i].token.components[component].IsZero());
    }
    // Tier 1 alone, which looks and never asks.
    json["scheme"]["policy"] =
        Json::parse(R"({"name": "calibrator", "path": "tiny-calibrator/narrow", "tau1": 1, "tau2": 0})");
    for (const TokenRow& row : Run(json).tokens)
    {
        CHECK(row.token.components[component].IsStrictlyPositive());
        CHECK(row.token.components[component] < with.tokens.front().token.components[component]);
    }
}

TEST_CASE("LInfer's payload bytes are those that the shapes say", "[invariant-8]")
{
    const RunRecords records = Run(TinyStudy());
    for (const TokenRow& row : records.tokens)
    {
        // 4 layers, d = 64, q + 2 kv = 128, fp16.
        const std::uint64_t rows = row.token.position > 1 ? 1 : (row.token.request % 2 == 0 ? 7 : 12);
        CHECK(row.token.payloadBytes[0] == rows * (64 + 4 * 128) * 2);
        CHECK(row.token.payloadBytes[1] == rows * 4 * 64 * 2 + 64 * 2);
        CHECK(row.token.messages[0] == 5);
        CHECK(row.token.messages[1] == 5);
        CHECK(row.offloaded == rows * 4);
        CHECK(row.returned == rows * 4);
    }
}

TEST_CASE("every message sent is received, and the run ends", "[invariant-11][invariant-12]")
{
    Json edge = Json::object();
    SECTION("one by one") {}
    SECTION("in batches, one request after the other")
    {
        edge = Json::parse(R"({"batch": 8, "kv_memory": 16000})");
    }
    for (const double loss : {0.0, 0.05})
    {
        for (const char* scheme : {"linfer", "server"})
        {
            CAPTURE(loss, scheme);
            Json json = TinyStudy();
            json["nodes"]["edge"].update(edge);
            json["scheme"]["name"] = scheme;
            json["links"]["device-edge"]["loss"] = loss;
            const RunRecords records = Run(json); // returns: the simulator ran out of events
            CHECK(records.messagesSent[0] > 0);
            CHECK(records.messagesSent == records.messagesReceived);
            CHECK(records.messagesUnderWay == 0);
            CHECK(records.tokens.size() == 16);
            CHECK(records.sessionsLost.empty());
        }
    }
}
