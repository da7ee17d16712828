// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_TEST_CLOUD_RUN_H
#define SPLITLLM_TEST_CLOUD_RUN_H

#include "support/endpoint.h"
#include "support/monolithic.h"
#include "support/test-models.h"

#include "base/strict-json.h"
#include "codec/dense-codec.h"
#include "compute/cpu/cpu-backend.h"
#include "compute/device-profile.h"
#include "llm/exits.h"
#include "net/service-link.h"
#include "policy/exit-policy.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/host.h"
#include "schemes/scheme.h"
#include "schemes/session.h"
#include "split-llm-helper.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/node.h"
#include "ns3/simulator.h"

#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace splitllm::test
{

/// A sequence that a client of the cloud has: its prompt, the answer that the model would give, and its states.
struct Dialogue
{
    std::size_t prompt = 0; //!< tokens of it
    Answer answer;
    Tensor states; //!< after the upload layer, of all positions but the answer's last

    /// The position after which the cloud is asked for token \p index of the answer, from 0.
    std::size_t PositionOf(std::size_t index) const
    {
        return prompt - 1 + index;
    }
};

/// The tiny LLaMA's answer to a prompt that begins with token \p first, if states are rounded to \p wire after
/// \p layer, and those states.
inline Dialogue
Converse(TokenId first, std::size_t promptTokens, std::size_t newTokens, std::size_t layer, DType wire = DType::F32)
{
    std::vector<TokenId> sequence(promptTokens);
    std::iota(sequence.begin(), sequence.end(), first);
    Dialogue dialogue;
    dialogue.prompt = promptTokens;
    const auto folder = TestModel("tiny-llama");
    dialogue.answer = wire == DType::F32 ? Monolithic(folder, {}, std::nullopt, 1).Ask(sequence, newTokens)
                                         : RoundedAfter(folder, layer, sequence, newTokens);
    sequence.insert(sequence.end(), dialogue.answer.tokens.begin(), dialogue.answer.tokens.end() - 1);
    CpuBackend backend(1);
    const auto model = backend.Resident(Model::Load(folder));
    const auto cache = backend.NewCache(*model, 0, layer, model->Config().maxPositions);
    dialogue.states = backend.Embed(*model, sequence, 0).value;
    for (std::size_t l = 0; l < layer; l++)
    {
        const Projections qkv = backend.Project(*model, l, dialogue.states).value;
        dialogue.states = backend.FinishLayer(*model, l, dialogue.states, qkv, *cache).value;
    }
    return dialogue;
}

/// A client of CE-CoLLM's cloud that is no role: it sends what it is told to, over a link of its own.
class RawClient
{
  public:
    /// What the cloud answered.
    struct Reply
    {
        MessageKind kind;
        std::uint32_t request;
        std::uint32_t position;
        TokenId token; //!< 0 if it is none
        ns3::Time arrived;

        bool operator==(const Reply&) const = default;
    };

    RawClient(ns3::Ptr<Cloud> cloud, std::uint32_t itsSession, std::size_t layer, DType wire)
        : session(itsSession),
          m_cloud(cloud),
          m_layer(layer),
          m_wire(wire),
          m_link({.rate = ns3::DataRate("100Mbps"), .delay = ns3::MilliSeconds(1), .startup = {}, .kinds = {}})
    {
        Connect();
    }

    /// Opens both connections, beside those that there are.
    void Connect()
    {
        upload = NewConnection(Api::Upload);
        inference = NewConnection(Api::Inference);
    }

    void Close()
    {
        upload->port->Close();
        inference->port->Close();
    }

    /// Uploads \p rows states of \p dialogue from position \p first on.
    void Upload(const Dialogue& dialogue, std::uint32_t request, std::size_t first, std::size_t rows)
    {
        Send(*upload, State(request, first, EncodeDense(dialogue.states.Slice(first, rows), m_wire)));
    }

    void Ask(std::uint32_t request, std::size_t position)
    {
        Send(*inference, Header(MessageKind::Request, request, position));
    }

    void End(std::uint32_t request)
    {
        Message end = Header(MessageKind::End, request, 0);
        end.layer = 0;
        Send(*inference, end);
    }

    /// A message without payload.
    Message Header(MessageKind kind, std::uint32_t request, std::size_t position) const
    {
        return {.kind = kind,
                .dtype = m_wire,
                .session = session,
                .request = request,
                .sequence = 0,
                .position = static_cast<std::uint32_t>(position),
                .layer = static_cast<std::uint16_t>(m_layer),
                .payload = {}};
    }

    /// One with \p payload for the API for uploads.
    Message State(std::uint32_t request, std::size_t position, Payload payload) const
    {
        Message message = Header(MessageKind::HiddenState, request, position);
        message.payload = std::move(payload);
        return message;
    }

    static void Send(Endpoint& connection, Message message)
    {
        connection.port->Send(std::move(message), CriticalPath());
    }

    /// What came over all connections, those that were opened first first.
    std::vector<Reply> Replies() const
    {
        std::vector<Reply> replies;
        for (const auto& connection : m_connections)
        {
            for (const Arrival& arrival : connection->inbox.arrivals)
            {
                const Message& message = arrival.message;
                const TokenId token =
                    message.kind == MessageKind::NextToken ? DecodeTokens(message.payload).at(0) : 0;
                replies.push_back({message.kind, message.request, message.position, token, arrival.arrived});
            }
        }
        return replies;
    }

    /// The tokens among them.
    std::vector<TokenId> Tokens() const
    {
        std::vector<TokenId> tokens;
        for (const Reply& reply : Replies())
        {
            if (reply.kind == MessageKind::NextToken)
            {
                tokens.push_back(reply.token);
            }
        }
        return tokens;
    }

    const std::uint32_t session;
    Endpoint* upload = nullptr;    //!< the latest connection for uploads
    Endpoint* inference = nullptr; //!< the latest one for requests

  private:
    Endpoint* NewConnection(Api api)
    {
        PortPair ports = m_link.Connect();
        m_cloud->Attach(std::move(ports.server), api);
        return m_connections.emplace_back(std::make_unique<Endpoint>(std::move(ports.user))).get();
    }

    ns3::Ptr<Cloud> m_cloud;
    std::size_t m_layer;
    DType m_wire;
    ServiceLink m_link;
    std::vector<std::unique_ptr<Endpoint>> m_connections;
};

/// How a cloud is set up.
struct CloudSetup
{
    DType wire = DType::F32;
    std::size_t uploadLayer = 2; //!< of 4
    std::optional<std::size_t> context = {};
    ns3::Time contextTimeout = ns3::Seconds(60);
    std::optional<std::uint64_t> contextMemory = {};
    std::uint64_t deviceMemory = 0; //!< beside the weights; 0: unlimited
    double layerMs = 0.0;           //!< what a layer takes, whatever its rows; all else is free
};

/// A cloud of CE-CoLLM that serves the tiny LLaMA to raw clients. Takes the simulation down at the end of its scope.
class CloudRun
{
  public:
    /// What a token was chosen from.
    struct Chosen
    {
        std::uint32_t session;
        std::uint32_t request;
        std::uint32_t position;
        std::vector<float> logits;
    };

    /// A session that ended before its time.
    struct SessionEnd
    {
        std::uint32_t session;
        std::string reason;
        ns3::Time at;
    };

    explicit CloudRun(const CloudSetup& setup = {})
        : m_setup(setup)
    {
        using namespace ns3;
        SplitLlmHelper llm;
        llm.SetModel(TestModel("tiny-llama"));
        llm.SetScheme("ce-collm");
        llm.SetThreads(1);
        llm.SetWireType(std::string(splitllm::NameOf(setup.wire)));
        if (setup.context)
        {
            llm.SetContext(*setup.context);
        }
        CeCollmOptions options;
        options.policy = ExitByConfidence({2.0});
        options.uploadLayer = setup.uploadLayer;
        options.contextTimeout = setup.contextTimeout;
        options.contextMemory = setup.contextMemory;
        const auto exits = std::make_shared<Exits>();
        exits->layers = {3};
        llm.SetCeCollm(options, exits);
        const std::uint64_t weights = llm.GetScheme()->ServerFootprint().weights;
        Json profile = {{"name", "test"},
                        {"source", "a test"},
                        {"memory", setup.deviceMemory == 0 ? 0 : weights + setup.deviceMemory},
                        {"timing", {{"table", {{"layer", {{"ms", setup.layerMs}}}}}, {"otherwise", "free"}}}};
        StrictObject object(profile, "test");
        const Ptr<Node> node = CreateObject<Node>();
        InternetStackHelper().Install(node);
        cloud = llm.InstallCloud(node, DeviceProfile::Read(object, {}));
        Watch();
    }

    ~CloudRun()
    {
        cloud = nullptr;
        ns3::Simulator::Destroy();
    }

    CloudRun(const CloudRun&) = delete;
    CloudRun& operator=(const CloudRun&) = delete;

    RawClient& NewClient(std::uint32_t session)
    {
        return *m_clients.emplace_back(
            std::make_unique<RawClient>(cloud, session, m_setup.uploadLayer, m_setup.wire));
    }

    /// Runs until \p time.
    static void Until(ns3::Time time)
    {
        ns3::Simulator::Stop(time - ns3::Simulator::Now());
        ns3::Simulator::Run();
    }

    /// Does \p action at \p time.
    template <typename F>
    static void At(ns3::Time time, F action)
    {
        ns3::Simulator::Schedule(time - ns3::Simulator::Now(), action);
    }

    std::uint64_t StateBytes() const
    {
        return cloud->GetHost()->memory.Used(MemoryUse::Activations);
    }

    std::uint64_t KvBytes() const
    {
        return cloud->GetHost()->memory.Used(MemoryUse::Kv);
    }

    /// Operations of \p name that ran for \p session, by their rows.
    std::vector<std::size_t> RowsOf(const std::string& name, std::uint32_t session, int layer) const
    {
        std::vector<std::size_t> rows;
        for (const ComputeRecord& record : computed)
        {
            if (record.operation == name && record.session == session && record.layer == layer)
            {
                rows.push_back(record.rows);
            }
        }
        return rows;
    }

    ns3::Ptr<Cloud> cloud;
    std::vector<ComputeRecord> computed;
    std::vector<Chosen> chosen;
    std::vector<SessionEnd> ends;
    std::size_t sent = 0;     //!< messages of the cloud
    std::size_t received = 0; //!< messages that came there

  private:
    void Watch()
    {
        using namespace ns3;
        cloud->TraceConnectWithoutContext(
            "Compute",
            Callback<void, const ComputeRecord&>([this](const ComputeRecord& record) { computed.push_back(record); }));
        cloud->TraceConnectWithoutContext("Logits",
                                          Callback<void, const LogitsRecord&>([this](const LogitsRecord& record) {
                                              chosen.push_back({record.session,
                                                                record.request,
                                                                record.position,
                                                                {record.values, record.values + record.vocab}});
                                          }));
        cloud->TraceConnectWithoutContext("Message",
                                          Callback<void, const MessageRecord&>([this](const MessageRecord& record) {
                                              (record.received ? received : sent)++;
                                          }));
        cloud->TraceConnectWithoutContext(
            "SessionEnd",
            Callback<void, std::uint32_t, const std::string&>([this](std::uint32_t session, const std::string& reason) {
                ends.push_back({session, reason, Simulator::Now()});
            }));
    }

    CloudSetup m_setup;
    std::vector<std::unique_ptr<RawClient>> m_clients; //!< their links outlive the cloud's ports
};

} // namespace splitllm::test

#endif // SPLITLLM_TEST_CLOUD_RUN_H
