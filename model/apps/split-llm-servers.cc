// SPDX-License-Identifier: GPL-2.0-only
#include "apps/split-llm-servers.h"

#include "net/tcp-message-port.h"
#include "schemes/scheme.h"
#include "sim/end-simulation.h"

#include "ns3/abort.h"
#include "ns3/inet-socket-address.h"
#include "ns3/log.h"
#include "ns3/uinteger.h"

#include <utility>

namespace splitllm
{

using namespace ns3;

NS_LOG_COMPONENT_DEFINE("SplitLlmServers");
NS_OBJECT_ENSURE_REGISTERED(ServerApplication);
NS_OBJECT_ENSURE_REGISTERED(EdgeServer);
NS_OBJECT_ENSURE_REGISTERED(Cloud);

struct ServerApplication::Weights
{
    Reservation memory;
};

/// One connection of a user's session with this node.
struct ServerApplication::Conversation
{
    std::unique_ptr<Session> session;
    Reservation adapters;
    std::unique_ptr<ServerRole> role;
    std::unique_ptr<Process> process;
};

struct ServerApplication::Attached
{
    std::unique_ptr<MessagePort> port;
    Api api;
};

TypeId
ServerApplication::GetTypeId()
{
    static TypeId tid = TypeId("splitllm::ServerApplication")
                            .SetParent<SplitLlmApplication>()
                            .SetGroupName("SplitLlm")
                            .AddAttribute("Port",
                                          "TCP port on which users are served",
                                          UintegerValue(9000),
                                          MakeUintegerAccessor(&ServerApplication::m_listenPort),
                                          MakeUintegerChecker<std::uint16_t>(1))
                            .AddAttribute("Batch",
                                          "The same operation of up to so many sessions runs as one",
                                          UintegerValue(1),
                                          MakeUintegerAccessor(&ServerApplication::m_largestBatch),
                                          MakeUintegerChecker<std::uint32_t>(1, 4096))
                            .AddAttribute("KvMemory",
                                          "Bytes that the keys and values of all requests under way may need at most; "
                                          "0: a request always starts at once",
                                          UintegerValue(0),
                                          MakeUintegerAccessor(&ServerApplication::m_kvMemory),
                                          MakeUintegerChecker<std::uint64_t>());
    return tid;
}

TypeId
EdgeServer::GetTypeId()
{
    static TypeId tid = TypeId("splitllm::EdgeServer")
                            .SetParent<ServerApplication>()
                            .SetGroupName("SplitLlm")
                            .AddConstructor<EdgeServer>();
    return tid;
}

TypeId
Cloud::GetTypeId()
{
    static TypeId tid = TypeId("splitllm::Cloud")
                            .SetParent<ServerApplication>()
                            .SetGroupName("SplitLlm")
                            .AddConstructor<Cloud>();
    return tid;
}

ServerApplication::ServerApplication() = default;
ServerApplication::~ServerApplication() = default;

bool
ServerApplication::Attach(std::unique_ptr<MessagePort> port, Api api)
{
    if (m_service)
    {
        Serve(std::move(port), api);
        return true;
    }
    if (m_isDown)
    {
        return false;
    }
    m_attached.push_back({std::move(port), api});
    return true;
}

void
ServerApplication::StartApplication()
{
    NS_LOG_FUNCTION(this);
    SplitLlmApplication::StartApplication();
    Machine().queue.SetLargestBatch(m_largestBatch);
    Machine().kvMemory.SetCapacity(m_kvMemory);
    try
    {
        m_weights = std::make_unique<Weights>(
            Weights{Reservation(Machine().memory, MemoryUse::Weights, GetScheme().ServerFootprint().weights)});
    }
    catch (const OutOfMemory& cause)
    {
        EndSimulation(NodeOutOfMemory(Machine().name, Machine().name + " cannot hold the model: " + cause.what()));
        return;
    }
    if (!m_isDown)
    {
        Open();
    }
}

void
ServerApplication::Open()
{
    m_service = GetScheme().MakeService(Machine());
    Listen(Api::Inference);
    if (GetScheme().HasUploadApi())
    {
        Listen(Api::Upload);
    }
    for (Attached& attached : std::exchange(m_attached, {}))
    {
        Serve(std::move(attached.port), attached.api);
    }
}

void
ServerApplication::Listen(Api api)
{
    const auto port = static_cast<std::uint16_t>(m_listenPort + static_cast<std::uint16_t>(api));
    Ptr<Socket> listener = TcpMessagePort::NewSocket(GetNode(), m_segmentBytes);
    NS_ABORT_MSG_IF(listener->Bind(InetSocketAddress(Ipv4Address::GetAny(), port)) != 0,
                    Machine().name << " cannot listen on port " << port << ": it is taken");
    listener->Listen();
    listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                Callback<void, Ptr<Socket>, const Address&>(
                                    [this, api](Ptr<Socket> socket, const Address&) {
                                        auto port = TcpMessagePort::Accept(socket, Direction::Down);
                                        if (!m_service)
                                        {
                                            port->Abandon(); // it was about to open when the service died
                                            return;
                                        }
                                        Serve(std::move(port), api);
                                    }));
    m_listeners.push_back(listener);
}

void
ServerApplication::Serve(std::unique_ptr<MessagePort> port, Api api)
{
    TraceMessages(*port);
    Conversation& conversation = *m_conversations.emplace_back(std::make_unique<Conversation>());
    conversation.session = NewSession(std::move(port), api);
    conversation.session->id = kNoSession; // until the user says
    conversation.session->path = CriticalPath(Place::Server);
    conversation.role = m_service->MakeRole(*conversation.session);
    auto serve = [](ServerApplication& server, Conversation& its) -> Task<void> {
        const std::uint64_t adapters = server.GetScheme().ServerFootprint().adapters;
        its.adapters = Reservation(server.Machine().memory, MemoryUse::Adapters, adapters);
        try
        {
            co_await its.role->Serve();
        }
        catch (const ConnectionClosed&)
        {
            // The user is done.
        }
        catch (const ConnectionLost&)
        {
            if (its.session->HasReceived())
            {
                throw;
            }
            // Whose session this would have been is known at the other end alone, which reports it.
        }
    };
    conversation.process =
        std::make_unique<Process>(serve(*this, conversation), [this, &conversation](std::exception_ptr error) {
            conversation.adapters = Reservation();
            conversation.role.reset();
            HandleEnd(*conversation.session, error);
            conversation.session->Close();
        });
    conversation.process->Start();
}

void
ServerApplication::Release()
{
    for (const Ptr<Socket>& listener : std::exchange(m_listeners, {}))
    {
        listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                    MakeNullCallback<void, Ptr<Socket>, const Address&>());
        listener->Close();
    }
    m_conversations.clear();
    m_service.reset();
}

void
ServerApplication::Crash()
{
    NS_LOG_FUNCTION(this);
    m_isDown = true;
    for (const std::unique_ptr<Conversation>& conversation : m_conversations)
    {
        conversation->process.reset();
        conversation->session->Abandon();
    }
    for (const Attached& attached : std::exchange(m_attached, {}))
    {
        attached.port->Abandon();
    }
    Release();
}

void
ServerApplication::Restart()
{
    NS_LOG_FUNCTION(this);
    m_isDown = false;
    if (m_weights && !m_service)
    {
        Open();
    }
}

void
ServerApplication::StopApplication()
{
    NS_LOG_FUNCTION(this);
    Crash();
    m_weights.reset();
}

void
ServerApplication::DoDispose()
{
    Release();
    m_attached.clear();
    m_weights.reset();
    SplitLlmApplication::DoDispose();
}

} // namespace splitllm
