// SPDX-License-Identifier: GPL-2.0-only

// Invariants 1, 2, 3 and 8 for CE-CoLLM: what edge and cloud compute together, what crosses, and when.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/temporary-folder.h"
#include "support/tiny-deployment.h"

#include "answers.h"
#include "base/units.h"
#include "llm/exits.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "simulation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

/// Untrained exits after \p layers.
std::shared_ptr<const Exits>
ExitsAfter(std::vector<std::size_t> layers)
{
    const auto exits = std::make_shared<Exits>();
    exits->layers = std::move(layers);
    return exits;
}

SplitLlmHelper
Collaborative(const std::string& model, const std::string& wire, std::size_t uploadLayer, double threshold)
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel(model));
    llm.SetScheme("ce-collm");
    CeCollmOptions options;
    options.policy = ExitByConfidence({threshold, threshold});
    options.uploadLayer = uploadLayer;
    llm.SetCeCollm(options, ExitsAfter({1, 3}));
    llm.SetWireType(wire);
    return llm;
}

/// A study of CE-CoLLM on the tiny LLaMA: exits after layers 1 and 3 of 4.
Json
CeCollmStudy(const Json& scheme)
{
    Json study = TinyStudy();
    study["model"].erase("adapter");
    study["nodes"] = {{"edge", {{"role", "user-device"}, {"hardware", "device-13tflops"}}},
                      {"cloud", {{"role", "cloud"}, {"hardware", "a800-80gb"}}}};
    study["links"] = {{"edge-cloud", {{"type", "service"}, {"rate", "100Mbps"}}}};
    study["scheme"] = {{"name", "ce-collm"},
                       {"exits", {{"layers", {1U, 3U}}}},
                       {"policy", {{"name", "confidence"}, {"threshold", 2.0}}}};
    study["scheme"].update(scheme);
    return study;
}

RunRecords
Run(Json study)
{
    return Simulate(ReadStudy(study, "test", Folders()), 0, 1, [] {});
}

} // namespace

TEST_CASE("Above every confidence, CE-CoLLM over an fp32 wire gives the bits of the whole model", "[ce-collm][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const Answer whole = Monolithic(TestModel(model), {}).Ask(Prompt(), kNewTokens);
        for (const std::size_t layer : {1, 2, 3})
        {
            CAPTURE(model, layer);
            SplitRun run(Collaborative(model, "fp32", layer, 2.0));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), whole));
            CHECK(run.lost.empty());
        }
    }
}

TEST_CASE("Over a 16-bit wire CE-CoLLM gives the bits of a model that rounds what is uploaded", "[ce-collm][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const std::size_t layer : {1, 3})
        {
            CAPTURE(model, layer);
            SplitRun run(Collaborative(model, "fp16", layer, 2.0));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), RoundedAfter(TestModel(model), layer, Prompt(), kNewTokens)));
        }
    }
}

TEST_CASE("At threshold 0 nothing is requested, and the first exit's tokens are uploaded all the same", "[ce-collm]")
{
    SplitRun run(Collaborative("tiny-llama", "fp32", 3, 0.0));
    const Answer answer = run.Ask(Prompt(), kNewTokens);
    std::map<std::string, std::size_t> sent;
    for (const MessageRecord& message : run.messages)
    {
        sent[message.kind]++;
    }
    CHECK(sent == std::map<std::string, std::size_t>{{"hidden-state", kNewTokens}, {"end", 1}});
    CHECK(answer.tokens.size() == kNewTokens);
}

TEST_CASE("Every state crosses once, whatever the length of prompt and answer", "[ce-collm][invariant-5]")
{
    for (const std::size_t prompt : {1, 2, 13})
    {
        for (const std::uint32_t tokens : {1, 2, 31})
        {
            for (const std::size_t requests : {0, 1, 2})
            {
                CAPTURE(prompt, tokens, requests);
                Json study = CeCollmStudy({{"codec", "fp16"}});
                study["mode"] = "shape";
                study["workload"] = {{"prompt_tokens", {{{"tokens", prompt}, {"requests", 1}}}}, {"new_tokens", tokens}};
                // Of every three tokens, so many are the cloud's.
                std::vector<std::size_t> pattern(3, 3);
                std::fill_n(pattern.begin(), requests, 0);
                study["scheme"]["policy"] = {{"name", "listed"}, {"tokens", pattern}};
                const RunRecords records = Run(study);
                const std::size_t asked = requests * (tokens / 3) + std::min<std::size_t>(tokens % 3, requests);
                constexpr std::size_t kStateBytes = 64 * 2;
                CHECK(records.payloadBytes[0] == (prompt + tokens - 1) * kStateBytes);
                CHECK(records.payloadBytes[1] == asked * 4);
                CHECK(records.headerBytes[0] == (tokens + asked + 1) * kHeaderBytes);
                CHECK(records.headerBytes[1] == asked * kHeaderBytes);
                for (std::size_t d = 0; d < kDirections; d++)
                {
                    CHECK(records.wireBytes[d] == records.payloadBytes[d] + records.headerBytes[d]);
                }
                CHECK(records.messagesUnderWay == 0);
            }
        }
    }
}

TEST_CASE("Shape mode sends the bytes of numeric mode, and both name the same tokens' sources", "[ce-collm][invariant-8]")
{
    const auto run = [](const char* mode) {
        Json study = CeCollmStudy({{"policy", {{"name", "listed"}, {"tokens", {1U, 0U, 3U, 3U, 0U}}}}});
        study["mode"] = mode;
        if (study["mode"] == "shape")
        {
            study["workload"] = Json::parse(
                R"({"prompt_tokens": [{"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1}], "new_tokens": 4})");
        }
        else
        {
            study["workload"]["requests"] = 2;
        }
        return Run(study);
    };
    const RunRecords numeric = run("numeric");
    const RunRecords shape = run("shape");
    CHECK(numeric.payloadBytes == shape.payloadBytes);
    CHECK(numeric.messagesSent == shape.messagesSent);
    REQUIRE(numeric.exits.size() == 8);
    REQUIRE(shape.exits.size() == 8);
    for (std::size_t i = 0; i < 8; i++)
    {
        const std::vector<std::uint16_t> layers{1, 0, 3, 3};
        CHECK(numeric.exits[i].layer == layers[i % 4]);
        CHECK(numeric.exits[i].source == shape.exits[i].source);
        CHECK(numeric.exits[i].layer == shape.exits[i].layer);
    }
}

TEST_CASE("What is seen of the uploads is what the edge's own work does not hide", "[ce-collm]")
{
    // Milliseconds of a layer, of an exit and of the head, whatever their rows.
    constexpr double kLayer = 1.25;
    constexpr double kExit = 0.75;
    constexpr double kHead = 2.0;
    constexpr double kToken = 16 * kLayer + 2 * kExit; // at the edge
    constexpr std::size_t kStateBytes = 4096 * 2;
    const Json timing = Json::parse(
        R"({"table": {"layer": {"ms": 1.25}, "exit": {"ms": 0.75}, "head": {"ms": 2.0}}, "otherwise": "free"})");
    for (const char* rate : {"10Gbps", "100Mbps", "30Mbps", "5Mbps", "2700kbps", "1Mbps", "100kbps"})
    {
        for (const double delay : {0.0, 7.0})
        {
            Json study = CeCollmStudy({{"exits", {{"layers", {8U, 16U}}}},
                                       {"timeout", "100s"},
                                       {"policy", {{"name", "listed"}, {"tokens", {16U, 16U, 0U}}}}});
            study["mode"] = "shape";
            study["model"] = {{"shape", "llama-7b"}, {"dtype", "fp16"}};
            for (const char* node : {"edge", "cloud"})
            {
                study["nodes"][node]["hardware"] = {{"profile", "a100-80gb"}, {"timing", timing}};
            }
            study["links"]["edge-cloud"] = {
                {"type", "service"}, {"rate", rate}, {"delay", std::to_string(static_cast<int>(delay)) + "ms"}};
            study["workload"] = {{"prompt_tokens", {{{"tokens", 5}, {"requests", 1}}}}, {"new_tokens", 30}};
            CAPTURE(rate, delay);
            const RunRecords records = Run(study);
            REQUIRE(records.tokens.size() == 30);

            const double bitsPerMs = static_cast<double>(ParseBitRate(rate)) / 1e3;
            const double state = 8.0 * kStateBytes / bitsPerMs;
            // Three states leave while three tokens are made; the request goes behind them, the token comes back.
            const double upload = kToken - kExit; // from a token's begin until its state is there
            double last = 0.0;
            for (int k = 0; k < 3; k++)
            {
                last = std::max(last, upload + k * kToken + (3 - k) * state);
            }
            const double visible = std::max(0.0, last - 3 * kToken) + 2 * delay + 32.0 / bitsPerMs;
            for (const TokenRow& row : records.tokens)
            {
                const TokenRecord& token = row.token;
                const auto ms = [](ns3::Time time) { return static_cast<double>(time.GetNanoSeconds()) / 1e6; };
                if (token.position <= 3)
                {
                    continue; // the prompt's states travel as well
                }
                const bool asked = token.position % 3 == 0;
                CAPTURE(token.position);
                CHECK(ms(token.components[static_cast<std::size_t>(Component::Network)]) ==
                      Approx(asked ? visible : 0.0).epsilon(1e-4).margin(1e-4));
                CHECK(ms(token.latency) ==
                      Approx(asked ? kToken + visible + 16 * kLayer + kHead : kToken).epsilon(1e-4));
                CHECK(ms(token.server) == Approx(asked ? 16 * kLayer + kHead : 0.0).margin(1e-9));
            }
        }
    }
}

TEST_CASE("Along a reference answer the cloud's tokens are judged as the full model's", "[ce-collm][quality]")
{
    const TemporaryFolder folder;
    const auto file = folder.Write("judged.jsonl",
                                   R"({"id": "1", "text": "", "tokens": [5, 17, 40], "answer_text": "", "answer": [6, 7, 8]}
{"id": "2", "text": "", "tokens": [5, 17, 41, 2], "answer_text": "", "answer": [9, 8]}
)");
    Json study = CeCollmStudy({{"codec", "fp32"}});
    study["workload"] = {{"prompts", file.string()}, {"requests", 2}, {"new_tokens", 2}, {"quality", true}};
    const Study spec = ReadStudy(study, "test", Folders());
    RunRecords records = Simulate(spec, 0, 1, [] {});
    records.quality = JudgeQuality(spec, 0, 1, records.requests, [] {});
    REQUIRE(records.quality.size() == 5);
    for (const QualityRow& row : records.quality)
    {
        CHECK(row.klNats == Approx(0.0).margin(1e-12));
        CHECK(row.agrees);
        CHECK(std::isnan(row.confidence));
    }
}

TEST_CASE("Along a reference answer an exit's tokens are judged by the exit's logits", "[ce-collm][quality]")
{
    const std::vector<TokenId> prompt{5, 17, 40};
    const std::vector<TokenId> answer{6, 7, 8};
    const TemporaryFolder folder;
    const auto file = folder.Write(
        "judged.jsonl",
        R"({"id": "1", "text": "", "tokens": [5, 17, 40], "answer_text": "", "answer": [6, 7, 8]})");
    Json study = CeCollmStudy({{"policy", {{"name", "listed"}, {"tokens", {1U, 3U}}}}});
    study["workload"] = {{"prompts", file.string()}, {"requests", 1}, {"new_tokens", 2}, {"quality", true}};
    const Study spec = ReadStudy(study, "test", Folders());
    RunRecords records = Simulate(spec, 0, 1, [] {});
    records.quality = JudgeQuality(spec, 0, 1, records.requests, [] {});
    REQUIRE(records.quality.size() == 3);

    CpuBackend backend(1);
    const auto model = backend.Resident(Model::Load(TestModel("tiny-llama")));
    const auto exits = backend.Resident(ExitsAfter({1, 3}), model->Config());
    const auto cache = backend.NewCache(*model, 0, 3, 16);
    const Answer whole = Monolithic(TestModel("tiny-llama"), {}).Ask(prompt, 1);
    std::vector<TokenId> tokens = prompt;
    tokens.insert(tokens.end(), answer.begin(), answer.end() - 1);
    Tensor h = backend.Embed(*model, tokens, 0).value;
    std::vector<Tensor> logits; // of each exit, for all rows
    for (std::size_t l = 0; l < 3; l++)
    {
        h = backend.FinishLayer(*model, l, h, backend.Project(*model, l, h).value, *cache).value;
        if (l != 1)
        {
            logits.push_back(backend.Exit(*model, *exits, l / 2, h).value);
        }
    }
    for (std::size_t k = 0; k < 3; k++)
    {
        CAPTURE(k);
        const auto chosen = std::as_const(logits[k % 2]).Row(prompt.size() - 1 + k);
        const QualityRow& row = records.quality[k];
        CHECK(row.layer == (k % 2 == 0 ? 1 : 3));
        CHECK(row.confidence == Confidence(chosen));
        CHECK(row.nll == Approx(LogSumExp(chosen) - chosen[answer[k]]));
        if (k == 0)
        {
            CHECK(row.agrees == (Greedy(chosen) == whole.tokens[0]));
        }
    }
}

TEST_CASE("What the keys of CE-CoLLM accept is said in one line", "[ce-collm][study]")
{
    const auto error = [](const std::string& path, const Json& value) {
        Json study = CeCollmStudy(Json::object());
        study[Json::json_pointer(path)] = value;
        return ErrorOf([&] { ReadStudy(study, "test", Folders()); });
    };
    CHECK(error("/scheme/timeout", "1s").empty());
    CHECK(error("/scheme/timeout", "0s") == "test: scheme.timeout: must be above 0");
    CHECK(error("/scheme/upload_layer", 4U) == "test: scheme.upload_layer: is 4; accepted: an integer from 1 to 3");
    CHECK(error("/scheme/mode", "both") == "test: scheme.mode: is \"both\"; accepted: collaborative, standalone");
    CHECK(error("/scheme/upload_below", 1.5).starts_with("test: scheme.upload_below: is 1.5; accepted: "));
    CHECK(error("/nodes/cloud/kv_memory", 1000U) ==
          "test: scheme.context_memory: is what limits CE-CoLLM's contexts; no request of it waits for node \"cloud\" to "
          "have kv_memory: leave that out");
    CHECK(error("/model/adapter", {{"path", "tiny-llama-lora"}}) ==
          "test: model.adapter: scheme \"ce-collm\" has no place for an adapter");
}
