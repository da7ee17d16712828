// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SERVERS_H
#define SPLITLLM_SERVERS_H

#include "split-llm-application.h"

#include <cstdint>
#include <memory>
#include <vector>

namespace splitllm
{

/**
 * A node that serves users: it accepts connections on its port and runs the scheme's server role for each. All sessions
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

    /// Serves \p port as well, a connection that is not accepted by TCP.
    void Attach(std::unique_ptr<MessagePort> port);

  protected:
    void DoDispose() override;

  private:
    void StartApplication() override;
    void StopApplication() override;
    void Serve(std::unique_ptr<MessagePort> port);
    void Release();

    struct Weights;      //!< what the node holds once
    struct Conversation; //!< what lives as long as one user's session

    std::uint16_t m_listenPort;
    std::uint32_t m_largestBatch;
    std::uint64_t m_kvMemory;
    ns3::Ptr<ns3::Socket> m_listener;
    std::vector<std::unique_ptr<MessagePort>> m_attached; //!< before the start
    std::unique_ptr<Weights> m_weights;
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
