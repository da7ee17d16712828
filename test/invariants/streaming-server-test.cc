// SPDX-License-Identifier: GPL-2.0-only

// The baselines of CE-CoLLM: a cloud that streams its answer, and a split that sends the whole prefix for every token.

#include "support/catch.h"
#include "support/endpoint.h"
#include "support/error-of.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tiny-deployment.h"

#include "codec/dense-codec.h"
#include "metrics.h"
#include "net/tcp-message-port.h"
#include "simulation.h"

#include <map>
#include <numeric>

using namespace splitllm;
using namespace splitllm::test;
using ns3::NanoSeconds;
using ns3::Time;

namespace
{

SplitLlmHelper
Streaming(const std::string& model)
{
    SplitLlmHelper llm = Deployment(model, "server", "fp16");
    llm.SetStream(true);
    return llm;
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

/// \p users users of a server whose layers take 1 ms each and whose head 0.5 ms, over service links.
Json
TimedStudy(std::uint32_t users, const Json& link)
{
    Json study = TinyStudy();
    study["model"].erase("adapter");
    study["nodes"]["device"]["count"] = users;
    study["nodes"]["edge"]["hardware"] = Json::parse(R"({"profile": "a800-80gb",
        "timing": {"table": {"layer": {"ms": 1}, "head": {"ms": 0.5}}, "otherwise": "free"}})");
    study["links"]["device-edge"] = link;
    study["scheme"] = {{"name", "server"}, {"stream", true}};
    study["workload"] = {{"prompts", "tiny"}, {"requests", users}, {"new_tokens", 5}};
    return study;
}

RunRecords
Run(Json study)
{
    return Simulate(ReadStudy(study, "test", Folders()), 0, 1, [] {});
}

Time
Share(const TokenRow& row, Component component)
{
    return row.token.components[static_cast<std::size_t>(component)];
}

/// What \p bytes take at 1 Mbps.
Time
AtOneMbps(std::int64_t bytes)
{
    return NanoSeconds(8000 * bytes);
}

const Time kStep = ns3::MicroSeconds(4500); // four layers and the head

} // namespace

TEST_CASE("a server that streams gives the bits of the whole model, in one exchange a response", "[stream][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::vector<TokenId>& prompt : {Prompt(), std::vector<TokenId>{77}})
        {
            CAPTURE(model, prompt.size());
            const Answer whole = Monolithic(TestModel(model), TestModel(model + "-lora")).Ask(prompt, kNewTokens);
            CHECK(SameBits(SplitRun(Deployment(model, "server", "fp16")).Ask(prompt, kNewTokens), whole));
            SplitRun run(Streaming(model));
            CHECK(SameBits(run.Ask(prompt, kNewTokens), whole));
            CHECK(run.lost.empty());
            CHECK(Kinds(run) == std::map<std::string, std::size_t>{{"generate", 1}, {"next-token", kNewTokens}, {"end", 1}});
            CHECK(run.messages.front().payloadBytes == 4 * (2 + prompt.size()));
            CHECK(run.messages.back().payloadBytes == 0);
        }
    }
}

TEST_CASE("a streamed answer is sampled as one that is asked for token by token", "[stream]")
{
    const auto sampled = [](SplitLlmHelper llm) {
        llm.SetSampling(1.5, 0.95);
        return SplitRun(std::move(llm)).Ask(Prompt(), kNewTokens).tokens;
    };
    const std::vector<TokenId> streamed = sampled(Streaming("tiny-llama"));
    CHECK(streamed == sampled(Deployment("tiny-llama", "server", "fp16")));
    CHECK(streamed != SplitRun(Streaming("tiny-llama")).Ask(Prompt(), kNewTokens).tokens); // greedy
}

TEST_CASE("a streamed answer ends at a stop token, at both ends", "[stream]")
{
    const Answer whole = Monolithic(TestModel("tiny-llama"), TestModel("tiny-llama-lora")).Ask(Prompt(), kNewTokens);
    const TokenId stop = whole.tokens[4];
    const auto first = std::ranges::find(whole.tokens, stop) + 1;
    SplitRun run(Streaming("tiny-llama"));
    const Answer answer = run.Ask(Prompt(), kNewTokens, {3, stop});
    REQUIRE(answer.tokens == std::vector<TokenId>(whole.tokens.begin(), first));
    const auto tokens = static_cast<std::size_t>(first - whole.tokens.begin());
    CHECK(Kinds(run) == std::map<std::string, std::size_t>{{"generate", 1}, {"next-token", tokens}, {"end", 1}});
    CHECK(run.messages.front().payloadBytes == 4 * (2 + 2 + Prompt().size()));
    CHECK(run.tokens.back().last);
    CHECK(run.lost.empty());
}

TEST_CASE("on a link that keeps up a streamed token takes what the server computes", "[stream]")
{
    const RunRecords records = Run(TimedStudy(1, {{"type", "service"}, {"rate", "1Mbps"}, {"delay", "20ms"}}));
    REQUIRE(records.tokens.size() == 5);
    const Time delay = ns3::MilliSeconds(20);
    const TokenRow& first = records.tokens.front();
    const Time network = AtOneMbps(4 * (2 + 7)) + delay + AtOneMbps(4) + delay;
    CHECK(first.token.latency == kStep + network);
    CHECK(Share(first, Component::Base) == kStep);
    CHECK(Share(first, Component::Network) == network);
    CHECK(first.token.messages == std::array<std::uint32_t, 2>{1, 1});
    for (std::size_t k = 1; k < 5; k++)
    {
        const TokenRow& row = records.tokens[k];
        CHECK(row.token.latency == kStep); // four times the delay, and still not seen
        CHECK(Share(row, Component::Base) == kStep);
        CHECK(row.token.messages == std::array<std::uint32_t, 2>{0, 1});
    }
    CHECK(records.messagesSent == std::array<std::uint64_t, 2>{2, 5});
    CHECK(records.serverTokens == 5);
}

TEST_CASE("on a link that is slower than the server a streamed token takes what the link does", "[stream]")
{
    const Json link{{"type", "service"}, {"rate", "1Mbps"}, {"delay", "1ms"}, {"startup", "6ms"}};
    const RunRecords records = Run(TimedStudy(1, link));
    REQUIRE(records.tokens.size() == 5);
    const Time message = ns3::MilliSeconds(6) + AtOneMbps(4);
    for (std::size_t k = 1; k < 5; k++)
    {
        CHECK(records.tokens[k].token.latency == message);
        CHECK(Share(records.tokens[k], Component::Base) == kStep);
        CHECK(Share(records.tokens[k], Component::Network) == message - kStep);
    }
}

TEST_CASE("users of a server that streams take turns at its device", "[stream]")
{
    const RunRecords records = Run(TimedStudy(2, {{"type", "service"}, {"rate", "1Mbps"}, {"delay", "20ms"}}));
    REQUIRE(records.tokens.size() == 10);
    Time queue;
    for (const TokenRow& row : records.tokens)
    {
        CHECK(Share(row, Component::Base) == kStep);
        if (row.token.session == 0 && row.token.position > 1)
        {
            queue += Share(row, Component::Queue);
            CHECK(Share(row, Component::Network) == Time());
        }
    }
    CHECK(queue == 4 * kStep); // the device is the other one's as often
}

TEST_CASE("users of a server that streams ask it again, and get the answers of one that is asked for every token", "[stream]")
{
    Json study = TimedStudy(2, {{"type", "service"}, {"rate", "1Mbps"}, {"delay", "20ms"}});
    study["workload"]["requests"] = 6;
    const RunRecords streamed = Run(study);
    study["scheme"]["stream"] = false;
    const RunRecords asked = Run(study);
    REQUIRE(streamed.requests.size() == 6);
    for (std::uint32_t request = 0; request < 6; request++)
    {
        CHECK(streamed.requests[request].generated.size() == 5);
        CHECK(streamed.requests[request].generated == asked.requests[request].generated);
    }
    CHECK(streamed.messagesSent == std::array<std::uint64_t, 2>{12, 30});
    CHECK(asked.messagesSent == std::array<std::uint64_t, 2>{36, 30});
}

TEST_CASE("an order that makes no sense ends its session, with a reason, and no other one", "[stream][protocol]")
{
    using namespace ns3;
    using Words = std::vector<std::uint32_t>;
    constexpr std::uint32_t kMost = 0xFFFFFFFF;

    struct Ends
    {
        std::map<std::uint32_t, std::string> reasons;
        std::size_t tokens = 0; //!< of the user that behaves
    };

    const auto send = [](const std::vector<Message>& messages) {
        NodeContainer nodes;
        nodes.Create(3);
        InternetStackHelper().Install(nodes);
        PointToPointHelper link;
        Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.252");
        const auto toUser = addresses.Assign(link.Install(nodes.Get(0), nodes.Get(1)));
        addresses.NewNetwork();
        const auto toOther = addresses.Assign(link.Install(nodes.Get(0), nodes.Get(2)));

        Ends ends;
        SplitLlmHelper llm = Streaming("tiny-llama");
        llm.SetContext(40);
        const auto edge = llm.InstallEdgeServer(nodes.Get(0), "a800-80gb");
        edge->TraceConnectWithoutContext(
            "SessionEnd", Callback<void, std::uint32_t, const std::string&>([&ends](std::uint32_t session, const std::string& reason) {
                ends.reasons[session] = reason;
            }));
        const auto user =
            llm.InstallUserDevice(nodes.Get(1), "device-13tflops", InetSocketAddress(toUser.GetAddress(0), 9000));
        user->TraceConnectWithoutContext(
            "Token", Callback<void, const TokenRecord&>([&ends](const TokenRecord&) { ends.tokens++; }));
        user->AddRequest({.index = 0, .prompt = Prompt(), .newTokens = kNewTokens});
        std::unique_ptr<Endpoint> other;
        Simulator::Schedule(MilliSeconds(1), [&] {
            other = std::make_unique<Endpoint>(TcpMessagePort::Connect(TcpMessagePort::NewSocket(nodes.Get(2), 1000),
                                                                       InetSocketAddress(toOther.GetAddress(0), 9000),
                                                                       Direction::Up));
            for (const Message& message : messages)
            {
                other->port->Send(message, CriticalPath());
            }
        });
        Simulator::Run();
        other.reset();
        Simulator::Destroy();
        Ipv4AddressGenerator::Reset();
        return ends;
    };
    const auto order = [](const Words& words) {
        return Message{.kind = MessageKind::Generate, .dtype = DType::I32, .session = 7, .payload = EncodeTokens(words)};
    };
    const auto reasonOf = [&](const std::vector<Message>& messages) {
        const Ends ends = send(messages);
        CHECK(ends.tokens == kNewTokens);
        REQUIRE(ends.reasons.size() == 1);
        CHECK(ends.reasons.begin()->first == 7);
        return ends.reasons.begin()->second;
    };
    const Message good = order({1, 1, 5, 6, 7});
    const Message end{.kind = MessageKind::End, .dtype = DType::I32, .session = 7, .payload = {}};
    CHECK(send({good, end, end}).reasons.empty());
    CHECK(send({order({39, 0, 6, 7}), end}).reasons.empty()); // 40 positions

    CHECK(reasonOf({order({4})}) == "generate: no prompt in 1 words with 0 stop ids");
    CHECK(reasonOf({order({4, 0})}) == "generate: no prompt in 2 words with 0 stop ids");
    CHECK(reasonOf({order({4, 1, 9})}) == "generate: no prompt in 3 words with 1 stop ids");
    CHECK(reasonOf({order({4, kMost, 9})}) == "generate: no prompt in 3 words with 4294967295 stop ids");
    CHECK(reasonOf({order({0, 0, 9})}) ==
          "generate: 0 new tokens after a prompt of 1; accepted: at least 1, in 40 positions");
    CHECK(reasonOf({order({40, 0, 9, 9})}) ==
          "generate: 40 new tokens after a prompt of 2; accepted: at least 1, in 40 positions");
    CHECK(reasonOf({order({kMost, 0, 9})}) ==
          "generate: 4294967295 new tokens after a prompt of 1; accepted: at least 1, in 40 positions");
    Words tooLong(2 + 41, 9);
    tooLong[0] = 1;
    tooLong[1] = 0;
    CHECK(reasonOf({order(tooLong)}) ==
          "generate: 1 new tokens after a prompt of 41; accepted: at least 1, in 40 positions");
    const std::string vocab = std::to_string(Model::Load(TestModel("tiny-llama"))->config.vocab);
    CHECK(reasonOf({order({1, 0, 100'000})}) == "token 100000 is outside the vocabulary of " + vocab);
    CHECK(reasonOf({order({1, 1, kMost, 9})}) == "token 4294967295 is outside the vocabulary of " + vocab);
    Message odd = good;
    odd.payload = Payload::Of(std::vector<std::byte>(13));
    CHECK(reasonOf({odd}) == "generate: payload of 13 bytes holds no token ids");
    Message phantom = good;
    phantom.payload = Payload::Phantom(20);
    CHECK(reasonOf({phantom}) == "generate: payload of 20 bytes holds no token ids");
    Message floats = good;
    floats.dtype = DType::F32;
    CHECK(reasonOf({floats}) == "expected token ids, got elements of fp32");
    CHECK(reasonOf({good, good}) == "expected end of layer 0, request 0, got generate of layer 0, request 0");
    Message tokens = good;
    tokens.kind = MessageKind::Tokens;
    CHECK(reasonOf({tokens}) == "expected generate at position 0 of request 0, got tokens at position 0 of request 0");
}

TEST_CASE("along reference answers a server that streams is judged as one that is asked", "[stream][quality]")
{
    Json study = TimedStudy(1, {{"type", "service"}, {"rate", "1Mbps"}});
    Study streaming = ReadStudy(study, "test", Folders());
    for (RequestSpec& request : streaming.requests)
    {
        request.answer = {60, 61, 62};
    }
    std::vector<std::vector<float>> logits;
    const auto keep = [&logits](const LogitsRecord& record) {
        logits.emplace_back(record.values, record.values + record.vocab);
    };
    SimulateAlongAnswers(streaming, 0, 1, {.onLogits = keep, .onExit = [](auto&) {}, .onToken = [](auto&) {}});
    Monolithic whole(TestModel("tiny-llama"), {});
    const auto cache = whole.NewCache();
    std::vector<TokenId> tokens = streaming.requests.front().prompt;
    REQUIRE(logits.size() == 3);
    for (std::size_t k = 0; k < 3; k++)
    {
        const Tensor h = whole.Forward(tokens, *cache);
        const Tensor expected = whole.Logits(h.Slice(h.Rows() - 1, 1));
        CHECK(logits[k] == std::vector<float>(expected.Values().begin(), expected.Values().end()));
        tokens.assign(1, 60 + static_cast<TokenId>(k));
    }
}

TEST_CASE("naive split gives the bits of the whole model, over fp32 unless told otherwise", "[naive-split][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::size_t layer : {1, 3, 4})
        {
            CAPTURE(model, layer);
            const Answer whole = Monolithic(TestModel(model), {}).Ask(Prompt(), kNewTokens);
            SplitLlmHelper llm;
            llm.SetModel(TestModel(model));
            llm.SetScheme("naive-split");
            OpscOptions options;
            options.split = layer;
            llm.SetOpsc(options);
            llm.SetWireType("fp32");
            SplitRun run(std::move(llm));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), whole));
        }
    }
}

TEST_CASE("naive split sends all states so far for every token", "[naive-split]")
{
    const auto bytes = [](std::int64_t prompt, std::int64_t tokens, const Json& scheme) {
        Json study = TinyStudy();
        study["mode"] = "shape";
        study["model"].erase("adapter");
        study["nodes"]["device"]["count"] = 1;
        study["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
        study["links"] = {{"device-cloud", {{"type", "service"}, {"rate", "100Mbps"}}}}; // and none to the edge server
        study["scheme"] = scheme;
        study["workload"] = {{"prompt_tokens", {{{"tokens", prompt}, {"requests", 2}}}}, {"new_tokens", tokens}};
        const Study its = ReadStudy(study, "test", Folders());
        const Metrics metrics = ComputeMetrics(its, {Simulate(its, 0, 1, [] {})});
        return *Find(metrics, "payload_bytes_per_response.up");
    };
    const std::int64_t width = static_cast<std::int64_t>(Model::Load(TestModel("tiny-llama"))->config.hidden);
    for (const auto& [prompt, tokens] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {1, 7}, {13, 1}, {20, 11}})
    {
        CAPTURE(prompt, tokens);
        const std::int64_t rows = tokens * prompt + tokens * (tokens - 1) / 2; // the sum of p + t over t = 0 ... n - 1
        CHECK(bytes(prompt, tokens, {{"name", "naive-split"}, {"split", 2}}) == 4 * width * rows);
        CHECK(bytes(prompt, tokens, {{"name", "naive-split"}, {"split", 2}, {"codec", "fp16"}}) == 2 * width * rows);
    }
}

TEST_CASE("what naive split and a stream cannot do is refused with a reason", "[naive-split][stream]")
{
    const auto errorOf = [](const Json& scheme, bool adapter) {
        Json study = TinyStudy();
        study["scheme"] = scheme;
        if (!adapter)
        {
            study["model"].erase("adapter");
        }
        return ErrorOf([&] { ReadStudy(study, "test", Folders()); });
    };
    CHECK(errorOf({{"name", "naive-split"}, {"split", 1}}, false).empty());
    CHECK(errorOf({{"name", "naive-split"}}, false).find("scheme.split: ") != std::string::npos);
    CHECK(errorOf({{"name", "naive-split"}, {"split", 0}}, false) ==
          "test: scheme.split: is 0; accepted: an integer from 1 to 4");
    CHECK(errorOf({{"name", "naive-split"}, {"split", 5}}, false) ==
          "test: scheme.split: is 5; accepted: an integer from 1 to 4");
    CHECK(errorOf({{"name", "naive-split"}, {"split", 1}}, true) ==
          "test: model.adapter: scheme \"naive-split\" has no place for an adapter");
    CHECK(errorOf({{"name", "naive-split"}, {"split", 1}, {"context", "stateful"}}, false).find("unknown key") !=
          std::string::npos);
    CHECK(errorOf({{"name", "local"}, {"stream", true}}, true).find("unknown key") != std::string::npos);
    CHECK(errorOf({{"name", "server"}, {"stream", 1}}, true).find("scheme.stream: ") != std::string::npos);
}
