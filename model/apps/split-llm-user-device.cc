// SPDX-License-Identifier: GPL-2.0-only
#include "apps/split-llm-user-device.h"

#include "net/tcp-message-port.h"
#include "schemes/scheme.h"
#include "sim/delay.h"

#include "ns3/abort.h"
#include "ns3/inet-socket-address.h"
#include "ns3/log.h"
#include "ns3/simulator.h"
#include "ns3/trace-source-accessor.h"
#include "ns3/uinteger.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace splitllm
{

using namespace ns3;

NS_LOG_COMPONENT_DEFINE("SplitLlmUserDevice");
NS_OBJECT_ENSURE_REGISTERED(UserDevice);

namespace
{

/// Whether a message of \p kind brings states that an adapter or a side network on the device reads.
bool
BringsStates(const std::string& kind)
{
    constexpr std::array kinds{MessageKind::LayerInput, MessageKind::AdapterInput, MessageKind::SideStates};
    return std::ranges::any_of(kinds, [&kind](MessageKind one) { return kind == NameOf(one); });
}

} // namespace

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
      session(device.NewSession(nullptr, Api::Inference))
{
    session->id = device.m_session;
    session->connector = [this](Api api) {
        std::unique_ptr<MessagePort> port = device.m_connector(api);
        device.TraceMessages(*port);
        port->onMessage = [this, trace = port->onMessage](const MessageRecord& record) {
            Count(record);
            trace(record);
        };
        return port;
    };
}

void
UserDevice::Conversation::Count(const MessageRecord& record)
{
    const auto direction = static_cast<std::size_t>(record.direction);
    counted.payloadBytes[direction] += record.payloadBytes;
    counted.messages[direction]++;
    counted.exchanges += BringsStates(record.kind) ? 1 : 0;
}

Task<void>
UserDevice::Conversation::Run()
{
    const Footprint footprint = device.GetScheme().UserFootprint();
    weights = Reservation(device.Machine().memory, MemoryUse::Weights, footprint.weights);
    adapters = Reservation(device.Machine().memory, MemoryUse::Adapters, footprint.adapters);
    role = device.GetScheme().MakeUser(*session);
    if (device.GetScheme().HasServer())
    {
        co_await role->Connect(*session);
    }
    while (!device.m_requests.empty())
    {
        const UserRequest request = std::move(device.m_requests.front());
        device.m_requests.pop_front();
        co_await Delay(request.arrival - Simulator::Now());
        co_await Ask(request);
        device.m_finished++;
        if (!device.m_requests.empty())
        {
            co_await Delay(device.m_thinkTime);
        }
    }
    session->Close();
}

Task<void>
UserDevice::Conversation::Ask(const UserRequest& request)
{
    session->request = request.index;
    std::vector<TokenId> tokens = request.prompt;
    std::size_t position = 0;
    role->BeginRequest({.newTokens = request.newTokens, .stop = request.stop});
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
        const std::optional<std::vector<TokenId>> found = role->Answer();
        record.last = found || k == request.newTokens ||
                      std::ranges::find(request.stop, generated) != request.stop.end();
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
        if (found)
        {
            device.m_searchedTrace({.session = session->id, .request = request.index, .tokens = *found});
        }
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
                            .AddAttribute("ThinkTime",
                                          "Time from the last token of an answer to the next request",
                                          TimeValue(Time()),
                                          MakeTimeAccessor(&UserDevice::m_thinkTime),
                                          MakeTimeChecker(Time()))
                            .AddTraceSource("Token",
                                            "A token was generated",
                                            MakeTraceSourceAccessor(&UserDevice::m_tokenTrace),
                                            "splitllm::UserDevice::TokenCallback")
                            .AddTraceSource("EarlyExit",
                                            "An answer ended before its time, after so many tokens",
                                            MakeTraceSourceAccessor(&UserDevice::m_earlyExitTrace),
                                            "splitllm::UserDevice::EarlyExitCallback")
                            .AddTraceSource("Searched",
                                            "A beam search has ended",
                                            MakeTraceSourceAccessor(&UserDevice::m_searchedTrace),
                                            "splitllm::UserDevice::SearchedCallback");
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
UserDevice::SetConnector(Connector connector)
{
    m_connector = std::move(connector);
}

std::uint32_t
UserDevice::RequestsFinished() const
{
    return m_finished;
}

std::unique_ptr<MessagePort>
UserDevice::ConnectByTcp(Api api)
{
    const InetSocketAddress remote = InetSocketAddress::ConvertFrom(m_remote);
    const auto port = static_cast<std::uint16_t>(remote.GetPort() + static_cast<std::uint16_t>(api));
    return TcpMessagePort::Connect(TcpMessagePort::NewSocket(GetNode(), m_segmentBytes),
                                   InetSocketAddress(remote.GetIpv4(), port),
                                   Direction::Up);
}

void
UserDevice::StartApplication()
{
    NS_LOG_FUNCTION(this);
    SplitLlmApplication::StartApplication();
    if (GetScheme().HasServer() && !m_connector)
    {
        NS_ABORT_MSG_IF(m_remote.IsInvalid(), "UserDevice: attribute Remote is not set, and the scheme has a server");
        m_connector = [this](Api api) { return ConnectByTcp(api); };
    }
    m_conversation = std::make_unique<Conversation>(*this);
    Conversation& conversation = *m_conversation;
    conversation.process =
        std::make_unique<Process>(conversation.Run(), [this, &conversation](std::exception_ptr error) {
            HandleEnd(*conversation.session, error);
            if (error)
            {
                conversation.session->Close(); // or the server keeps what it has for the request
            }
        });
    conversation.process->Start();
}

void
UserDevice::StopApplication()
{
    NS_LOG_FUNCTION(this);
    if (m_conversation)
    {
        m_conversation->process.reset();
        m_conversation->role.reset();
        m_conversation->session->Abandon();
        m_conversation.reset();
    }
}

void
UserDevice::DoDispose()
{
    m_conversation.reset();
    m_connector = nullptr;
    SplitLlmApplication::DoDispose();
}

} // namespace splitllm
