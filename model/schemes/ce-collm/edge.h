// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_EDGE_H
#define SPLITLLM_CE_COLLM_EDGE_H

#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/ce-collm/cloud-link.h"
#include "schemes/full-model.h"
#include "schemes/scheme.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

namespace splitllm
{

/// CE-CoLLM's edge: the layers up to the last exit, the exits, and the cloud where none is sure.
class CeCollmEdge final : public UserRole
{
  public:
    CeCollmEdge(Session& session, const SchemeParts& parts, const CeCollmOptions& options);

    Task<void> Connect(Session& session) override;
    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override;
    void EndRequest() override;

  private:
    /// What the exits said about one token.
    struct Exits
    {
        std::optional<std::size_t> taken{}; //!< layer of the exit whose token is taken
        Tensor logits{};                    //!< of that exit, or of the last one asked
        std::size_t layer = 0;              //!< likewise
        std::optional<double> confidence{}; //!< likewise
    };

    /// Embedding and layers 1 to E; states leave for the cloud and exits are asked on the way.
    Task<Exits> Run(std::span<const TokenId> tokens, std::size_t position);

    /// Asks exit number \p exit, after \p layer layers, about the newest of the states \p h, which is at \p position.
    Task<void> AskExit(Exits& exits, std::size_t exit, std::size_t layer, const Tensor& h, std::size_t position);

    void Report(const Exits& exits, TokenSource source, std::size_t position, ns3::Time asked) const;

    Session& s;
    const SchemeParts& m_parts;
    const CeCollmOptions& m_options;
    std::unique_ptr<CloudLink> m_cloud;    //!< null where the edge stands alone
    std::unique_ptr<RequestCache> m_cache; //!< of layers 1 to E
    std::uint32_t m_token = 0;             //!< of the answer, from 1
};

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_EDGE_H
