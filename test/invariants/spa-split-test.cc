// SPDX-License-Identifier: GPL-2.0-only

// Invariants 1, 2, 3, 5 and 8 for SPA: what cloud and device compute together, what crosses, and when.

#include "support/catch.h"
#include "support/random-model.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tiny-deployment.h"

#include "llm/beam-search.h"
#include "llm/side-network.h"
#include "metrics.h"
#include "schemes/spa/spa-options.h"
#include "simulation.h"

#include <cmath>
#include <map>
#include <numeric>
#include <utility>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::size_t kWidth = 5;
constexpr std::size_t kInner = 7;

std::shared_ptr<const SideNetwork>
SideOf(const std::string& model, bool alone = false)
{
    const auto random = RandomSideNetwork(LoadConfig(TestModel(model)), kWidth, kInner, DType::F32, 77);
    if (!alone)
    {
        return random;
    }
    const auto copy = std::make_shared<std::pair<std::shared_ptr<const SideNetwork>, SideNetwork>>(random, *random);
    copy->second.alone = true;
    return {copy, &copy->second};
}

/// Which parts of the work the device does.
struct Placement
{
    SpaNode downProjection;
    SpaNode head;
};

constexpr Placement kPlacements[] = {{SpaNode::Cloud, SpaNode::Device},
                                     {SpaNode::Cloud, SpaNode::Cloud},
                                     {SpaNode::Device, SpaNode::Device},
                                     {SpaNode::Device, SpaNode::Cloud}};

SplitLlmHelper
Spa(const std::string& model,
    std::shared_ptr<const GatePolicy> policy,
    const Placement& placement = kPlacements[0],
    const std::string& wire = "fp32",
    bool alone = false,
    bool stream = true)
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel(model));
    llm.SetScheme("spa");
    SpaOptions options;
    options.policy = std::move(policy);
    options.downProjection = placement.downProjection;
    options.head = placement.head;
    options.stream = stream;
    llm.SetSpa(options, SideOf(model, alone));
    llm.SetWireType(wire);
    return llm;
}

/// The same in one loop, without nodes: the side network where \p open says so, with what crosses rounded to \p wire.
Answer
Whole(const std::string& model,
      const std::vector<bool>& open,
      const Placement& placement = kPlacements[0],
      DType wire = DType::F32,
      bool alone = false)
{
    CpuBackend backend(1);
    const auto resident = backend.Resident(Model::Load(TestModel(model)));
    const ModelConfig& config = resident->Config();
    const auto side = backend.Resident(SideOf(model, alone), config);
    const auto cache = backend.NewCache(*resident, 0, config.layers, config.maxPositions);
    std::vector<TokenId> tokens = Prompt();
    Answer answer;
    while (answer.tokens.size() < kNewTokens)
    {
        Tensor h = backend.Embed(*resident, tokens, cache->Position(0)).value;
        std::vector<Tensor> states;
        for (std::size_t l = 0; l < config.layers; l++)
        {
            h = backend.FinishLayer(*resident, l, h, backend.Project(*resident, l, h).value, *cache).value;
            states.push_back(h.Slice(h.Rows() - 1, 1));
        }
        Tensor last = states.back();
        if (open[answer.tokens.size() % open.size()])
        {
            const bool deviceProjects = placement.downProjection == SpaNode::Device;
            for (Tensor& state : states)
            {
                state = deviceProjects ? RoundTo(state, wire) : state;
            }
            Tensor input = backend.SideInput(*side, states).value;
            input = deviceProjects ? input : RoundTo(input, wire);
            Tensor g = backend.Side(*side, input).value;
            g = placement.head == SpaNode::Cloud ? RoundTo(g, wire) : g;
            last = placement.head == SpaNode::Device ? RoundTo(last, wire) : last;
            last = alone ? g : (last += g);
        }
        const Tensor logits = backend.Head(*resident, last).value;
        answer.logits.emplace_back(logits.Values().begin(), logits.Values().end());
        answer.tokens.push_back(Greedy(logits.Values()));
        tokens.assign(1, answer.tokens.back());
    }
    return answer;
}

/// What a plain search finds: every hypothesis computed from its prompt anew, the side network where \p open says so.
std::vector<TokenId>
Found(const std::string& model, std::size_t beams, const std::vector<bool>& open, const std::vector<TokenId>& stop)
{
    CpuBackend backend(1);
    const auto resident = backend.Resident(Model::Load(TestModel(model)));
    const ModelConfig& config = resident->Config();
    const auto side = backend.Resident(SideOf(model), config);
    BeamSearch search(beams, 1.0, kNewTokens, stop);
    std::vector<std::vector<TokenId>> running{Prompt()};
    for (std::size_t step = 0; !search.Ended(); step++)
    {
        std::vector<std::vector<ScoredToken>> rows;
        for (const std::vector<TokenId>& tokens : running)
        {
            const auto cache = backend.NewCache(*resident, 0, config.layers, config.maxPositions);
            Tensor h = backend.Embed(*resident, tokens, 0).value;
            std::vector<Tensor> states;
            for (std::size_t l = 0; l < config.layers; l++)
            {
                h = backend.FinishLayer(*resident, l, h, backend.Project(*resident, l, h).value, *cache).value;
                states.push_back(h.Slice(h.Rows() - 1, 1));
            }
            Tensor last = states.back();
            if (open[step % open.size()])
            {
                last += backend.Side(*side, backend.SideInput(*side, states).value).value;
            }
            rows.push_back(MostLikely(backend.Head(*resident, last).value.Values(), search.Candidates()));
        }
        search.Advance(rows);
        std::vector<std::vector<TokenId>> next;
        for (const BeamSearch::Continuation& continuation : search.Running())
        {
            next.push_back(running[continuation.parent]);
            next.back().push_back(continuation.token);
        }
        running = std::move(next);
    }
    return search.Answer();
}

/// Messages of \p run by kind.
std::map<std::string, std::size_t>
Kinds(const SplitRun& run)
{
    std::map<std::string, std::size_t> kinds;
    for (const MessageRecord& message : run.messages)
    {
        kinds[message.kind]++;
    }
    return kinds;
}

const std::vector<bool> kPattern{true, false, false, true, true, false, true};

/// A study of SPA in shape mode on LLaMA-7B unless \p model is another shape.
Json
ShapeStudy(const Json& scheme, const std::string& model = "llama-7b")
{
    Json study = TinyStudy();
    study["mode"] = "shape";
    study["model"] = {{"shape", model}, {"dtype", "fp16"}};
    study["nodes"] = Json::parse(R"({
        "device": { "role": "user-device",
                    "hardware": { "profile": "device-13tflops", "timing": { "table": {"side": {"ms": 0.25}}, "otherwise": "free" } } },
        "cloud": { "role": "cloud",
                   "hardware": { "profile": "v100-32gb", "timing": { "table": {"layer": {"ms": 0.5}}, "otherwise": "free" } } } })");
    study["links"] = {{"device-cloud", {{"type", "service"}, {"rate", "1Gbps"}}}};
    study["scheme"] = {{"name", "spa"}, {"side", {{"width", 96U}}}, {"policy", {{"name", "always"}}}};
    study["scheme"].update(scheme);
    study["workload"] = Json::parse(R"({"prompt_tokens": [{"tokens": 1, "requests": 1}], "new_tokens": 10})");
    return study;
}

RunRecords
Run(Json study)
{
    return Simulate(ReadStudy(study, "test", Folders()), 0, 1, [] {});
}

} // namespace

TEST_CASE("Behind a gate that is closed for ever SPA is the base model, bit for bit", "[spa][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const Answer base = Monolithic(TestModel(model), {}).Ask(Prompt(), kNewTokens);
        for (const Placement& placement : kPlacements)
        {
            for (const bool stream : {true, false})
            {
                for (const std::string wire : {"fp32", "fp16"})
                {
                    CAPTURE(model, stream, wire);
                    SplitRun run(Spa(model, OpenNever(), placement, wire, false, stream));
                    CHECK(SameBits(run.Ask(Prompt(), kNewTokens), base));
                    CHECK(run.lost.empty());
                    std::map<std::string, std::size_t> kinds{{"generate", 1}, {"next-token", kNewTokens}, {"end", 1}};
                    if (!stream)
                    {
                        kinds["tokens"] = kNewTokens - 1;
                    }
                    CHECK(Kinds(run) == kinds);
                }
            }
        }
    }
}

TEST_CASE("A gate that never opens by its threshold leaves the base model's bits too", "[spa][invariant-2]")
{
    SplitRun run(Spa("tiny-llama", OpenByGate(1.0)));
    CHECK(SameBits(run.Ask(Prompt(), kNewTokens), Monolithic(TestModel("tiny-llama"), {}).Ask(Prompt(), kNewTokens)));
}

TEST_CASE("With a gate that is open for ever SPA is LST, bit for bit", "[spa][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const Placement& placement : kPlacements)
        {
            CAPTURE(model);
            SplitLlmHelper lst = Spa(model, nullptr, placement);
            lst.SetScheme("lst");
            const Answer always = SplitRun(std::move(lst)).Ask(Prompt(), kNewTokens);
            CHECK(SameBits(SplitRun(Spa(model, OpenAlways(), placement)).Ask(Prompt(), kNewTokens), always));
            CHECK(SameBits(SplitRun(Spa(model, OpenByGate(0.0), placement)).Ask(Prompt(), kNewTokens), always));
            CHECK(SameBits(Whole(model, {true}), always)); // wherever the projection and the head are
        }
    }
}

TEST_CASE("The side network makes the tokens at which the gate is open, and no others", "[spa][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const bool alone : {false, true})
        {
            const Answer whole = Whole(model, kPattern, kPlacements[0], DType::F32, alone);
            REQUIRE(!SameBits(whole, Whole(model, {true}, kPlacements[0], DType::F32, alone)));
            REQUIRE(!SameBits(whole, Whole(model, {false})));
            for (const Placement& placement : kPlacements)
            {
                for (const bool stream : {true, false})
                {
                    CAPTURE(model, alone, stream);
                    SplitRun run(Spa(model, OpenAsListed(kPattern), placement, "fp32", alone, stream));
                    CHECK(SameBits(run.Ask(Prompt(), kNewTokens), whole));
                    CHECK(run.lost.empty());
                }
            }
        }
    }
}

TEST_CASE("Over a 16-bit wire SPA gives the bits of a model that rounds what crosses", "[spa][invariant-2]")
{
    for (const Placement& placement : kPlacements)
    {
        for (const bool alone : {false, true})
        {
            SplitRun run(Spa("tiny-llama", OpenAsListed(kPattern), placement, "fp16", alone));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), Whole("tiny-llama", kPattern, placement, DType::F16, alone)));
        }
    }
}

TEST_CASE("An answer ends at a stop token, whoever says it, and the next request starts afresh", "[spa]")
{
    const Answer whole = Whole("tiny-llama", kPattern);
    for (const TokenId stop : whole.tokens)
    {
        const auto first = std::ranges::find(whole.tokens, stop) + 1;
        for (const bool stream : {true, false})
        {
            SplitRun run(Spa("tiny-llama", OpenAsListed(kPattern), kPlacements[0], "fp32", false, stream));
            CHECK(run.Ask(Prompt(), kNewTokens, {stop}).tokens == std::vector<TokenId>(whole.tokens.begin(), first));
            CHECK(run.tokens.back().last);
            CHECK(run.lost.empty());
            CHECK(Kinds(run)["end"] == 1);
        }
    }
}

TEST_CASE("What crosses is what the shapes say, wherever the projection and the head are", "[spa][invariant-5]")
{
    constexpr std::size_t kLayers = 4;
    constexpr std::size_t kHidden = 64;
    const std::size_t open = 7; // of 12 tokens in the pattern's turns: 1 0 0 1 1 0 1  1 0 0 1 1
    for (const std::string wire : {"fp32", "fp16"})
    {
        const std::size_t b = wire == "fp32" ? 4 : 2;
        for (const Placement& placement : kPlacements)
        {
            for (const bool alone : {false, true})
            {
                SplitRun run(Spa("tiny-llama", OpenAsListed(kPattern), placement, wire, alone));
                run.Ask(Prompt(), kNewTokens);
                const bool deviceProjects = placement.downProjection == SpaNode::Device;
                const bool deviceHead = placement.head == SpaNode::Device;
                const std::size_t states = deviceProjects              ? kLayers * kHidden * b
                                           : deviceHead && !alone ? 4 + kLayers * kWidth * b + kHidden * b
                                                                       : kLayers * kWidth * b;
                std::map<std::string, std::vector<std::uint64_t>> sizes;
                for (const MessageRecord& message : run.messages)
                {
                    sizes[message.kind].push_back(message.payloadBytes);
                }
                CAPTURE(wire, deviceProjects, deviceHead, alone);
                CHECK(sizes["side-states"] == std::vector<std::uint64_t>(open, states));
                CHECK(sizes["generate"] == std::vector<std::uint64_t>{4 * (2 + Prompt().size())});
                if (deviceHead)
                {
                    CHECK(sizes["next-token"] == std::vector<std::uint64_t>(kNewTokens - open, 4));
                    CHECK(sizes["tokens"] == std::vector<std::uint64_t>(open - 1, 4)); // the last one ends the answer
                    CHECK(sizes.count("side-output") == 0);
                }
                else
                {
                    CHECK(sizes["next-token"] == std::vector<std::uint64_t>(kNewTokens, 4));
                    CHECK(sizes["side-output"] == std::vector<std::uint64_t>(open, kHidden * b));
                    CHECK(sizes.count("tokens") == 0);
                }
            }
        }
    }
}

TEST_CASE("SPA in shape mode sends the bytes of numeric mode", "[spa][invariant-8]")
{
    for (const char* down : {"cloud", "device"})
    {
        for (const char* head : {"cloud", "device"})
        {
            const std::vector<unsigned> tokens{1, 0, 1};
            const Json scheme{{"down_projection", down}, {"head", head}, {"policy", {{"name", "listed"}, {"tokens", tokens}}}};
            Json study = ShapeStudy(scheme);
            study["model"] = {{"path", "tiny-llama"}, {"dtype", "fp16"}};
            study["scheme"]["side"] = {{"width", kWidth}, {"inner", kInner}};
            study["workload"] = Json::parse(R"({"prompt_tokens": [{"tokens": 19, "requests": 1}], "new_tokens": 12})");
            const RunRecords shape = Run(study);
            Placement placement{*down == 'c' ? SpaNode::Cloud : SpaNode::Device,
                                *head == 'c' ? SpaNode::Cloud : SpaNode::Device};
            SplitRun numeric(Spa("tiny-llama", OpenAsListed({true, false, true}), placement, "fp16"));
            numeric.Ask(Prompt(), kNewTokens);
            std::array<std::uint64_t, kDirections> bytes{};
            std::array<std::uint64_t, kDirections> messages{};
            for (const MessageRecord& message : numeric.messages)
            {
                bytes[static_cast<std::size_t>(message.direction)] += message.payloadBytes;
                messages[static_cast<std::size_t>(message.direction)]++;
            }
            CAPTURE(down, head);
            CHECK(shape.payloadBytes == bytes);
            CHECK(shape.messagesSent == messages);
            CHECK(shape.messagesUnderWay == 0);
            CHECK(shape.gates.size() == 12);
        }
    }
}

TEST_CASE("A closed token's draw is the base model's, an open one's the device's", "[spa]")
{
    SplitLlmHelper closed = Spa("tiny-llama", OpenNever());
    closed.SetSampling(1.5, 0.95);
    SplitLlmHelper server = Deployment("tiny-llama", "server", "fp16");
    server.SetAdapter({});
    server.SetSampling(1.5, 0.95);
    const std::vector<TokenId> drawn = SplitRun(std::move(closed)).Ask(Prompt(), kNewTokens).tokens;
    CHECK(drawn == SplitRun(std::move(server)).Ask(Prompt(), kNewTokens).tokens);
    CHECK(drawn != Whole("tiny-llama", {false}).tokens); // greedy
}

TEST_CASE("A message's startup and bytes are what the network adds, for any depth, rate and startup (Eq 4)", "[spa]")
{
    // T_net = M (tau + bytes / rate), with M the share of tokens at which the gate is open.
    for (const std::string model : {"opt-1.3b", "llama-7b", "opt-13b"})
    {
        const ModelConfig config = NamedShape(model, DType::F16);
        for (const char* rate : {"100Mbps", "1Gbps"})
        {
            const double bitsPerSecond = rate[1] == '0' ? 1e8 : 1e9;
            for (const std::int64_t startup : {0, 3900})
            {
                for (const std::size_t open : {0, 3, 5})
                {
                    std::vector<unsigned> tokens(5, 0);
                    std::fill_n(tokens.begin(), open, 1U);
                    Json study = ShapeStudy({{"down_projection", "device"},
                                             {"notice", "free"},
                                             {"reply", "free"},
                                             {"policy", {{"name", "listed"}, {"tokens", tokens}}}},
                                            model);
                    Json& link = study["links"]["device-cloud"];
                    link["rate"] = rate;
                    link["startup"] = std::to_string(startup) + "us";
                    link["kinds"] = {{"generate", {{"startup", "0ns"}, {"payload_bytes", 0U}}}};
                    const RunRecords records = Run(study);
                    const double bytes = static_cast<double>(config.layers * config.hidden * 2);
                    const double exchange = static_cast<double>(startup) * 1e-6 + 8.0 * bytes / bitsPerSecond;
                    const double compute = static_cast<double>(config.layers) * 0.5e-3;
                    double total = 0.0;
                    for (const TokenRow& row : records.tokens)
                    {
                        const bool asked = (row.token.position - 1) % 5 < open;
                        const double expected = compute + (asked ? exchange + 0.25e-3 : 0.0);
                        CAPTURE(model, rate, startup, open, row.token.position);
                        CHECK(std::abs(row.token.latency.GetSeconds() - expected) < 2e-9);
                        CHECK(row.token.exchanges == (asked ? 1 : 0));
                        total += row.token.components[static_cast<std::size_t>(Component::Network)].GetSeconds();
                    }
                    CHECK(std::abs(total - 2.0 * static_cast<double>(open) * exchange) < 2e-8);
                }
            }
        }
    }
}

TEST_CASE("Behind a closed gate the cloud does not wait for the notice to arrive", "[spa]")
{
    Json study = ShapeStudy({{"policy", {{"name", "never"}}}});
    study["links"]["device-cloud"]["delay"] = "30ms";
    const RunRecords streamed = Run(study);
    study["scheme"]["stream"] = false;
    const RunRecords asked = Run(study);
    for (std::size_t k = 1; k < 10; k++)
    {
        CHECK(streamed.tokens[k].token.latency == ns3::MilliSeconds(16));
        CHECK(asked.tokens[k].token.latency > ns3::MilliSeconds(76));
    }
}

TEST_CASE("The gate's share is that of all tokens, and memory is who has what", "[spa]")
{
    Json study = ShapeStudy({{"policy", {{"name", "listed"}, {"tokens", {1U, 0U, 0U}}}}});
    const Study read = ReadStudy(study, "test", Folders());
    const RunRecords records = Simulate(read, 0, 1, [] {});
    const Metrics metrics = ComputeMetrics(read, {records});
    CHECK(*Find(metrics, "gate_ratio") == Approx(0.4)); // 1 0 0  1 0 0  1 0 0  1
    CHECK(*Find(metrics, "exchanges_per_token") == Approx(3.0 / 9.0));
    const ModelConfig& config = read.config;
    const std::uint64_t block = 32 * 2 * 96 * 96 + 96 * 4096;
    CHECK(*Find(metrics, "memory_bytes.device.adapters") == 2 * block);
    CHECK(*Find(metrics, "memory_bytes.cloud.adapters") == 2 * 32 * 96 * 4096);
    CHECK(*Find(metrics, "memory_bytes.device.weights") == 2 * (config.vocab * 4096 + 4096));
    CHECK(*Find(metrics, "memory_bytes.cloud.weights") == 2 * config.Parameters());
}

TEST_CASE("A search of one beam finds what SPA says greedily, wherever the projection and the head are", "[spa][beams]")
{
    for (const std::vector<bool>& open : {std::vector<bool>{false}, {true}, kPattern})
    {
        const Answer whole = Whole("tiny-llama", open);
        for (const Placement& placement : kPlacements)
        {
            SplitLlmHelper llm = Spa("tiny-llama", OpenAsListed(open), placement);
            llm.SetBeams(1, 1.0);
            SplitRun run(std::move(llm));
            const Answer answer = run.Ask(Prompt(), kNewTokens);
            CHECK(SameBits(answer, whole));
            REQUIRE(run.searched.size() == 1);
            CHECK(run.searched.front().tokens == whole.tokens);
        }
    }
}

TEST_CASE("SPA's search finds what a plain one finds, with one message for all hypotheses", "[spa][beams][invariant-2]")
{
    constexpr std::size_t kBeams = 4;
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::vector<bool>& open : {std::vector<bool>{false}, {true}, kPattern})
        {
            const std::vector<TokenId> found = Found(model, kBeams, open, {});
            for (const TokenId stop : {found[3], TokenId{0}})
            {
                const std::vector<TokenId> expected = Found(model, kBeams, open, {stop});
                for (const Placement& placement : kPlacements)
                {
                    SplitLlmHelper llm = Spa(model, OpenAsListed(open), placement);
                    llm.SetBeams(kBeams, 1.0);
                    SplitRun run(std::move(llm));
                    run.Ask(Prompt(), kNewTokens, {stop});
                    const bool head = placement.head == SpaNode::Device;
                    CAPTURE(model, open.size(), stop, head);
                    REQUIRE(run.searched.size() == 1);
                    CHECK(run.searched.front().tokens == expected);
                    CHECK(run.lost.empty());
                    const std::size_t steps = run.tokens.size();
                    std::size_t asked = 0;
                    for (std::size_t k = 0; k < steps; k++)
                    {
                        asked += open[k % open.size()] ? 1 : 0;
                    }
                    std::map<std::string, std::size_t> kinds{{"generate", 1}, {"end", 1}, {"answer", 1}};
                    const std::map<std::string, std::size_t> perStep{
                        {"side-states", asked}, {head ? "candidates" : "side-output", asked}, {"next-token", steps - 1}};
                    for (const auto& [kind, count] : perStep)
                    {
                        if (count > 0)
                        {
                            kinds[kind] = count;
                        }
                    }
                    CHECK(Kinds(run) == kinds);
                    for (const MessageRecord& message : run.messages)
                    {
                        if (message.kind == "candidates")
                        {
                            const std::size_t hypotheses = message.position == Prompt().size() - 1 ? 1 : kBeams;
                            CHECK(message.payloadBytes == hypotheses * 2 * kBeams * 8);
                        }
                    }
                }
            }
        }
    }
}
