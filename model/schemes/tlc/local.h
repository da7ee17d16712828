// SPDX-License-Identifier: GPL-2.0-only
#ifndef SPLITLLM_LOCAL_H
#define SPLITLLM_LOCAL_H

#include "schemes/scheme.h"

namespace splitllm
{

/**
 * The whole model and the adapter on the user's device; nothing crosses (TLC-Calibrator, baseline "Local").
 */
class LocalScheme final : public Scheme
{
  public:
    using Scheme::Scheme;

    bool HasServer() const override;
    std::unique_ptr<UserRole> MakeUser(Session& session) const override;
    std::unique_ptr<ServerRole> MakeServer(Session& session) const override;
    Footprint UserFootprint() const override;
    Footprint ServerFootprint() const override;
};

} // namespace splitllm

#endif // SPLITLLM_LOCAL_H
