// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_APPLICATION_H
#define SPLITLLM_APPLICATION_H

#include "ns3/application.h"
#include "ns3/ptr.h"
#include "ns3/random-variable-stream.h"
#include "ns3/socket.h"
#include "ns3/split-llm-records.h"
#include "ns3/traced-callback.h"

#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace splitllm
{

class Backend;
enum class Api : std::uint8_t;
enum class Draw : std::uint8_t;
class DeviceProfile;
struct Host;
class MessagePort;
class Process;
class OutcomePlayer;
class OutcomeRecorder;
class Scheme;
class Session;

/**
 * What ends a simulation because of an error in a role: node, simulated time, session and request, then the cause.
 * Thrown out of ns3::Simulator::Run(). An InputError, as of hardware that cannot tell a time, stays one.
 */
class RoleError : public std::runtime_error
{
  public:
    using std::runtime_error::runtime_error;
};

/// A node ran out of memory. Thrown out of ns3::Simulator::Run(): a result of the run, with the node that it befell.
class NodeOutOfMemory : public RoleError
{
  public:
    NodeOutOfMemory(const std::string& itsNode, const std::string& message)
        : RoleError(message),
          node(itsNode)
    {
    }

    std::string node;
};

/**
 * Base of the applications: the machine that roles run on, its trace sources, and the processes that it started.
 *
 * Before it starts an application must be given a scheme and a machine; SplitLlmHelper does.
 */
class SplitLlmApplication : public ns3::Application
{
  public:
    static ns3::TypeId GetTypeId();
    SplitLlmApplication();
    ~SplitLlmApplication() override;

    /// What the nodes of the simulation run. Shared by all of them.
    void SetScheme(std::shared_ptr<const Scheme> scheme);

    /// What this node computes with. Its name is the attribute "Name".
    void SetMachine(std::shared_ptr<Backend> backend, std::shared_ptr<const DeviceProfile> profile);

    /**
     * Session k samples from stream \p stream + k, on whichever node it does: give every application of a simulation the
     * same number, and a session draws the same variates in every scheme. Decisions have streams of their own.
     * \return kStreams
     */
    int64_t AssignStreams(int64_t stream) override;

    /// The largest number of sessions.
    static constexpr int64_t kSessions = 1 << 20;

    /// Streams that AssignStreams takes: one a session for everything that a role draws for.
    static constexpr int64_t kStreams = 6 * kSessions;

    /// Before it starts: who notes what its numbers decide, or hands out what those of an earlier run did; either null.
    void SetOutcomes(std::shared_ptr<OutcomeRecorder> recorder, std::shared_ptr<OutcomePlayer> player);

    /// The machine, once the application started; null before.
    const Host* GetHost() const;

    typedef void (*ComputeCallback)(const ComputeRecord& record);
    typedef void (*MessageCallback)(const MessageRecord& record);
    typedef void (*DecisionCallback)(const DecisionRecord& record);
    typedef void (*UploadCallback)(const UploadRecord& record);
    typedef void (*ExitCallback)(const ExitRecord& record);
    typedef void (*GateCallback)(const GateRecord& record);
    typedef void (*StandaloneCallback)(const StandaloneRecord& record);
    typedef void (*LogitsCallback)(const LogitsRecord& record);
    typedef void (*SessionEndCallback)(std::uint32_t session, const std::string& reason);

  protected:
    void DoDispose() override;
    void StartApplication() override;

    const Scheme& GetScheme() const;
    Host& Machine();

    /// A session of this node over \p port, if it has one yet, with its trace sources and random streams connected.
    std::unique_ptr<Session> NewSession(std::unique_ptr<MessagePort> port, Api api);

    /// Connects the trace source of messages.
    void TraceMessages(MessagePort& port);

    /**
     * What the end of a session's process means: nothing after an orderly end, a reported session end after a closed or
     * lost connection or a protocol violation, the end of the simulation for anything else.
     */
    void HandleEnd(const Session& session, std::exception_ptr error);

    /// TCP payload of a full segment.
    std::uint32_t m_segmentBytes;

  private:
    double Uniform(std::uint32_t session, Draw purpose);

    std::string m_name;
    std::shared_ptr<const Scheme> m_scheme;
    std::shared_ptr<Backend> m_backend;
    std::shared_ptr<const DeviceProfile> m_profile;
    std::unique_ptr<Host> m_host;
    std::shared_ptr<OutcomeRecorder> m_recorder;
    std::shared_ptr<OutcomePlayer> m_player;

    int64_t m_stream = 0;
    std::map<int64_t, ns3::Ptr<ns3::UniformRandomVariable>> m_uniforms; //!< by stream

    ns3::TracedCallback<const ComputeRecord&> m_computeTrace;
    ns3::TracedCallback<const MessageRecord&> m_messageTrace;
    ns3::TracedCallback<const DecisionRecord&> m_decisionTrace;
    ns3::TracedCallback<const UploadRecord&> m_uploadTrace;
    ns3::TracedCallback<const ExitRecord&> m_exitTrace;
    ns3::TracedCallback<const GateRecord&> m_gateTrace;
    ns3::TracedCallback<const StandaloneRecord&> m_standaloneTrace;
    ns3::TracedCallback<const LogitsRecord&> m_logitsTrace;
    ns3::TracedCallback<std::uint32_t, const std::string&> m_sessionEndTrace;
};

} // namespace splitllm

#endif // SPLITLLM_APPLICATION_H
