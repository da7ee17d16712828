// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_CE_COLLM_H
#define SPLITLLM_CE_COLLM_H

#include "schemes/ce-collm/ce-collm-options.h"
#include "schemes/scheme.h"

namespace splitllm
{

/**
 * CE-CoLLM. The edge, where the user is, runs the first layers and takes a token from an early exit that is sure of it.
 * It uploads every position's state meanwhile, on a connection of its own, and asks the cloud, which runs the layers
 * behind, for the tokens that no exit is sure of. Where the cloud does not answer, the last exit's token stands.
 */
class CeCollmScheme final : public Scheme
{
  public:
    /// \throws InputError what CheckCeCollm throws
    CeCollmScheme(SchemeParts parts, CeCollmOptions options);

    bool HasServer() const override;
    bool HasUploadApi() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<Service> MakeService(Host& host) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;

  private:
    CeCollmOptions m_options;
};

} // namespace splitllm

#endif // SPLITLLM_CE_COLLM_H
