// SPDX-License-Identifier: GPL-2.0-only

// Beam search in the schemes: it finds what transformers found with the same models (test/golden/*-beams.json, by
// scripts/make-beam-golden), a search of one beam is greedy decoding, and where the model is split the same is found.

#include "support/catch.h"
#include "support/endpoint.h"
#include "support/error-of.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tiny-deployment.h"

#include "base/input-error.h"
#include "base/strict-json.h"
#include "codec/dense-codec.h"
#include "compute/shape-backend.h"
#include "net/tcp-message-port.h"
#include "policy/offload-policies.h"
#include "schemes/host.h"
#include "schemes/order.h"
#include "simulation.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::size_t kBeams = 4;

/// A tiny model with its adapter and \p beams.
SplitLlmHelper
Searching(const std::string& model, const std::string& scheme, std::size_t beams, double penalty = 1.0)
{
    SplitLlmHelper llm = Deployment(model, scheme, "fp32");
    if (scheme == "tlc")
    {
        llm.SetPolicy(ExchangeEverything(), true); // at layer 1 as well
    }
    else if (scheme == "dlora")
    {
        llm.SetPolicy(KeepRandomTokens(1.0), true);
    }
    llm.SetBeams(beams, penalty);
    return llm;
}

/// What a plain loop over the whole model finds.
std::vector<TokenId>
Found(const std::string& model,
      const std::vector<TokenId>& prompt,
      std::size_t beams,
      const std::vector<TokenId>& stop = {},
      double penalty = 1.0)
{
    return Monolithic(TestModel(model), TestModel(model + "-lora"))
        .Find(prompt, BeamSearch(beams, penalty, kNewTokens, stop));
}

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

std::vector<std::uint64_t>
PayloadsOf(const SplitRun& run, const std::string& kind)
{
    std::vector<std::uint64_t> bytes;
    for (const MessageRecord& message : run.messages)
    {
        if (message.kind == kind)
        {
            bytes.push_back(message.payloadBytes);
        }
    }
    return bytes;
}

Json
SearchingStudy(const std::string& scheme)
{
    Json study = TinyStudy();
    study["scheme"] = {{"name", scheme}, {"codec", "fp32"}};
    if (scheme == "local" || scheme == "mlora" || scheme == "server")
    {
        study["scheme"].erase("codec");
    }
    study["workload"]["beams"] = kBeams;
    return study;
}

RunRecords
RunOf(Json json)
{
    return Simulate(ReadStudy(json, "test", Folders()), 0, 1, [] {});
}

/// The golden cases of a model on one device.
void
CompareWithTransformers(const std::string& golden, const std::filesystem::path& folder, std::size_t leastCases)
{
    const Json json =
        LoadStrictJson(std::filesystem::path(SPLITLLM_SOURCE_DIR) / "test/golden" / (golden + "-beams.json"));
    std::size_t number = 0;
    for (const Json& its : json["cases"])
    {
        CAPTURE(golden, number);
        number++;
        SplitLlmHelper llm;
        llm.SetModel(folder);
        llm.SetScheme("local");
        llm.SetBeams(its["beams"].get<std::size_t>(), its["length_penalty"].get<double>());
        SplitRun run(std::move(llm));
        run.Ask(its["prompt"].get<std::vector<TokenId>>(),
                its["new_tokens"].get<std::uint32_t>(),
                its["stop"].get<std::vector<TokenId>>());
        REQUIRE(run.searched.size() == 1);
        CHECK(run.searched.front().tokens == its["answer"].get<std::vector<TokenId>>());
    }
    CHECK(number >= leastCases);
}

/// Why an edge server of DLoRA that exchanges nothing, with 2 beams, ended a session that sent it a prompt of one row
/// and then \p second as an embedding.
std::string
EndOf(Payload second)
{
    using namespace ns3;
    NodeContainer nodes;
    nodes.Create(2);
    InternetStackHelper().Install(nodes);
    PointToPointHelper link;
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.252");
    const auto devices = addresses.Assign(link.Install(nodes));
    SplitLlmHelper llm = Deployment("tiny-llama", "dlora", "fp32", KeepRandomTokens(0.0));
    llm.SetBeams(2);
    const auto edge = llm.InstallEdgeServer(nodes.Get(1), "a800-80gb");
    std::string reason;
    edge->TraceConnectWithoutContext(
        "SessionEnd",
        Callback<void, std::uint32_t, const std::string&>(
            [&reason](std::uint32_t, const std::string& its) { reason = its; }));
    std::unique_ptr<Endpoint> user;
    Simulator::Schedule(MilliSeconds(1), [&] {
        user = std::make_unique<Endpoint>(TcpMessagePort::Connect(TcpMessagePort::NewSocket(nodes.Get(0), 1000),
                                                                  InetSocketAddress(devices.GetAddress(1), 9000),
                                                                  Direction::Up));
        const std::size_t hidden = Model::Load(TestModel("tiny-llama"))->config.hidden;
        Message message{.kind = MessageKind::Embedding,
                        .session = 7,
                        .payload = EncodeDense(Tensor::Zeros(1, hidden), DType::F32)};
        user->port->Send(message, CriticalPath());
        message.position = 1;
        message.payload = std::move(second);
        user->port->Send(message, CriticalPath());
        message.kind = MessageKind::End;
        message.payload = {};
        user->port->Send(message, CriticalPath());
    });
    Simulator::Run();
    user.reset();
    Simulator::Destroy();
    Ipv4AddressGenerator::Reset();
    return reason;
}

} // namespace

TEST_CASE("tiny models find with beams what transformers finds", "[beams][transformers]")
{
    CompareWithTransformers("tiny-llama", TestModel("tiny-llama"), 11);
    CompareWithTransformers("tiny-opt", TestModel("tiny-opt"), 11);
}

TEST_CASE("SmolLM2 finds with 4 beams what transformers finds for 8 prompts", "[beams][transformers][smollm2]")
{
    const char* folder = std::getenv("SPLITLLM_MODELS");
    const std::filesystem::path models = folder != nullptr ? folder : SPLITLLM_MODEL_DIR;
    if (!std::filesystem::exists(models / "smollm2-135m-instruct/model.safetensors"))
    {
        WARN("skipped: no SmolLM2 in " << models << "; scripts/import-model makes it");
        return;
    }
    CompareWithTransformers("smollm2-135m", models / "smollm2-135m-instruct", 9);
}

TEST_CASE("a search of one beam gives the bits of greedy decoding in every scheme that can search", "[beams]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::string scheme : {"local", "mlora", "server", "linfer", "dlora", "tlc"})
        {
            CAPTURE(model, scheme);
            const Answer greedy = SplitRun(Searching(model, scheme, 0)).Ask(Prompt(), kNewTokens);
            SplitRun run(Searching(model, scheme, 1));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), greedy));
            REQUIRE(run.searched.size() == 1);
            CHECK(run.searched.front().tokens == greedy.tokens);
            CHECK(run.tokens.back().last);
            CHECK(run.lost.empty());
        }
    }
}

TEST_CASE("every scheme that can search finds what the whole model finds", "[beams][invariant-2]")
{
    const std::vector<TokenId> prompt = Prompt();
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        std::vector<TokenId> stop;
        for (std::size_t round = 0; round < 2; round++)
        {
            for (const double penalty : {1.0, 0.0})
            {
                const std::vector<TokenId> found = Found(model, prompt, kBeams, stop, penalty);
                for (const std::string scheme : {"local", "server", "linfer", "dlora", "tlc"})
                {
                    CAPTURE(model, scheme, round, penalty);
                    SplitRun run(Searching(model, scheme, kBeams, penalty));
                    run.Ask(prompt, kNewTokens, stop);
                    REQUIRE(run.lost.empty());
                    REQUIRE(run.searched.size() == 1);
                    CHECK(run.searched.front().tokens == found);
                    CHECK(run.tokens.back().last);
                    CHECK(run.tokens.back().token == found.back());
                }
            }
            stop = {Found(model, prompt, kBeams)[3], 77, 150};
        }
    }
}

TEST_CASE("a step of LInfer sends one message a layer and direction for all hypotheses", "[beams][linfer]")
{
    const ModelConfig config = Model::Load(TestModel("tiny-llama"))->config;
    SplitRun run(Searching("tiny-llama", "linfer", kBeams));
    run.Ask(Prompt(), kNewTokens);
    CHECK(Kinds(run) == std::map<std::string, std::size_t>{{"embedding", kNewTokens},
                                                           {"layer-input", kNewTokens * config.layers},
                                                           {"deltas", kNewTokens * config.layers},
                                                           {"final-state", kNewTokens},
                                                           {"end", 1}});
    const std::uint64_t row = 4 * config.hidden;
    std::vector<std::uint64_t> embeddings(kNewTokens, kBeams * (row + 4)); // a parent behind each
    embeddings.front() = Prompt().size() * row;
    CHECK(PayloadsOf(run, "embedding") == embeddings);
    std::vector<std::uint64_t> states(kNewTokens, kBeams * row);
    states.front() = row;
    CHECK(PayloadsOf(run, "final-state") == states);
    const std::vector<std::uint64_t> deltas = PayloadsOf(run, "deltas");
    CHECK(deltas.back() == 4 * kBeams * (config.QueryWidth() + 2 * config.KvWidth()));
}

TEST_CASE("a server that searches sends one token a hypothesis, and the answer in place of the last", "[beams][stream]")
{
    SplitRun run(Searching("tiny-llama", "server", kBeams));
    run.Ask(Prompt(), kNewTokens);
    CHECK(Kinds(run) == std::map<std::string, std::size_t>{{"generate", 1},
                                                           {"next-token", kNewTokens - 1},
                                                           {"answer", 1},
                                                           {"end", 1}});
    CHECK(PayloadsOf(run, "generate") == std::vector<std::uint64_t>{4 * (2 + 2 + Prompt().size())});
    CHECK(PayloadsOf(run, "next-token") == std::vector<std::uint64_t>(kNewTokens - 1, 4 * kBeams));
    CHECK(PayloadsOf(run, "answer") == std::vector<std::uint64_t>{4 * kNewTokens});
}

TEST_CASE("rows at the next positions of several caches have the bits of calls for each", "[beams][invariant-13]")
{
    for (const std::string name : {"tiny-llama", "tiny-opt"})
    {
        for (const std::size_t threads : {1, 3})
        {
            CAPTURE(name, threads);
            CpuBackend backend(threads);
            const auto model = backend.Resident(Model::Load(TestModel(name)));
            const std::vector<TokenId> prompt = Prompt();
            std::vector<std::unique_ptr<KvCache>> caches;
            const auto run = [&](const std::vector<TokenId>& tokens,
                                 const std::vector<std::size_t>& positions,
                                 const std::vector<KvCache*>& views) {
                Tensor h = backend.Embed(*model, tokens, positions).value;
                for (std::size_t l = 0; l < model->Config().layers; l++)
                {
                    h = backend.FinishLayer(*model, l, h, backend.Project(*model, l, h).value, views).value;
                }
                return h;
            };
            // Three sequences of different lengths, twice.
            std::vector<std::unique_ptr<KvCache>> together;
            std::vector<std::unique_ptr<KvCache>> apart;
            std::vector<KvCache*> views;
            std::vector<std::size_t> positions;
            for (const std::size_t length : {19, 1, 7})
            {
                auto cache = backend.NewCache(*model, 0, model->Config().layers, 64);
                const std::vector<TokenId> tokens(prompt.begin(), prompt.begin() + length);
                std::vector<std::size_t> consecutive(length);
                std::iota(consecutive.begin(), consecutive.end(), 0);
                run(tokens, consecutive, {cache.get()});
                together.push_back(backend.Fork(*cache).value);
                apart.push_back(std::move(cache));
                views.push_back(together.back().get());
                positions.push_back(length);
            }
            for (const std::vector<TokenId>& tokens : {std::vector<TokenId>{5, 6, 7}, {9, 5, 5}})
            {
                const Tensor all = run(tokens, positions, views);
                for (std::size_t row = 0; row < 3; row++)
                {
                    const Tensor one = run({tokens[row]}, {positions[row]}, {apart[row].get()});
                    CHECK(std::ranges::equal(one.Values(), all.Row(row)));
                    positions[row]++;
                }
            }
        }
    }
}

TEST_CASE("a copy of a cache goes its own way", "[beams]")
{
    CpuBackend backend(1);
    const auto model = backend.Resident(Model::Load(TestModel("tiny-llama")));
    const auto step = [&](KvCache& cache, TokenId token) {
        Tensor h = backend.Embed(*model, std::vector{token}, cache.Position(0)).value;
        for (std::size_t l = 0; l < model->Config().layers; l++)
        {
            h = backend.FinishLayer(*model, l, h, backend.Project(*model, l, h).value, cache).value;
        }
        return std::vector<float>(h.Values().begin(), h.Values().end());
    };
    for (const bool tracks : {false, true})
    {
        const auto cache = backend.NewCache(*model, 0, model->Config().layers, 64);
        if (tracks)
        {
            cache->TrackAttention();
        }
        for (const TokenId token : Prompt())
        {
            step(*cache, token);
        }
        const auto copy = backend.Fork(*cache).value;
        const auto twin = backend.Fork(*cache).value;
        if (tracks)
        {
            CHECK(backend.Prune(*cache, 1, 0.5).value == 9);
            CHECK(backend.Prune(*twin, 1, 0.5).value == 9);
            CHECK(copy->Length(1) == 19);
        }
        const std::vector<float> expected = step(*twin, 8);
        step(*copy, 200);
        CHECK(step(*cache, 8) == expected);
    }
}

TEST_CASE("what a step of hypotheses costs follows from its shapes", "[beams]")
{
    ShapeBackend backend(DType::F16);
    auto shape = std::make_shared<Model>();
    shape->config = Model::Load(TestModel("tiny-llama"))->config;
    const auto model = backend.Resident(shape);
    const ModelConfig& config = model->Config();
    const auto projected = [&](std::size_t rows) {
        return Projections{.input = Tensor::Phantom(rows, config.hidden),
                           .query = Tensor::Phantom(rows, config.QueryWidth()),
                           .key = Tensor::Phantom(rows, config.KvWidth()),
                           .value = Tensor::Phantom(rows, config.KvWidth())};
    };
    const std::vector<std::size_t> lengths{5, 11, 3};
    std::vector<std::unique_ptr<KvCache>> caches;
    std::vector<KvCache*> views;
    Work apart;
    std::uint64_t weights = 0;
    for (const std::size_t length : lengths)
    {
        caches.push_back(backend.NewCache(*model, 0, config.layers, 64));
        views.push_back(caches.back().get());
        backend.FinishLayer(*model, 1, Tensor::Phantom(length, config.hidden), projected(length), *views.back());
        const auto copy = backend.Fork(*views.back());
        const std::uint64_t bytes = 2 * config.KvWidth() * 2 * length; // the other layers are empty
        CHECK(copy.work.bytesRead == bytes);
        CHECK(copy.work.bytesWritten == bytes);
        CHECK(copy.work.flops == 0);
        CHECK(copy.work.launches == 2 * config.layers);
        const Work work =
            backend.FinishLayer(*model, 1, Tensor::Phantom(1, config.hidden), projected(1), *copy.value).work;
        apart += work;
        weights = work.weightBytes;
    }
    const Work work =
        backend.FinishLayer(*model, 1, Tensor::Phantom(3, config.hidden), projected(3), views).work;
    CHECK(work.flops == apart.flops);
    CHECK(work.weightBytes == weights);
    CHECK(work.bytesRead == apart.bytesRead - 2 * weights);
    CHECK(work.bytesWritten == apart.bytesWritten);
    for (std::size_t i = 0; i < 3; i++)
    {
        CHECK(views[i]->Length(1) == lengths[i] + 1);
    }
    const auto search = backend.Search(Tensor::Phantom(3, 23), 8);
    CHECK(search.work.flops == 5 * 3 * 23);
    CHECK(search.work.bytesRead == 2 * 3 * 23);
    CHECK(search.work.bytesWritten == 3 * 8 * 8);
    CHECK(search.value.size() == 3);
    CHECK(search.value.front().size() == 8);
    CHECK_THROWS_AS(backend.Search(Tensor::Phantom(3, 23), 0), std::logic_error);
    views.pop_back();
    CHECK_THROWS_AS(backend.FinishLayer(*model, 1, Tensor::Phantom(3, config.hidden), projected(3), views),
                    std::logic_error);
}

TEST_CASE("studies search: answers, components and memory", "[beams][study]")
{
    for (const std::string scheme : {"local", "mlora", "server", "linfer"})
    {
        CAPTURE(scheme);
        Json json = SearchingStudy(scheme);
        if (scheme == "mlora")
        {
            json["scheme"]["keep"] = 0.5;
        }
        const RunRecords records = RunOf(json); // the components sum up, or it throws
        CHECK(records.sessionsLost.empty());
        CHECK(records.outOfMemory.empty());
        REQUIRE(records.requests.size() == 4);
        for (std::uint32_t request = 0; request < 4; request++)
        {
            CAPTURE(request);
            CHECK(records.requests[request].generated.size() == 4);
            std::vector<std::uint32_t> tokens;
            for (const TokenRow& row : records.tokens)
            {
                if (row.token.request == request)
                {
                    tokens.push_back(row.token.token);
                }
            }
            CHECK(tokens == records.requests[request].generated);
        }
        json["workload"]["beams"] = 0;
        const RunRecords greedy = RunOf(json);
        const auto kv = [](const RunRecords& its) {
            std::uint64_t most = 0;
            for (const auto& [group, peaks] : its.memory)
            {
                most = std::max(most, peaks.uses[static_cast<std::size_t>(MemoryUse::Kv)]);
            }
            return most;
        };
        CHECK(kv(records) > kv(greedy));
        if (scheme != "mlora") // which keeps a share
        {
            CHECK(kv(records) <= kBeams * kv(greedy));
        }
    }
}

TEST_CASE("the ledger holds the keys and values of the hypotheses that run, and nothing at the end", "[beams]")
{
    using namespace ns3;
    for (const double keep : {1.0, 0.5})
    {
        SplitLlmHelper llm = Searching("tiny-opt", "mlora", kBeams);
        llm.SetKeep(keep);
        const ModelConfig config = Model::Load(TestModel("tiny-opt"))->config;
        const auto user = llm.InstallUserDevice(CreateObject<Node>(), "device-13tflops", Address());
        const auto kv = [&user] { return user->GetHost()->memory.Used(MemoryUse::Kv); };
        std::vector<std::uint64_t> held;
        user->TraceConnectWithoutContext(
            "Token", Callback<void, const TokenRecord&>([&](const TokenRecord&) { held.push_back(kv()); }));
        user->AddRequest({.index = 0, .prompt = Prompt(), .newTokens = kNewTokens});
        user->AddRequest({.index = 1, .prompt = Prompt(), .newTokens = kNewTokens});
        std::uint64_t last = 1;
        Simulator::Schedule(Seconds(1000), [&] { last = kv(); });
        Simulator::Run();
        Simulator::Destroy();
        std::vector<std::uint64_t> expected;
        for (std::size_t k = 0; k < kNewTokens; k++)
        {
            const std::size_t entries = KeptEntries(keep, Prompt().size() + k) * (k == 0 ? 1 : kBeams);
            expected.push_back(entries * config.layers * 2 * config.KvWidth() * sizeof(float));
        }
        expected.insert(expected.end(), expected.begin(), expected.begin() + kNewTokens);
        CHECK(held == expected);
        CHECK(last == 0);
    }
}

TEST_CASE("a server admits a search with room for all its hypotheses", "[beams]")
{
    Json json = SearchingStudy("server");
    const ModelConfig config = Model::Load(TestModel("tiny-llama"))->config;
    const std::uint64_t one = (12 + 4 - 1) * config.layers * 2 * config.KvWidth() * sizeof(float);
    json["nodes"]["edge"]["kv_memory"] = kBeams * one;
    const RunRecords enough = RunOf(json);
    CHECK(enough.outOfMemory.empty());
    CHECK(enough.tokens.size() == 16);
    CHECK(enough.memory.at("edge").uses[static_cast<std::size_t>(MemoryUse::Kv)] <= kBeams * one);
    json["nodes"]["edge"]["kv_memory"] = kBeams * one - 1;
    CHECK(RunOf(json).outOfMemory == "edge");
}

TEST_CASE("the answer of a search that went on is the one that is recorded", "[beams][study]")
{
    Json json = SearchingStudy("local");
    Study study = ReadStudy(json, "test", Folders());
    study.newTokens = 12;
    std::size_t shorter = 0;
    for (TokenId stop = 0; stop < 256 && shorter == 0; stop++)
    {
        study.stop = {stop};
        const RunRecords records = Simulate(study, 0, 1, [] {});
        for (std::uint32_t request = 0; request < 4; request++)
        {
            const std::vector<std::uint32_t>& prompt = study.requests[records.requests[request].prompt].prompt;
            const std::vector<std::uint32_t>& generated = records.requests[request].generated;
            CHECK(generated == Found("tiny-llama", prompt, kBeams, study.stop));
            std::vector<std::uint32_t> tokens;
            std::size_t last = 0;
            for (const TokenRow& row : records.tokens)
            {
                if (row.token.request == request)
                {
                    tokens.push_back(row.token.token);
                    last += row.token.last ? tokens.size() : 0;
                }
            }
            REQUIRE(tokens.size() >= generated.size());
            CHECK(std::equal(generated.begin(), generated.end(), tokens.begin()));
            CHECK(last == tokens.size());
            shorter += tokens.size() > generated.size() ? 1 : 0;
        }
    }
    CHECK(shorter > 0);
}

TEST_CASE("along reference answers nothing is searched", "[beams][quality]")
{
    for (const std::string scheme : {"local", "server", "linfer"})
    {
        Json json = SearchingStudy(scheme);
        const auto logitsOf = [&json] {
            Study study = ReadStudy(json, "test", Folders());
            for (RequestSpec& request : study.requests)
            {
                request.answer = {60, 61, 62};
            }
            std::vector<std::vector<float>> logits;
            const auto keep = [&logits](const LogitsRecord& record) {
                logits.emplace_back(record.values, record.values + record.vocab);
            };
            SimulateAlongAnswers(study, 0, 1, {.onLogits = keep, .onExit = [](auto&) {}, .onToken = [](auto&) {}});
            return logits;
        };
        const auto searching = logitsOf();
        json["workload"]["beams"] = 0;
        CHECK(searching.size() == 12);
        CHECK(searching == logitsOf());
    }
}

TEST_CASE("hypotheses that do not go on from others end the session, with a reason", "[beams][protocol]")
{
    const std::size_t hidden = Model::Load(TestModel("tiny-llama"))->config.hidden;
    const auto step = [hidden](const std::vector<std::uint32_t>& parents, std::size_t rows) {
        Payload payload = EncodeDense(Tensor::Zeros(rows, hidden), DType::F32);
        const Payload front = EncodeTokens(parents);
        payload.bytes.insert(payload.bytes.begin(), front.bytes.begin(), front.bytes.end());
        payload.size += front.size;
        return payload;
    };
    CHECK(EndOf(step({0, 0}, 2)).empty());
    CHECK(EndOf(step({0, 1}, 2)) == "embedding: goes on from hypothesis 1 of 1");
    CHECK(EndOf(step({0xFFFFFFFF, 0}, 2)) == "embedding: goes on from hypothesis 4294967295 of 1");
    CHECK(EndOf(step({0, 0}, 1)) == "embedding: 1 rows instead of 2");
    CHECK(EndOf(step({0, 0}, 3)) == "embedding: 3 rows instead of 2");
    CHECK(EndOf(Payload::Of(std::vector<std::byte>(7))) ==
          "embedding: payload of 7 bytes holds no parents of 2 hypotheses");
    CHECK(EndOf(Payload::Phantom(64)) == "embedding: payload of 64 bytes holds no parents of 2 hypotheses");
}

TEST_CASE("an order of a search is what was ordered, or refused", "[beams][protocol][stream]")
{
    const Sampling server{.beams = 4};
    const auto message = [](Payload payload) {
        return Message{.kind = MessageKind::Generate, .dtype = DType::I32, .payload = std::move(payload)};
    };
    const std::vector<TokenId> prompt{5, 6};
    const Payload sent = EncodeOrder({.newTokens = 3, .stop = {9}}, {.beams = 2, .lengthPenalty = -0.5}, prompt);
    const Order order = DecodeOrder(message(sent), 11, 40, server);
    CHECK(order.sampling.beams == 2);
    CHECK(order.sampling.lengthPenalty == -0.5);
    CHECK(order.limits.newTokens == 3);
    CHECK(order.limits.stop == std::vector<TokenId>{9});
    CHECK(order.prompt == prompt);

    const auto reasonOf = [&](const std::vector<std::uint32_t>& words) -> std::string {
        try
        {
            DecodeOrder(message(EncodeTokens(words)), 11, 40, server);
        }
        catch (const ProtocolError& error)
        {
            return error.what();
        }
        return "";
    };
    constexpr std::uint32_t kOne = 0x3F800000; // in fp32
    CHECK(reasonOf({4, kOne, 3, 0, 5}).empty());
    CHECK(reasonOf({5, kOne, 3, 0, 5}).find("generate: 5 beams") == 0);
    CHECK(reasonOf({0, kOne, 3, 0, 5}).find("generate: 0 beams") == 0);
    CHECK(reasonOf({4, 0x7FC00000, 3, 0, 5}).find("generate: 4 beams with a length penalty of nan") == 0);
    CHECK(reasonOf({4, 0xC1280000, 3, 0, 5}).find("generate: 4 beams with a length penalty of -10.5") == 0);
    CHECK(reasonOf({4}).find("generate: 4 beams") == 0);
    CHECK(reasonOf({4, kOne}) == "generate: no prompt in 0 words with 0 stop ids");
}

TEST_CASE("a study in shape mode searches with the messages of one in numbers", "[beams][study]")
{
    Json json = SearchingStudy("linfer");
    const RunRecords numbers = RunOf(json);
    json["mode"] = "shape";
    json["model"] = {{"path", "tiny-llama"}, {"dtype", "fp16"}, {"adapter", {{"rank", 8}, {"dtype", "fp16"}}}};
    const RunRecords shapes = RunOf(json);
    CHECK(shapes.messagesSent == numbers.messagesSent);
    CHECK(shapes.payloadBytes == numbers.payloadBytes);
    CHECK(shapes.sessionsLost.empty());
}

TEST_CASE("beams that make no sense are refused with a reason", "[beams][study]")
{
    const auto errorOf = [](const std::string& scheme, const std::function<void(Json&)>& change) {
        Json study = TinyStudy();
        study["scheme"] = {{"name", scheme}};
        study["workload"]["beams"] = 4;
        if (scheme == "naive-split")
        {
            study["scheme"]["split"] = 2;
            study["model"].erase("adapter");
        }
        change(study);
        return ErrorOf([&] { ReadStudy(study, "test", Folders()); });
    };
    const auto nothing = [](Json&) {};
    CHECK(errorOf("linfer", nothing).empty());
    CHECK(errorOf("naive-split", nothing) ==
          "test: workload.beams: scheme \"naive-split\" cannot search with beams: its states, keys and values travel "
          "for one sequence, under one deadline a token");
    CHECK(errorOf("opsc", nothing).find("test: workload.beams: scheme \"opsc\" cannot") == 0);
    CHECK(errorOf("ce-collm", nothing).find("test: workload.beams: scheme \"ce-collm\" cannot") == 0);
    CHECK(errorOf("linfer", [](Json& study) { study["workload"]["temperature"] = 0.5; }) ==
          "test: workload.beams: a beam search does not sample; accepted with temperature 0");
    CHECK(errorOf("linfer", [](Json& study) { study["workload"]["beams"] = 65; }).find("test: workload.beams: ") == 0);
    CHECK(errorOf("linfer", [](Json& study) { study["workload"]["beams"] = 1.5; }).find("test: workload.beams: ") == 0);
    CHECK(errorOf("linfer", [](Json& study) { study["workload"]["length_penalty"] = 11; })
              .find("test: workload.length_penalty: ") == 0);

    SplitLlmHelper llm = Deployment("tiny-llama", "naive-split", "fp32");
    llm.SetBeams(4);
    CHECK(ErrorOf([&] { llm.GetScheme(); }).find("cannot search with beams") != std::string::npos);
    SplitLlmHelper sampling = Deployment("tiny-llama", "local", "fp32");
    sampling.SetSampling(0.5, 1.0);
    sampling.SetBeams(4);
    CHECK(ErrorOf([&] { sampling.GetScheme(); }) ==
          "a beam search does not sample; accepted: beams, or a temperature above 0");
    SplitLlmHelper wide = Deployment("tiny-llama", "local", "fp32");
    wide.SetBeams(129);
    CHECK(ErrorOf([&] { wide.GetScheme(); }) ==
          "129 beams; accepted: at most half the vocabulary, which has 256 tokens");
}
