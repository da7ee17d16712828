// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_RECORDER_H
#define SPLITLLM_RECORDER_H

#include "compute/memory-ledger.h"
#include "sim/split-llm-records.h"
#include "timeline.h"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
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

/// Peak bytes by use, and the peak of their sum.
struct MemoryPeaks
{
    std::array<std::uint64_t, kMemoryUses> uses{};
    std::uint64_t total = 0;
};

/// Everything that one run of a point produced.
struct RunRecords
{
    std::vector<TokenRow> tokens;
    std::vector<DecisionRecord> decisions;
    std::array<std::uint64_t, kDirections> wireBytes{};    //!< at the network devices
    std::array<std::uint64_t, kDirections> headerBytes{};  //!< of messages sent
    std::array<std::uint64_t, kDirections> payloadBytes{}; //!< of messages sent
    std::array<std::uint64_t, kDirections> messagesSent{};
    std::array<std::uint64_t, kDirections> messagesReceived{};
    std::uint64_t messagesUnderWay = 0;        //!< sent and not received when the run ended
    std::map<std::string, MemoryPeaks> memory; //!< by group; the largest of its members
    std::string outOfMemory;                   //!< the group that it befell, and why; empty otherwise
    std::string outOfMemoryReason;
    std::vector<std::string> sessionsLost; //!< a reason each
    double serverBusySeconds = 0.0;
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
    void OnDecision(const DecisionRecord& record);
    void OnMessage(const std::string& node, const MessageRecord& record);
    void OnCompute(const std::string& node, const ComputeRecord& record);
    void OnPacket(const std::string& node, Direction direction, std::uint32_t bytes, ns3::Time start, ns3::Time end);
    void OnSessionEnd(std::uint32_t session, const std::string& reason);

    RunRecords& Records()
    {
        return m_records;
    }

  private:
    RunRecords m_records;
    std::uint32_t m_timelineTokens;
    std::function<void()> m_onToken;
    std::map<std::uint32_t, std::array<std::uint32_t, 2>> m_decided; //!< offloaded and returned, by session
};

} // namespace splitllm

#endif // SPLITLLM_RECORDER_H
