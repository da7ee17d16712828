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

/// One user's session with this node.
struct ServerApplication::Conversation
{
    std::unique_ptr<MessagePort> port;
    std::unique_ptr<Session> session;
    Reservation adapters;
    std::unique_ptr<ServerRole> role;
    std::unique_ptr<Process> process;
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

void
ServerApplication::Attach(std::unique_ptr<MessagePort> port)
{
    m_attached.push_back(std::move(port));
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
    for (std::unique_ptr<MessagePort>& port : std::exchange(m_attached, {}))
    {
        Serve(std::move(port));
    }
    m_listener = TcpMessagePort::NewSocket(GetNode(), m_segmentBytes);
    NS_ABORT_MSG_IF(m_listener->Bind(InetSocketAddress(Ipv4Address::GetAny(), m_listenPort)) != 0,
                    Machine().name << " cannot listen on port " << m_listenPort << ": it is taken");
    m_listener->Listen();
    m_listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                  Callback<void, Ptr<Socket>, const Address&>(
                                      [this](Ptr<Socket> socket, const Address&) {
                                          Serve(TcpMessagePort::Accept(socket, Direction::Down));
                                      }));
}

void
ServerApplication::Serve(std::unique_ptr<MessagePort> port)
{
    TraceMessages(*port);
    Conversation& conversation = *m_conversations.emplace_back(std::make_unique<Conversation>());
    conversation.port = std::move(port);
    conversation.session = NewSession(conversation.port.get());
    conversation.session->path = CriticalPath(Place::Server);
    conversation.role = GetScheme().MakeServer(*conversation.session);
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
            if (its.port->HasReceived())
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
            conversation.port->Close();
        });
    conversation.process->Start();
}

void
ServerApplication::Release()
{
    if (m_listener)
    {
        m_listener->SetAcceptCallback(MakeNullCallback<bool, Ptr<Socket>, const Address&>(),
                                      MakeNullCallback<void, Ptr<Socket>, const Address&>());
        m_listener->Close();
        m_listener = nullptr;
    }
    m_attached.clear();
    m_conversations.clear();
    m_weights.reset();
}

void
ServerApplication::StopApplication()
{
    NS_LOG_FUNCTION(this);
    for (const std::unique_ptr<Conversation>& conversation : m_conversations)
    {
        conversation->process.reset();
        conversation->port->Abandon();
    }
    Release();
}

void
ServerApplication::DoDispose()
{
    Release();
    SplitLlmApplication::DoDispose();
}

} // namespace splitllm
