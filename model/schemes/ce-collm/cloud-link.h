// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_CLOUD_LINK_H
#define SPLITLLM_CE_COLLM_CLOUD_LINK_H

#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/scheme.h"
#include "schemes/session.h"
#include "sim/mailbox.h"
#include "sim/task.h"

#include "ns3/nstime.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>

namespace splitllm
{

/**
 * The cloud as CE-CoLLM's edge sees it: two connections, over which states go up and tokens come down, and whether there
 * is somebody at their end.
 *
 * The edge collaborates until an answer is late or a connection breaks; then it goes on alone. After a late answer it
 * collaborates again when that answer comes or the time to retry is over, whichever is first. A broken connection is
 * made anew when that time is over, again and again, and so is one that did not open within the timeout and that time.
 * A cloud that is reached then gets all states of the request, since it may know none. The edge looks for all this when
 * a token begins.
 */
class CloudLink
{
  public:
    CloudLink(Session& session, const SchemeParts& parts, const CeCollmOptions& options);

    /// Connects, and waits for that no longer than for an answer.
    Task<void> Connect();

    /// A token begins: is the cloud still there, or there again?
    void LookForCloud();

    /// Whether the cloud can be asked.
    bool IsCollaborating() const
    {
        return m_state == State::Collaborating;
    }

    /// Remembers the states \p h of the request's next positions.
    void Keep(const Tensor& h);

    /// Sends the states that were not sent yet, in one message, while the edge goes on.
    void Upload();

    /**
     * The cloud's token for the state at \p position, whose upload need not have come there yet; nothing where the cloud
     * cannot be asked, or does not answer in time.
     */
    Task<std::optional<TokenId>> Ask(std::size_t position);

    /// The request is over, here and in the cloud.
    void EndRequest();

  private:
    enum class State
    {
        Collaborating,
        Late,         //!< connected, but an answer did not come in time
        Connecting,
        Disconnected, //!< until the time to retry
    };

    /// States on their way to the connection.
    struct Job
    {
        std::uint32_t request;
        std::size_t position; //!< of the first row
        Tensor states;
    };

    bool IsConnected() const;
    void StartConnecting();
    void GoAlone(State state, const std::string& reason);
    void Collaborate();
    void ReportStandalone();
    void Request(std::size_t position);

    /// Codes states and sends them, one message after the other, beside the role's own work.
    Task<void> SendUploads();

    Session& s;        //!< for requests and answers
    Session& m_upload; //!< for states
    const SchemeParts& m_parts;
    const CeCollmOptions& m_options;
    State m_state = State::Disconnected;
    ns3::Time m_retryAt;
    ns3::Time m_aloneSince;
    std::string m_aloneBecause;  //!< empty while the edge collaborates
    Tensor m_states;             //!< of all positions of the request
    Reservation m_stateMemory;
    std::size_t m_uploaded = 0;  //!< how many of them were sent over the present connection
    Mailbox<Job> m_jobs;
    std::exception_ptr m_error;  //!< that ended SendUploads
    Process m_sender;
};

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_CLOUD_LINK_H
