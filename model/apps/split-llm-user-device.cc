// SPDX-License-Identifier: GPL-2.0-only
#include "apps/split-llm-user-device.h"

#include "net/tcp-message-port.h"
#include "schemes/scheme.h"

#include "ns3/abort.h"
#include "ns3/log.h"
#include "ns3/simulator.h"
#include "ns3/trace-source-accessor.h"
#include "ns3/uinteger.h"

#include <numeric>
#include <utility>

namespace splitllm
{

using namespace ns3;

NS_LOG_COMPONENT_DEFINE("SplitLlmUserDevice");
NS_OBJECT_ENSURE_REGISTERED(UserDevice);

/// A user's session from its first to its last request.
struct UserDevice::Conversation
{
    explicit Conversation(UserDevice& itsDevice);
    Task<void> Run();
    Task<void> Ask(const UserRequest& request);
    void Count(const MessageRecord& record);

    UserDevice& device;
    std::unique_ptr<Session> session;
    Reservation weights;
    Reservation adapters;
    std::unique_ptr<UserRole> role;
    TokenRecord counted{}; //!< messages of the token under way
    std::unique_ptr<Process> process;
};

UserDevice::Conversation::Conversation(UserDevice& itsDevice)
    : device(itsDevice),
      session(device.NewSession(device.m_port.get()))
{
    session->id = device.m_session;
}

void
UserDevice::Conversation::Count(const MessageRecord& record)
{
    const auto direction = static_cast<std::size_t>(record.direction);
    counted.payloadBytes[direction] += record.payloadBytes;
    counted.messages[direction]++;
}

Task<void>
UserDevice::Conversation::Run()
{
    const Footprint footprint = device.GetScheme().UserFootprint();
    weights = Reservation(device.Machine().memory, MemoryUse::Weights, footprint.weights);
    adapters = Reservation(device.Machine().memory, MemoryUse::Adapters, footprint.adapters);
    role = device.GetScheme().MakeUser(*session);
    if (device.m_port)
    {
        co_await device.m_port->Opened();
    }
    while (!device.m_requests.empty())
    {
        const UserRequest request = std::move(device.m_requests.front());
        device.m_requests.pop_front();
        co_await Ask(request);
        device.m_finished++;
    }
    if (device.m_port)
    {
        device.m_port->Close();
    }
}

Task<void>
UserDevice::Conversation::Ask(const UserRequest& request)
{
    session->request = request.index;
    std::vector<TokenId> tokens = request.prompt;
    std::size_t position = 0;
    for (std::uint32_t k = 1; k <= request.newTokens; k++)
    {
        const Time start = Simulator::Now();
        session->path.Start(start);
        counted = {};
        const std::optional<TokenId> step = co_await role->Step(tokens, position);
        if (!step)
        {
            device.m_earlyExitTrace(session->id, request.index, k - 1);
            break;
        }
        const TokenId generated = *step;
        const TokenId next = k <= request.forced.size() ? request.forced[k - 1] : generated;

        TokenRecord record = counted;
        record.session = session->id;
        record.request = request.index;
        record.position = k;
        record.token = generated;
        record.last = k == request.newTokens || std::ranges::find(request.stop, generated) != request.stop.end();
        record.start = start;
        record.latency = Simulator::Now() - start;
        for (std::size_t c = 0; c < kComponents; c++)
        {
            record.components[c] = session->path.Of(static_cast<Component>(c));
        }
        record.server = session->path.AtServer();
        if (std::accumulate(record.components.begin(), record.components.end(), Time()) != record.latency)
        {
            throw std::logic_error("the components of a token do not sum to its latency");
        }
        device.m_tokenTrace(record);
        if (record.last)
        {
            break;
        }
        position += tokens.size();
        tokens.assign(1, next);
    }
    role->EndRequest();
}

TypeId
UserDevice::GetTypeId()
{
    static TypeId tid = TypeId("splitllm::UserDevice")
                            .SetParent<SplitLlmApplication>()
                            .SetGroupName("SplitLlm")
                            .AddConstructor<UserDevice>()
                            .AddAttribute("Remote",
                                          "Address and port of the server; unused where the scheme has none",
                                          AddressValue(),
                                          MakeAddressAccessor(&UserDevice::m_remote),
                                          MakeAddressChecker())
                            .AddTraceSource("Token",
                                            "A token was generated",
                                            MakeTraceSourceAccessor(&UserDevice::m_tokenTrace),
                                            "splitllm::UserDevice::TokenCallback")
                            .AddTraceSource("EarlyExit",
                                            "An answer ended before its time, after so many tokens",
                                            MakeTraceSourceAccessor(&UserDevice::m_earlyExitTrace),
                                            "splitllm::UserDevice::EarlyExitCallback");
    return tid;
}

UserDevice::UserDevice() = default;

UserDevice::~UserDevice() = default;

void
UserDevice::SetSession(std::uint32_t session)
{
    m_session = session;
}

void
UserDevice::AddRequest(UserRequest request)
{
    m_requests.push_back(std::move(request));
}

void
UserDevice::SetPort(std::unique_ptr<MessagePort> port)
{
    m_port = std::move(port);
}

std::uint32_t
UserDevice::RequestsFinished() const
{
    return m_finished;
}

void
UserDevice::StartApplication()
{
    NS_LOG_FUNCTION(this);
    SplitLlmApplication::StartApplication();
    if (GetScheme().HasServer() && !m_port)
    {
        NS_ABORT_MSG_IF(m_remote.IsInvalid(), "UserDevice: attribute Remote is not set, and the scheme has a server");
        m_port =
            TcpMessagePort::Connect(TcpMessagePort::NewSocket(GetNode(), m_segmentBytes), m_remote, Direction::Up);
    }
    m_conversation = std::make_unique<Conversation>(*this);
    Conversation& conversation = *m_conversation;
    if (m_port)
    {
        TraceMessages(*m_port);
        m_port->onMessage = [&conversation, trace = m_port->onMessage](const MessageRecord& record) {
            conversation.Count(record);
            trace(record);
        };
    }
    conversation.process =
        std::make_unique<Process>(conversation.Run(), [this, &conversation](std::exception_ptr error) {
            HandleEnd(*conversation.session, error);
        });
    conversation.process->Start();
}

void
UserDevice::StopApplication()
{
    NS_LOG_FUNCTION(this);
    m_conversation.reset();
    if (m_port)
    {
        m_port->Abandon();
        m_port.reset();
    }
}

void
UserDevice::DoDispose()
{
    m_conversation.reset();
    m_port.reset();
    SplitLlmApplication::DoDispose();
}

} // namespace splitllm
