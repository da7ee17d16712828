// SPDX-License-Identifier: GPL-2.0-only

// SPA's baseline "Adapter": bottleneck adapters on the device, two exchanges a layer.

#include "support/bottleneck-folder.h"
#include "support/catch.h"
#include "support/error-of.h"
#include "support/same-bits.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tampering-port.h"
#include "support/temporary-folder.h"
#include "support/test-models.h"
#include "support/tiny-deployment.h"

#include "answers.h"
#include "simulation.h"

#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::size_t kWidth = 7;

/// Adapters for one of the tiny models.
class TinyBottleneck
{
  public:
    explicit TinyBottleneck(const std::string& model)
        : m_model(TestModel(model)),
          m_folder(LoadConfig(m_model), kWidth)
    {
        m_folder.Write();
    }

    std::filesystem::path Path() const
    {
        return m_folder.Write();
    }

    /// The model with the adapters in one piece.
    Answer Whole(const std::vector<TokenId>& prompt, std::optional<DType> wire = std::nullopt) const
    {
        return Monolithic(m_model, Path(), wire).Ask(prompt, kNewTokens);
    }

    SplitLlmHelper Deployed(const std::string& scheme, const std::string& wire = "fp32") const
    {
        SplitLlmHelper llm;
        llm.SetModel(m_model);
        llm.SetAdapter(Path());
        llm.SetScheme(scheme);
        llm.SetWireType(wire);
        return llm;
    }

  private:
    std::filesystem::path m_model;
    BottleneckFolder m_folder;
};

/// The tiny study with bottlenecks.
Json
BottleneckStudy(const TinyBottleneck& adapters, const char* scheme)
{
    Json json = TinyStudy();
    json["model"]["adapter"]["path"] = adapters.Path().string();
    json["scheme"]["name"] = scheme;
    return json;
}

RunRecords
Run(Json json)
{
    return Simulate(ReadStudy(json, "test", Folders()), 0, 1, [] {});
}

/// The same study in shape mode.
Json
InShapeMode(Json json)
{
    json["mode"] = "shape";
    json["model"]["dtype"] = "bf16";
    json["model"]["adapter"] = {{"bottleneck", kWidth}, {"dtype", "fp32"}};
    json["workload"] = {{"new_tokens", 4}};
    json["workload"]["prompt_tokens"] = Json::parse(
        R"([{"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1},
            {"tokens": 7, "requests": 1}, {"tokens": 12, "requests": 1}])");
    return json;
}

/// Rows of the step of the tiny study that made \p token.
std::uint64_t
RowsOf(const TokenRecord& token)
{
    return token.position > 1 ? 1 : (token.request % 2 == 0 ? 7 : 12);
}

} // namespace

TEST_CASE("adapter-split over an fp32 wire gives the bits of the model with its adapters in one piece",
          "[adapter-split][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const TinyBottleneck adapters(model);
        for (const std::vector<TokenId>& prompt : {Prompt(), std::vector<TokenId>{77}, std::vector<TokenId>{5, 200, 5}})
        {
            CAPTURE(model, prompt.size());
            const Answer whole = adapters.Whole(prompt);
            CHECK(SameBits(SplitRun(adapters.Deployed("adapter-split")).Ask(prompt, kNewTokens), whole));
            CHECK(SameBits(SplitRun(adapters.Deployed("local")).Ask(prompt, kNewTokens), whole));
            CHECK(SameBits(SplitRun(adapters.Deployed("server")).Ask(prompt, kNewTokens), whole));
            SplitLlmHelper streaming = adapters.Deployed("server");
            streaming.SetStream(true);
            CHECK(SameBits(SplitRun(std::move(streaming)).Ask(prompt, kNewTokens), whole));

            // The adapters matter here: without them the bits differ.
            CHECK_FALSE(SameBits(Monolithic(TestModel(model), "").Ask(prompt, kNewTokens), whole));
        }
    }
}

TEST_CASE("adapter-split over a 16-bit wire gives the bits of a model that rounds where tensors cross",
          "[adapter-split][invariant-2]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const TinyBottleneck adapters(model);
        const Answer plain = adapters.Whole(Prompt());
        for (const auto& [wire, dtype] : {std::pair{"fp16", DType::F16}, std::pair{"bf16", DType::BF16}})
        {
            CAPTURE(model, wire);
            const Answer split = SplitRun(adapters.Deployed("adapter-split", wire)).Ask(Prompt(), kNewTokens);
            CHECK(SameBits(split, adapters.Whole(Prompt(), dtype)));
            CHECK_FALSE(SameBits(split, plain));
        }
    }
}

TEST_CASE("adapter-split samples what the whole model samples", "[adapter-split][invariant-4]")
{
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const TinyBottleneck adapters(model);
        const auto tokens = [&](const char* scheme, double temperature) {
            Json json = BottleneckStudy(adapters, scheme);
            json["model"]["path"] = model;
            json["scheme"]["codec"] = "fp32";
            json["workload"]["temperature"] = temperature;
            json["workload"]["top_p"] = 0.9;
            std::map<std::tuple<std::uint32_t, std::uint32_t>, std::uint32_t> drawn;
            for (const TokenRow& row : Run(json).tokens)
            {
                drawn[{row.token.request, row.token.position}] = row.token.token;
            }
            return drawn;
        };
        const auto local = tokens("local", 1.5);
        CHECK(local.size() == 16);
        CHECK(tokens("adapter-split", 1.5) == local);
        CHECK(tokens("server", 1.5) == local);
        CHECK(tokens("local", 0.0) != local);
    }
}

TEST_CASE("adapter-split searches with beams as the whole model does", "[adapter-split][beams]")
{
    std::size_t unlikeGreedy = 0;
    for (const std::string model : {"tiny-llama", "tiny-opt"})
    {
        const TinyBottleneck adapters(model);
        for (const std::vector<TokenId>& prompt : {Prompt(), std::vector<TokenId>{77}, std::vector<TokenId>{5, 200, 5}})
        {
            const std::vector<TokenId> expected =
                Monolithic(TestModel(model), adapters.Path()).Find(prompt, BeamSearch(4, 1.0, kNewTokens, {}));
            unlikeGreedy += expected != adapters.Whole(prompt).tokens ? 1 : 0;
            for (const char* scheme : {"adapter-split", "local", "server"})
            {
                CAPTURE(model, scheme, prompt.size());
                SplitLlmHelper llm = adapters.Deployed(scheme);
                llm.SetBeams(4, 1.0);
                SplitRun run(std::move(llm));
                run.Ask(prompt, kNewTokens);
                REQUIRE(run.searched.size() == 1);
                CHECK(run.searched.front().tokens == expected);
                CHECK(run.lost.empty());
            }
        }
    }
    CHECK(unlikeGreedy > 0);
}

TEST_CASE("hypotheses of adapter-split share messages", "[adapter-split][beams]")
{
    const TinyBottleneck adapters("tiny-llama");
    SplitLlmHelper llm = adapters.Deployed("adapter-split");
    llm.SetBeams(4, 1.0);
    SplitRun run(std::move(llm));
    run.Ask(Prompt(), kNewTokens);
    // The second step: four rows of 64 elements of fp32 in each message, and what they go on from.
    std::vector<std::uint64_t> bytes;
    for (const MessageRecord& message : run.messages)
    {
        if (message.position == Prompt().size())
        {
            bytes.push_back(message.payloadBytes);
        }
    }
    std::vector<std::uint64_t> shapes(1 + 2 * 8 + 1, 4 * 64 * 4);
    shapes.front() += 4 * 4;
    CHECK(bytes == shapes);
}

TEST_CASE("adapter-split exchanges twice a layer what the shapes say", "[adapter-split][invariant-8]")
{
    const TinyBottleneck adapters("tiny-llama");
    const RunRecords records = Run(BottleneckStudy(adapters, "adapter-split"));
    REQUIRE(records.tokens.size() == 16);
    for (const TokenRow& row : records.tokens)
    {
        // 4 layers, d = 64, fp16: h0 and eight answers up, eight outputs and hL down.
        const std::uint64_t rows = RowsOf(row.token);
        CHECK(row.token.payloadBytes[0] == rows * 64 * 2 * (1 + 8));
        CHECK(row.token.payloadBytes[1] == rows * 64 * 2 * 8 + 64 * 2);
        CHECK(row.token.messages[0] == 1 + 8);
        CHECK(row.token.messages[1] == 8 + 1);
    }
    CHECK(records.messagesSent == records.messagesReceived);
    CHECK(records.messagesUnderWay == 0);
    CHECK(records.sessionsLost.empty());

    SplitRun run(adapters.Deployed("adapter-split"));
    run.Ask(Prompt(), 1);
    std::vector<std::string> kinds;
    for (const MessageRecord& message : run.messages)
    {
        kinds.push_back(message.kind + " " + std::to_string(message.layer));
    }
    std::vector<std::string> expected{"embedding 0"};
    for (const char* layer : {"1", "2", "3", "4"})
    {
        for (int sublayer = 0; sublayer < 2; sublayer++)
        {
            expected.push_back(std::string("adapter-input ") + layer);
            expected.push_back(std::string("adapter-output ") + layer);
        }
    }
    expected.insert(expected.end(), {"final-state 4", "end 0"});
    CHECK(kinds == expected);
}

TEST_CASE("shape mode and numeric mode send the same bytes and charge the same time for bottlenecks",
          "[adapter-split][invariant-8]")
{
    const TinyBottleneck adapters("tiny-llama");
    for (const char* scheme : {"adapter-split", "local", "server"})
    {
        CAPTURE(scheme);
        Json json = BottleneckStudy(adapters, scheme);
        for (const char* node : {"device", "edge"})
        {
            json["nodes"][node]["hardware"] = Json::parse(
                R"({"profile": "a800-80gb", "timing": {"table": {"layer": {"ms": 0.1}, "bottleneck": {"ms": 0.02},
                    "combine": {"ms": 0.005}}, "otherwise": "free"}})");
        }
        const RunRecords numeric = Run(json);
        const RunRecords shape = Run(InShapeMode(json));
        CHECK(numeric.payloadBytes == shape.payloadBytes);
        CHECK(numeric.headerBytes == shape.headerBytes);
        CHECK(numeric.messagesSent == shape.messagesSent);
        REQUIRE(numeric.tokens.size() == 16);
        REQUIRE(shape.tokens.size() == 16);
        for (std::size_t i = 0; i < 16; i++)
        {
            const TokenRecord& token = numeric.tokens[i].token;
            CHECK(token.latency == shape.tokens[i].token.latency);
            CHECK(token.components == shape.tokens[i].token.components);
            // Invariant 3, and what the table says: 4 layers, 8 bottlenecks, 16 additions.
            CHECK(std::accumulate(token.components.begin(), token.components.end(), ns3::Time()) == token.latency);
            CHECK(token.components[static_cast<std::size_t>(Component::Base)] == ns3::MicroSeconds(4 * 100));
            CHECK(token.components[static_cast<std::size_t>(Component::Adapter)] ==
                  ns3::MicroSeconds(8 * 20 + 16 * 5));
        }
    }
}

TEST_CASE("bottlenecks are in the memory of the node that has them", "[adapter-split][invariant-7]")
{
    const TinyBottleneck adapters("tiny-llama");
    const auto bytes = [&](const char* scheme, const char* node, MemoryUse use) {
        Json json = BottleneckStudy(adapters, scheme);
        json["nodes"]["device"]["count"] = 1;
        // The application aborts if its ledger is not empty at the end.
        const RunRecords records = Run(json);
        const auto found = records.memory.find(node);
        return found == records.memory.end() ? 0 : found->second.uses[static_cast<std::size_t>(use)];
    };
    // 4 layers of two, 64 x 7 twice and biases of 7 and 64, fp32.
    const std::uint64_t adapterBytes = 4 * 2 * (2 * 64 * 7 + 7 + 64) * 4;
    CHECK(bytes("adapter-split", "device", MemoryUse::Adapters) == adapterBytes);
    CHECK(bytes("adapter-split", "edge", MemoryUse::Adapters) == 0);
    CHECK(bytes("server", "edge", MemoryUse::Adapters) == adapterBytes);
    CHECK(bytes("local", "device", MemoryUse::Adapters) == adapterBytes);
    // K and V of 4 layers, 2 heads of 16, fp32, for the longer prompt and all but the last new token.
    CHECK(bytes("adapter-split", "edge", MemoryUse::Kv) == 4 * 2 * 32 * 4 * (12 + 3));
    CHECK(bytes("adapter-split", "device", MemoryUse::Kv) == 0);
    // Embedding, head (untied) and final norm in bf16.
    CHECK(bytes("adapter-split", "device", MemoryUse::Weights) == 2 * (2 * 256 * 64 + 64));
}

TEST_CASE("along the reference answers adapter-split over fp32 is the full model with its adapters",
          "[adapter-split][quality]")
{
    const TinyBottleneck adapters("tiny-llama");
    const TemporaryFolder folder;
    std::string lines;
    for (int prompt = 0; prompt < 2; prompt++)
    {
        const Json line = {{"id", "q" + std::to_string(prompt)},
                           {"group", ""},
                           {"text", ""},
                           {"tokens", {5, 6, 7, 8 + prompt}},
                           {"answer_text", ""},
                           {"answer", {20, 21, 2}}};
        lines += line.dump() + "\n";
    }
    const auto judged = [&](const char* scheme, const char* codec) {
        Json json = BottleneckStudy(adapters, scheme);
        json["scheme"]["codec"] = codec;
        json["workload"] = {{"prompts", folder.Write("judged.jsonl", lines).string()},
                            {"requests", 2},
                            {"new_tokens", 3},
                            {"quality", true}};
        const Study study = ReadStudy(json, "test", Folders());
        const RunRecords records = Simulate(study, 0, 1, [] {});
        double divergence = 0.0;
        const std::vector<QualityRow> rows = JudgeQuality(study, 0, 1, records.requests, [] {});
        CHECK(rows.size() == 6);
        for (const QualityRow& row : rows)
        {
            divergence += row.klNats;
        }
        return divergence;
    };
    CHECK(judged("adapter-split", "fp32") == 0.0);
    CHECK(judged("local", "fp32") == 0.0);
    const double rounded = judged("adapter-split", "fp16");
    CHECK(rounded > 0.0);
    CHECK(rounded < 1e-3);
}

TEST_CASE("one flipped bit in one payload of adapter-split changes the bits of the answer",
          "[adapter-split][invariant-1]")
{
    const TinyBottleneck adapters("tiny-llama");
    const Answer whole = adapters.Whole(Prompt());
    for (const MessageKind kind :
         {MessageKind::Embedding, MessageKind::AdapterInput, MessageKind::AdapterOutput, MessageKind::FinalState})
    {
        CAPTURE(std::string(NameOf(kind)));
        bool flipped = false;
        const auto flip = [&flipped, kind](Message& message) {
            if (message.kind == kind && !std::exchange(flipped, true))
            {
                message.payload.bytes.at(message.payload.size / 2 - 2) ^= std::byte{0x10};
            }
        };
        const Answer tampered =
            SplitRun(adapters.Deployed("adapter-split"), TamperingPair(flip)).Ask(Prompt(), kNewTokens);
        CHECK(flipped);
        CHECK(tampered.tokens.size() == kNewTokens);
        CHECK_FALSE(SameBits(tampered, whole));
    }
}

TEST_CASE("a message of adapter-split of the wrong kind, layer or size ends the session with a reason",
          "[adapter-split][protocol]")
{
    const TinyBottleneck adapters("tiny-llama");
    const auto reasonOf = [&](const TamperingPort::Tamper& tamper) {
        SplitRun run(adapters.Deployed("adapter-split"), TamperingPair(tamper));
        CHECK(run.Ask(Prompt(), kNewTokens).tokens.empty());
        return run.lost.empty() ? std::string() : run.lost.front();
    };
    // Of 19 rows of 64 elements of fp32.
    const auto cut = [](MessageKind kind, std::size_t bytes) {
        return [kind, bytes](Message& message) {
            if (message.kind == kind)
            {
                message.payload.size -= bytes;
                message.payload.bytes.resize(message.payload.size);
            }
        };
    };
    const auto change = [](MessageKind kind, std::uint16_t layer, const std::function<void(Message&)>& how) {
        return [kind, layer, how](Message& message) {
            if (message.kind == kind && message.layer == layer)
            {
                how(message);
            }
        };
    };
    CHECK(reasonOf(cut(MessageKind::AdapterInput, 256)) == "adapter-input: 18 rows instead of 19");
    CHECK(reasonOf(cut(MessageKind::AdapterOutput, 256)) == "adapter-output: 18 rows instead of 19");
    CHECK(reasonOf(cut(MessageKind::AdapterOutput, 1)) ==
          "adapter-output: payload of 4863 bytes is no whole number of rows of 256 bytes");
    CHECK(reasonOf(cut(MessageKind::FinalState, 256)).starts_with("final-state: "));
    CHECK(reasonOf(change(MessageKind::AdapterInput, 2, [](Message& m) { m.layer = 3; })) ==
          "expected adapter-input of layer 2, request 0, got adapter-input of layer 3, request 0");
    CHECK(reasonOf(change(MessageKind::AdapterOutput, 2, [](Message& m) { m.layer = 1; })) ==
          "expected adapter-output of layer 2, request 0, got adapter-output of layer 1, request 0");
    CHECK(reasonOf(change(MessageKind::AdapterInput, 4, [](Message& m) { m.kind = MessageKind::FinalState; })) ==
          "expected adapter-input of layer 4, request 0, got final-state of layer 4, request 0");
    CHECK(reasonOf(change(MessageKind::AdapterOutput, 1, [](Message& m) { m.kind = MessageKind::Deltas; })) ==
          "expected adapter-output of layer 1, request 0, got deltas of layer 1, request 0");
    CHECK(reasonOf(change(MessageKind::AdapterOutput, 1, [](Message& m) { m.request = 9; })) ==
          "expected adapter-output of layer 1, request 0, got adapter-output of layer 1, request 9");
    CHECK(reasonOf(change(MessageKind::AdapterOutput, 3, [](Message& m) { m.dtype = DType::F16; })) ==
          "expected elements of fp32, got fp16");
    CHECK(reasonOf(change(MessageKind::Embedding, 0, [](Message& m) { m.kind = MessageKind::HiddenState; }))
              .starts_with("expected embedding at position 0"));
}

TEST_CASE("a scheme that lacks its kind of adapter says so in one line", "[adapter-split][bad-input]")
{
    const TinyBottleneck adapters("tiny-llama");
    const auto error = [](Json json) { return ErrorOf([&] { ReadStudy(json, "test", Folders()); }); };

    Json lora = TinyStudy();
    lora["scheme"]["name"] = "adapter-split";
    CHECK(error(lora) == "test: model.adapter: scheme \"adapter-split\" needs bottleneck adapters; give their path");
    CHECK(error(BottleneckStudy(adapters, "linfer")) ==
          "test: model.adapter: scheme \"linfer\" needs a LoRA adapter; give its path");
    Json opsc = BottleneckStudy(adapters, "opsc");
    opsc["scheme"]["split"] = 2;
    CHECK(error(opsc) == "test: model.adapter: scheme \"opsc\" has no place for an adapter");

    const Json shape = InShapeMode(BottleneckStudy(adapters, "adapter-split"));
    CHECK(error(shape).empty());
    Json other = shape;
    other["scheme"]["name"] = "linfer";
    CHECK(error(other) == "test: model.adapter: scheme \"linfer\" needs a LoRA adapter; give its rank");
    other = shape;
    other["model"]["adapter"] = {{"rank", 4}};
    CHECK(error(other) == "test: model.adapter: scheme \"adapter-split\" needs bottleneck adapters; give their "
                          "width (\"bottleneck\")");
    other["model"]["adapter"] = {{"rank", 4}, {"bottleneck", 4}};
    CHECK(error(other).starts_with("test: model.adapter.rank: unknown key"));
    other["model"]["adapter"] = {{"bottleneck", 0}};
    CHECK(error(other).starts_with("test: model.adapter.bottleneck: "));

    SplitLlmHelper llm;
    llm.SetShape("llama-7b", "fp16");
    llm.SetAdapterShape(16, "fp16");
    llm.SetScheme("adapter-split");
    CHECK(ErrorOf([&] { llm.GetScheme(); }) ==
          "scheme \"adapter-split\" splits bottleneck adapters off the model: give model.adapter");

    Json cloud = BottleneckStudy(adapters, "adapter-split");
    cloud["nodes"]["cloud"] = {{"role", "cloud"}, {"hardware", "a800-80gb"}};
    CHECK(error(cloud).find("device-cloud") != std::string::npos); // of an edge and a cloud it takes the cloud
}
