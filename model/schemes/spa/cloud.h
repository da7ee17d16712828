// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SPA_CLOUD_H
#define SPLITLLM_SPA_CLOUD_H

#include "compute/memory-ledger.h"
#include "schemes/decoder.h"
#include "schemes/full-model.h"
#include "schemes/order.h"
#include "schemes/scheme.h"
#include "schemes/spa/side-states.h"
#include "schemes/spa/spa-options.h"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace splitllm
{

/**
 * SPA's cloud: the base model, and the gate, which decides once a token whether the device is asked. Nothing of the side
 * network enters the base model's layers: its keys and values are the same whatever the gate decides.
 */
class SpaCloud final : public ServerRole
{
  public:
    SpaCloud(Session& session, const SchemeParts& parts, const SpaOptions& options);

    Task<void> Serve() override;

  private:
    Task<void> Answer(Order order);

    /**
     * One token of the answer, from \p tokens, which were consumed by nobody yet.
     * \return it, in a search that of each hypothesis; nothing where the device makes it
     */
    Task<std::optional<std::vector<TokenId>>> Step(std::span<const TokenId> tokens);

    /// The base model's layers for \p tokens. \return the states of the newest of them, in a search of each hypothesis
    Task<LayerStates> Forward(std::span<const TokenId> tokens);

    /// Whether the device is asked about the position whose last state, in a search the best hypothesis', is \p last.
    Task<bool> Opens(Tensor last, std::size_t position);

    /// What the device makes of \p states, for the head here.
    Task<Tensor> AskDevice(const LayerStates& states, std::size_t position);

    /// The most likely tokens that the device finds for each of \p hypotheses. \throws ProtocolError
    Task<Candidates> ReceiveCandidates(std::size_t hypotheses);

    /// Tells the device \p tokens, or what a search that they end has found. \return them
    std::vector<TokenId> Tell(std::vector<TokenId> tokens, std::size_t position);

    Session& s;
    const SchemeParts& m_parts;
    const SpaOptions& m_options;
    ByteSemaphore::Ticket m_admission; //!< of the request
    std::unique_ptr<RequestCache> m_cache;
    Reservation m_states;      //!< the memory of the newest states
    Decoder m_decoder;
    std::uint32_t m_token = 0; //!< of the answer, from 1
};

} // namespace splitllm

#endif // SPLITLLM_SPA_CLOUD_H
