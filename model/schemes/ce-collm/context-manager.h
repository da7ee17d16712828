// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_CONTEXT_MANAGER_H
#define SPLITLLM_CE_COLLM_CONTEXT_MANAGER_H

#include "net/message-port.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/full-model.h"
#include "schemes/scheme.h"
#include "sim/mailbox.h"

#include "ns3/event-id.h"
#include "ns3/nstime.h"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <variant>

namespace splitllm
{

/// What the cloud has of one request: states that it did not use yet, and the keys and values made of those before.
struct CloudContext
{
    CloudContext(Host& host, std::uint32_t itsRequest);
    ~CloudContext();
    CloudContext(const CloudContext&) = delete;
    CloudContext& operator=(const CloudContext&) = delete;

    /// The first position whose state is needed and not there.
    std::size_t FirstMissing() const;

    std::uint64_t Bytes() const;

    std::uint32_t request;
    std::map<std::size_t, Tensor> states;  //!< 1 x d after the upload layer, by position, none before consumed
    Reservation stateMemory;
    std::unique_ptr<RequestCache> cache;   //!< of the layers behind; null before the first token
    std::size_t consumed = 0;              //!< positions that went through these layers, or are about to
    TokenId newest = 0;                    //!< the token that follows the last of them
    ns3::Time arrived;                     //!< when the message with the latest states came
    bool busy = false;                     //!< a request for it is served
    std::uint64_t lastUse = 0;             //!< the uses of all contexts, counted
    ns3::Time lastUsed;
    ns3::EventId expiry;
};

/// A client of the cloud: the edge of one session. It lives as long as one of its connections.
struct CloudClient
{
    std::uint64_t host = 0;                //!< where its connections come from
    ConnectionId inference;                //!< over which it asks: the latest one for that
    std::shared_ptr<CloudContext> context; //!< of its latest request; null without one
    std::optional<std::uint32_t> ended;    //!< the latest request that the client said is over
    std::uint32_t latest = 0;              //!< the latest request that had a context
    std::optional<std::uint32_t> lost;     //!< the request whose context was dropped, until the client knows
    Mailbox<std::monostate> changed;       //!< something happened to the context that a request waits for

    /// Whether \p request is over, or a later one came. Requests of a session count up.
    bool IsOver(std::uint32_t request) const;
};

/**
 * CE-CoLLM's context manager: keeps what every client uploaded, and the keys and values made of it, until its request is
 * over. States may come in any order and more than once; the first of a position counts.
 *
 * A context that nobody used for the context timeout is dropped. So is the one that was not used for longest, where
 * memory is short, unless a request for it is served just then. The client learns it when it asks, and has to upload all
 * states of its request again.
 */
class ContextManager
{
  public:
    ContextManager(Host& host, const SchemeParts& parts, const CeCollmOptions& options);

    /// The client that calls itself \p session over \p connection. \throws ProtocolError if that is another client
    std::shared_ptr<CloudClient> Enter(std::uint32_t session, const ConnectionId& connection);

    /**
     * Keeps \p states (w x d) of consecutive positions from \p position on. Those of a request that is over, and those of
     * one whose context was dropped, unless they begin it anew, are of no use.
     * \param arrived when their message came
     * \throws OutOfMemory if dropping all idle contexts does not make room
     */
    void Store(CloudClient& client,
               std::uint32_t request,
               std::size_t position,
               const Tensor& states,
               ns3::Time arrived);

    /**
     * The context that a token is requested from; nothing if it was dropped, also because states of a later request came
     * before, which the client is told now. A context that a former connection of the client still serves is dropped as
     * well: the client has given that connection up.
     * \throws ProtocolError if the client said that the request is over
     */
    std::shared_ptr<CloudContext> Use(CloudClient& client, std::uint32_t request);

    /**
     * Takes the states from the first unused one to \p position out of \p context, reserves room for their keys and
     * values, and sees that there is some to compute with. \throws OutOfMemory like Store
     */
    Tensor Take(Session& session, CloudContext& context, std::size_t position);

    /// Marks \p context as used just now.
    void Touch(CloudClient& client, CloudContext& context);

    /// \p request is over.
    void End(CloudClient& client, std::uint32_t request);

  private:
    /// The client's context for \p request, a new one if need be; null if the client has gone on to a later request.
    std::shared_ptr<CloudContext> ContextOf(CloudClient& client, std::uint32_t request);

    /// The context is gone, for a reason that the client knows or is told by the caller.
    void Forget(CloudClient& client);

    /// The context is gone, and the client does not know.
    void Drop(CloudClient& client);

    void DropUnused(CloudClient& client);

    /// Drops contexts until \p bytes more fit, and beside them \p working of the device's memory for a while, if that
    /// helps; never \p except.
    void MakeRoom(std::uint64_t bytes, std::uint64_t working, const CloudContext& except);

    Host& m_host;
    const SchemeParts& m_parts;
    const CeCollmOptions& m_options;
    std::map<std::uint32_t, std::weak_ptr<CloudClient>> m_clients; //!< by session
    std::uint64_t m_uses = 0;
};

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_CONTEXT_MANAGER_H
