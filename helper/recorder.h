// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RECORDER_H
#define SPLITLLM_RECORDER_H

#include "compute/memory-ledger.h"
#include "net/outage-schedule.h"
#include "sim/split-llm-records.h"
#include "timeline.h"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace splitllm
{

/// A token and the decisions that led to it.
struct TokenRow
{
    TokenRecord token;
    std::uint32_t offloaded = 0; //!< layer decisions since the session's token before
    std::uint32_t returned = 0;
};

/// What was decided about one layer and token.
struct DecisionRow
{
    std::uint32_t session;
    std::uint32_t request;
    std::uint32_t position; //!< in the sequence, from 0
    std::uint16_t layer;    //!< from 1
    bool offloaded;         //!< the layer's input went to the device
    bool returned;          //!< the device's result came back
    std::array<double, 2> scores; //!< of tier 1 and 2; NaN without one
};

/// What was sent for a token under a deadline, and when it came.
struct UploadRow
{
    UploadRecord upload;
    ns3::Time arrived; //!< time from the step's start; zero if it never came
};

/// A time during which a link or a node was out of order.
struct OutageRow
{
    std::string name; //!< the link's or the node's
    ns3::Time start;
    ns3::Time end; //!< ns3::Time::Max() if it never ended
};

/// One request of a run.
struct RequestRow
{
    std::size_t prompt = 0; //!< index in Study::requests
    std::optional<ns3::Time> arrival = {}; //!< when it came in; absent in a closed workload, where it starts at once
    bool earlyExit = false; //!< it ended before its time
    std::vector<std::uint32_t> generated;
};

/// How a scheme does along a reference answer, for one token of it.
struct QualityRow
{
    std::uint32_t request;
    std::uint32_t position; //!< in the sequence, from 0: the row it was chosen from
    std::uint16_t layer;    //!< of the exit that it was taken from, from 1; 0 where the cloud or a full model chose
    double confidence;      //!< at that exit; NaN without one
    double klNats;          //!< KL divergence of the scheme's distribution from the full model's
    bool agrees;            //!< both think the same token most likely
    double nll;             //!< negative log-likelihood of the reference's token under the scheme, nats
};

/// Peak bytes by use, and the peak of their sum.
struct MemoryPeaks
{
    std::array<std::uint64_t, kMemoryUses> uses{};
    std::uint64_t total = 0;
};

/// What happened on a fading link, in both directions and for all users.
struct LinkAttempts
{
    std::uint64_t frames = 0;     //!< packets, or messages sent whole
    std::uint64_t attempts = 0;
    std::uint64_t failed = 0;     //!< attempts
    std::uint64_t roundsLost = 0; //!< of N attempts that all failed
    std::uint32_t most = 0;       //!< attempts at one frame
    std::uint64_t largestFrame = 0;   //!< bytes that take time
    std::uint64_t deliveredBytes = 0; //!< likewise
    ns3::Time busy;                   //!< attempts and the feedback after them

    void Add(const LinkAttempts& other);
};

/// Everything that one run of a point produced.
struct RunRecords
{
    std::vector<TokenRow> tokens;
    std::vector<DecisionRow> decisions;
    std::vector<RequestRow> requests;      //!< by index
    std::vector<UploadRow> uploads;        //!< empty without a deadline
    std::vector<ExitRecord> exits;         //!< a row a token; empty without early exits
    std::vector<GateRecord> gates;         //!< a row a token; empty without a gate
    std::vector<StandaloneRecord> standalone;
    std::vector<OutageRow> outages;
    std::vector<QualityRow> quality;       //!< empty unless the study asks for it
    std::array<std::uint64_t, kDirections> wireBytes{};    //!< at the network devices of the users' links
    std::map<std::string, std::array<std::uint64_t, kDirections>> linkBytes; //!< of each link, where a gateway is between
    std::array<std::uint64_t, kDirections> headerBytes{};  //!< of messages sent
    std::array<std::uint64_t, kDirections> payloadBytes{}; //!< of messages sent
    std::array<std::uint64_t, kDirections> messagesSent{};
    std::array<std::uint64_t, kDirections> messagesReceived{};
    std::uint64_t messagesUnderWay = 0;        //!< sent and not received when the run ended
    std::map<std::string, MemoryPeaks> memory; //!< by group; the largest of its members
    std::string outOfMemory;                   //!< the group that it befell, and why; empty otherwise
    std::string outOfMemoryReason;
    std::vector<std::string> sessionsLost; //!< the first reason of each
    std::map<std::string, LinkAttempts> links; //!< by name, fading links only
    double serverBusySeconds = 0.0;
    std::uint64_t serverTokens = 0;  //!< tokens for which layers ran on the server
    std::uint64_t serverJobs = 0;    //!< operations of sessions on the server
    std::uint64_t serverBatches = 0; //!< what they were run as
    std::uint64_t events = 0; //!< of the simulator
    Timeline timeline;
};

/// Puts together what the trace sources report during one run.
class Recorder
{
  public:
    /**
     * \param timelineTokens tokens of the first request of session 0 that the timeline covers
     * \param onToken called after every token, for progress
     */
    Recorder(std::uint32_t timelineTokens, std::function<void()> onToken);

    void OnToken(const TokenRecord& record);
    void OnSearched(const SearchRecord& record);
    void OnEarlyExit(std::uint32_t session, std::uint32_t request, std::uint32_t tokens);
    void OnUpload(const UploadRecord& record);
    void OnExit(const ExitRecord& record);
    void OnGate(const GateRecord& record);
    void OnStandalone(const std::string& node, const StandaloneRecord& record);
    void OnDecision(const DecisionRecord& record);

    /// At the end of a run: a node or link was out of order.
    void OnOutage(const OutageRow& outage);

    void OnMessage(const std::string& node, const MessageRecord& record);
    void OnCompute(const std::string& node, const ComputeRecord& record);
    void OnServerCompute(const ComputeRecord& record);
    void OnPacket(const std::string& node, std::uint32_t bytes, ns3::Time start, ns3::Time end);
    void OnAttempt(const std::string& node, const AttemptRecord& record);
    void OnSessionEnd(std::uint32_t session, const std::string& reason);

    RunRecords& Records()
    {
        return m_records;
    }

    const RunRecords& Records() const
    {
        return m_records;
    }

  private:
    RunRecords m_records;
    std::uint32_t m_timelineTokens;
    ns3::Time m_timelineEnd; //!< when the last of them came
    std::function<void()> m_onToken;

    /// What a session decided since its last token.
    struct Decided
    {
        std::array<std::uint32_t, 2> yes{}; //!< by tier

        /// Where in the records a cell's row is, by position and layer.
        std::map<std::pair<std::uint32_t, std::uint16_t>, std::size_t> rows;
    };

    /// What is known of a session between its records.
    struct SessionState
    {
        Decided decided;
        bool isLost = false;               //!< it ended before its time
        std::optional<std::size_t> upload; //!< where its latest is in the records
        bool onServer = false;             //!< a layer ran on the server since its last answer
        std::uint32_t serverAnswers = 0;   //!< of layers there, and no token yet
    };

    std::unordered_map<std::uint32_t, SessionState> m_sessions; //!< by number
};

} // namespace splitllm

#endif // SPLITLLM_RECORDER_H
