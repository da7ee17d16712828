// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SCHEME_H
#define SPLITLLM_SCHEME_H

#include "base/strict-json.h"
#include "codec/tensor-codec.h"
#include "compute/backend.h"
#include "llm/sampling.h"
#include "policy/offload-policy.h"
#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/opsc/opsc-options.h"
#include "schemes/session.h"
#include "schemes/spa/spa-options.h"
#include "sim/task.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace splitllm
{

/// The parts that every scheme is made from.
struct SchemeParts
{
    std::shared_ptr<const ResidentModel> model;
    std::shared_ptr<const ResidentAdapter> adapter;       //!< LoRA's; null without
    std::shared_ptr<const ResidentBottleneck> bottleneck; //!< bottleneck adapters; null without
    Sampling sampling;
    std::shared_ptr<const TensorCodec> codec = MakeDenseCodec(DType::F16); //!< of tensors between nodes
    std::optional<std::size_t> context = {}; //!< positions a request takes at most; absent: all of the model

    /// Positions that a request takes at most.
    std::size_t Positions() const
    {
        const std::size_t all = model->Config().maxPositions;
        return std::min(context.value_or(all), all);
    }
};

/// What ends an answer.
struct RequestLimits
{
    std::uint32_t newTokens = 0; //!< tokens to generate at most
    std::vector<TokenId> stop{}; //!< token ids after any of which it ends before that; may be empty
};

/// The part of a scheme that runs where the user is.
class UserRole
{
  public:
    virtual ~UserRole() = default;

    /// A request begins; Step() is called until its answer ends by \p limits. Default: nothing happens.
    virtual void BeginRequest(const RequestLimits& limits);

    /**
     * Called once before the first request, where the scheme has a server: connects \p session.
     * \throws ConnectionLost if the user cannot go on without
     */
    virtual Task<void> Connect(Session& session);

    /**
     * One step of generation: \p tokens follow what the request consumed so far, which is \p position tokens (the whole
     * prompt at position 0, then the token generated last).
     * \return the next token; nothing where the scheme ends the answer here. In a beam search it is the newest one of the
     *         best running hypothesis, which may not be in the answer; the role goes on with its own hypotheses.
     */
    virtual Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) = 0;

    /// What a beam search found that ended with the last step, the stop token included; then the request is over. Nothing
    /// before, and without a search. Default: nothing.
    virtual std::optional<std::vector<TokenId>> Answer() const;

    /// The request is over; what was kept for it is dropped, here and on the other node.
    virtual void EndRequest() = 0;
};

/// The part of a scheme that serves one user's connection.
class ServerRole
{
  public:
    virtual ~ServerRole() = default;

    /// Serves until the user closes the connection (which throws ConnectionClosed out of the receive).
    virtual Task<void> Serve() = 0;
};

/// What a node runs for all its users.
class Service
{
  public:
    virtual ~Service() = default;

    /// The role that serves the connection of \p session.
    virtual std::unique_ptr<ServerRole> MakeRole(Session& session) = 0;
};

/// What a node keeps in memory for a scheme before the first token.
struct Footprint
{
    std::uint64_t weights = 0;  //!< once a node, shared by its sessions
    std::uint64_t adapters = 0; //!< once a session
};

/// A way to split the model between nodes. One object serves all nodes of a simulation.
class Scheme
{
  public:
    explicit Scheme(SchemeParts parts);
    virtual ~Scheme() = default;

    /// Whether the user's node talks to another one.
    virtual bool HasServer() const = 0;

    /// Whether a session has a second connection, for uploads, at the port after the first one's.
    virtual bool HasUploadApi() const;

    virtual std::unique_ptr<UserRole> MakeUser(Session& session) const = 0;

    /// The service of the node \p host. This one makes the role that MakeServer returns for each connection.
    virtual std::unique_ptr<Service> MakeService(Host& host) const;

    /// The role that serves one connection, where connections have nothing in common.
    virtual std::unique_ptr<ServerRole> MakeServer(Session& session) const;

    virtual Footprint UserFootprint() const = 0;
    virtual Footprint ServerFootprint() const = 0;

    const SchemeParts& Parts() const
    {
        return m_parts;
    }

  protected:
    /// Bytes of the adapters, or 0 without any.
    std::uint64_t AdapterBytes() const;

  private:
    SchemeParts m_parts;
};

/// What one scheme or another can be told.
struct SchemeOptions
{
    bool stream = false;                         //!< "server": the answer to a prompt comes without being asked token by token
    std::shared_ptr<const OffloadPolicy> policy; //!< "tlc", "dlora": decides about the cells
    bool firstLayer = false;                     //!< "tlc": whether the policy decides about layer 1
    double keep = 1.0;                           //!< "mlora": share of the positions that each layer's cache keeps
    OpscOptions opsc;                            //!< "opsc"; "naive-split" has its split alone
    CeCollmOptions ceCollm;                      //!< "ce-collm"
    SpaOptions spa;                              //!< "spa", "lst"
};

/// The names that MakeScheme knows.
std::vector<std::string> SchemeNames();

/// Why the scheme called \p name cannot search with beams; empty where it can.
std::string_view WhyNoBeams(std::string_view name);

/// The scheme called \p name. \throws InputError listing the known names, or saying what the scheme lacks
std::shared_ptr<const Scheme> MakeScheme(const std::string& name, SchemeParts parts, SchemeOptions options);

} // namespace splitllm

#endif // SPLITLLM_SCHEME_H
