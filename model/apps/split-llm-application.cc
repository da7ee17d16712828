// SPDX-License-Identifier: GPL-2.0-only
#include "apps/split-llm-application.h"

#include "base/input-error.h"
#include "net/tcp-message-port.h"
#include "schemes/scheme.h"
#include "sim/end-simulation.h"

#include "ns3/abort.h"
#include "ns3/log.h"
#include "ns3/simulator.h"
#include "ns3/string.h"
#include "ns3/trace-source-accessor.h"
#include "ns3/uinteger.h"

#include <sstream>
#include <utility>

namespace splitllm
{

using namespace ns3;

NS_LOG_COMPONENT_DEFINE("SplitLlmApplication");
NS_OBJECT_ENSURE_REGISTERED(SplitLlmApplication);

static_assert(SplitLlmApplication::kStreams == kDraws * SplitLlmApplication::kSessions);

TypeId
SplitLlmApplication::GetTypeId()
{
    static TypeId tid =
        TypeId("splitllm::SplitLlmApplication")
            .SetParent<Application>()
            .SetGroupName("SplitLlm")
            .AddAttribute("Name",
                          "What the node is called in results, timelines and messages",
                          StringValue("node"),
                          MakeStringAccessor(&SplitLlmApplication::m_name),
                          MakeStringChecker())
            .AddAttribute("SegmentSize",
                          "TCP payload bytes of a full segment",
                          UintegerValue(TcpMessagePort::SegmentBytes(1500)),
                          MakeUintegerAccessor(&SplitLlmApplication::m_segmentBytes),
                          MakeUintegerChecker<std::uint32_t>(88, 65483))
            .AddTraceSource("Compute",
                            "An operation left the compute device",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_computeTrace),
                            "splitllm::SplitLlmApplication::ComputeCallback")
            .AddTraceSource("Message",
                            "A message was handed to the network, or arrived whole",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_messageTrace),
                            "splitllm::SplitLlmApplication::MessageCallback")
            .AddTraceSource("Decision",
                            "A role decided about one layer and token",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_decisionTrace),
                            "splitllm::SplitLlmApplication::DecisionCallback")
            .AddTraceSource("Upload",
                            "A role decided what to send under a deadline",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_uploadTrace),
                            "splitllm::SplitLlmApplication::UploadCallback")
            .AddTraceSource("Exit",
                            "How a token came about where a model has early exits",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_exitTrace),
                            "splitllm::SplitLlmApplication::ExitCallback")
            .AddTraceSource("Gate",
                            "What SPA's gate decided about a token",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_gateTrace),
                            "splitllm::SplitLlmApplication::GateCallback")
            .AddTraceSource("Standalone",
                            "A stretch during which an edge went on without its cloud is over",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_standaloneTrace),
                            "splitllm::SplitLlmApplication::StandaloneCallback")
            .AddTraceSource("Logits",
                            "A token is chosen from these logits",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_logitsTrace),
                            "splitllm::SplitLlmApplication::LogitsCallback")
            .AddTraceSource("SessionEnd",
                            "A session ended before its time, with the reason",
                            MakeTraceSourceAccessor(&SplitLlmApplication::m_sessionEndTrace),
                            "splitllm::SplitLlmApplication::SessionEndCallback");
    return tid;
}

SplitLlmApplication::SplitLlmApplication() = default;
SplitLlmApplication::~SplitLlmApplication() = default;

void
SplitLlmApplication::SetScheme(std::shared_ptr<const Scheme> scheme)
{
    m_scheme = std::move(scheme);
}

void
SplitLlmApplication::SetMachine(std::shared_ptr<Backend> backend, std::shared_ptr<const DeviceProfile> profile)
{
    m_backend = std::move(backend);
    m_profile = std::move(profile);
}

void
SplitLlmApplication::SetOutcomes(std::shared_ptr<OutcomeRecorder> recorder, std::shared_ptr<OutcomePlayer> player)
{
    m_recorder = std::move(recorder);
    m_player = std::move(player);
}

const Host*
SplitLlmApplication::GetHost() const
{
    return m_host.get();
}

const Scheme&
SplitLlmApplication::GetScheme() const
{
    return *m_scheme;
}

Host&
SplitLlmApplication::Machine()
{
    return *m_host;
}

void
SplitLlmApplication::StartApplication()
{
    NS_LOG_FUNCTION(this);
    NS_ABORT_MSG_IF(!m_scheme || !m_backend, m_name << " has no scheme or machine: install it with SplitLlmHelper");
    m_host = std::make_unique<Host>(m_name, m_backend, m_profile);
    m_host->onCompute = [this](const ComputeRecord& record) { m_computeTrace(record); };
}

void
SplitLlmApplication::DoDispose()
{
    NS_LOG_FUNCTION(this);
    NS_ABORT_MSG_IF(m_host && m_host->memory.Used() != 0,
                    m_name << " still holds " << m_host->memory.Used() << " bytes after its last session");
    m_host.reset();
    m_scheme.reset();
    m_backend.reset();
    Application::DoDispose();
}

std::unique_ptr<Session>
SplitLlmApplication::NewSession(std::unique_ptr<MessagePort> port, Api api)
{
    auto session = std::make_unique<Session>(*m_host, m_scheme->Parts().codec, std::move(port), api);
    session->recorder = m_recorder.get();
    session->player = m_player.get();
    session->uniform = [this, its = session.get()](Draw purpose) { return Uniform(its->id, purpose); };
    session->onDecision = [this](const DecisionRecord& record) { m_decisionTrace(record); };
    session->onUpload = [this](const UploadRecord& record) { m_uploadTrace(record); };
    session->onExit = [this](const ExitRecord& record) { m_exitTrace(record); };
    session->onGate = [this](const GateRecord& record) { m_gateTrace(record); };
    session->onStandalone = [this](const StandaloneRecord& record) { m_standaloneTrace(record); };
    session->onLogits = [this](const LogitsRecord& record) { m_logitsTrace(record); };
    return session;
}

int64_t
SplitLlmApplication::AssignStreams(int64_t stream)
{
    m_stream = stream;
    return kStreams;
}

double
SplitLlmApplication::Uniform(std::uint32_t session, Draw purpose)
{
    const std::int64_t stream = static_cast<std::int64_t>(purpose) * kSessions + session;
    Ptr<UniformRandomVariable>& uniform = m_uniforms[stream];
    if (!uniform)
    {
        uniform = CreateObject<UniformRandomVariable>();
        uniform->SetStream(m_stream + stream);
    }
    return uniform->GetValue(0.0, 1.0);
}

void
SplitLlmApplication::TraceMessages(MessagePort& port)
{
    port.onMessage = [this](const MessageRecord& record) { m_messageTrace(record); };
}

void
SplitLlmApplication::HandleEnd(const Session& session, std::exception_ptr error)
{
    if (!error)
    {
        return;
    }
    std::ostringstream where;
    where << m_name << " at " << Simulator::Now().As(Time::S) << ", session " << session.id << ", request "
          << session.request << ": ";
    try
    {
        std::rethrow_exception(error);
    }
    catch (const ConnectionClosed& closed)
    {
        m_sessionEndTrace(session.id, closed.what());
    }
    catch (const ConnectionLost& lost)
    {
        m_sessionEndTrace(session.id, lost.what());
    }
    catch (const ProtocolError& violation)
    {
        m_sessionEndTrace(session.id, violation.what());
    }
    catch (const OutOfMemory& cause)
    {
        EndSimulation(NodeOutOfMemory(m_name, where.str() + cause.what()));
    }
    catch (const InputError& cause)
    {
        EndSimulation(InputError(where.str() + cause.what()));
    }
    catch (const std::exception& cause)
    {
        EndSimulation(RoleError(where.str() + cause.what()));
    }
}

} // namespace splitllm
