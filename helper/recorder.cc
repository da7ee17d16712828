// SPDX-License-Identifier: GPL-2.0-only
#include "recorder.h"

#include "base/strict-json.h"
#include "net/wire.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace splitllm
{

namespace
{

std::string
Detail(const std::string& name, std::uint64_t value)
{
    return "\"" + name + "\":" + std::to_string(value);
}

} // namespace

void
LinkAttempts::Add(const LinkAttempts& other)
{
    frames += other.frames;
    attempts += other.attempts;
    failed += other.failed;
    roundsLost += other.roundsLost;
    most = std::max(most, other.most);
    largestFrame = std::max(largestFrame, other.largestFrame);
    deliveredBytes += other.deliveredBytes;
    busy += other.busy;
}

Recorder::Recorder(std::uint32_t timelineTokens, std::function<void()> onToken)
    : m_timelineTokens(timelineTokens),
      m_timelineEnd(timelineTokens > 0 ? ns3::Time::Max() : ns3::Time()),
      m_onToken(std::move(onToken))
{
}

void
Recorder::OnToken(const TokenRecord& record)
{
    SessionState& session = m_sessions[record.session];
    const Decided decided = std::exchange(session.decided, {});
    m_records.tokens.push_back({record, decided.yes[0], decided.yes[1]});
    if (m_timelineTokens > 0)
    {
        m_records.timeline.push_back({"user " + std::to_string(record.session),
                                      Lane::Tokens,
                                      "token " + std::to_string(record.position),
                                      record.start,
                                      record.start + record.latency,
                                      Detail("request", record.request) + "," + Detail("token", record.token)});
        if (record.session == 0)
        {
            m_timelineTokens--;
            if (m_timelineTokens == 0)
            {
                m_timelineEnd = record.start + record.latency;
            }
        }
    }
    m_records.requests.at(record.request).generated.push_back(record.token);
    if (session.serverAnswers > 0)
    {
        session.serverAnswers--;
        m_records.serverTokens++;
    }
    m_onToken();
}

void
Recorder::OnSearched(const SearchRecord& record)
{
    m_records.requests.at(record.request).generated = record.tokens;
    std::uint32_t position = 0;
    for (auto row = m_records.tokens.rbegin(); position != 1; ++row)
    {
        TokenRecord& token = row->token;
        if (token.session == record.session && token.request == record.request)
        {
            position = token.position;
            token.token = position <= record.tokens.size() ? record.tokens[position - 1] : token.token;
        }
    }
}

void
Recorder::OnEarlyExit(std::uint32_t session, std::uint32_t request, std::uint32_t tokens)
{
    m_records.requests.at(request).earlyExit = true;
    const auto ofRequest = [&](const TokenRow& row) {
        return row.token.session == session && row.token.request == request;
    };
    const auto last = std::ranges::find_if(m_records.tokens.rbegin(), m_records.tokens.rend(), ofRequest);
    if (tokens > 0)
    {
        last->token.last = true;
    }
}

void
Recorder::OnUpload(const UploadRecord& record)
{
    m_sessions[record.session].upload = m_records.uploads.size();
    m_records.uploads.push_back({record, ns3::Time()});
}

void
Recorder::OnExit(const ExitRecord& record)
{
    m_records.exits.push_back(record);
}

void
Recorder::OnGate(const GateRecord& record)
{
    m_records.gates.push_back(record);
}

void
Recorder::OnStandalone(const std::string& node, const StandaloneRecord& record)
{
    m_records.standalone.push_back(record);
    // Reported when it is over, which may be after the timeline's last token.
    if (record.start < m_timelineEnd)
    {
        m_records.timeline.push_back({node,
                                      Lane::Mode,
                                      "standalone: " + record.reason,
                                      record.start,
                                      record.end,
                                      Detail("session", record.session)});
    }
}

void
Recorder::OnOutage(const OutageRow& outage)
{
    m_records.outages.push_back(outage);
    ns3::Time last; // that the timeline shows
    for (const TimelineSpan& span : m_records.timeline)
    {
        last = ns3::Max(last, span.end);
    }
    if (outage.start < last)
    {
        m_records.timeline.push_back({outage.name, Lane::Mode, "down", outage.start, ns3::Min(outage.end, last), ""});
    }
}

void
Recorder::OnDecision(const DecisionRecord& record)
{
    Decided& decided = m_sessions[record.session].decided;
    const std::pair cell(record.position, record.layer);
    if (record.tier == 1)
    {
        decided.rows[cell] = m_records.decisions.size();
        const double none = std::numeric_limits<double>::quiet_NaN();
        m_records.decisions.push_back({.session = record.session,
                                       .request = record.request,
                                       .position = record.position,
                                       .layer = record.layer,
                                       .offloaded = record.yes,
                                       .returned = false,
                                       .scores = {record.score, none}});
    }
    else
    {
        DecisionRow& row = m_records.decisions.at(decided.rows.at(cell));
        row.returned = record.yes;
        row.scores[1] = record.score;
    }
    decided.yes.at(record.tier - 1) += record.yes ? 1 : 0;
}

void
Recorder::OnMessage(const std::string& node, const MessageRecord& record)
{
    const auto direction = static_cast<std::size_t>(record.direction);
    if (!record.received)
    {
        if (record.kind == NameOf(MessageKind::NextToken) || record.kind == NameOf(MessageKind::FinalState) ||
            record.kind == NameOf(MessageKind::Answer))
        {
            SessionState& session = m_sessions[record.session];
            session.serverAnswers += std::exchange(session.onServer, false) ? 1 : 0;
        }
        m_records.headerBytes[direction] += record.headerBytes;
        m_records.payloadBytes[direction] += record.payloadBytes;
        m_records.messagesSent[direction]++;
        return;
    }
    m_records.messagesReceived[direction]++;
    const auto session = m_sessions.find(record.session);
    if (session != m_sessions.end() && session->second.upload && record.direction == Direction::Up &&
        record.payloadBytes > 0)
    {
        UploadRow& row = m_records.uploads[*session->second.upload];
        row.arrived = record.arrived - row.upload.start;
    }
    if (m_timelineTokens > 0)
    {
        const std::string layer = record.layer > 0 ? " " + std::to_string(record.layer) : "";
        m_records.timeline.push_back({node,
                                      Lane::Messages,
                                      record.kind + layer,
                                      record.sent,
                                      record.arrived,
                                      Detail("session", record.session) + "," +
                                          Detail("payload_bytes", record.payloadBytes) + "," +
                                          Detail("header_bytes", record.headerBytes)});
    }
}

void
Recorder::OnCompute(const std::string& node, const ComputeRecord& record)
{
    if (m_timelineTokens == 0 || record.start == record.end)
    {
        return;
    }
    const std::string layer = record.layer > 0 ? " " + std::to_string(record.layer) : "";
    m_records.timeline.push_back(
        {node,
         Lane::Compute,
         record.operation + layer,
         record.start,
         record.end,
         Detail("session", record.session) + "," + Detail("rows", record.rows) + "," +
             Detail("batch", record.batch) + "," +
             Detail("queued_ns", static_cast<std::uint64_t>((record.start - record.submitted).GetNanoSeconds())) +
             ",\"component\":\"" + NameOf(record.component) + "\""});
}

void
Recorder::OnServerCompute(const ComputeRecord& record)
{
    if (record.layer > 0)
    {
        m_sessions[record.session].onServer = true;
    }
}

void
Recorder::OnPacket(const std::string& node, std::uint32_t bytes, ns3::Time start, ns3::Time end)
{
    if (m_timelineTokens > 0)
    {
        m_records.timeline.push_back(
            {node, Lane::Packets, std::to_string(bytes) + " B", start, end, Detail("bytes", bytes)});
    }
}

void
Recorder::OnAttempt(const std::string& node, const AttemptRecord& record)
{
    if (m_timelineTokens > 0)
    {
        const std::string outcome = record.success ? "delivered" : "outage";
        m_records.timeline.push_back({node,
                                      Lane::Packets,
                                      std::to_string(record.bytes) + " B" + (record.success ? "" : ", outage"),
                                      record.start,
                                      record.end,
                                      Detail("bytes", record.bytes) + "," + Detail("attempt", record.number) +
                                          ",\"snr\":" + Json(record.snr).dump() + ",\"outcome\":\"" + outcome + "\""});
    }
}

void
Recorder::OnSessionEnd(std::uint32_t session, const std::string& reason)
{
    // Both ends may report; what the first one says is what happened first.
    if (!std::exchange(m_sessions[session].isLost, true))
    {
        m_records.sessionsLost.push_back("session " + std::to_string(session) + ": " + reason);
    }
}

} // namespace splitllm
