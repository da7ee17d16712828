// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SPA_DEVICE_H
#define SPLITLLM_SPA_DEVICE_H

#include "schemes/decoder.h"
#include "schemes/scheme.h"
#include "schemes/spa/spa-options.h"

#include <optional>
#include <vector>

namespace splitllm
{

/**
 * SPA's device: it asks for an answer, takes the tokens that the cloud is content with, and where the gate is open makes
 * the token from the states of the base model and its side network. The side network looks at one position alone, so
 * the device remembers nothing of those at which the gate was closed.
 */
class SpaDevice final : public UserRole
{
  public:
    SpaDevice(Session& session, const SchemeParts& parts, const SpaOptions& options);

    void BeginRequest(const RequestLimits& limits) override;
    Task<std::optional<TokenId>> Step(std::span<const TokenId> tokens, std::size_t position) override;
    std::optional<std::vector<TokenId>> Answer() const override;
    void EndRequest() override;

  private:
    /// What the side network makes of the states in \p message: the final ones, or with the head in the cloud its output.
    Task<Tensor> RunSideNetwork(Message message);

    /// The cloud's token, or what its search has found. \throws ProtocolError
    TokenId Take(const Message& message);

    /// Tells the cloud what the answer goes on with, where the cloud does not know it or asks.
    void Continue(std::span<const TokenId> tokens, std::size_t position);

    Session& s;
    const SchemeParts& m_parts;
    const SpaOptions& m_options;
    RequestLimits m_limits;
    bool m_cloudWaits = false; //!< for the token that the device has made
    TokenId m_newest = 0;
    std::size_t m_hypotheses = 1; //!< that the cloud's search goes on with
    Decoder m_decoder;            //!< of a search it only says how many candidates it takes
    std::optional<std::vector<TokenId>> m_answer; //!< what a search has found
};

} // namespace splitllm

#endif // SPLITLLM_SPA_DEVICE_H
