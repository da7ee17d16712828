// SPDX-License-Identifier: GPL-2.0-only

// SPA with messages that the protocol does not allow, beside a device that keeps to it; and with little memory, many
// requests and links that lose packets.

#include "support/catch.h"
#include "support/endpoint.h"
#include "support/error-of.h"
#include "support/random-model.h"
#include "support/side-folder.h"
#include "support/split-run.h"
#include "support/study-fixture.h"
#include "support/tampering-port.h"
#include "support/temporary-folder.h"
#include "support/tiny-deployment.h"

#include "base/strict-json.h"
#include "codec/baseline-codecs.h"
#include "codec/dense-codec.h"
#include "metrics.h"
#include "results.h"
#include "schemes/order.h"
#include "schemes/spa/spa-options.h"
#include "sim/frame-pool.h"
#include "simulation.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/node-container.h"
#include "ns3/simulator.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

using namespace splitllm;
using namespace splitllm::test;

namespace
{

constexpr std::size_t kWidth = 5;
constexpr std::size_t kInner = 7;
constexpr std::size_t kBeams = 3;
constexpr std::size_t kEach = 2 * kBeams; // candidates of a hypothesis
constexpr std::size_t kStatesBytes = 4 + 4 * kWidth * 4 + 64 * 4;
const std::vector<bool> kPattern{true, false, false, true, true, false, true};

/// How SPA is set up in a case.
struct Setup
{
    SpaNode downProjection = SpaNode::Cloud;
    SpaNode head = SpaNode::Device;
    bool stream = true;
    std::size_t beams = 0;
};

constexpr Setup kDeviceHead;
constexpr Setup kCloudHead{.head = SpaNode::Cloud};
constexpr Setup kDeviceProjects{.downProjection = SpaNode::Device};
constexpr Setup kSearch{.beams = kBeams};

SplitLlmHelper
Spa(const Setup& setup, std::shared_ptr<const GatePolicy> policy = OpenAsListed(kPattern))
{
    SplitLlmHelper llm;
    llm.SetModel(TestModel("tiny-llama"));
    llm.SetScheme("spa");
    llm.SetThreads(1);
    llm.SetWireType("fp32");
    llm.SetBeams(setup.beams);
    SpaOptions options;
    options.policy = std::move(policy);
    options.downProjection = setup.downProjection;
    options.head = setup.head;
    options.stream = setup.stream;
    llm.SetSpa(options, RandomSideNetwork(LoadConfig(TestModel("tiny-llama")), kWidth, kInner, DType::F32, 77));
    return llm;
}

/// Hardware on which everything is free.
DeviceProfile
Free()
{
    Json profile = Json::parse(
        R"({"name": "free", "source": "a test", "timing": {"table": {"layer": {"ms": 0}}, "otherwise": "free"}})");
    StrictObject object(profile, "test");
    return DeviceProfile::Read(object, {});
}

/// What one device got, and when.
struct Got
{
    std::vector<TokenId> tokens;
    std::vector<std::int64_t> instants; //!< ns
    std::vector<std::vector<TokenId>> found;

    bool operator==(const Got&) const = default;
};

/// Two devices at one cloud, over wires without a network. The second one's messages are tampered with, both ways.
class TwoDevices
{
  public:
    struct End
    {
        std::uint32_t session;
        std::string reason;
    };

    TwoDevices(SplitLlmHelper llm, const TamperingPort::Tamper& tamper)
        : m_llm(std::move(llm))
    {
        using namespace ns3;
        NodeContainer nodes;
        nodes.Create(3);
        InternetStackHelper().Install(nodes.Get(0));
        m_cloud = m_llm.InstallCloud(nodes.Get(0), Free());
        Watch(m_cloud);
        for (std::uint32_t user : {0U, 1U})
        {
            SplitRun::Ports ports = TamperingPair(user == 1 ? tamper : [](Message&) {}, {.client = user});
            m_cloud->Attach(std::move(ports.second), Api::Inference);
            const Ptr<UserDevice> device = m_llm.InstallUserDevice(nodes.Get(1 + user), Free(), Address());
            device->SetConnector([port = std::make_shared<std::unique_ptr<MessagePort>>(std::move(ports.first))](Api) {
                return std::move(*port);
            });
            for (std::uint32_t request : {0U, 1U})
            {
                device->AddRequest({.index = request, .prompt = Prompt(), .newTokens = kNewTokens});
            }
            device->TraceConnectWithoutContext(
                "Token", Callback<void, const TokenRecord&>([this, user](const TokenRecord& record) {
                    got[user].tokens.push_back(record.token);
                    got[user].instants.push_back((record.start + record.latency).GetNanoSeconds());
                }));
            device->TraceConnectWithoutContext(
                "Searched", Callback<void, const SearchRecord&>([this, user](const SearchRecord& record) {
                    got[user].found.push_back(record.tokens);
                }));
            Watch(device);
        }
        Simulator::Stop(Seconds(10));
        Simulator::Run();
        const MemoryLedger& ledger = m_cloud->GetHost()->memory;
        memory = ledger.Used(MemoryUse::Kv) + ledger.Used(MemoryUse::Activations);
    }

    ~TwoDevices()
    {
        m_cloud = nullptr;
        ns3::Simulator::Destroy(); // aborts where a ledger is not empty
    }

    TwoDevices(const TwoDevices&) = delete;
    TwoDevices& operator=(const TwoDevices&) = delete;

    std::array<Got, 2> got;
    std::vector<End> ends;    //!< sessions that ended before their time
    std::uint64_t memory = 0; //!< that requests still take at the cloud
    std::map<std::string, std::multiset<int>> layers; //!< that operations were for, by name

  private:
    void Watch(ns3::Ptr<SplitLlmApplication> application)
    {
        application->TraceConnectWithoutContext(
            "SessionEnd",
            ns3::Callback<void, std::uint32_t, const std::string&>(
                [this](std::uint32_t session, const std::string& reason) { ends.push_back({session, reason}); }));
        application->TraceConnectWithoutContext(
            "Compute", ns3::Callback<void, const ComputeRecord&>([this](const ComputeRecord& record) {
                layers[record.operation].insert(record.layer);
            }));
    }

    SplitLlmHelper m_llm;
    ns3::Ptr<Cloud> m_cloud;
};

using Change = std::function<void(Message&)>;

struct Case
{
    const char* what;
    Setup setup;
    MessageKind kind;  //!< of the message that is tampered with
    std::size_t which; //!< of them, from 1
    Change change;
    std::string reason; //!< a beginning of it
};

/// The words of \p message, changed.
Change
Words(std::function<void(std::vector<std::uint32_t>&)> change)
{
    return [change](Message& message) {
        std::vector<std::uint32_t> words = DecodeTokens(message.payload);
        change(words);
        message.payload = EncodeTokens(words);
    };
}

Change
Word(std::size_t index, std::uint32_t value)
{
    return Words([=](std::vector<std::uint32_t>& words) { words.at(index) = value; });
}

/// The number \p value in place of word \p index.
Change
Number(std::size_t index, float value)
{
    return Word(index, std::bit_cast<std::uint32_t>(value));
}

/// A payload of \p bytes bytes: the first ones, and zeros where there are not so many.
Change
Sized(std::size_t bytes)
{
    return [bytes](Message& message) {
        message.payload.bytes.resize(bytes);
        message.payload.size = bytes;
    };
}

/// Another length in front of the first part of side states.
Change
FirstPart(std::uint32_t length)
{
    return [length](Message& message) {
        const Payload prefix = EncodeTokens({&length, 1});
        std::ranges::copy(prefix.bytes, message.payload.bytes.begin());
    };
}

Change
Kind(MessageKind kind)
{
    return [kind](Message& message) { message.kind = kind; };
}

Change
Type(DType dtype)
{
    return [dtype](Message& message) { message.dtype = dtype; };
}

Change
Layer(std::uint16_t layer)
{
    return [layer](Message& message) { message.layer = layer; };
}

Change
OfRequest(std::uint32_t request)
{
    return [request](Message& message) { message.request = request; };
}

Change
Position(std::uint32_t position)
{
    return [position](Message& message) { message.position = position; };
}

/// A phantom of as many bytes.
void
MakePhantom(Message& message)
{
    message.payload = Payload::Phantom(message.payload.size);
}

/// A phantom that has a real front.
void
MakePhantomBehindFront(Message& message)
{
    message.payload.phantom = true;
    message.payload.bytes.resize(4);
}

/// In place of the notice that ends a request: tokens at the position of the one after its last.
void
GoOn(Message& message)
{
    const TokenId token = 5;
    message.kind = MessageKind::Tokens;
    message.position = Prompt().size() + kNewTokens - 1;
    message.payload = EncodeTokens({&token, 1});
    message.dtype = DType::I32;
}

std::vector<Case>
Cases()
{
    using enum MessageKind;
    const std::string notOutput = "expected side-output of layer 0, request 0, got ";
    const std::string notNext = "expected next-token of layer 0, request 0, got ";
    const std::string notStates = "expected side-states of layer 0, request 0, got ";
    const std::string instead = " instead of 6 tokens of each of 1 hypotheses";
    const std::string rising = "candidates: a log-probability that is above 0, or above the one before";
    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<Case> cases{
        // To the cloud: the order.
        {"tokens without an order", kDeviceHead, Generate, 1, Kind(Tokens),
         "expected generate at position 0 of request 0, got tokens at position 0"},
        {"a side network's output without a question", kCloudHead, Generate, 1, Kind(SideOutput),
         "expected generate at position 0 of request 0, got side-output"},
        {"an order in the middle of a sequence", kDeviceHead, Generate, 1, Position(3),
         "expected generate at position 0 of request 0, got generate at position 3"},
        {"an order of numbers", kDeviceHead, Generate, 1, Type(DType::F32), "expected token ids, got elements of fp32"},
        {"an order without words", kDeviceHead, Generate, 1, Sized(0), "generate: "},
        {"an unknown token in a prompt", kDeviceHead, Generate, 1, Word(4, 256), "token 256 is outside the vocabulary"},
        {"an answer beyond the context", kDeviceHead, Generate, 2, Word(0, 100000), "generate: 100000 new tokens"},
        {"a search with more beams than there is room for", kSearch, Generate, 1, Word(0, kBeams + 1),
         "generate: 4 beams"},
        // To the cloud: the device's tokens.
        {"two tokens", kDeviceHead, Tokens, 1, Words([](auto& words) { words.push_back(7); }),
         "tokens: 2 after 1 of an answer of 12"},
        {"no token", kDeviceHead, Tokens, 2, Sized(0), "tokens: "},
        {"an unknown token", kDeviceHead, Tokens, 2, Word(0, 256), "token 256 is outside the vocabulary of 256"},
        {"tokens of numbers", kDeviceHead, Tokens, 1, Type(DType::F16), "expected token ids, got elements of fp16"},
        {"a token of another position", kDeviceHead, Tokens, 1, Position(20),
         "expected tokens at position 19 of request 0, got tokens at position 20"},
        {"a token of another request", kDeviceHead, Tokens, 3, OfRequest(1),
         "expected tokens at position 23 of request 0, got tokens at position 23 of request 1"},
        {"a token of another session", kDeviceHead, Tokens, 1, [](Message& message) { message.session = 0; },
         "expected tokens at position 19"},
        {"an order in the middle of an answer", kDeviceHead, Tokens, 2, Kind(Generate),
         "expected tokens at position 22 of request 0, got generate"},
        {"a token after the last one", kDeviceHead, End, 1, GoOn, "tokens: 1 after 12 of an answer of 12"},
        {"a token after the last one, with the head in the cloud", kCloudHead, End, 1, GoOn,
         "tokens: 1 after 12 of an answer of 12"},
        {"a token after a search", kSearch, End, 1, GoOn, "tokens: 1 after 12 of an answer of 12"},
        {"two tokens for one, where each is asked for", Setup{.stream = false}, Tokens, 2,
         Words([](auto& words) { words.push_back(7); }), "tokens: 2 after 2 of an answer of 12"},
        // To the cloud: what the side network makes of its states.
        {"tokens where its output is due", kCloudHead, SideOutput, 1, Kind(Tokens), notOutput + "tokens of layer 0"},
        {"an end where its output is due", kCloudHead, SideOutput, 2, Kind(End), notOutput + "end of layer 0"},
        {"its output of another layer", kCloudHead, SideOutput, 1, Layer(4), notOutput + "side-output of layer 4"},
        {"its output for another request", kCloudHead, SideOutput, 1, OfRequest(9),
         notOutput + "side-output of layer 0, request 9"},
        {"two rows of its output", kCloudHead, SideOutput, 1, Sized(512), "side-output: 2 rows instead of 1"},
        {"none of its output", kCloudHead, SideOutput, 1, Sized(0), "side-output: "},
        {"a byte too little of its output", kCloudHead, SideOutput, 1, Sized(255), "side-output: payload of 255 bytes"},
        {"its output on half the bytes", kCloudHead, SideOutput, 1, Type(DType::F16),
         "expected elements of fp32, got fp16"},
        {"a phantom of its output", kCloudHead, SideOutput, 1, MakePhantom, "side-output: a phantom"},
        {"what another codec made of its output", kCloudHead, SideOutput, 1,
         [](Message& message) { message.payload.coded = true; }, "side-output: "},
        // To the cloud: candidates of its search.
        {"tokens where candidates are due", kSearch, MessageKind::Candidates, 1, Kind(Tokens),
         "expected candidates of layer 0, request 0, got tokens"},
        {"a candidate too few", kSearch, MessageKind::Candidates, 1, Sized(8 * (kEach - 1)),
         "candidates: 10 words" + instead},
        {"half a candidate too many", kSearch, MessageKind::Candidates, 1, Sized(8 * kEach + 4),
         "candidates: 13 words" + instead},
        {"no candidates", kSearch, MessageKind::Candidates, 1, Sized(0), "candidates: "},
        {"candidates of a hypothesis too few", kSearch, MessageKind::Candidates, 2, Sized(8 * kEach * (kBeams - 1)),
         "candidates: 24 words instead of 6 tokens of each of 3 hypotheses"},
        {"an unknown candidate", kSearch, MessageKind::Candidates, 1, Word(2 * kEach - 2, 256), "token 256 is outside"},
        {"a log-probability above 0", kSearch, MessageKind::Candidates, 1, Number(1, 0.25F), rising},
        {"rising log-probabilities", kSearch, MessageKind::Candidates, 2, Number(2 * kEach - 1, -1e-6F), rising},
        {"a log-probability above 0 of a later hypothesis", kSearch, MessageKind::Candidates, 2,
         Number(2 * kEach + 1, 1.0F), rising},
        {"a log-probability that is no number", kSearch, MessageKind::Candidates, 1, Number(1, nan), rising},
        {"a later one that is no number", kSearch, MessageKind::Candidates, 1, Number(2 * kEach - 1, nan), rising},
        {"candidates of numbers", kSearch, MessageKind::Candidates, 1, Type(DType::F32),
         "expected token ids, got elements of fp32"},
        // To the device.
        {"states of another layer", kDeviceHead, SideStates, 1, Layer(1), notStates + "side-states of layer 1"},
        {"states for another request", kDeviceHead, SideStates, 2, OfRequest(4),
         notStates + "side-states of layer 0, request 4"},
        {"states with no room for a length", kDeviceHead, SideStates, 1, Sized(3),
         "side-states: 3 bytes have no room for a length"},
        {"a first part that is too long by far", kDeviceHead, SideStates, 1, FirstPart(0xffffffff),
         "side-states: a first part of 4294967295 bytes in a payload of 340"},
        {"a first part of a length that overflows with what is in front", kDeviceHead, SideStates, 1,
         FirstPart(0xfffffffc),
         "side-states: a first part of 4294967292 bytes in a payload of 340"},
        {"a first part too long by a byte", kDeviceHead, SideStates, 1, FirstPart(kStatesBytes - 4 + 1),
         "side-states: a first part of 337 bytes in a payload of 340"},
        {"a first part that is all", kDeviceHead, SideStates, 1, FirstPart(kStatesBytes - 4),
         "side-states: payload of 336 bytes"},
        {"no first part", kDeviceHead, SideStates, 2, FirstPart(0), "side-states: "},
        {"two rows in the first part", kDeviceHead, SideStates, 1, FirstPart(160), "side-states: 2 rows instead of 1"},
        {"no last state", kDeviceHead, SideStates, 1, Sized(84), "side-states: "},
        {"two last states", kDeviceHead, SideStates, 1, Sized(kStatesBytes + 256), "side-states: 2 rows instead of 1"},
        {"a phantom of states", kDeviceHead, SideStates, 1, MakePhantomBehindFront, "side-states: a phantom"},
        {"a phantom of states without a length", kDeviceHead, SideStates, 1, MakePhantom,
         "side-states: 340 bytes have no room for a length"},
        {"states of another type", kDeviceHead, SideStates, 1, Type(DType::BF16),
         "expected elements of fp32, got bf16"},
        {"a layer's state too few", kDeviceProjects, SideStates, 1, Sized(3 * 256), "side-states: 3 rows instead of 4"},
        {"a phantom of all layers' states", kDeviceProjects, SideStates, 1, MakePhantom, "side-states: a phantom"},
        {"a hypothesis too few", Setup{.downProjection = SpaNode::Device, .beams = kBeams}, NextToken, 3,
         Sized(4 * (kBeams - 1)), "side-states: 12 rows instead of 8"},
        {"another kind for a token", kDeviceHead, NextToken, 1, Kind(SideOutput), notNext + "side-output"},
        {"what no search has found", kDeviceHead, NextToken, 1, Kind(MessageKind::Answer), notNext + "answer"},
        {"a second question in place of the token", kCloudHead, NextToken, 1, Kind(FinalState),
         notNext + "final-state"},
        {"a token for another request", kDeviceHead, NextToken, 1, OfRequest(2),
         notNext + "next-token of layer 0, request 2"},
        {"an unknown token from the cloud", kDeviceHead, NextToken, 1, Word(0, 300), "token 300 is outside"},
        {"an unknown token in what a search has found", kSearch, MessageKind::Answer, 1, Word(5, 300),
         "token 300 is outside"},
        {"an answer without tokens", kSearch, MessageKind::Answer, 1, Sized(0), "answer: "},
    };
    return cases;
}

/// What both devices get where nothing is tampered with.
Got
Undisturbed(const Setup& setup)
{
    const TwoDevices run(Spa(setup), [](Message&) {});
    REQUIRE(run.ends.empty());
    REQUIRE(run.got[0].tokens.size() == 2 * kNewTokens);
    REQUIRE(run.got[0].found.size() == (setup.beams > 0 ? 2 : 0));
    REQUIRE(run.got[1] == run.got[0]);
    return run.got[0];
}

} // namespace

TEST_CASE("Whoever breaks SPA's protocol loses the connection, and nobody else notices", "[spa][protocol]")
{
    const std::size_t frames = FramePool::Live();
    for (const Case& its : Cases())
    {
        CAPTURE(its.what, its.reason);
        const Got honest = Undisturbed(its.setup);
        const auto seen = std::make_shared<std::size_t>(0);
        const TwoDevices both(Spa(its.setup), [&its, seen](Message& message) {
            if (message.kind == its.kind && ++*seen == its.which)
            {
                its.change(message);
            }
        });
        CHECK(*seen >= its.which);
        CHECK(both.got[0] == honest);
        CHECK(both.got[1].tokens.size() < 2 * kNewTokens);
        REQUIRE(!both.ends.empty());
        CHECK(both.ends.front().reason.substr(0, its.reason.size()) == its.reason);
        for (const TwoDevices::End& end : both.ends)
        {
            CHECK(end.session == 1);
        }
        CHECK(both.memory == 0);
    }
    CHECK(FramePool::Live() == frames);
}

namespace
{

/// A study of SPA on the tiny LLaMA: two users who draw their tokens, five requests, a gate that opens at random.
class SpaStudy
{
  public:
    SpaStudy()
        : json(TinyStudy())
    {
        const ModelConfig config = LoadConfig(TestModel("tiny-llama"));
        json["model"].erase("adapter");
        json["scheme"] = {{"name", "spa"},
                          {"side", {{"path", WriteSideNetwork(m_folder, config, kWidth, kInner).string()}}},
                          {"policy", {{"name", "random"}, {"open", 0.5}}}};
        json["workload"] = {
            {"prompts", "tiny"}, {"requests", 5}, {"new_tokens", 6}, {"temperature", 1.2}, {"top_p", 0.9}};
    }

    RunRecords Run() const
    {
        Json copy = json;
        return Simulate(ReadStudy(copy, "test", Folders()), 0, 1, [] {});
    }

    /// What the results of three repetitions say.
    std::string Summary(std::uint32_t threads) const
    {
        Json copy = json;
        const Study study = ReadStudy(copy, "test", Folders());
        PointResult result{.set = {}, .study = study, .runs = {}, .metrics = {}};
        for (std::uint32_t repetition = 0; repetition < 3; repetition++)
        {
            result.runs.push_back(Simulate(study, repetition, threads, [] {}));
        }
        result.metrics = ComputeMetrics(study, result.runs);
        const TemporaryFolder folder;
        ResultsFolder(folder.Path()).Write(study.name, {result}, Json::object());
        std::ostringstream text;
        for (const char* file : {"summary.json", "tokens.csv", "gates.csv"})
        {
            text << std::ifstream(folder.Path() / file).rdbuf();
        }
        return text.str();
    }

    Json json;

  private:
    TemporaryFolder m_folder;
};

/// Tokens of every request, in its order.
std::vector<std::vector<std::uint32_t>>
Answers(const RunRecords& records)
{
    std::vector<std::vector<std::uint32_t>> answers;
    for (const RequestRow& request : records.requests)
    {
        answers.push_back(request.generated);
    }
    return answers;
}

void
CheckComplete(const RunRecords& records, std::size_t tokens)
{
    CHECK(records.sessionsLost.empty());
    CHECK(records.outOfMemory.empty());
    CHECK(records.messagesUnderWay == 0);
    CHECK(records.messagesSent == records.messagesReceived);
    CHECK(records.tokens.size() == tokens);
    CHECK(records.gates.size() == tokens);
    for (const TokenRow& row : records.tokens)
    {
        CHECK(std::accumulate(row.token.components.begin(), row.token.components.end(), ns3::Time()) ==
              row.token.latency);
    }
}

} // namespace

TEST_CASE("SPA's answers do not depend on the link, its losses or who else is served", "[spa][invariant-4]")
{
    SpaStudy study;
    const RunRecords wired = study.Run();
    CheckComplete(wired, 30);
    const auto open = std::ranges::count(wired.gates, true, &GateRecord::open);
    CHECK(open > 5);
    CHECK(open < 25);

    for (const char* link : {R"({"type": "wired", "rate": "10Mbps", "delay": "2ms", "loss": 0.05})",
                             R"({"type": "service", "rate": "10Mbps", "delay": "1ms", "startup": "4ms"})",
                             R"({"type": "fading", "bandwidth": "10MHz", "snr": 2, "attempts": 20})",
                             R"({"type": "fading", "bandwidth": "10MHz", "snr": 2, "attempts": 20,
                                 "transport": "tcp"})"})
    {
        CAPTURE(link);
        study.json["links"]["device-edge"] = Json::parse(link);
        const RunRecords records = study.Run();
        CheckComplete(records, 30);
        CHECK(Answers(records) == Answers(wired));
        if (records.links.contains("device-edge"))
        {
            CHECK(records.links.at("device-edge").failed > 0);
        }
    }
    study.json["nodes"]["edge"]["batch"] = 2;
    CHECK(Answers(study.Run()) == Answers(wired));
    study.json["seed"] = 2;
    CHECK(Answers(study.Run()) != Answers(wired));
}

TEST_CASE("The same study of SPA and seed give byte-identical results", "[spa][invariant-4]")
{
    SpaStudy study;
    for (const char* head : {"cloud", "device"})
    {
        study.json["scheme"]["head"] = head;
        study.json["scheme"]["policy"] = {{"name", "gate"}};
        const std::string first = study.Summary(1);
        REQUIRE(first.find("gate_ratio") != std::string::npos);
        CHECK(study.Summary(1) == first);
        CHECK(study.Summary(3) == first);
        study.json["scheme"]["policy"] = {{"name", "random"}, {"open", 0.5}};
        const std::string drawn = study.Summary(1);
        CHECK(study.Summary(2) == drawn);
        study.json["seed"] = 2;
        CHECK(study.Summary(1) != drawn);
        study.json["seed"] = 1;
    }
}

TEST_CASE("A fading link that loses messages for good ends sessions of SPA, and not the run", "[spa][fading]")
{
    SpaStudy study;
    study.json["links"]["device-edge"] = Json::parse(
        R"({"type": "fading", "bandwidth": "10MHz", "snr": 2, "delay": "1ms", "attempts": 1, "on_loss": "fail"})");
    for (const unsigned beams : {0U, 3U})
    {
        study.json["workload"]["beams"] = beams;
        if (beams > 0)
        {
            study.json["workload"].erase("temperature");
            study.json["workload"].erase("top_p");
        }
        const RunRecords records = study.Run();
        CHECK(records.outOfMemory.empty());
        CHECK(records.sessionsLost.size() == 2);
        CHECK(records.tokens.size() < 30);
    }
}

TEST_CASE("A cloud of SPA admits a request when the one before has given its memory back", "[spa]")
{
    SpaStudy study;
    const RunRecords together = study.Run();
    // K and V of 4 layers, 2 heads of 16, fp32: for 12 prompt tokens and all but the last new one.
    const std::uint64_t one = 4 * 2 * 32 * 4 * (12 + 5);
    const auto kv = [](const RunRecords& records) {
        return records.memory.at("edge").uses[static_cast<std::size_t>(MemoryUse::Kv)];
    };
    CHECK(kv(together) > one);
    study.json["nodes"]["edge"]["kv_memory"] = one;
    const RunRecords inTurn = study.Run();
    CheckComplete(inTurn, 30);
    CHECK(Answers(inTurn) == Answers(together));
    CHECK(kv(inTurn) <= one);
    CHECK(std::ranges::any_of(inTurn.tokens, [](const TokenRow& row) {
        return row.token.components[static_cast<std::size_t>(Component::Queue)] > ns3::MicroSeconds(100);
    }));
    study.json["nodes"]["edge"]["kv_memory"] = one - 1;
    const RunRecords never = study.Run();
    CHECK(never.outOfMemory == "edge");
    CHECK(never.outOfMemoryReason.find("KV memory") != std::string::npos);
}

TEST_CASE("A device or a cloud of SPA that has not enough memory is a result", "[spa]")
{
    SpaStudy study;
    const ModelConfig config = LoadConfig(TestModel("tiny-llama"));
    const RunRecords enough = study.Run();
    const auto peak = [&](const char* node) { return enough.memory.at(node).total; };
    const std::pair<const char*, const char*> nodes[] = {{"device", "device-13tflops"}, {"edge", "a800-80gb"}};
    for (const auto& [node, profile] : nodes)
    {
        for (const std::uint64_t missing : {std::uint64_t{0}, std::uint64_t{1}, peak(node) - 1})
        {
            CAPTURE(node, missing);
            Json& hardware = study.json["nodes"][node]["hardware"];
            hardware = {{"profile", profile}, {"memory", peak(node) - missing}};
            const RunRecords records = study.Run();
            CHECK(records.outOfMemory == (missing == 0 ? "" : node));
            CHECK(records.outOfMemoryReason.empty() == (missing == 0));
            CHECK((records.tokens.size() == 30) == (missing == 0));
            hardware = profile;
        }
    }
}

namespace
{

/// A cloud of SPA whose gate is closed for ever, and a user that is no role: it sends what it is told to.
class RawUser
{
  public:
    explicit RawUser(std::size_t beams)
        : m_llm(Spa({.beams = beams}, OpenNever()))
    {
        const auto node = ns3::CreateObject<ns3::Node>();
        ns3::InternetStackHelper().Install(node);
        m_cloud = m_llm.InstallCloud(node, Free());
        SplitRun::Ports ports = TamperingPair([](Message&) {});
        m_cloud->Attach(std::move(ports.second), Api::Inference);
        m_user = std::make_unique<Endpoint>(std::move(ports.first));
        m_cloud->TraceConnectWithoutContext(
            "SessionEnd", ns3::Callback<void, std::uint32_t, const std::string&>(
                              [this](std::uint32_t, const std::string& reason) { reasons.push_back(reason); }));
    }

    ~RawUser()
    {
        m_user.reset();
        m_cloud = nullptr;
        ns3::Simulator::Destroy();
    }

    RawUser(const RawUser&) = delete;
    RawUser& operator=(const RawUser&) = delete;

    /// \param beams that the search is to have, of those that the cloud makes room for
    void Order(std::uint32_t newTokens, const std::vector<TokenId>& stop, std::size_t beams)
    {
        Send(MessageKind::Generate, 0, EncodeOrder({.newTokens = newTokens, .stop = stop}, {.beams = beams}, Prompt()));
    }

    /// Sends it, and waits for all that comes of it.
    void Send(MessageKind kind, std::uint32_t position, Payload payload)
    {
        m_user->port->Send({.kind = kind,
                            .dtype = DType::I32,
                            .session = 3,
                            .request = 0,
                            .sequence = 0,
                            .position = position,
                            .layer = 0,
                            .payload = std::move(payload)},
                           CriticalPath());
        ns3::Simulator::Stop(ns3::Seconds(1));
        ns3::Simulator::Run();
    }

    std::uint64_t Used(MemoryUse use) const
    {
        return m_cloud->GetHost()->memory.Used(use);
    }

    std::size_t Received() const
    {
        return m_user->inbox.arrivals.size();
    }

    std::vector<std::string> reasons; //!< for which the session has ended

  private:
    SplitLlmHelper m_llm;
    ns3::Ptr<Cloud> m_cloud;
    std::unique_ptr<Endpoint> m_user;
};

} // namespace

TEST_CASE("Between tokens SPA's cloud holds keys, values and the newest states, between requests nothing", "[spa]")
{
    for (const std::size_t beams : {0, 1, 2, 3})
    {
        RawUser user(beams > 0 ? 3 : 0);
        const std::size_t hypotheses = std::max<std::size_t>(1, beams);
        for (const std::uint32_t newTokens : {4U, 2U})
        {
            CAPTURE(beams, newTokens);
            user.Order(newTokens, {}, beams);
            const std::size_t rows = Prompt().size() + newTokens - 1;
            CHECK(user.Used(MemoryUse::Kv) == hypotheses * rows * 4 * 2 * 32 * 4);
            CHECK(user.Used(MemoryUse::Activations) == hypotheses * 4 * 64 * 4);
            user.Send(MessageKind::End, 0, {});
            CHECK(user.Used(MemoryUse::Kv) == 0);
            CHECK(user.Used(MemoryUse::Activations) == 0);
        }
        CHECK(user.Received() == 6);
        CHECK(user.reasons.empty());
    }
}

TEST_CASE("Nobody goes on with what a search has found before its time", "[spa][beams][protocol]")
{
    std::vector<TokenId> all(256);
    std::iota(all.begin(), all.end(), 0);
    RawUser user(kBeams);
    user.Order(5, all, kBeams); // whatever the search says ends it
    REQUIRE(user.Received() == 1);
    const TokenId token = 5;
    user.Send(MessageKind::Tokens, Prompt().size(), EncodeTokens({&token, 1}));
    CHECK(user.reasons == std::vector<std::string>{"tokens: 1 after 1 of an answer of 5"});
    CHECK(user.Received() == 1);
}

TEST_CASE("Side states are decoded for the layers for which they were coded", "[spa]")
{
    for (const Setup& setup : {kDeviceHead, kCloudHead, kDeviceProjects})
    {
        SplitLlmHelper llm = Spa(setup, OpenAlways());
        llm.SetCodec(MakeRoundToNearest(8));
        TwoDevices run(std::move(llm), [](Message&) {});
        REQUIRE(run.ends.empty());
        // Two devices, two requests each: of two parts the second is the state behind the last layer, of 4.
        std::multiset<int> layers;
        for (std::size_t i = 0; i < 4 * kNewTokens; i++)
        {
            layers.insert(0);
            if (setup.downProjection == SpaNode::Cloud)
            {
                layers.insert(setup.head == SpaNode::Device ? 4 : 0); // or what goes back up
            }
        }
        CHECK(run.layers["encode"] == layers);
        CHECK(run.layers["decode"] == layers);
    }
}

TEST_CASE("What SPA's nodes keep is what they compute with", "[spa]")
{
    // tiny-llama in bf16, 4 layers, d = 64, 256 tokens; a side network of 5 and 7, fp32.
    const std::uint64_t down = 4 * 5 * 64 * 4;
    const std::uint64_t block = (4 * 2 * 5 * 7 + 5 * 64) * 4;
    const std::uint64_t gate = (2 * 64 + 2) * 4;
    const std::uint64_t head = (256 * 64 + 64) * 2;
    for (const SpaNode projects : {SpaNode::Cloud, SpaNode::Device})
    {
        for (const SpaNode chooses : {SpaNode::Cloud, SpaNode::Device})
        {
            for (const bool asks : {false, true})
            {
                SplitLlmHelper llm = Spa({.downProjection = projects, .head = chooses},
                                               asks ? OpenByGate(0.5) : OpenAlways());
                const auto scheme = llm.GetScheme();
                const bool atDevice = projects == SpaNode::Device;
                CHECK(scheme->UserFootprint().weights == (chooses == SpaNode::Device ? head : 0));
                CHECK(scheme->UserFootprint().adapters == block + (atDevice ? down : 0));
                CHECK(scheme->ServerFootprint().adapters == (atDevice ? 0 : down) + (asks ? gate : 0));
            }
        }
    }
}

TEST_CASE("SPA takes no adapter", "[spa][bad-input]")
{
    SplitLlmHelper llm = Spa(kDeviceHead);
    llm.SetAdapter(TestModel("tiny-llama-lora"));
    CHECK(ErrorOf([&] { llm.GetScheme(); }) == "scheme \"spa\" has a side network in place of an adapter");
}
