// SPDX-License-Identifier: GPL-2.0-only

// Invariants 2 and 8 for OPSC: what its splits compute, and what they send.

#include "support/catch.h"
#include "support/error-of.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tiny-deployment.h"

#include "compute/footprint.h"
#include "compute/weight-precision.h"
#include "metrics.h"
#include "schemes/opsc/opsc-options.h"
#include "simulation.h"

#include <map>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

SplitLlmHelper
Opsc(const std::string& model, const std::string& wire, const OpscOptions& options)
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel(model));
    llm.SetScheme("opsc");
    llm.SetOpsc(options);
    llm.SetWireType(wire);
    return llm;
}

OpscOptions
SplitAfter(std::size_t layer, OpscContext context, KvPayload payload = KvPayload::Printed)
{
    OpscOptions options;
    options.split = layer;
    options.context = context;
    options.kvPayload = payload;
    return options;
}

/// A study of OPSC on the tiny LLaMA, whose split is after layer 2 of 4.
Json
OpscStudy(const Json& scheme)
{
    Json study = TinyStudy();
    study["model"].erase("adapter");
    study["nodes"]["device"]["count"] = 1;
    study["nodes"].erase("edge");
    study["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
    study["links"] = {{"device-cloud", {{"type", "service"}, {"rate", "100Mbps"}}}};
    study["scheme"] = {{"name", "opsc"}, {"split", 2}, {"codec", "fp16"}};
    study["scheme"].update(scheme);
    return study;
}

RunRecords
Run(Json study)
{
    return Simulate(ReadStudy(study, "test", Folders()), 0, 1, [] {});
}

} // namespace

TEST_CASE("OPSC over an fp32 wire gives the bits of the whole model, whatever the cloud remembers", "[invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const Answer whole = Monolithic(TestModel(model), {}).Ask(Prompt(), kNewTokens);
        for (const std::size_t layer : {1, 3, 4})
        {
            for (const OpscContext context : {OpscContext::Stateful, OpscContext::Stateless, OpscContext::StatelessKv})
            {
                for (const KvPayload payload : {KvPayload::Printed, KvPayload::Needed})
                {
                    CAPTURE(model, layer, static_cast<int>(context), static_cast<int>(payload));
                    SplitRun run(Opsc(model, "fp32", SplitAfter(layer, context, payload)));
                    CHECK(SameBits(run.Ask(Prompt(), kNewTokens), whole));
                    CHECK(run.lost.empty());
                }
            }
        }
    }
}

TEST_CASE("OPSC over a 16-bit wire gives the bits of a model that rounds where it is split", "[invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        for (const OpscContext context : {OpscContext::Stateful, OpscContext::Stateless})
        {
            CAPTURE(model, static_cast<int>(context));
            SplitRun run(Opsc(model, "fp16", SplitAfter(2, context)));
            CHECK(SameBits(run.Ask(Prompt(), kNewTokens), RoundedAfter(TestModel(model), 2, Prompt(), kNewTokens)));
        }
    }
}

TEST_CASE("OPSC's device generates its tokens alone, and the cloud the rest", "[invariant-2]")
{
    const Answer whole = Monolithic(TestModel("tiny-llama"), {}).Ask(Prompt(), kNewTokens);
    for (const std::uint32_t alone : {0U, 1U, 5U, kNewTokens, kNewTokens + 1})
    {
        CAPTURE(alone);
        OpscOptions options = SplitAfter(2, OpscContext::Stateful);
        options.placement = OpscPlacement::DeviceFirst;
        options.deviceTokens = alone;
        SplitRun run(Opsc("tiny-llama", "fp16", options));
        CHECK(SameBits(run.Ask(Prompt(), kNewTokens), whole));
        std::size_t asked = 0;
        for (const MessageRecord& message : run.messages)
        {
            asked += message.kind == "tokens" ? 1 : 0;
        }
        CHECK(asked == kNewTokens - std::min(alone, kNewTokens)); // max(0, n - W)
    }
}

TEST_CASE("OPSC's uploads have the bytes that Eq 3 says")
{
    const ModelConfig config = LoadConfig(TestModel("tiny-llama"));
    for (const bool shape : {false, true})
    {
        for (const char* context : {"stateful", "stateless", "stateless-kv"})
        {
            CAPTURE(shape, context);
            Json study = OpscStudy({{"context", context}});
            study["workload"] = {{"prompts", "tiny"}, {"requests", 1}, {"new_tokens", 4}};
            if (shape)
            {
                study["mode"] = "shape";
                study["model"]["dtype"] = "fp16";
                study["workload"] =
                    Json::parse(R"({"prompt_tokens": [{"tokens": 7, "requests": 1}], "new_tokens": 4})");
            }
            const RunRecords records = Run(study);
            REQUIRE(records.tokens.size() == 4);
            for (const TokenRow& row : records.tokens)
            {
                const std::size_t w = 6 + row.token.position;
                const bool first = row.token.position == 1;
                const std::uint64_t state = config.hidden * 2;
                std::uint64_t expected = (first ? w : 1) * state;
                if (context == std::string("stateless"))
                {
                    expected = OpscPayloadBits(config, w, 2, false, {16, 16}) / 8;
                }
                else if (context == std::string("stateless-kv"))
                {
                    // A prompt has no keys and values in the back yet, and all its states are new.
                    const std::uint64_t front = 2 * 2 * w * config.KvWidth() * 2;
                    expected = first ? front + w * state : OpscPayloadBits(config, w, 2, true, {16, 16}) / 8;
                }
                CHECK(row.token.payloadBytes[0] == expected);
            }
        }
    }
}

TEST_CASE("a stateless cloud holds nothing between steps, and the device what it will send again")
{
    std::map<std::string, RunRecords> runs;
    for (const char* context : {"stateful", "stateless", "stateless-kv"})
    {
        Json study = OpscStudy({{"context", context}});
        study["workload"] = {{"prompts", "tiny"}, {"requests", 1}, {"new_tokens", 4}};
        runs[context] = Run(study);
    }
    const ModelConfig config = LoadConfig(TestModel("tiny-llama"));
    const std::size_t w = 7 + 4 - 1;
    const std::uint64_t entry = config.KvBytesPerLayer(DType::F32); // activations of the CPU backend
    const auto kv = [&](const char* context, const char* node) {
        return runs[context].memory.at(node).uses[static_cast<std::size_t>(MemoryUse::Kv)];
    };
    CHECK(kv("stateful", "device") == 2 * w * entry);
    CHECK(kv("stateful", "cloud") == 2 * w * entry);
    CHECK(kv("stateless", "device") == 2 * w * entry);
    CHECK(kv("stateless-kv", "device") == 4 * w * entry);
}

TEST_CASE("an answer ends when Algorithm 2 cannot send a token in time, at the length of the closed form")
{
    // Stateless: 8 ns a byte, all w states. The device computes in no time, the compressing codec is fp16 beside fp32.
    const std::size_t hidden = LoadConfig(TestModel("tiny-llama")).hidden;
    for (const std::size_t longest : {9, 12, 15})
    {
        CAPTURE(longest);
        const std::size_t nanoseconds = longest * hidden * 2 * 80 + 1000; // of an upload of that many states in fp16
        Json study = OpscStudy({{"context", "stateless"},
                                {"codec", "fp32"},
                                {"compressed", "fp16"},
                                {"deadline", std::to_string(nanoseconds) + "ns"}});
        study["workload"] = {{"prompts", "tiny"}, {"requests", 1}, {"new_tokens", 20}};
        for (const char* node : {"device", "cloud"})
        {
            study["nodes"][node]["hardware"] = Json::parse(
                R"({"profile": "a800-80gb", "timing": {"table": {}, "otherwise": "free"}})");
        }
        const RunRecords records = Run(study);
        REQUIRE(records.tokens.size() == longest - 7 + 1); // a prompt of 7 tokens gives the first
        CHECK(records.tokens.back().token.last);
        CHECK(records.requests.front().earlyExit);
        for (const UploadRow& row : records.uploads)
        {
            const std::size_t w = row.upload.position + 1;
            CHECK(row.upload.compressed == (w * hidden * 4 * 80 > nanoseconds));
            CHECK(row.arrived == row.upload.predicted);
            CHECK(row.arrived <= row.upload.deadline);
        }
    }
}

TEST_CASE("the cloud announces a shorter deadline the longer its steps take")
{
    Json study = OpscStudy({{"compressed", "fp16"}, {"deadline", "100ms"}});
    study["workload"] = {{"prompts", "tiny"}, {"requests", 1}, {"new_tokens", 3}};
    study["nodes"]["cloud"]["hardware"] = Json::parse(
        R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 4}, "head": {"ms": 2}}, "otherwise": "free"}})");
    const RunRecords records = Run(study);
    REQUIRE(records.uploads.size() == 3);
    CHECK(records.uploads[0].upload.deadline == ns3::MilliSeconds(100));
    CHECK(records.uploads[1].upload.deadline == ns3::MilliSeconds(90)); // two layers and the head
    CHECK(records.uploads[2].upload.deadline == ns3::MilliSeconds(90));
}

TEST_CASE("a device of few bits computes with them, and holds what they take")
{
    // tiny-opt's matrices have whole groups of 32
    const auto model = Model::Load(TestModel("tiny-opt"));
    const ModelConfig& config = model->config;
    CpuBackend backend(1);
    for (const unsigned bits : {8U, 4U})
    {
        const auto precision = WeightPrecision::Front(config, 2, bits, 32);
        const auto front = backend.Resident(model, precision);
        const auto stored = backend.Resident(model);
        const auto cache = backend.NewCache(*stored, 0, config.layers, config.maxPositions);
        Tensor h = backend.Embed(*stored, Prompt(), 0).value;
        for (std::size_t l = 0; l < config.layers; l++)
        {
            const ResidentModel& its = l < 2 ? *front : *stored;
            const Projections qkv = backend.Project(its, l, h).value;
            h = backend.FinishLayer(its, l, h, qkv, *cache).value;
        }
        const Tensor logits = backend.Head(*stored, h.Slice(h.Rows() - 1, 1)).value;

        SplitLlmHelper llm;
        llm.SetModel(TestModel("tiny-opt"));
        llm.SetScheme("opsc");
        llm.SetOpsc(SplitAfter(2, OpscContext::Stateful), bits, 16, 32);
        llm.SetWireType("fp32");
        const std::uint64_t held = llm.GetScheme()->UserFootprint().weights;
        CHECK(held == EmbeddingBytes(config) + LayerBytes(config, precision, 0, 2).Total());
        SplitRun run(std::move(llm));
        const Answer answer = run.Ask(Prompt(), 1);
        REQUIRE(answer.logits.size() == 1);
        CHECK(answer.logits[0] == std::vector<float>(logits.Values().begin(), logits.Values().end()));
    }
}

TEST_CASE("coding takes its time, at the node that does it")
{
    Json study = OpscStudy({{"codec", {{"name", "tab-q"}, {"bits", 4}, {"tau", 5.0}}}});
    study["workload"] = {{"prompts", "tiny"}, {"requests", 1}, {"new_tokens", 3}};
    for (const char* node : {"device", "cloud"})
    {
        study["nodes"][node]["hardware"] = Json::parse(
            R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 1}}, "otherwise": "free"}})");
    }
    study["nodes"]["device"]["hardware"]["timing"]["table"]["encode"] = {{"ms_per_row", 0.25}};
    study["nodes"]["cloud"]["hardware"]["timing"]["table"]["decode"] = {{"ms", 0.125}};
    const RunRecords records = Run(study);
    REQUIRE(records.tokens.size() == 3);
    for (const TokenRow& row : records.tokens)
    {
        const std::int64_t rows = row.token.position == 1 ? 7 : 1;
        const ns3::Time codec = row.token.components[static_cast<std::size_t>(Component::Codec)];
        CHECK(codec == ns3::MicroSeconds(250 * rows + 125));
        CHECK(row.token.components[static_cast<std::size_t>(Component::Base)] == ns3::MilliSeconds(4));
    }
}

TEST_CASE("a request of every user is as many requests as there are users")
{
    Json study = OpscStudy(Json::object());
    study["nodes"]["device"]["count"] = 3;
    study["workload"] = {{"prompts", "tiny"}, {"requests", 2}, {"new_tokens", 1}, {"per_user", true}};
    const RunRecords records = Run(study);
    std::map<std::uint32_t, std::size_t> asked;
    for (const TokenRow& row : records.tokens)
    {
        asked[row.token.session]++;
    }
    CHECK(asked == std::map<std::uint32_t, std::size_t>{{0, 2}, {1, 2}, {2, 2}});
}

TEST_CASE("what OPSC cannot do is refused with a reason")
{
    const auto errorOf = [](Json study) {
        return ErrorOf([&] { ReadStudy(study, "test", Folders()); });
    };
    CHECK(errorOf(OpscStudy({{"split", 0}})) == "test: scheme.split: is 0; accepted: an integer from 1 to 4");
    CHECK(errorOf(OpscStudy({{"split", 5}})) == "test: scheme.split: is 5; accepted: an integer from 1 to 4");
    CHECK(errorOf(OpscStudy({{"front_bits", 5}})) ==
          "test: scheme.front_bits: is 5; accepted: 4, 8, and 16, which leaves the weights as they are");
    Json late = OpscStudy({{"deadline", "90us"}, {"compressed", "fp16"}});
    for (const char* node : {"device", "cloud"})
    {
        late["nodes"][node]["hardware"] = Json::parse(
            R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 0.0415}}, "otherwise": "free"}})");
    }
    CHECK(errorOf(late) == "test: scheme.deadline: is +0.09ms, which not even the shortest prompt, of 7 tokens, can "
                           "keep: the front layers take +0.083ms and its states +0.00896ms at least; accepted: more "
                           "than both together");
    late["scheme"]["deadline"] = "92us";
    CHECK(errorOf(late).empty());
    Json wired = OpscStudy({{"deadline", "10ms"}});
    wired["links"]["device-cloud"]["type"] = "wired";
    CHECK(errorOf(wired) == "test: scheme.deadline: needs a link that can tell how long a message takes; over TCP, as on "
                            "link \"device-cloud\", nobody can");
    Json adapted = OpscStudy(Json::object());
    adapted["model"]["adapter"] = {{"path", "tiny-llama-lora"}};
    CHECK(errorOf(adapted) == "test: model.adapter: scheme \"opsc\" has no place for an adapter");
}
