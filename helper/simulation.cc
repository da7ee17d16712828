// SPDX-License-Identifier: GPL-2.0-only
#include "simulation.h"

#include "links.h"
#include "recording.h"
#include "net/journey-log.h"
#include "schemes/host.h"
#include "schemes/scheme.h"
#include "split-llm-helper.h"
#include "streams.h"

#include "ns3/internet-stack-helper.h"
#include "ns3/ipv4-address-generator.h"
#include "ns3/mac48-address.h"
#include "ns3/random-variable-stream.h"
#include "ns3/rng-seed-manager.h"
#include "ns3/simulation-singleton.h"
#include "ns3/simulator.h"
#include "ns3/string.h"
#include "ns3/uinteger.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace splitllm
{

using namespace ns3;

namespace
{

/// Makes ns-3 number the streams that it chooses itself from the start again. ns-3 3.42 has no call for that; links and
/// applications here are given their streams.
template <typename Manager = RngSeedManager>
void
RestartStreams()
{
    if constexpr (requires { Manager::ResetNextStreamIndex(); })
    {
        Manager::ResetNextStreamIndex();
    }
}

/// After so long without a message the connections that are left have given up, and no operation is that long.
constexpr std::uint32_t kIdleSeconds = 1000;

/// What the members of a group are called.
std::vector<std::string>
NamesOf(const NodeSpec& group)
{
    if (group.count == 1)
    {
        return {group.name};
    }
    std::vector<std::string> names;
    for (std::uint32_t i = 0; i < group.count; i++)
    {
        names.push_back(group.name + "-" + std::to_string(i));
    }
    return names;
}

/// A run from topology to results.
class Run
{
  public:
    Run(const Study& study,
        std::uint32_t repetition,
        std::uint32_t threads,
        const std::function<void()>& onToken,
        std::shared_ptr<OutcomeRecorder> outcomes,
        const std::string& captures);
    ~Run();
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    /// Loads the model and builds the network. \throws NodeOutOfMemory if the device that computes cannot hold the model
    void Install();

    /// The requests of the workload, in the order in which they are asked.
    std::vector<UserRequest> Requests();

    /// The reference answer to a request.
    const std::vector<TokenId>& AnswerTo(const UserRequest& request) const;

    /// Hands \p requests to their users.
    void Ask(std::vector<UserRequest> requests);

    /// Reports to \p traces, which outlive the run.
    void Report(const AnswerTraces& traces);

    RunRecords Execute();

  private:
    /// The scheme, with the model it runs. \throws NodeOutOfMemory if the device that computes cannot hold it
    const Scheme& LoadScheme();

    void InstallServer(const NodeSpec& spec);
    void InstallUsers(const NodeSpec& spec);

    /// Lets the server die and come back.
    void ScheduleOutages(const std::vector<OutageSpec>& specs);

    /**
     * Ends a simulation that would have events for ever: looks every second whether something is left to do.
     * \param progress messages and tokens at the last look
     * \param idleSeconds for how long that has not changed
     */
    void EndWhenIdle(std::uint64_t progress, std::uint32_t idleSeconds);

    void Trace(const std::string& node, Ptr<SplitLlmApplication> application);
    void CollectMemory(const std::string& group, Ptr<SplitLlmApplication> application);

    const Study& m_study;
    std::uint32_t m_repetition;
    std::string m_captures; //!< what the names of their files begin with; empty: there are none
    std::uint64_t m_firstRun = RngSeedManager::GetRun(); //!< the user's --RngRun
    Recorder m_recorder;
    SplitLlmHelper m_llm;
    InternetStackHelper m_internet;
    std::unique_ptr<Link> m_link; //!< between users and server, where there is one
    Ptr<Node> m_serverNode;
    std::string m_serverName;
    Ptr<ServerApplication> m_server;
    std::vector<Outage> m_outages; //!< of the server
    std::vector<Ptr<UserDevice>> m_users;
    std::vector<RequestArrival> m_arrivals; //!< of requests, by their index
};

Run::Run(const Study& study,
         std::uint32_t repetition,
         std::uint32_t threads,
         const std::function<void()>& onToken,
         std::shared_ptr<OutcomeRecorder> outcomes,
         const std::string& captures)
    : m_study(study),
      m_repetition(repetition),
      m_captures(captures),
      m_recorder(repetition == 0 ? study.timelineTokens : 0, onToken)
{
    RngSeedManager::SetSeed(study.seed);
    RngSeedManager::SetRun(m_firstRun + repetition);
    RestartStreams();
    m_llm.SetBackend(NameOf(study.backend.name), study.backend.times == CudaTimes::Events);
    m_llm.SetThreads(threads);
    std::shared_ptr<OutcomePlayer> player;
    if (study.Replays())
    {
        player = std::make_shared<OutcomePlayer>(study.ReplayedRun(repetition).outcomes);
    }
    m_llm.SetOutcomes(std::move(outcomes), std::move(player));
}

void
Run::Install()
{
    const Study& study = m_study;
    const ModelSpec& model = study.model;
    if (study.shapeMode || study.Replays())
    {
        if (study.Replays())
        {
            m_llm.SetShape(study.config, study.ReplayedRun(m_repetition).activations);
        }
        else if (model.shape.empty())
        {
            m_llm.SetShapeOf(model.folder, model.dtype);
        }
        else
        {
            m_llm.SetShape(model.shape, model.dtype);
        }
        if (model.adapterRank > 0)
        {
            m_llm.SetAdapterShape(model.adapterRank, model.adapterDtype);
        }
        if (model.bottleneckWidth > 0)
        {
            m_llm.SetBottleneckShape(model.bottleneckWidth, model.adapterDtype);
        }
    }
    else
    {
        m_llm.SetModel(model.folder);
        m_llm.SetAdapter(model.adapterFolder);
    }
    m_llm.SetScheme(study.scheme.name);
    m_llm.SetPolicy(study.scheme.policy, study.scheme.firstLayer);
    m_llm.SetStream(study.scheme.stream);
    m_llm.SetKeep(study.scheme.keep);
    m_llm.SetOpsc(study.scheme.opsc,
                  study.scheme.weightBits.front,
                  study.scheme.weightBits.back,
                  study.scheme.weightGroup);
    m_llm.SetCeCollm(study.scheme.ceCollm, study.scheme.exits);
    m_llm.SetSpa(study.scheme.spa, study.scheme.side);
    m_llm.SetCodec(study.scheme.codec);
    m_llm.SetSampling(study.sampling.temperature, study.sampling.topP);
    m_llm.SetBeams(study.sampling.beams, study.sampling.lengthPenalty);
    m_llm.SetContext(study.LongestContext());
    m_llm.SetUserAttribute("ThinkTime", TimeValue(study.arrivals.thinkTime));
    m_internet.SetIpv6StackInstall(false);

    if (LoadScheme().HasServer())
    {
        InstallServer(study.Server());
    }
    InstallUsers(study.Node(NodeRole::UserDevice));
}

const Scheme&
Run::LoadScheme()
{
    try
    {
        return *m_llm.GetScheme();
    }
    catch (const OutOfMemory& cause)
    {
        // One device computes for all nodes. Where there is a server, that is where the large model is.
        const auto isServer = [](const NodeSpec& node) {
            return node.role == NodeRole::EdgeServer || node.role == NodeRole::Cloud;
        };
        const auto server = std::ranges::find_if(m_study.nodes, isServer);
        const NodeSpec& node = server == m_study.nodes.end() ? m_study.nodes.front() : *server;
        throw NodeOutOfMemory(node.name, node.name + " cannot hold the model: " + cause.what());
    }
}

Run::~Run()
{
    Simulator::Destroy();
    // What ns-3 keeps beyond Destroy would make a point depend on the points before it.
    Ipv4AddressGenerator::Reset();
    Mac48Address::ResetAllocationIndex();
    RngSeedManager::SetRun(m_firstRun);
}

void
Run::InstallServer(const NodeSpec& spec)
{
    m_serverNode = CreateObject<Node>();
    m_serverName = spec.name;
    m_internet.Install(m_serverNode);
    m_llm.SetServerAttribute("Name", StringValue(spec.name));
    const NodeSpec& users = m_study.Node(NodeRole::UserDevice);
    const LinkEnds ends{.server = m_serverNode, .serverName = spec.name, .userNames = NamesOf(users)};
    const NodeSpec* gateway = m_study.Gateway();
    const LinkSpec& link = m_study.LinkBetween(gateway != nullptr ? *gateway : users, spec); // the server's end
    m_link = gateway != nullptr ? Link::MakeThroughGateway(m_study.LinkBetween(users, *gateway),
                                                           link,
                                                           gateway->name,
                                                           ends,
                                                           m_recorder)
                                : Link::Make(link, ends, m_recorder);
    if (link.pcap && !m_captures.empty())
    {
        m_link->Capture(m_captures + link.name + ".pcap");
    }
    m_llm.SetServerAttribute("SegmentSize", UintegerValue(m_link->SegmentBytes()));
    m_llm.SetUserAttribute("SegmentSize", UintegerValue(m_link->SegmentBytes()));
    m_llm.SetServerAttribute("Batch", UintegerValue(spec.batch));
    m_llm.SetServerAttribute("KvMemory", UintegerValue(spec.kvMemory));
    if (spec.role == NodeRole::Cloud)
    {
        m_server = m_llm.InstallCloud(m_serverNode, spec.hardware);
    }
    else
    {
        m_server = m_llm.InstallEdgeServer(m_serverNode, spec.hardware);
    }
    ScheduleOutages(spec.outages);
    m_server->AssignStreams(kSessionStreams);
    Trace(spec.name, m_server);
    m_server->TraceConnectWithoutContext("Compute", MakeCallback(&Recorder::OnServerCompute, &m_recorder));
    m_server->TraceConnectWithoutContext("Gate", MakeCallback(&Recorder::OnGate, &m_recorder));
}

void
Run::ScheduleOutages(const std::vector<OutageSpec>& specs)
{
    m_outages = DrawOutages(specs, kServerOutageStreams);
    for (Outage& outage : m_outages)
    {
        outage.begin += m_link->ReadyAt();
        Simulator::Schedule(outage.begin, &ServerApplication::Crash, m_server);
        if (outage.end == Time::Max())
        {
            continue;
        }
        outage.end += m_link->ReadyAt();
        Simulator::Schedule(outage.end, [this, end = outage.end] {
            if (!OutageSchedule(m_outages).Covers(end))
            {
                m_server->Restart();
            }
        });
    }
}

void
Run::InstallUsers(const NodeSpec& spec)
{
    const auto hardware = std::make_shared<const DeviceProfile>(spec.hardware);
    for (const std::string& name : NamesOf(spec))
    {
        Ptr<Node> node = CreateObject<Node>();
        m_llm.SetUserAttribute("Name", StringValue(name));
        Ptr<UserDevice> user = m_llm.InstallUserDevice(node, hardware, m_link ? m_link->Join(node) : Address());
        user->AssignStreams(kSessionStreams);
        if (m_link)
        {
            m_link->Attach(user, m_server);
            user->SetStartTime(m_link->ReadyAt());
        }
        Trace(name, user);
        user->TraceConnectWithoutContext("Token", MakeCallback(&Recorder::OnToken, &m_recorder));
        user->TraceConnectWithoutContext("EarlyExit", MakeCallback(&Recorder::OnEarlyExit, &m_recorder));
        user->TraceConnectWithoutContext("Searched", MakeCallback(&Recorder::OnSearched, &m_recorder));
        user->TraceConnectWithoutContext("Upload", MakeCallback(&Recorder::OnUpload, &m_recorder));
        user->TraceConnectWithoutContext("Exit", MakeCallback(&Recorder::OnExit, &m_recorder));
        user->TraceConnectWithoutContext(
            "Standalone",
            Callback<void, const StandaloneRecord&>(
                [this, name](const StandaloneRecord& record) { m_recorder.OnStandalone(name, record); }));
        m_users.push_back(user);
    }
}

std::vector<UserRequest>
Run::Requests()
{
    std::vector<std::size_t> order(m_study.requests.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    if (m_study.Replays())
    {
        const std::size_t run = m_repetition % m_study.replayed.size();
        std::ranges::rotate(order, order.begin() + static_cast<std::ptrdiff_t>(run * m_study.requestCount));
    }
    else if (m_study.shuffled)
    {
        auto uniform = CreateObject<UniformRandomVariable>();
        uniform->SetStream(kOrderStream);
        for (std::size_t i = order.size() - 1; i > 0; i--)
        {
            std::swap(order[i], order[uniform->GetInteger(0, static_cast<std::uint32_t>(i))]);
        }
    }
    const auto users = static_cast<std::uint32_t>(m_users.size());
    m_arrivals = DrawArrivals(m_study.arrivals, m_study.requestCount, users, kArrivalStream);
    std::vector<UserRequest> requests;
    std::vector<RequestRow>& rows = m_recorder.Records().requests;
    rows.clear();
    for (std::uint32_t r = 0; r < m_study.requestCount; r++)
    {
        RequestRow& row = rows.emplace_back(RequestRow{.prompt = order[r], .generated = {}});
        const Time arrival = m_arrivals[r].time + (m_link ? m_link->ReadyAt() : Time());
        if (m_study.arrivals.IsOpen())
        {
            row.arrival = arrival;
        }
        requests.push_back({.index = r,
                            .prompt = m_study.requests[order[r]].prompt,
                            .newTokens = m_study.newTokens,
                            .stop = m_study.stop,
                            .forced = {},
                            .arrival = arrival});
    }
    return requests;
}

const std::vector<TokenId>&
Run::AnswerTo(const UserRequest& request) const
{
    return m_study.requests[m_recorder.Records().requests.at(request.index).prompt].answer;
}

void
Run::Ask(std::vector<UserRequest> requests)
{
    for (UserRequest& request : requests)
    {
        m_users[m_arrivals[request.index].user]->AddRequest(std::move(request));
    }
}

void
Run::Report(const AnswerTraces& traces)
{
    const Callback<void, const LogitsRecord&> onLogits(traces.onLogits);
    for (const Ptr<UserDevice>& user : m_users)
    {
        user->TraceConnectWithoutContext("Logits", onLogits);
        user->TraceConnectWithoutContext("Exit", Callback<void, const ExitRecord&>(traces.onExit));
        user->TraceConnectWithoutContext("Token", Callback<void, const TokenRecord&>(traces.onToken));
    }
    if (m_server)
    {
        m_server->TraceConnectWithoutContext("Logits", onLogits);
    }
}

void
Run::Trace(const std::string& node, Ptr<SplitLlmApplication> application)
{
    application->TraceConnectWithoutContext(
        "Compute",
        Callback<void, const ComputeRecord&>(
            [this, node](const ComputeRecord& record) { m_recorder.OnCompute(node, record); }));
    application->TraceConnectWithoutContext(
        "Message",
        Callback<void, const MessageRecord&>(
            [this, node](const MessageRecord& record) { m_recorder.OnMessage(node, record); }));
    application->TraceConnectWithoutContext("Decision", MakeCallback(&Recorder::OnDecision, &m_recorder));
    application->TraceConnectWithoutContext("SessionEnd", MakeCallback(&Recorder::OnSessionEnd, &m_recorder));
}

void
Run::CollectMemory(const std::string& group, Ptr<SplitLlmApplication> application)
{
    const Host* host = application->GetHost();
    if (host == nullptr)
    {
        return;
    }
    MemoryPeaks& peaks = m_recorder.Records().memory[group];
    peaks.total = std::max(peaks.total, host->memory.Peak());
    for (std::size_t use = 0; use < kMemoryUses; use++)
    {
        peaks.uses[use] = std::max(peaks.uses[use], host->memory.Peak(static_cast<MemoryUse>(use)));
    }
}

void
Run::EndWhenIdle(std::uint64_t progress, std::uint32_t idleSeconds)
{
    const RunRecords& records = m_recorder.Records();
    std::uint64_t now = records.tokens.size();
    for (std::size_t d = 0; d < kDirections; d++)
    {
        now += records.messagesSent[d] + records.messagesReceived[d];
    }
    const bool pauses = Simulator::Now() < m_arrivals.back().time; // until the last request comes in
    idleSeconds = now == progress && !pauses ? idleSeconds + 1 : 0;
    std::uint32_t finished = 0;
    for (const Ptr<UserDevice>& user : m_users)
    {
        finished += user->RequestsFinished();
    }
    const bool done =
        finished == m_study.requestCount && SimulationSingleton<JourneyLog>::Get()->UnderWay() == 0;
    if (done || idleSeconds == kIdleSeconds)
    {
        Simulator::Stop();
        return;
    }
    Simulator::Schedule(Seconds(1), [this, now, idleSeconds] { EndWhenIdle(now, idleSeconds); });
}

RunRecords
Run::Execute()
{
    RunRecords& records = m_recorder.Records();
    // Where a server dies while its user closes, and a packet is lost, ns-3's TCP may send the last FIN for ever.
    if (m_link && (m_link->RunsForEver() || !m_outages.empty()))
    {
        EndWhenIdle(0, 0);
    }
    try
    {
        Simulator::Run();
    }
    catch (const NodeOutOfMemory& cause)
    {
        records.outOfMemory = cause.node == m_serverName ? m_serverName : m_study.Node(NodeRole::UserDevice).name;
        records.outOfMemoryReason = cause.what();
    }
    records.events = Simulator::GetEventCount();
    records.messagesUnderWay = SimulationSingleton<JourneyLog>::Get()->UnderWay();
    for (const Ptr<UserDevice>& user : m_users)
    {
        CollectMemory(m_study.Node(NodeRole::UserDevice).name, user);
    }
    if (m_server)
    {
        CollectMemory(m_serverName, m_server);
        for (const Outage& outage : m_outages)
        {
            m_recorder.OnOutage({m_serverName, outage.begin, outage.end});
        }
        for (const OutageRow& outage : m_link->Outages())
        {
            m_recorder.OnOutage(outage);
        }
        if (const Host* host = m_server->GetHost())
        {
            records.serverBusySeconds = host->queue.Busy().GetSeconds();
            records.serverJobs = host->queue.Jobs();
            records.serverBatches = host->queue.Batches();
        }
        records.wireBytes = m_link->BytesSent();
        m_link->Collect(records);
    }
    return std::move(records);
}

} // namespace

RunRecords
Simulate(const Study& study,
         std::uint32_t repetition,
         std::uint32_t threads,
         const std::function<void()>& onToken,
         std::shared_ptr<OutcomeRecorder> outcomes,
         const std::string& captures)
{
    Run run(study, repetition, threads, onToken, std::move(outcomes), captures);
    try
    {
        run.Install();
        run.Ask(run.Requests());
        return run.Execute();
    }
    catch (const NodeOutOfMemory& cause)
    {
        RunRecords records;
        records.outOfMemory = cause.node;
        records.outOfMemoryReason = cause.what();
        return records;
    }
}

void
SimulateAlongAnswers(const Study& study,
                     std::uint32_t repetition,
                     std::uint32_t threads,
                     const AnswerTraces& traces)
{
    Study stepwise = study;
    // A stream and a search go along their own tokens; the logits are the same.
    stepwise.scheme.stream = false;
    stepwise.scheme.spa.stream = false;
    stepwise.sampling.beams = 0;
    Run run(stepwise, repetition, threads, [] {}, nullptr, "");
    run.Install();
    std::vector<UserRequest> requests = run.Requests();
    for (UserRequest& request : requests)
    {
        request.forced = run.AnswerTo(request);
        request.newTokens = static_cast<std::uint32_t>(request.forced.size());
        request.stop.clear();
    }
    run.Ask(std::move(requests));
    run.Report(traces);
    run.Execute();
}

} // namespace splitllm
