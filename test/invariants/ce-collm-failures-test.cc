// SPDX-License-Identifier: GPL-2.0-only

// Invariant 11 for CE-CoLLM: whatever happens to the cloud, every answer is complete, and every token is what the part
// of the model that it came from says about the tokens before it.

#include "support/catch.h"
#include "support/cloud-run.h"
#include "support/error-of.h"
#include "support/study-fixture.h"

#include "compute/cpu/cpu-backend.h"
#include "llm/exits.h"
#include "llm/model.h"
#include "net/message-port.h"
#include "policy/exit-policy.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/host.h"
#include "schemes/session.h"
#include "sim/frame-pool.h"
#include "simulation.h"
#include "split-llm-helper.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/node-container.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <numeric>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;
using ns3::MilliSeconds;
using ns3::Time;

namespace
{

/// Exits after these layers, of 4.
const std::vector<std::size_t> kExitLayers{1, 3};

/// A study of CE-CoLLM on the tiny LLaMA, one user. A token takes the edge 16 ms and the cloud 10 ms.
Json
CeCollmStudy(const std::string& link, const Json& outages, std::uint32_t requests, std::uint32_t newTokens)
{
    const Json hardware = Json::parse(R"({"profile": "a100-80gb", "timing":
        {"table": {"layer": {"ms": 4}, "exit": {"ms": 2}, "head": {"ms": 6}}, "otherwise": "free"}})");
    Json study = TinyStudy();
    study["model"].erase("adapter");
    study["nodes"] = {{"edge", {{"role", "user-device"}, {"hardware", hardware}}},
                      {"cloud", {{"role", "cloud"}, {"hardware", hardware}, {"outages", outages}}}};
    study["links"] = {{"edge-cloud", Json::parse(link)}};
    study["scheme"] = {{"name", "ce-collm"},
                       {"exits", {{"layers", kExitLayers}}},
                       {"policy", {{"name", "confidence"}, {"threshold", 2.0}}},
                       {"codec", "fp32"},
                       {"timeout", "60ms"},
                       {"retry", "40ms"}};
    study["workload"] = {{"prompts", "tiny"}, {"requests", requests}, {"new_tokens", newTokens}};
    return study;
}

/// Above every confidence, and so that some tokens are taken from an exit.
constexpr std::array kThresholds{2.0, 0.6, 0.45, 0.3};

/// A wire that loses packets.
std::string
Wire(double loss)
{
    return R"({"type": "wired", "rate": "100Mbps", "delay": "1ms", "loss": )" + std::to_string(loss) + "}";
}

/// What exits and whole model say about every prefix of a sequence, computed beside any simulation.
class Oracle
{
  public:
    struct Opinion
    {
        std::array<double, 2> confidence;
        std::array<TokenId, 2> exit; //!< the likeliest token at each exit
        TokenId model;               //!< and of the whole model
    };

    Oracle()
    {
        const auto model = Model::Load(TestModel("tiny-llama"));
        const auto exits = std::make_shared<Exits>();
        exits->layers = kExitLayers;
        m_model = m_backend.Resident(model);
        m_exits = m_backend.Resident(exits, model->config);
    }

    /// One opinion a token of \p tokens, about the one that follows it.
    std::vector<Opinion> About(const std::vector<TokenId>& tokens)
    {
        const std::size_t layers = m_model->Config().layers;
        const auto cache = m_backend.NewCache(*m_model, 0, layers, tokens.size());
        std::vector<Opinion> opinions(tokens.size());
        Tensor h = m_backend.Embed(*m_model, tokens, 0).value;
        std::size_t exit = 0;
        for (std::size_t l = 0; l < layers; l++)
        {
            const Projections qkv = m_backend.Project(*m_model, l, h).value;
            h = m_backend.FinishLayer(*m_model, l, h, qkv, *cache).value;
            if (exit < kExitLayers.size() && kExitLayers[exit] == l + 1)
            {
                const Tensor logits = m_backend.Exit(*m_model, *m_exits, exit, h).value;
                for (std::size_t row = 0; row < tokens.size(); row++)
                {
                    opinions[row].exit[exit] = Likeliest(logits.Row(row));
                    opinions[row].confidence[exit] = LargestProbability(logits.Row(row));
                }
                exit++;
            }
        }
        const Tensor logits = m_backend.Head(*m_model, h).value;
        for (std::size_t row = 0; row < tokens.size(); row++)
        {
            opinions[row].model = Likeliest(logits.Row(row));
        }
        return opinions;
    }

  private:
    static TokenId Likeliest(std::span<const float> logits)
    {
        return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
    }

    static double LargestProbability(std::span<const float> logits)
    {
        const float largest = *std::ranges::max_element(logits);
        double sum = 0.0;
        for (const float logit : logits)
        {
            sum += std::exp(static_cast<double>(logit) - largest);
        }
        return 1.0 / sum;
    }

    CpuBackend m_backend{1};
    std::shared_ptr<const ResidentModel> m_model;
    std::shared_ptr<const ResidentExits> m_exits;
};

/// Tokens by what they came from.
using Sources = std::map<TokenSource, std::size_t>;

/// Every answer is complete, and every token is what the oracle says that its source says.
Sources
CheckTokens(const Study& study, const RunRecords& records, double threshold)
{
    static Oracle oracle;
    Sources sources;
    std::map<std::uint32_t, std::vector<ExitRecord>> exits; // by request
    for (const ExitRecord& record : records.exits)
    {
        exits[record.request].push_back(record);
    }
    REQUIRE(records.requests.size() == study.requestCount);
    for (std::uint32_t request = 0; request < study.requestCount; request++)
    {
        CAPTURE(request);
        const RequestRow& row = records.requests[request];
        const std::vector<ExitRecord>& taken = exits[request];
        REQUIRE(row.generated.size() == study.newTokens);
        REQUIRE(taken.size() == study.newTokens);
        std::vector<TokenId> tokens = study.requests[row.prompt].prompt;
        const std::size_t first = tokens.size() - 1;
        std::ranges::copy(row.generated, std::back_inserter(tokens));
        const std::vector<Oracle::Opinion> opinions = oracle.About(tokens);
        for (std::size_t k = 0; k < study.newTokens; k++)
        {
            CAPTURE(k);
            const Oracle::Opinion& opinion = opinions[first + k];
            const ExitRecord& record = taken[k];
            REQUIRE(record.position == first + k);
            std::size_t exit = 0;
            while (exit < kExitLayers.size() && opinion.confidence[exit] < threshold)
            {
                exit++;
            }
            const bool isSure = exit < kExitLayers.size();
            CHECK((record.source == TokenSource::Exit) == isSure);
            exit = std::min(exit, kExitLayers.size() - 1);
            const bool ofCloud = record.source == TokenSource::Cloud;
            CHECK(record.layer == (ofCloud ? 0 : kExitLayers[exit]));
            CHECK(record.confidence == Approx(opinion.confidence[exit]).epsilon(1e-9));
            CHECK(row.generated[k] == (ofCloud ? opinion.model : opinion.exit[exit]));
            sources[record.source]++;
        }
    }
    return sources;
}

/// The components of every token sum to its latency, and what the user saw is one token behind the other.
void
CheckTimes(const RunRecords& records)
{
    std::map<std::uint32_t, Time> last; // by session
    for (const TokenRow& row : records.tokens)
    {
        const TokenRecord& token = row.token;
        CHECK(std::accumulate(token.components.begin(), token.components.end(), Time()) == token.latency);
        CHECK(token.latency.IsStrictlyPositive());
        CHECK(token.start >= last[token.session]);
        last[token.session] = token.start + token.latency;
    }
}

/// The edge is alone exactly where the records say so: what is asked, and what is not.
void
CheckStandalone(const RunRecords& records)
{
    REQUIRE(records.tokens.size() == records.exits.size());
    std::map<std::uint32_t, std::vector<StandaloneRecord>> stretches; // by session
    for (const StandaloneRecord& record : records.standalone)
    {
        std::vector<StandaloneRecord>& of = stretches[record.session];
        CHECK(record.start <= record.end);
        CHECK(!record.reason.empty());
        CHECK((of.empty() || of.back().end <= record.start));
        of.push_back(record);
    }
    std::map<std::uint32_t, std::vector<ExitRecord>> exits; // likewise
    for (const ExitRecord& exit : records.exits)
    {
        exits[exit.session].push_back(exit);
    }
    std::map<std::uint32_t, std::size_t> seen; // likewise
    for (const TokenRow& row : records.tokens)
    {
        const TokenRecord& token = row.token;
        const ExitRecord& exit = exits[token.session].at(seen[token.session]++);
        REQUIRE(exit.request == token.request);
        CAPTURE(token.request, token.position);
        const std::vector<StandaloneRecord>& of = stretches[token.session];
        const bool isAlone = std::ranges::any_of(of, [&token](const StandaloneRecord& stretch) {
            return stretch.start <= token.start && token.start < stretch.end;
        });
        const Time end = token.start + token.latency;
        const bool begins = std::ranges::any_of(of, [&](const StandaloneRecord& stretch) {
            const bool isLate = exit.source == TokenSource::Fallback && stretch.start == end;
            return (stretch.start > token.start && stretch.start < end) || isLate;
        });
        if (exit.source != TokenSource::Exit)
        {
            CHECK(exit.asked.IsZero() == isAlone);
        }
        if (!isAlone)
        {
            CHECK(begins == (exit.source == TokenSource::Fallback));
        }
    }
}

/// Adds what one run's tokens came from.
void
Add(const Sources& run, Sources& total)
{
    for (const auto& [source, count] : run)
    {
        total[source] += count;
    }
}

/// The timeline shows when the edge was on its own, and when the cloud was down.
void
CheckModeLane(const RunRecords& records)
{
    const auto shows = [&records](const std::string& node, const std::string& name, Time start, Time end) {
        return std::ranges::any_of(records.timeline, [&](const TimelineSpan& span) {
            return span.lane == Lane::Mode && span.node == node && span.name == name && span.start == start &&
                   span.end == end;
        });
    };
    for (const StandaloneRecord& record : records.standalone)
    {
        CHECK(shows("edge", "standalone: " + record.reason, record.start, record.end));
    }
    for (const OutageRow& outage : records.outages)
    {
        CHECK(shows("cloud", "down", outage.start, outage.end));
    }
}

/// Runs \p study, and checks that it loses and leaves nothing.
RunRecords
Finished(const Study& study)
{
    const std::size_t frames = FramePool::Live();
    RunRecords records = Simulate(study, 0, 1, [] {}); // aborts if a node holds memory in the end
    CHECK(FramePool::Live() == frames);
    CHECK(records.sessionsLost == std::vector<std::string>{});
    CHECK(records.outOfMemory.empty());
    CHECK(records.tokens.size() == std::size_t{study.requestCount} * study.newTokens);
    CheckTimes(records);
    CheckStandalone(records);
    return records;
}

struct Checked
{
    RunRecords records;
    Sources sources;
};

/// The same for \p json with the threshold \p threshold, whose tokens are checked as well; it has an exact codec.
Checked
RunAndCheck(Json json, double threshold)
{
    json["scheme"]["policy"]["threshold"] = threshold;
    const Study study = ReadStudy(json, "test", Folders());
    Checked checked{Finished(study), {}};
    checked.sources = CheckTokens(study, checked.records, threshold);
    return checked;
}

constexpr auto kCloud = TokenSource::Cloud;
constexpr auto kFallback = TokenSource::Fallback;

/// \param expected milliseconds at which the tokens of the only answer are there, to a microsecond, and their sources
void
CheckAnswer(const Checked& checked, const std::vector<std::pair<int, TokenSource>>& expected)
{
    REQUIRE(checked.records.tokens.size() == expected.size());
    Time start;
    for (std::size_t i = 0; i < expected.size(); i++)
    {
        CAPTURE(i);
        const TokenRecord& token = checked.records.tokens[i].token;
        CHECK(token.start == start);
        start += token.latency;
        CHECK(std::abs((start - MilliSeconds(expected[i].first)).GetMicroSeconds()) <= 1);
        CHECK(checked.records.exits[i].source == expected[i].second);
    }
}

/// A connection in the hands of a test: a message takes a millisecond, and its sender's end may break.
class BrittlePort final : public MessagePort
{
  public:
    using Ends = std::array<BrittlePort*, kDirections>;

    BrittlePort(Direction sends, const ConnectionId& connection, std::shared_ptr<Ends> ends)
        : MessagePort(sends, connection),
          m_ends(std::move(ends))
    {
        (*m_ends)[static_cast<std::size_t>(sends)] = this;
        Open();
    }

    ~BrittlePort() override
    {
        (*m_ends)[static_cast<std::size_t>(Sends())] = nullptr;
    }

    void Close() override
    {
        AtPeer([](BrittlePort& peer) { peer.EndReceiving(); });
    }

    void Abandon() override
    {
        Close();
    }

    std::optional<MessageKind> breaksOn; //!< sending one

  protected:
    void Transmit(const Message& message) override
    {
        if (message.kind == breaksOn)
        {
            Fail("broken by a test");
            return;
        }
        AtPeer([message](BrittlePort& peer) { peer.Deliver(message); });
    }

  private:
    template <typename F>
    void AtPeer(F action)
    {
        const std::size_t peer = 1 - static_cast<std::size_t>(Sends());
        ns3::Simulator::Schedule(MilliSeconds(1), [ends = m_ends, peer, action] {
            if ((*ends)[peer] != nullptr)
            {
                action(*(*ends)[peer]);
            }
        });
    }

    std::shared_ptr<Ends> m_ends;
};

/// An edge and a cloud over connections the first of which break as a test says.
class BrokenRun
{
  public:
    BrokenRun()
    {
        SplitLlmHelper llm;
        llm.SetModel(TestModel("tiny-llama"));
        llm.SetScheme("ce-collm");
        CeCollmOptions options;
        options.policy = ExitByConfidence({2.0, 2.0});
        options.uploadLayer = kExitLayers.back();
        options.timeout = MilliSeconds(60);
        options.retry = MilliSeconds(40);
        const auto exits = std::make_shared<Exits>();
        exits->layers = kExitLayers;
        llm.SetCeCollm(options, exits);
        llm.SetWireType("fp32");
        ns3::NodeContainer nodes;
        nodes.Create(2);
        ns3::InternetStackHelper().Install(nodes.Get(1));
        Json profile = Json::parse(R"({"profile": "a100-80gb", "timing":
            {"table": {"layer": {"ms": 4}, "exit": {"ms": 2}, "head": {"ms": 6}}, "otherwise": "free"}})");
        StrictObject object(profile, "test");
        const DeviceProfile hardware = DeviceProfile::Read(object, Folders().profiles);
        m_cloud = llm.InstallCloud(nodes.Get(1), hardware);
        m_edge = llm.InstallUserDevice(nodes.Get(0), hardware, ns3::Address());
        m_edge->SetConnector([this](Api api) { return Connect(api); });
        for (const ns3::Ptr<SplitLlmApplication>& application : {ns3::Ptr<SplitLlmApplication>(m_cloud),
                                                                ns3::Ptr<SplitLlmApplication>(m_edge)})
        {
            application->TraceConnectWithoutContext(
                "SessionEnd",
                ns3::Callback<void, std::uint32_t, const std::string&>(
                    [this](std::uint32_t, const std::string& reason) { m_lost.push_back(reason); }));
        }
        m_edge->TraceConnectWithoutContext(
            "Token", ns3::Callback<void, const TokenRecord&>([this](const TokenRecord&) { m_tokens++; }));
        m_edge->TraceConnectWithoutContext(
            "Exit", ns3::Callback<void, const ExitRecord&>([this](const ExitRecord& record) { m_exits.push_back(record); }));
    }

    ~BrokenRun()
    {
        m_cloud = nullptr;
        m_edge = nullptr;
        ns3::Simulator::Destroy();
    }

    BrokenRun(const BrokenRun&) = delete;
    BrokenRun& operator=(const BrokenRun&) = delete;

    /// The first connection of \p api breaks at \p time, at the edge alone.
    void BreakAt(Time time, Api api)
    {
        ns3::Simulator::Schedule(time, [this, api] { m_first.at(api)->Refuse("broken by a test"); });
    }

    /// Runs \p requests of \p tokens each: all complete, the cloud is asked before and after, and keeps nothing.
    void Finish(std::uint32_t requests, std::uint32_t tokens)
    {
        for (std::uint32_t i = 0; i < requests; i++)
        {
            m_edge->AddRequest({.index = i, .prompt = {5, 6, 7}, .newTokens = tokens});
        }
        ns3::Simulator::Run();
        CHECK(m_tokens == requests * tokens);
        CHECK(m_lost == std::vector<std::string>{});
        REQUIRE(!m_exits.empty());
        CHECK(m_exits.back().source == TokenSource::Cloud);
        CHECK(std::ranges::count(m_exits, TokenSource::Fallback, &ExitRecord::source) > 0);
        const MemoryLedger& memory = m_cloud->GetHost()->memory;
        CHECK(memory.Used() == memory.Used(MemoryUse::Weights));
        CHECK(memory.Peak(MemoryUse::Kv) > 0);
    }

    std::optional<MessageKind> breaksOn; //!< the first connection that sends one
    std::uint32_t connections = 0;

  private:
    std::unique_ptr<MessagePort> Connect(Api api)
    {
        const ConnectionId connection{.client = std::uint64_t{1} << 40, .number = connections++};
        const auto ends = std::make_shared<BrittlePort::Ends>();
        auto user = std::make_unique<BrittlePort>(Direction::Up, connection, ends);
        if (m_first.try_emplace(api, user.get()).second)
        {
            user->breaksOn = breaksOn;
        }
        m_cloud->Attach(std::make_unique<BrittlePort>(Direction::Down, connection, ends), api);
        return user;
    }

    ns3::Ptr<Cloud> m_cloud;
    ns3::Ptr<UserDevice> m_edge;
    std::map<Api, BrittlePort*> m_first;
    std::vector<ExitRecord> m_exits;
    std::vector<std::string> m_lost;
    std::size_t m_tokens = 0;
};

} // namespace

TEST_CASE("The cloud may die at any moment and the wire lose packets: every answer is complete and right",
          "[ce-collm][invariant-11]")
{
    Sources total;
    std::mt19937 random(6);
    for (std::uint32_t seed = 1; seed <= 200; seed++)
    {
        const double loss = std::uniform_real_distribution<>(0.0, 0.2)(random);
        const double threshold = kThresholds[seed % kThresholds.size()];
        CAPTURE(seed, loss, threshold);
        Json study = CeCollmStudy(Wire(loss), Json::parse(R"([{"within": "700ms"}])"), 3, 8);
        study["seed"] = seed;
        const Checked run = RunAndCheck(study, threshold);
        Add(run.sources, total);
        REQUIRE(run.records.outages.size() == 1);
        const OutageRow& outage = run.records.outages.front();
        CHECK(outage.name == "cloud");
        CHECK(outage.end == Time::Max());
        for (std::size_t i = 0; i < run.records.exits.size(); i++)
        {
            const TokenRecord& token = run.records.tokens[i].token;
            // The last token that left before the end is there a delay and a queue later.
            if (token.start > outage.start + MilliSeconds(10) && loss == 0.0)
            {
                CHECK(run.records.exits[i].source != TokenSource::Cloud);
            }
        }
    }
    for (const TokenSource source : {TokenSource::Exit, TokenSource::Cloud, TokenSource::Fallback})
    {
        CAPTURE(NameOf(source));
        CHECK(total[source] > 300);
    }
}

TEST_CASE("A cloud that comes back is asked again, about all states of the request", "[ce-collm][invariant-11]")
{
    std::mt19937 random(7);
    std::size_t returned = 0;
    for (std::uint32_t seed = 1; seed <= 40; seed++)
    {
        const double loss = seed % 2 == 0 ? 0.0 : std::uniform_real_distribution<>(0.0, 0.2)(random);
        const double threshold = kThresholds[seed / 2 % kThresholds.size()];
        const int down = std::uniform_int_distribution<>(100, 1000)(random);
        CAPTURE(seed, loss, threshold, down);
        // A request that is under way when the cloud dies and when it comes back: 100 tokens take at least 1.6 s.
        Json study = CeCollmStudy(Wire(loss),
                                  {{{"within", "500ms"}, {"for", std::to_string(down) + "ms"}}},
                                  seed % 4 < 2 ? 1 : 2,
                                  seed % 4 < 2 ? 120 : 60);
        study["seed"] = seed;
        study["timeline"] = {{"tokens", 1000}};
        const Checked run = RunAndCheck(study, threshold);
        REQUIRE(run.records.outages.size() == 1);
        const OutageRow outage = run.records.outages.front();
        CHECK(outage.end - outage.start == MilliSeconds(down));
        std::size_t before = 0;
        std::size_t after = 0;
        std::size_t asked = 0; // after the return
        for (std::size_t i = 0; i < run.records.exits.size(); i++)
        {
            const TokenRecord& token = run.records.tokens[i].token;
            const Time end = token.start + token.latency;
            const bool ofCloud = run.records.exits[i].source == TokenSource::Cloud;
            // Nothing that the cloud sends while it is down, and nothing that it sent before and that took so long.
            const Time since = outage.start + MilliSeconds(loss == 0.0 ? 2 : 60);
            CHECK_FALSE((ofCloud && token.start > since && end < outage.end));
            before += ofCloud && token.start < outage.start ? 1 : 0;
            after += ofCloud && token.start > outage.end ? 1 : 0;
            asked += run.records.exits[i].asked > outage.end ? 1 : 0;
        }
        if (loss == 0.0)
        {
            // Below that threshold answers may come to run in circles that an exit is sure of.
            CHECK((before > 0 || threshold < 2.0));
            CHECK((after > 0 || threshold < 2.0));
            CHECK(after == asked);
            REQUIRE(run.records.standalone.size() > 0);
            // The edge learns of it within a token. It tries to connect once in timeout and time to retry, and sees with
            // the next token that it has.
            const Time begin = run.records.standalone.front().start;
            const Time end = run.records.standalone.back().end;
            const Time token = MilliSeconds(30);
            CHECK(begin >= outage.start);
            CHECK(begin <= outage.start + token);
            CHECK(end >= outage.end);
            CHECK(end <= outage.end + MilliSeconds(60 + 40) + token + token);
        }
        returned += after > 0 ? 1 : 0;
        CheckModeLane(run.records);
    }
    CHECK(returned > 30);
}

TEST_CASE("Whatever codec, batch or number of connections: a dying cloud leaves nothing undone", "[ce-collm][invariant-11]")
{
    // The cloud dies at every millisecond of the first tokens: between messages, within an operation, within a codec's.
    for (const char* codec : {R"("fp16")", R"({"name": "tab-q", "bits": 4})"})
    {
        for (int at = 0; at < 60; at++)
        {
            CAPTURE(codec, at);
            Json study = CeCollmStudy(R"({"type": "service", "rate": "1Mbps", "delay": "1ms"})",
                                      {{{"at", std::to_string(at) + "ms"}, {"for", "30ms"}}},
                                      2,
                                      5);
            study["scheme"]["codec"] = Json::parse(codec);
            for (const char* node : {"edge", "cloud"})
            {
                Json& table = study["nodes"][node]["hardware"]["timing"]["table"];
                table["encode"] = {{"ms", 3}};
                table["decode"] = {{"ms", 3}};
            }
            study["nodes"]["edge"]["count"] = 2;
            study["nodes"]["cloud"]["batch"] = 4;
            Finished(ReadStudy(study, "test", Folders()));
        }
    }
}

TEST_CASE("Eight edges go through the death and the return of their cloud", "[ce-collm][invariant-11]")
{
    for (const std::string& link : {Wire(0.0), Wire(0.1), std::string(R"({"type": "service", "rate": "10Mbps"})")})
    {
        for (const std::uint32_t batch : {1, 3})
        {
            CAPTURE(link, batch);
            Json study = CeCollmStudy(link, Json::parse(R"([{"at": "150ms", "for": "200ms"}])"), 16, 50);
            study["nodes"]["edge"]["count"] = 8;
            study["nodes"]["cloud"]["batch"] = batch;
            study["scheme"]["timeout"] = "200ms"; // eight answers one after the other take 80 ms
            const Checked run = RunAndCheck(study, 2.0);
            std::set<std::uint32_t> alone;
            for (const StandaloneRecord& record : run.records.standalone)
            {
                alone.insert(record.session);
            }
            CHECK(alone.size() == 8);
            std::set<std::uint32_t> back;
            for (const ExitRecord& exit : run.records.exits)
            {
                if (exit.source == TokenSource::Cloud && exit.asked > MilliSeconds(350))
                {
                    back.insert(exit.session);
                }
            }
            CHECK((back.size() == 8 || link == Wire(0.1)));
            CHECK(!back.empty());
        }
    }
}

TEST_CASE("Over fading and Wi-Fi links the cloud dies and returns as over wires", "[ce-collm][invariant-11]")
{
    for (const char* link : {R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "delay": "1ms"})",
                             R"({"type": "fading", "bandwidth": "10MHz", "snr": 10, "delay": "1ms", "transport": "tcp"})",
                             R"({"type": "wifi", "distance": "5m"})"})
    {
        CAPTURE(link);
        const Json study = CeCollmStudy(link, Json::parse(R"([{"at": "200ms", "for": "200ms"}])"), 2, 40);
        Checked run = RunAndCheck(study, 0.6);
        CHECK(run.records.standalone.size() > 0);
        CHECK(run.sources[TokenSource::Fallback] > 0);
        CHECK(run.sources[TokenSource::Cloud] > 10);
    }
}

TEST_CASE("A message that a fading link gives up breaks the connection, and the edge makes it anew", "[ce-collm][fading]")
{
    // The threshold SNR is 0.74 of a mean of 12: 6 % of the messages are lost, at one attempt each.
    Sources total;
    for (std::uint32_t seed = 1; seed <= 40; seed++)
    {
        CAPTURE(seed);
        Json study = CeCollmStudy(R"({"type": "fading", "bandwidth": "10MHz", "rate": "8Mbps", "snr": 12, "attempts": 1,
                                      "on_loss": "fail", "delay": "1ms"})",
                                  Json::array(),
                                  3,
                                  12);
        study["seed"] = seed;
        const Checked run = RunAndCheck(study, 2.0);
        Add(run.sources, total);
    }
    CHECK(total[TokenSource::Fallback] > 100);
    CHECK(total[TokenSource::Cloud] > 500);
}

TEST_CASE("A cloud that is down from the start is not missed, and joined when it comes", "[ce-collm][invariant-11]")
{
    for (const std::string& link : {Wire(0.0),
                                    // Connecting takes longer than a token.
                                    std::string(R"({"type": "wired", "rate": "100Mbps", "delay": "20ms"})"),
                                    std::string(R"({"type": "service", "rate": "100Mbps", "delay": "1ms"})")})
    {
        CAPTURE(link);
        const Checked never = RunAndCheck(CeCollmStudy(link, Json::parse(R"([{"at": "0s"}])"), 2, 8), 0.6);
        CHECK(never.sources.contains(TokenSource::Fallback));
        CHECK_FALSE(never.sources.contains(TokenSource::Cloud));
        CHECK(never.records.payloadBytes == std::array<std::uint64_t, 2>{0, 0});
        REQUIRE(never.records.standalone.size() == 2); // one a request
        CHECK(never.records.standalone.front().reason == "no connection to the cloud");
        for (const TokenRow& row : never.records.tokens)
        {
            CHECK(row.token.components[static_cast<std::size_t>(Component::Network)].IsZero());
        }

        Checked late = RunAndCheck(CeCollmStudy(link, Json::parse(R"([{"at": "0s", "for": "150ms"}])"), 2, 20), 2.0);
        CHECK(late.sources[TokenSource::Cloud] > 20);
        REQUIRE(late.records.standalone.size() == 1);
        CHECK(late.records.standalone.front().end >= MilliSeconds(150));
    }
}

TEST_CASE("An answer that is late costs the timeout exactly, and a late answer brings the edge back", "[ce-collm][timeout]")
{
    // A token takes the edge 3 layers and 2 exits, 16 ms, an answer a layer and the head, 10 ms; the network nothing.
    constexpr int kToken = 16;
    constexpr int kAnswer = 10;
    const auto run = [](const Json& link, const char* timeout, const char* retry, std::uint32_t tokens) {
        Json study = CeCollmStudy(link.dump(), Json::array(), 1, tokens);
        study["scheme"]["timeout"] = timeout;
        study["scheme"]["retry"] = retry;
        return RunAndCheck(study, 2.0);
    };
    const auto check = CheckAnswer;
    const Json fast{{"type", "service"}, {"rate", "1000Gbps"}};

    SECTION("the link stands still, and the late answer comes before the time to retry")
    {
        // Token 2 asks at 42 ms, in the outage. Its request leaves at 137 ms and is answered at 147 ms.
        Json link = fast;
        link["outages"] = {{{"at", "41ms"}, {"for", "96ms"}}};
        const Checked checked = run(link, "60ms", "10s", 8);
        check(checked,
              {{kToken + kAnswer, kCloud},
               {102, kFallback},
               {118, kFallback},
               {134, kFallback},
               {150, kFallback},
               {150 + kToken + kAnswer, kCloud},
               {202, kCloud},
               {228, kCloud}});
        REQUIRE(checked.records.standalone.size() == 1);
        CHECK(checked.records.standalone.front().end - checked.records.standalone.front().start == MilliSeconds(48));
        REQUIRE(checked.records.outages.size() == 1);
        CHECK(checked.records.outages.front().name == "edge-cloud");
    }
    SECTION("an answer that just comes in time")
    {
        Json link = fast;
        link["delay"] = "25ms";
        check(run(link, "61ms", "1s", 3), {{76, kCloud}, {152, kCloud}, {228, kCloud}});
        check(run(link, "59ms", "1s", 3), {{75, kFallback}, {91, kFallback}, {166, kFallback}});
    }
    SECTION("the time to retry comes before the late answer, and a late answer before the time to retry")
    {
        // Token 1 asks at 16 ms, and its answer comes at 226 ms; token 5, at 140 ms, is the first after 116 ms.
        Json link = fast;
        link["delay"] = "100ms";
        check(run(link, "60ms", "40ms", 8),
              {{76, kFallback},
               {92, kFallback},
               {108, kFallback},
               {124, kFallback},
               {200, kFallback},
               {216, kFallback},
               {232, kFallback},
               {308, kFallback}});
    }
    SECTION("a late answer comes while another one is waited for")
    {
        // The answers of tokens 1 and 3 come at 116 and 208 ms, while tokens 3 and 5 wait.
        Json link = fast;
        link["delay"] = "45ms";
        check(run(link, "60ms", "10ms", 5),
              {{76, kFallback}, {92, kFallback}, {168, kFallback}, {184, kFallback}, {260, kFallback}});
    }
}

TEST_CASE("A broken connection costs no wait, and is made anew after the time to retry", "[ce-collm][timeout]")
{
    // Token 2 asks at 42 ms, and would be answered at 52 ms.
    const auto run = [](const char* down) {
        return RunAndCheck(CeCollmStudy(R"({"type": "service", "rate": "1000Gbps"})",
                                        {{{"at", "45ms"}, {"for", down}}},
                                        1,
                                        10),
                           2.0);
    };
    SECTION("the first try succeeds")
    {
        CheckAnswer(run("30ms"),
                    {{26, kCloud},
                     {45, kFallback},
                     {61, kFallback},
                     {77, kFallback},
                     {93, kFallback},
                     {119, kCloud},
                     {145, kCloud},
                     {171, kCloud},
                     {197, kCloud},
                     {223, kCloud}});
    }
    SECTION("the second try succeeds")
    {
        // The first one, at 93 ms, is refused at once, which the next token finds out, at 109 ms.
        const Checked checked = run("100ms");
        CheckAnswer(checked,
                    {{26, kCloud},
                     {45, kFallback},
                     {61, kFallback},
                     {77, kFallback},
                     {93, kFallback},
                     {109, kFallback},
                     {125, kFallback},
                     {141, kFallback},
                     {157, kFallback},
                     {183, kCloud}});
        REQUIRE(checked.records.standalone.size() == 1);
        CHECK(checked.records.standalone.front().reason == "the cloud closed the connection");
        CHECK(checked.records.standalone.front().start.GetMicroSeconds() == 45'000);
        CHECK((checked.records.standalone.front().end - MilliSeconds(157)).GetMicroSeconds() == 0);
    }
}

TEST_CASE("A connection that breaks alone, or under an End, takes nothing with it", "[ce-collm][invariant-11]")
{
    SECTION("the one for uploads, while states are under way and while none is")
    {
        for (const int at : {1, 14, 15, 17, 30, 41, 43, 60})
        {
            CAPTURE(at);
            BrokenRun run;
            run.BreakAt(MilliSeconds(at), Api::Upload);
            run.Finish(2, 8);
            CHECK(run.connections == 4);
        }
    }
    SECTION("the one for inference")
    {
        for (const int at : {1, 14, 17, 25, 41, 43, 60})
        {
            CAPTURE(at);
            BrokenRun run;
            run.BreakAt(MilliSeconds(at), Api::Inference);
            run.Finish(2, 8);
            CHECK(run.connections == 4);
        }
    }
    SECTION("the one for inference, when an End is sent")
    {
        BrokenRun run;
        run.breaksOn = MessageKind::End;
        run.Finish(3, 2);
        CHECK(run.connections == 4); // the break after the last request is of no interest
    }
    SECTION("the one for uploads, when a state is sent")
    {
        BrokenRun run;
        run.breaksOn = MessageKind::HiddenState;
        run.Finish(2, 8);
        CHECK(run.connections == 4);
    }
}

TEST_CASE("Requests that wait for states give way to a later one, however many there are", "[ce-collm][cloud]")
{
    const Dialogue dialogue = Converse(40, 7, 2, 2);
    CloudRun run({.contextTimeout = MilliSeconds(500)});
    RawClient& client = run.NewClient(7);
    client.Ask(0, 6);
    client.Ask(0, 7); // is served within the call that drops the one before
    CloudRun::Until(MilliSeconds(10));
    client.Upload(dialogue, 1, 0, 7);
    client.Ask(1, 6);
    CloudRun::Until(MilliSeconds(100));
    CHECK(client.Tokens() == std::vector<TokenId>{dialogue.answer.tokens[0]});
    CloudRun::Until(ns3::Seconds(5)); // of the contexts one is left to expire
    CHECK(run.StateBytes() + run.KvBytes() == 0);
    CHECK(run.ends.empty());
}

TEST_CASE("Outages of nodes that make no sense are refused", "[ce-collm][study]")
{
    const auto error = [](const std::string& node, const char* outages) {
        return ErrorOf([&] {
            Json study = CeCollmStudy(Wire(0.0), Json::array(), 1, 1);
            study["nodes"][node]["outages"] = Json::parse(outages);
            ReadStudy(study, "test", Folders());
        });
    };
    const std::string either = "; accepted: either \"at\", when the outage begins, or \"within\", before when it does";
    CHECK(error("cloud", R"([{"at": "0s"}, {"within": "1s", "for": "1ms"}])").empty());
    CHECK(error("cloud", R"([{"at": "1s", "within": "2s"}])") ==
          "test: nodes.cloud.outages[0].at: stands beside \"within\"" + either);
    CHECK(error("cloud", R"([{"at": "1s"}, {"for": "2s"}])") == "test: nodes.cloud.outages[1].at: missing" + either);
    CHECK(error("cloud", R"([{"at": "1s", "for": "0s"}])") == "test: nodes.cloud.outages[0].for: must be above 0");
    CHECK(error("cloud", R"([{"within": "0s"}])") == "test: nodes.cloud.outages[0].within: must be above 0");
    for (const char* bad : {"7", "{}", R"([7])", R"([{"at": 7}])", R"([{"at": "-1s"}])", R"([{"at": "1s", "until": "2s"}])"})
    {
        CAPTURE(bad, error("cloud", bad));
        CHECK(error("cloud", bad).starts_with("test: nodes.cloud.outages"));
        CHECK(error("cloud", bad).find('\n') == std::string::npos);
    }
    CHECK(error("edge", R"([{"at": "1s"}])").starts_with("test: nodes.edge.outages: "));
}
