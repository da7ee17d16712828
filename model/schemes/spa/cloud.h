// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SPA_CLOUD_H
#define SPLITLLM_SPA_CLOUD_H

#include "compute/memory-ledger.h"
#include "schemes/full-model.h"
#include "schemes/order.h"
#include "schemes/scheme.h"
#include "schemes/spa/side-states.h"
#include "schemes/spa/spa-options.h"

#include <memory>
#include <optional>
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

    /// One token of the answer, from those that were consumed since the last one. \return it, unless the device makes it
    Task<std::optional<TokenId>> Step(std::vector<TokenId> tokens);

    /// The base model's layers for \p tokens. \return the states of the newest of them
    Task<LayerStates> Forward(std::vector<TokenId> tokens);

    /// Whether the device is asked about the position whose last state is \p last.
    Task<bool> Opens(const Tensor& last, std::size_t position);

    /// What the device makes of \p states, for the head here.
    Task<Tensor> AskDevice(LayerStates states, std::size_t position);

    Session& s;
    const SchemeParts& m_parts;
    const SpaOptions& m_options;
    ByteSemaphore::Ticket m_admission; //!< of the request
    std::unique_ptr<RequestCache> m_cache;
    Reservation m_states;      //!< the memory of the newest states
    std::uint32_t m_token = 0; //!< of the answer, from 1
};

} // namespace splitllm

#endif // SPLITLLM_SPA_CLOUD_H
