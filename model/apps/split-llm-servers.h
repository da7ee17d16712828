// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SERVERS_H
#define SPLITLLM_SERVERS_H

#include "split-llm-application.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace splitllm
{

class Service;

/**
 * A node that serves users: it accepts connections on its port (and on the one after it, where the scheme has an API for
 * uploads) and runs the scheme's server role for each. All sessions
 * share the node's compute device and memory; the base model's weights are held once.
 *
 * The device runs up to attribute "Batch" equal operations of different sessions as one. With attribute "KvMemory" a
 * request starts when the keys and values that it may need at most (SplitLlmHelper::SetContext) fit into so many bytes
 * beside those of the requests under way; until then it waits, first come, first served.
 */
class ServerApplication : public SplitLlmApplication
{
  public:
    static ns3::TypeId GetTypeId();
    ServerApplication();
    ~ServerApplication() override;

    /**
     * Serves \p port as well, a connection that is not accepted by TCP; one that is attached before the application
     * starts, when it does.
     * \return whether it does: not while it is down
     */
    bool Attach(std::unique_ptr<MessagePort> port, Api api);

    /// The service dies: its connections close, and what it kept for users is gone. The compute device goes on. One that
    /// dies before it starts is down from the start.
    void Crash();

    /// The service is back after a crash, with nothing in memory but the model.
    void Restart();

  protected:
    void DoDispose() override;

  private:
    void StartApplication() override;
    void StopApplication() override;
    void Open();
    void Listen(Api api);
    void Serve(std::unique_ptr<MessagePort> port, Api api);
    void Release();

    struct Weights;      //!< what the node holds once
    struct Conversation; //!< what lives as long as one connection
    struct Attached;     //!< a connection from before the start

    std::uint16_t m_listenPort;
    std::uint32_t m_largestBatch;
    std::uint64_t m_kvMemory;
    std::vector<ns3::Ptr<ns3::Socket>> m_listeners;
    std::vector<Attached> m_attached;
    std::unique_ptr<Weights> m_weights;
    bool m_isDown = false;              //!< after a crash
    std::unique_ptr<Service> m_service; //!< null while it is down, and before the start
    std::vector<std::unique_ptr<Conversation>> m_conversations;
};

/// A server at the edge of the network, close to the users.
class EdgeServer : public ServerApplication
{
  public:
    static ns3::TypeId GetTypeId();
};

/// A server in the cloud.
class Cloud : public ServerApplication
{
  public:
    static ns3::TypeId GetTypeId();
};

} // namespace splitllm

#endif // SPLITLLM_SERVERS_H
