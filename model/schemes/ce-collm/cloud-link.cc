// SPDX-License-Identifier: GPL-2.0-only
#include "schemes/ce-collm/cloud-link.h"

#include "ns3/simulator.h"

#include <sstream>
#include <utility>

namespace splitllm
{

using ns3::Simulator;
using ns3::Time;

CloudLink::CloudLink(Session& session, const SchemeParts& parts, const CeCollmOptions& options)
    : s(session),
      m_upload(session.Beside(Api::Upload)),
      m_parts(parts),
      m_options(options),
      m_stateMemory(session.host.memory, MemoryUse::Activations, 0),
      m_sender(SendUploads(), [this](std::exception_ptr error) { m_error = error; })
{
    m_sender.Start();
}

Task<void>
CloudLink::Connect()
{
    StartConnecting();
    const Time until = Simulator::Now() + m_options.timeout;
    for (Session* session : {&s, &m_upload})
    {
        const bool opened = co_await session->OpenedWithin(until - Simulator::Now());
        if (!opened)
        {
            break;
        }
    }
    if (IsConnected())
    {
        Collaborate();
    }
    else
    {
        GoAlone(State::Connecting, "no connection to the cloud");
    }
}

bool
CloudLink::IsConnected() const
{
    return s.IsOpen() && m_upload.IsOpen() && !s.IsLost() && !m_upload.IsLost();
}

void
CloudLink::StartConnecting()
{
    m_state = State::Connecting;
    m_retryAt = Simulator::Now() + m_options.timeout + m_options.retry;
    m_uploaded = 0;
    s.Connect();
    m_upload.Connect();
}

void
CloudLink::LookForCloud()
{
    if (m_error)
    {
        std::rethrow_exception(m_error);
    }
    const bool lost = s.IsLost() || m_upload.IsLost();
    if (lost && m_state != State::Disconnected)
    {
        GoAlone(State::Disconnected, m_state == State::Connecting ? "no connection to the cloud" : "the connection broke");
    }
    const bool connects = m_state == State::Connecting && !IsConnected();
    if ((connects || m_state == State::Disconnected) && Simulator::Now() >= m_retryAt)
    {
        StartConnecting(); // also where nobody said no: ns-3's TCP does not see that it is refused
    }
    const bool back = m_state == State::Connecting ? IsConnected()
                                                   : m_state == State::Late && (s.TakeArrived().has_value() ||
                                                                                Simulator::Now() >= m_retryAt);
    if (back)
    {
        Collaborate();
    }
}

void
CloudLink::GoAlone(State state, const std::string& reason)
{
    m_state = state;
    m_retryAt = Simulator::Now() + m_options.retry;
    if (m_aloneBecause.empty())
    {
        m_aloneSince = Simulator::Now();
        m_aloneBecause = reason;
    }
}

void
CloudLink::Collaborate()
{
    ReportStandalone();
    m_aloneBecause.clear();
    m_state = State::Collaborating;
}

void
CloudLink::ReportStandalone()
{
    if (!m_aloneBecause.empty() && s.onStandalone)
    {
        s.onStandalone({.session = s.id,
                        .start = m_aloneSince,
                        .end = Simulator::Now(),
                        .reason = m_aloneBecause});
    }
    m_aloneSince = Simulator::Now();
}

void
CloudLink::Keep(const Tensor& h)
{
    m_states.Append(h);
    m_stateMemory.Resize(m_states.Elements() * SizeOf(m_parts.model->Activations()));
}

void
CloudLink::Upload()
{
    const bool connected = m_state == State::Collaborating || m_state == State::Late;
    if (connected && m_uploaded < m_states.Rows())
    {
        const std::size_t first = std::exchange(m_uploaded, m_states.Rows());
        m_jobs.Put({s.request, first, m_states.Slice(first, m_states.Rows() - first)});
    }
}

Task<void>
CloudLink::SendUploads()
{
    while (true)
    {
        Job job = co_await m_jobs.Receive();
        if (job.request != s.request)
        {
            continue; // it is over
        }
        m_upload.request = job.request;
        Payload payload = co_await m_upload.Encode(MessageKind::HiddenState, m_options.uploadLayer, std::move(job.states));
        try
        {
            const DType exact = m_upload.Codec().Exact();
            m_upload.Send(MessageKind::HiddenState, job.position, m_options.uploadLayer, std::move(payload), exact);
        }
        catch (const ConnectionLost&)
        {
            // The edge finds out when the next token begins.
        }
    }
}

Task<std::optional<TokenId>>
CloudLink::Ask(std::size_t position)
{
    if (m_state != State::Collaborating)
    {
        co_return std::nullopt;
    }
    const Time deadline = Simulator::Now() + m_options.timeout;
    const auto wanted = [request = s.request, position](const Message& message) {
        return message.request == request &&
               (message.kind == MessageKind::ContextLost || message.position == position + 1);
    };
    try
    {
        Request(position);
        while (true)
        {
            const std::optional<Message> answer = co_await s.ReceiveWithin(deadline - Simulator::Now(), wanted);
            if (!answer)
            {
                break;
            }
            if (answer->kind != MessageKind::ContextLost)
            {
                s.Expect(*answer, MessageKind::NextToken, 0);
                co_return Session::TokensIn(*answer, m_parts.model->Config().vocab).front();
            }
            m_uploaded = 0;
            Request(position);
        }
        std::ostringstream reason;
        reason << "no answer within " << m_options.timeout.GetSeconds() * 1e3 << " ms";
        GoAlone(State::Late, reason.str());
    }
    catch (const ConnectionClosed&)
    {
        GoAlone(State::Disconnected, "the cloud closed the connection");
    }
    catch (const ConnectionLost&)
    {
        GoAlone(State::Disconnected, "the connection broke");
    }
    co_return std::nullopt;
}

void
CloudLink::Request(std::size_t position)
{
    Upload();
    s.Send(MessageKind::Request, position, m_options.uploadLayer, {}, m_upload.Codec().Exact());
}

void
CloudLink::EndRequest()
{
    if (m_error)
    {
        std::rethrow_exception(m_error);
    }
    if (!m_aloneBecause.empty())
    {
        ReportStandalone();
    }
    try
    {
        if (s.IsOpen() && !s.IsLost())
        {
            s.Send(MessageKind::End, 0, 0, {}, DType::F32);
        }
    }
    catch (const ConnectionLost&)
    {
        // Nobody is left who would have to know.
    }
    m_states = {};
    m_stateMemory.Resize(0);
    m_uploaded = 0;
}

} // namespace splitllm
