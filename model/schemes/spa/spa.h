// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_SPA_H
#define SPLITLLM_SPA_H

#include "schemes/scheme.h"
#include "schemes/spa/spa-options.h"

#include <memory>

namespace splitllm
{

/**
 * Side plugin adaption (SPA, section 3): the base model in the cloud, a side network that learnt the user's data on the
 * device, and a gate in the cloud that decides for every token whether the device is asked.
 *
 * The user sends a prompt once. Where the gate is closed, the cloud's token goes down as a notice, and the cloud goes on
 * by itself. Where it is open, what the side network reads of all layers goes down in one message, and the cloud waits for
 * the token (or, with the head in the cloud, for the side network's output). With the gate always open this is LST.
 */
class SpaScheme final : public Scheme
{
  public:
    /// \throws InputError for an adapter \throws std::logic_error without a side network or a policy
    SpaScheme(SchemeParts parts, SpaOptions options);

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    SpaOptions m_options;
};

} // namespace splitllm

#endif // SPLITLLM_SPA_H
